//! Whole runs of several processes: launchers, stops, faults.

#[path = "support/program.rs"]
mod program;
#[path = "support/ranks.rs"]
mod ranks;
mod support;

use flatnce::torch_file::{self, Value};
use program::{find_run, said, save_dir, succeeds};
use ranks::free_port;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// 12 images of 8 pixels a step, 4 steps an epoch. The learning rate is low: a batch so small makes training chaotic, and
/// what rounding does would grow beyond comparing within a few steps.
const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=48",
    "--image-size=8",
    "--model=res10",
    "--batch-size=12",
    "--optimizer=sgd",
    "--lr=0.00001",
    "--warmup-epochs=1",
    "--precision=fp32",
    "--knn-every=0",
    "--save-every-n-epochs=1",
    "--log-every=1",
    "--device=cpu",
    "--workers=1",
    "--distributed-timeout=30",
];

/// Everything that a launcher may have left in the environment of the tests.
const LAUNCHERS: [&str; 8] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_STEP_ID",
    "TORCHELASTIC_RESTART_COUNT",
];

fn flatnce(words: &[&str]) -> Command {
    let mut command = program::flatnce(words);
    LAUNCHERS.iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// One rank, as torchrun would start it.
fn rank(rank: usize, count: usize, port: u16, words: &[&str]) -> Command {
    let mut command = flatnce(words);
    command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string()).env("WORLD_SIZE", count.to_string());
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn state(checkpoint: &Path) -> Vec<Value> {
    let root = torch_file::read(checkpoint).expect("a checkpoint");
    ["model_state_dict", "optimizer", "scheduler"].iter().map(|key| root.get(key).expect("there").clone()).collect()
}

/// One column of `steps.jsonl`.
fn column(run: &Path, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("steps.jsonl")).expect("steps");
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")[name].as_f64();
    text.lines().map(|line| value(line).expect(name)).collect()
}

#[test]
fn a_run_on_two_and_three_ranks_is_the_run_of_one() {
    let place = tempfile::tempdir().unwrap();
    let run = |ranks: &str| {
        let results = place.path().join(ranks);
        succeeds(flatnce(&[SMALL, &["--epochs=2", &save_dir(&results), "--nproc", ranks]].concat()));
        find_run(&results).expect("a run")
    };
    let [one, two, three] = ["1", "2", "3"].map(run);
    for other in [&two, &three] {
        for (name, close) in [("loss_infonce", 1e-3), ("ness_mean", 1e-3), ("gradient_norm", 2e-2), ("lr", 0.0)] {
            let (ours, theirs) = (column(&one, name), column(other, name));
            assert_eq!((ours.len(), theirs.len()), (8, 8), "{name}");
            // The first step before rounding has grown, the others as far as it grows in eight steps.
            assert!((ours[0] - theirs[0]).abs() <= 1e-5 * ours[0].abs().max(1.0), "{name}: {ours:?} {theirs:?}");
            for (a, b) in ours.iter().zip(&theirs) {
                assert!((a - b).abs() <= close * a.abs().max(1.0), "{name}: {ours:?} {theirs:?}");
            }
        }
    }
    let log = std::fs::read_to_string(two.join("training.log")).unwrap();
    assert!(log.contains("2 ranks (Ourselves") && log.contains("6 of 12 images each"), "{log}");
    assert!(log.contains("BatchNorm over all ranks"));

    // What two ranks wrote goes on with two to the bit, and with three or one at all.
    let part = |name: &str, ranks: &str| {
        let directory = place.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::copy(two.join("checkpoint_0000.pth.tar"), directory.join("checkpoint_0000.pth.tar")).unwrap();
        let resume = ["--resume", directory.to_str().unwrap(), "--nproc", ranks, "--device=cpu", "--workers=2"];
        succeeds(flatnce(&resume));
        directory
    };
    let last = "checkpoint_0002.pth.tar";
    assert_eq!(state(&two.join(last)), state(&part("again", "2").join(last)));
    for (name, ranks) in [("wider", "3"), ("alone", "1")] {
        let continued = column(&part(name, ranks), "loss_infonce");
        let whole = &column(&two, "loss_infonce")[4..];
        assert_eq!(continued.len(), 4);
        assert!((continued[0] - whole[0]).abs() < 1e-4, "{ranks}: {continued:?} {whole:?}");
    }
}

#[test]
fn features_of_two_ranks_are_those_of_one() {
    let place = tempfile::tempdir().unwrap();
    succeeds(flatnce(&[SMALL, &["--epochs=1", &save_dir(&place.path().join("runs"))]].concat()));
    let run = find_run(&place.path().join("runs")).unwrap();
    let run = run.to_str().unwrap();
    let mini =
        ["--dataset-name=fashion_mnist_mini", "--image-size=8", "--device=cpu", "--precision=fp32", "--workers=1"];
    let embed = |ranks: &str| {
        let out = place.path().join(format!("embed{ranks}"));
        let out_word = format!("--out={}", out.display());
        succeeds(flatnce(&[&["embed", "--checkpoint-dir", run, &out_word, "--nproc", ranks][..], &mini].concat()));
        std::fs::read(out.join("features.npy")).unwrap()
    };
    let one = embed("1");
    assert!(one.len() > 1000 * 512 * 4);
    assert!(embed("2") == one && embed("3") == one, "every image alone decides its features");

    let evaluate = |ranks: &str| {
        let results = place.path().join(format!("evaluated{ranks}"));
        let flags = ["--train-mode=eval", "--fc-epochs=3", "--feature-cache=off", "--checkpoint-dir", run, "--nproc"];
        let saved = save_dir(&results);
        let words = [&flags[..], &[ranks, &saved, "--train-images=600"], &mini].concat();
        let text = said(&succeeds(flatnce(&words)));
        text.lines().filter(|line| line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, two) = (evaluate("1"), evaluate("2"));
    assert!(one.iter().any(|line| line.contains("test top-1")), "{one:?}");
    assert_eq!(one, two);
    let error =
        flatnce(&[&["--train-mode=supervised", "--fc-epochs=1", "--nproc=2"][..], &mini].concat()).output().unwrap();
    assert!(!error.status.success() && said(&error).contains("are done by one process"), "{}", said(&error));
}

#[test]
fn a_stop_reaches_all_ranks_at_one_step_and_the_run_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let results = place.path().join("runs");
    let saved = save_dir(&results);
    let words = [SMALL, &["--epochs=300", &saved, "--nproc=2"]].concat();
    let mut parent = flatnce(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| find_run(&results).is_some_and(|run| run.join("checkpoint_0001.pth.tar").exists()), &mut [&mut parent]);
    assert_eq!(unsafe { libc::kill(parent.id() as i32, libc::SIGTERM) }, 0);
    let output = parent.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    let run = find_run(&results).unwrap();
    let stopped = newest(&run);
    assert!(said(&output).contains("stopped on request"), "{}", said(&output));
    // And it goes on from there.
    let again = ["--resume", run.to_str().unwrap(), "--nproc=2", "--device=cpu"];
    let mut parent = flatnce(&again).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| newest(&run) > stopped, &mut [&mut parent]);
    assert_eq!(unsafe { libc::kill(parent.id() as i32, libc::SIGINT) }, 0);
    assert_eq!(parent.wait_with_output().unwrap().status.code(), Some(75));
}

/// The newest checkpoint's name.
fn newest(run: &Path) -> String {
    let names = std::fs::read_dir(run).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("checkpoint_") && name.ends_with(".tar")).max().unwrap_or_default()
}

/// Waits for a state of the files; a process that ends before is a failure.
fn wait_for(state: impl Fn() -> bool, processes: &mut [&mut Child]) {
    let start = Instant::now();
    while !state() {
        for process in processes.iter_mut() {
            assert!(process.try_wait().unwrap().is_none(), "a process ended early");
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_rank_ends_the_others_and_is_named() {
    // As soon as the run has begun, after its first checkpoint, and within some later step.
    for (victim, moment) in [(2, "training.log"), (0, "checkpoint_0000.pth.tar"), (1, "checkpoint_0002.pth.tar")] {
        let place = tempfile::tempdir().unwrap();
        let results = place.path().join("runs");
        let saved = save_dir(&results);
        let words = [SMALL, &["--epochs=300", &saved]].concat();
        let port = free_port();
        let mut ranks: Vec<Child> = (0..3).map(|r| rank(r, 3, port, &words).spawn().unwrap()).collect();
        let there = || find_run(&results).is_some_and(|run| run.join(moment).exists());
        wait_for(there, &mut ranks.iter_mut().collect::<Vec<_>>());
        ranks[victim].kill().unwrap();
        let killed = Instant::now();
        for (at, child) in ranks.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let text = said(&output);
            assert!(!output.status.success(), "rank {at}");
            if at != victim {
                assert_eq!(output.status.code(), Some(1), "rank {at}: {text}");
                let named = format!("rank {victim} has gone");
                let of = format!("rank {victim} of 3 has gone");
                assert!(text.contains(&named) || text.contains(&of), "rank {at} of {victim}: {text}");
                assert!(text.contains(&format!("error: rank {at} of 3")), "{text}");
            }
        }
        assert!(killed.elapsed() < Duration::from_secs(25), "{:?}", killed.elapsed());
    }
}

#[test]
fn our_own_launcher_names_the_rank_that_fails() {
    let place = tempfile::tempdir().unwrap();
    let results = place.path().join("runs");
    let saved = save_dir(&results);
    let words = [SMALL, &["--epochs=300", &saved, "--nproc=2"]].concat();
    let mut parent = flatnce(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| find_run(&results).is_some(), &mut [&mut parent]);
    let children = children_of(parent.id());
    assert_eq!(children.len(), 2, "{children:?}");
    let second = children.iter().max().unwrap();
    assert_eq!(unsafe { libc::kill(*second as i32, libc::SIGKILL) }, 0);
    let output = parent.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("rank 1 of 2 was killed by signal 9; the others were ended"), "{text}");
    assert!(children.iter().all(|child| !alive(*child)), "no process is left behind");
}

fn children_of(parent: u32) -> Vec<u32> {
    let stat = |id: u32| std::fs::read_to_string(format!("/proc/{id}/stat")).ok();
    let ids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&id| {
        stat(id).and_then(|s| s.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()) == Some(parent)
    })
    .collect()
}

fn alive(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn what_cannot_begin_says_why() {
    let fails = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let small = [SMALL, &["--epochs=1", "--save-dir=/dev/null/runs"]].concat();
    let half = fails(flatnce(&small).env("RANK", "0").env("WORLD_SIZE", "2").env("MASTER_ADDR", "127.0.0.1"));
    assert!(half.contains("LOCAL_RANK, MASTER_PORT is not set although RANK, WORLD_SIZE, MASTER_ADDR are"), "{half}");
    let two = fails(rank(0, 2, free_port(), &[&small[..], &["--nproc=2"]].concat()).env_remove("FLATNCE_SPAWNED"));
    assert!(two.contains("--nproc 2 starts processes, and this is already one of 2"), "{two}");
    let uneven = fails(&mut flatnce(&[&small[..], &["--nproc=5"]].concat()));
    assert!(
        uneven.contains("--batch-size 12 is the batch of all 5 ranks") && uneven.contains("use 10 or 15"),
        "{uneven}"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let busy = fails(&mut rank(0, 2, port, &small));
    assert!(busy.contains(&format!("port {port} of 127.0.0.1 is in use")), "{busy}");

    let port = free_port();
    let other = rank(1, 2, port, &[&small[..], &["--temperature=0.5"]].concat()).spawn().unwrap();
    let first = fails(&mut rank(0, 2, port, &small));
    let second = said(&other.wait_with_output().unwrap());
    for text in [first, second] {
        assert!(text.contains("rank 1 was started differently from rank 0"), "{text}");
        assert!(text.contains("temperature 0.5 instead of 0.1"), "{text}");
    }
    let text = fails(&mut flatnce(&[&small[..], &["--nproc=2"]].concat()));
    assert!(text.contains("rank 0 of 2") && text.contains("/dev/null/runs"), "{text}");
    assert!(
        text.contains("rank 1 of 2") && text.contains("rank 0 of 2 failed: cannot create /dev/null/runs"),
        "{text}"
    );
}

#[test]
fn under_torchrun_a_group_that_failed_is_started_anew_and_goes_on() {
    let torchrun = std::env::home_dir().unwrap_or_default().join(".cache/flatnce/python/bin/torchrun");
    if !torchrun.exists() {
        return support::skipped(&format!("{} is not there; ./scripts/setup.sh --python makes it", torchrun.display()));
    }
    let place = tempfile::tempdir().unwrap();
    let results = place.path().join("runs");
    let program = program::flatnce(&[]).get_program().to_owned();
    let mut command = Command::new(torchrun);
    command.args(["--no-python", "--nproc-per-node=2", "--max-restarts=1", "--monitor-interval=0.1"]);
    command.arg(format!("--master-port={}", free_port())).arg(program).args(SMALL);
    command.args(["--epochs=30", &save_dir(&results)]).env("OMP_NUM_THREADS", "1");
    let mut parent = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| find_run(&results).is_some_and(|run| run.join("checkpoint_0001.pth.tar").exists()), &mut [&mut parent]);
    let victim = *children_of(parent.id()).iter().max().expect("torchrun has children");
    assert_eq!(unsafe { libc::kill(victim as i32, libc::SIGKILL) }, 0);
    let output = parent.wait_with_output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("started anew after a failure: goes on from"), "{text}");
    let run = find_run(&results).expect("one run, in one directory");
    assert!(run.join("checkpoint_0030.pth.tar").exists(), "{text}");
    assert_eq!(column(&run, "loss_infonce").len(), 30 * 4, "every step once");
}

/// Two ranks on two machines, as far as one machine can have two: network namespaces with a cable between them.
#[test]
fn ranks_meet_across_network_namespaces_and_see_the_cable_go() {
    let names = [format!("flatnce-a{}", std::process::id()), format!("flatnce-b{}", std::process::id())];
    let ip = |words: &[&str]| Command::new("ip").args(words).output().is_ok_and(|output| output.status.success());
    struct Spaces<'a>(&'a [String; 2]);
    impl Drop for Spaces<'_> {
        fn drop(&mut self) {
            for name in self.0 {
                let _ = Command::new("ip").args(["netns", "del", name]).output();
            }
        }
    }
    let spaces = Spaces(&names);
    let [a, b] = spaces.0;
    let (left, right) = (format!("fl{}", std::process::id() % 100_000), format!("fr{}", std::process::id() % 100_000));
    let ready = ip(&["netns", "add", a])
        && ip(&["netns", "add", b])
        && ip(&["link", "add", &left, "netns", a, "type", "veth", "peer", "name", &right, "netns", b])
        && ip(&["-n", a, "addr", "add", "10.77.0.1/24", "dev", &left])
        && ip(&["-n", b, "addr", "add", "10.77.0.2/24", "dev", &right])
        && [(a, &left), (b, &right)].iter().all(|(space, card)| {
            ip(&["-n", space, "link", "set", card, "up"]) && ip(&["-n", space, "link", "set", "lo", "up"])
        });
    if !ready {
        return support::absent("no network namespaces here (they need root and the program `ip`)");
    }
    let place = tempfile::tempdir().unwrap();
    let start = |epochs: &str, results: &Path| -> Vec<Child> {
        let saved = save_dir(results);
        let mut words = [SMALL, &[epochs, &saved]].concat();
        words.retain(|word| !word.starts_with("--distributed-timeout"));
        words.push("--distributed-timeout=6");
        let port = free_port();
        (0..2)
            .map(|r| {
                let inner = rank(r, 2, port, &words);
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &spaces.0[r]]).arg(inner.get_program()).args(inner.get_args());
                for (name, value) in inner.get_envs() {
                    match value {
                        Some(value) => command.env(name, value),
                        None => command.env_remove(name),
                    };
                }
                command.env("MASTER_ADDR", "10.77.0.1").env("LOCAL_RANK", "0");
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect()
    };
    for child in start("--epochs=1", &place.path().join("whole")) {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let results = place.path().join("cut");
    let mut ranks = start("--epochs=300", &results);
    wait_for(
        || find_run(&results).is_some_and(|run| run.join("checkpoint_0000.pth.tar").exists()),
        &mut ranks.iter_mut().collect::<Vec<_>>(),
    );
    assert!(ip(&["-n", b, "link", "set", &right, "down"]));
    let cut = Instant::now();
    let texts: Vec<String> = ranks
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            said(&output)
        })
        .collect();
    assert!(texts[0].contains("rank 1 of 2 has gone"), "{texts:?}");
    assert!(texts[1].contains("rank 0 has gone") || texts[1].contains("rank 0 of 2 has gone"), "{texts:?}");
    assert!(cut.elapsed() < Duration::from_secs(60), "{:?}", cut.elapsed());
}
