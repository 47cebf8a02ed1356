//! A run that was stopped and continued is the run that was never stopped, to the bit.

#[path = "support/program.rs"]
mod program;

use flatnce::torch_file::{self, Dict, Value};
use flatnce::{durable, run_dir};
use program::{find_run, flatnce, run_directory, said, save_dir, start, succeeds};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A run of seconds: 48 real images at 8 pixels, 6 steps an epoch.
const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=48",
    "--image-size=8",
    "--model=res10",
    "--batch-size=8",
    "--warmup-epochs=1",
    "--save-every-n-epochs=1",
    "--device=cpu",
];

/// Everything in a checkpoint that training changes.
fn state(path: &Path) -> Vec<Value> {
    let root = torch_file::read(path).expect("a checkpoint");
    let mut state: Vec<Value> = ["model_state_dict", "optimizer", "scheduler", "epoch"]
        .iter()
        .map(|key| root.get(key).expect("there").clone())
        .collect();
    state.push(root.get("flatnce").and_then(|f| f.get("step")).expect("there").clone());
    state
}

fn tensor<'a>(root: &'a Value, name: &str) -> &'a torch_file::TensorData {
    root.get("model_state_dict").and_then(|m| m.get(name)).and_then(Value::as_tensor).expect("a tensor")
}

/// Trains 4 epochs, then again from the checkpoint after 2 in another directory with other workers.
fn two_and_two_are_four(precision: &str, optimizer: &str, lr: &str) {
    let place = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (place.path().join("whole"), place.path().join("parts"));
    let save_dir = save_dir(&whole);
    let (precision, optimizer, lr) =
        (format!("--precision={precision}"), format!("--optimizer={optimizer}"), format!("--lr={lr}"));
    let settings = [SMALL, &[&precision, &optimizer, &lr, "--epochs=4", "--workers=1", &save_dir]].concat();
    succeeds(flatnce(&settings));
    let whole = run_directory(&whole);
    std::fs::create_dir(&parts).expect("a directory");
    std::fs::copy(whole.join("checkpoint_0001.pth.tar"), parts.join("checkpoint_0001.pth.tar")).expect("a copy");
    succeeds(flatnce(&["--resume", parts.to_str().expect("utf-8"), "--workers=3"]));
    let last = "checkpoint_0004.pth.tar";
    assert_eq!(state(&whole.join(last)), state(&parts.join(last)), "{settings:?}");
    // The run did train: this comparison would notice a run that stands still.
    let name = "layer1.0.conv1.weight";
    let (early, late) = (torch_file::read(&whole.join("checkpoint_0000.pth.tar")), torch_file::read(&whole.join(last)));
    assert_ne!(tensor(&early.expect("reads"), name), tensor(&late.expect("reads"), name));
}

#[test]
fn lars_in_fp32() {
    two_and_two_are_four("fp32", "lars", "0.6");
}

#[test]
fn lars_in_bf16() {
    two_and_two_are_four("bf16", "lars", "0.6");
}

#[test]
fn adam_in_bf16() {
    two_and_two_are_four("bf16", "adam", "1e-3");
}

#[test]
fn sgd_in_fp32() {
    two_and_two_are_four("fp32", "sgd", "0.05");
}

#[test]
fn stopping_within_epochs_changes_nothing() {
    stopping_within_epochs("cpu");
}

/// Against the run whose views the CPU's threads render: its recipe has no blur, so the engines' pixels are the same.
#[test]
fn nor_with_the_tensor_engine_which_trains_as_the_other_does() {
    stopping_within_epochs("tensor");
}

/// SIGTERM in the middle of an epoch, three times over, and still the same bits.
fn stopping_within_epochs(engine: &str) {
    let place = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (place.path().join("whole"), place.path().join("parts"));
    let settings = |results: &Path| -> Vec<String> {
        let more = ["--precision=fp32", "--epochs=3", "--train-images=192", "--optimizer=sgd", "--lr=0.05"];
        let words = SMALL.iter().filter(|word| **word != "--train-images=48").chain(&more);
        words.map(|word| (*word).to_owned()).chain([save_dir(results)]).collect()
    };
    let mut command = flatnce(&[]);
    command.args(settings(&whole));
    succeeds(command);
    let whole = run_directory(&whole);

    let mut command = flatnce(&[]);
    // A checkpoint within an epoch says where the run is.
    command.args(settings(&parts)).arg(format!("--engine={engine}")).arg("--save-every-n-steps=5");
    let mut stops = 0;
    let mut within_epoch = 0;
    for _ in 0..30 {
        let saved_within = || {
            let found = find_run(&parts).and_then(|run| flatnce::run_dir::list_checkpoints(&run).ok());
            let names = found.into_iter().flatten().map(|(name, _)| name.to_string());
            names.filter(|name| name.contains("_step_")).collect::<Vec<_>>()
        };
        let before = saved_within();
        let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
        if stops < 3 {
            let start = Instant::now();
            let mut running = || child.try_wait().expect("it is ours").is_none();
            while saved_within() == before && running() && start.elapsed() < Duration::from_secs(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if running() {
                // SAFETY: the child has not been waited for to its end, so its number is still its own.
                unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
            }
        }
        let status = child.wait().expect("it ends");
        let directory = run_directory(&parts);
        match status.code() {
            Some(75) => {
                stops += 1;
                let stopped = |entry: std::io::Result<std::fs::DirEntry>| {
                    entry.expect("an entry").file_name().to_string_lossy().contains("_step_")
                };
                within_epoch += usize::from(std::fs::read_dir(&directory).expect("a directory").any(stopped));
            }
            Some(0) => break,
            code => panic!("exit {code:?}"),
        }
        command = flatnce(&["--resume", directory.to_str().expect("utf-8")]);
    }
    assert!(stops >= 1 && within_epoch >= 1, "{stops} stops, {within_epoch} within an epoch");
    let parts = run_directory(&parts);
    let last = "checkpoint_0003.pth.tar";
    assert_eq!(state(&whole.join(last)), state(&parts.join(last)));
    // The checkpoints within epochs have been superseded.
    let left: Vec<_> = flatnce::run_dir::list_checkpoints(&parts)
        .expect("a listing")
        .into_iter()
        .map(|(n, _)| n.to_string())
        .collect();
    assert_eq!(left.last().map(String::as_str), Some(last));
    assert!(left.iter().all(|name| !name.contains("_step_")), "{left:?}");
    // One line an epoch, in order.
    let metrics = std::fs::read_to_string(parts.join("metrics.jsonl")).expect("metrics");
    let epochs: Vec<i64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["epoch"].as_i64().expect("a number"))
        .collect();
    assert_eq!(epochs, [0, 1, 2]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_warning_and_named_when_asked_for() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    succeeds(flatnce(&[SMALL, &["--epochs=2", "--optimizer=sgd", "--lr=0.05", &save_dir]].concat()));
    let directory = run_directory(place.path());
    let newest = directory.join("checkpoint_0002.pth.tar");
    let mut bytes = std::fs::read(&newest).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&newest, bytes).expect("writes");

    let passed_over = said(&succeeds(flatnce(&["--resume", directory.to_str().expect("utf-8")])));
    assert!(passed_over.contains("checkpoint_0002.pth.tar is passed over"), "{passed_over}");

    let mut bytes = std::fs::read(&newest).expect("it was written again");
    bytes[middle] ^= 0x40;
    std::fs::write(&newest, bytes).expect("writes");
    let log_dir = directory.to_str().expect("utf-8");
    let output = flatnce(&["--log-dir", log_dir, "--train-from=checkpoint_0002.pth.tar"]).output().expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("checkpoint_0002.pth.tar") && said.contains("checksum"), "{said}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_nothing_of_it_is_saved() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    let words =
        [SMALL, &["--epochs=4", "--optimizer=sgd", "--lr=1e30", "--warmup-epochs=0", "--precision=fp32", &save_dir]]
            .concat();
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "--warmup-epochs=1").collect();
    let output = flatnce(&words).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("at step") && said.contains("at a learning rate of") && said.contains("checkpoint"),
        "{said}"
    );
    let directory = run_directory(place.path());
    assert!(flatnce::run_dir::list_checkpoints(&directory).expect("a listing").is_empty());
}

#[test]
fn a_longer_run_goes_on_under_the_names_of_a_longer_run() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    succeeds(flatnce(&[SMALL, &["--epochs=2", "--optimizer=sgd", "--lr=0.05", "--keep-last=3", &save_dir]].concat()));
    let directory = run_directory(place.path());
    let names = || -> Vec<String> {
        let found = flatnce::run_dir::list_checkpoints(&directory).expect("a listing");
        found.into_iter().map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(names(), ["checkpoint_0000.pth.tar", "checkpoint_0002.pth.tar"]);
    // What was the end of the run is the end of its second epoch now; else it would pass for the third's.
    let output = succeeds(flatnce(&["--resume", directory.to_str().expect("utf-8"), "--epochs=5"]));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("checkpoint_0001.pth.tar in the longer run"), "{said}");
    let kept = ["checkpoint_0002.pth.tar", "checkpoint_0003.pth.tar", "checkpoint_0005.pth.tar"];
    assert_eq!(names(), kept);
    assert_eq!(flatnce::checkpoint::read(&directory.join(kept[0])).expect("reads").epochs_done, 3);
}

#[test]
fn the_spelling_of_multi_gpu_runs_is_written_when_asked_for_and_read_back() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    let prefix = "--checkpoint-prefix=module.";
    succeeds(flatnce(&[SMALL, &["--epochs=1", "--optimizer=sgd", "--lr=0.05", prefix, &save_dir]].concat()));
    let directory = run_directory(place.path());
    let written = torch_file::read(&directory.join("checkpoint_0001.pth.tar")).expect("reads");
    let names = |root: &Value| -> Vec<String> {
        let state = root.get("model_state_dict").and_then(Value::as_dict).expect("a dictionary");
        state.iter().map(|(name, _)| name.as_str().expect("a name").to_owned()).collect()
    };
    assert!(names(&written).iter().all(|name| name.starts_with("module.")), "{:?}", names(&written));
    succeeds(flatnce(&["--resume", directory.to_str().expect("utf-8"), "--epochs=2", "--checkpoint-prefix=none"]));
    let written = torch_file::read(&directory.join("checkpoint_0002.pth.tar")).expect("reads");
    assert!(names(&written).iter().all(|name| !name.starts_with("module.")), "{:?}", names(&written));
}

/// Waits until the run has said something in its log after its start.
fn wait_for_training(results: &Path) -> PathBuf {
    let start = Instant::now();
    loop {
        let directory = find_run(results);
        let log = directory.as_ref().and_then(|d| std::fs::read_to_string(d.join("training.log")).ok());
        if let (Some(directory), true) = (directory, log.is_some_and(|text| text.contains("results go to"))) {
            return directory;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Until the process has taken the signal: a second one that meets a pending one is lost.
fn wait_until_delivered(process: u32, signal: i32) {
    let start = Instant::now();
    let pending = || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or("0");
        u64::from_str_radix(mask.trim(), 16).expect("hexadecimal") >> (signal - 1) & 1 == 1
    };
    while pending() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_signal_saves_within_a_step_and_a_second_interrupt_ends_at_once() {
    // Steps of a second or so: two signals meet one step.
    let long_steps = [
        "--dataset-name=fashion_mnist_mini",
        "--image-size=64",
        "--model=res10",
        "--batch-size=64",
        "--epochs=9",
        "--device=cpu",
        "--precision=fp32",
        "--optimizer=sgd",
        "--lr=0.05",
    ];
    let send = |child: &Child, signal: i32| {
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(child.id() as i32, signal) };
    };
    for (signals, code) in
        [(vec![libc::SIGUSR1], 75), (vec![libc::SIGINT], 75), (vec![libc::SIGINT, libc::SIGINT], 130)]
    {
        let place = tempfile::tempdir().expect("a directory");
        let save_dir = save_dir(place.path());
        let mut command = flatnce(&[&long_steps[..], &[&save_dir]].concat());
        let child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
        let directory = wait_for_training(place.path());
        for &signal in &signals {
            send(&child, signal);
            wait_until_delivered(child.id(), signal);
        }
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(code), "{signals:?}");
        let saved = flatnce::run_dir::list_checkpoints(&directory).expect("a listing");
        assert_eq!(saved.len(), usize::from(code == 75), "{signals:?}: {saved:?}");
        if code == 75 {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains(&format!("continue with: flatnce --resume {}", directory.display())), "{said}");
            // The signal came early in the first step or the second; the run did not go on for long.
            let steps = flatnce::checkpoint::read(&saved[0].1).expect("reads").step;
            assert!(steps <= 3, "{steps} steps after the signal");
        }
    }
}

#[test]
fn looking_closely_changes_no_bit_of_the_training() {
    let place = tempfile::tempdir().expect("a directory");
    let states: Vec<Vec<Value>> = ["1", "0"]
        .iter()
        .map(|every| {
            let results = place.path().join(every);
            let (save_dir, every) = (save_dir(&results), format!("--log-every={every}"));
            succeeds(flatnce(&[SMALL, &["--epochs=2", "--optimizer=adam", "--lr=1e-3", &every, &save_dir]].concat()));
            let directory = run_directory(&results);
            let steps = std::fs::read_to_string(directory.join("steps.jsonl")).expect("steps");
            let looks = steps.lines().filter(|line| line.contains("gradient_norm")).count();
            assert_eq!(looks, if every == "--log-every=1" { 12 } else { 2 }, "{steps}");
            state(&directory.join("checkpoint_0002.pth.tar"))
        })
        .collect();
    assert_eq!(states[0], states[1]);
}

#[test]
fn neighbours_and_a_probe_judge_while_training_goes_on_and_change_no_bit_of_it() {
    let place = tempfile::tempdir().expect("a directory");
    let states: Vec<Vec<Value>> = [(2, 3), (0, 0)]
        .iter()
        .map(|(knn, probe)| {
            let results = place.path().join(format!("{knn} {probe}"));
            let flags = [format!("--knn-every={knn}"), format!("--probe-every={probe}"), save_dir(&results)];
            let flags = flags.each_ref().map(String::as_str);
            let said = succeeds(flatnce(&[SMALL, &["--epochs=4", "--optimizer=adam", "--lr=1e-3"], &flags].concat()));
            let directory = run_directory(&results);
            let metrics = std::fs::read_to_string(directory.join("metrics.jsonl")).expect("metrics");
            let judged = |keys: &[&str]| -> Vec<bool> {
                let epochs = metrics.lines().map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    // Ten classes: better than chance, and not perfect.
                    let good = |key: &&str| line[key].as_f64().is_some_and(|top1| (15.0..99.0).contains(&top1));
                    assert!(keys.iter().all(|key| line[key].is_null() || good(key)), "{line}");
                    keys.iter().all(good)
                });
                epochs.collect()
            };
            let due = |every: usize| (1..=4).map(|epoch| every > 0 && epoch % every == 0).collect::<Vec<_>>();
            assert_eq!(judged(&["knn_top1", "knn_plain_top1"]), due(*knn), "{metrics}");
            assert_eq!(judged(&["probe_top1"]), due(*probe), "{metrics}");
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            let told = "probe every 3 epochs: a linear classifier of 4,000 labelled images on 1,000 test images";
            assert_eq!(text.contains(told), *probe > 0, "{text}");
            state(&directory.join("checkpoint_0004.pth.tar"))
        })
        .collect();
    assert_eq!(states[0], states[1]);
}

const SGD: &[&str] = &["--optimizer=sgd", "--lr=0.05", "--precision=fp32"];

/// A complete run of [`SMALL`].
fn trained(place: &Path, more: &[&str]) -> PathBuf {
    succeeds(flatnce(&[SMALL, SGD, more, &[&save_dir(place)]].concat()));
    run_directory(place)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn checkpoints(directory: &Path) -> Vec<String> {
    let found = run_dir::list_checkpoints(directory).expect("a listing");
    let short = |name: String| name["checkpoint_".len()..].trim_end_matches(".pth.tar").to_owned();
    found.into_iter().map(|(name, _)| short(name.to_string())).collect()
}

/// What the lines of a file say under `key`.
fn column(path: &Path, key: &str) -> Vec<u64> {
    let lines = std::fs::read_to_string(path).unwrap_or_default();
    let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")[key].as_u64();
    lines.lines().map(|line| number(line).expect("a count")).collect()
}

/// The directories that a run has set aside, in order.
fn abandoned(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(run_dir::ABANDONED)))
        .collect();
    found.sort();
    found
}

/// Waits until something is so while the process runs.
fn wait_for(child: &mut Child, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() && child.try_wait().expect("it is ours").is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn logged(directory: &Path, words: &str) -> bool {
    std::fs::read_to_string(directory.join("training.log")).is_ok_and(|log| log.contains(words))
}

/// Changes one of the dictionaries in a checkpoint file.
fn tamper(path: &Path, entry: &str, change: impl Fn(&Dict) -> Dict) {
    let root = torch_file::read(path).expect("a checkpoint");
    let changed = root.as_dict().expect("a dictionary").iter().map(|(key, value)| {
        let wanted = key.as_str() == Some(entry);
        (key.clone(), if wanted { Value::Dict(change(value.as_dict().expect("a dictionary"))) } else { value.clone() })
    });
    let changed = Value::Dict(changed.collect());
    durable::replace(path, |file| Ok(torch_file::write(file, "checkpoint", &changed).map(|_| ())?)).expect("writes");
}

/// Without the entries that older versions did not write.
fn age(path: &Path) {
    let new = ["lineage", "data", "threads"];
    let is_old = |key: &Value| !key.as_str().is_some_and(|key| new.contains(&key));
    tamper(path, "flatnce", |ours| {
        ours.iter().filter(|(key, _)| is_old(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    });
}

#[test]
fn a_branch_that_is_left_is_set_aside_and_the_advised_command_goes_on_with_the_new_one() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=6"]);
    assert_eq!(checkpoints(&directory), ["0000", "0001", "0002", "0003", "0004", "0006"]);
    let rewind = ["--log-dir", text(&directory), "--train-from", "checkpoint_0001.pth.tar", "--epochs=12"];
    let preview = said(&succeeds(flatnce(&[&rewind[..], &["--dry-run"]].concat())));
    assert!(preview.contains("set aside: 4 later than that checkpoint"), "{preview}");
    assert!(abandoned(&directory).is_empty(), "a dry run leaves everything where it is");

    let mut child = flatnce(&[&rewind[..], &["--save-every-n-steps=1"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // It is in the fourth epoch of twelve.
    wait_for(&mut child, || checkpoints(&directory).iter().any(|name| name.starts_with("0003_step")));
    // SAFETY: the child has not been waited for to its end, so its number is still its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let output = child.wait_with_output().expect("it ends");
    let stopped = said(&output);
    assert_eq!(output.status.code(), Some(75), "{stopped}");
    assert!(stopped.contains("4 later checkpoints and the numbers of later epochs are set aside in"), "{stopped}");
    let [left] = &abandoned(&directory)[..] else { panic!("{:?}", abandoned(&directory)) };
    assert_eq!(checkpoints(left), ["0002", "0003", "0004", "0006"]);
    assert_eq!(column(&left.join("metrics.jsonl"), "epoch"), [2, 3, 4, 5]);
    assert_eq!(column(&left.join("steps.jsonl"), "step"), (13..=36).collect::<Vec<_>>());

    let advised = stopped.lines().find_map(|line| line.split_once("continue with: flatnce ")).expect("an advice").1;
    let advised: Vec<&str> = advised.split_whitespace().collect();
    let went_on = said(&succeeds(flatnce(&[&advised[..], &["--keep-last=2"]].concat())));
    assert!(went_on.contains("of 12 is next"), "{went_on}");
    assert_eq!(checkpoints(&directory), ["0010", "0012"], "--keep-last goes on working");
    assert_eq!(column(&directory.join("metrics.jsonl"), "epoch"), (0..12).collect::<Vec<_>>());
    assert_eq!(column(&directory.join("steps.jsonl"), "step"), (1..=72).collect::<Vec<_>>());
    let last = flatnce::checkpoint::read(&directory.join("checkpoint_0012.pth.tar")).expect("reads");
    assert_eq!(last.lineage.tip().expect("a branch").from_step, 12);
    // What was left is a run that can be gone on with where it lies.
    let left_run = said(&succeeds(flatnce(&["--resume", text(left), "--epochs=7"])));
    assert!(left_run.contains("epoch 7 of 7 is next"), "{left_run}");
    // And none of its own for a report.
    let report = said(&succeeds(flatnce(&["report", text(place.path()), "--format=csv"])));
    assert_eq!(report.lines().filter(|line| line.contains("fashion_mnist_mini")).count(), 1, "{report}");
}

#[test]
fn killed_while_a_branch_is_set_aside_a_run_goes_on_with_the_new_one() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=5"]);
    let rewind = ["--log-dir", text(&directory), "--train-from", "checkpoint_0001.pth.tar", "--epochs=6"];
    succeeds(flatnce(&rewind));
    let [left] = &abandoned(&directory)[..] else { panic!("{:?}", abandoned(&directory)) };
    let wanted = state(&directory.join("checkpoint_0006.pth.tar"));
    // As a process leaves it that was killed when it had moved one file of three: nothing of the new branch is saved.
    for name in ["0002", "0003", "0004", "0006"].map(|name| format!("checkpoint_{name}.pth.tar")) {
        std::fs::remove_file(directory.join(name)).expect("removes");
    }
    for name in ["0002", "0005"].map(|name| format!("checkpoint_{name}.pth.tar")) {
        std::fs::rename(left.join(&name), directory.join(&name)).expect("moves");
    }
    let said = said(&succeeds(flatnce(&["--resume", text(&directory)])));
    for text in ["0005.pth.tar is passed over: it is of a branch that this run has left", "epoch 3 of 6 is next"] {
        assert!(said.contains(text), "{said}");
    }
    assert!(state(&directory.join("checkpoint_0006.pth.tar")) == wanted, "other weights");
    assert_eq!(checkpoints(&directory), ["0000", "0001", "0002", "0003", "0004", "0006"]);
    let kept: Vec<String> = abandoned(&directory).iter().flat_map(|left| checkpoints(left)).collect();
    assert_eq!(kept, ["0003", "0002", "0005"], "nothing is lost");
}

#[test]
fn a_checkpoint_of_another_run_is_named_and_not_continued() {
    let place = tempfile::tempdir().expect("a directory");
    let (ours, theirs) = (place.path().join("ours"), place.path().join("theirs"));
    let directory = trained(&ours, &["--epochs=2"]);
    let other = trained(&theirs, &["--epochs=4", "--seed=7"]);
    std::fs::copy(other.join("checkpoint_0002.pth.tar"), directory.join("checkpoint_0003.pth.tar")).expect("a copy");
    let went_on = said(&succeeds(flatnce(&["--resume", text(&directory), "--epochs=3"])));
    assert!(went_on.contains("checkpoint_0003.pth.tar is passed over: it is of another run"), "{went_on}");
    let last = flatnce::checkpoint::read(&directory.join("checkpoint_0003.pth.tar")).expect("reads");
    assert_eq!(last.lineage.tip().expect("a branch").from_step, 12, "it is ours, behind what was set aside");

    std::fs::copy(other.join("checkpoint_0002.pth.tar"), directory.join("checkpoint_0004.pth.tar")).expect("a copy");
    let before = checkpoints(&directory);
    let output = start(&["--log-dir", text(&directory), "--train-from", "checkpoint_0004.pth.tar"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("it is of another run") && said(&output).contains("--from-pretrained"),
        "{}",
        said(&output)
    );
    assert_eq!(checkpoints(&directory), before);
}

#[test]
fn a_run_of_an_older_version_goes_on_and_has_a_lineage_from_then_on() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=2"]);
    for (_, path) in run_dir::list_checkpoints(&directory).expect("a listing") {
        age(&path);
    }
    let config = directory.join("config.yml");
    let old = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, &old[..old.find("lineage:").expect("there")]).expect("writes");
    succeeds(flatnce(&["--resume", text(&directory), "--epochs=3"]));
    let read = |name: &str| flatnce::checkpoint::read(&directory.join(name)).expect("reads");
    assert_eq!(read("checkpoint_0003.pth.tar").lineage.tip().expect("a branch").from_step, 12);
    // The older ones are still of the run.
    let again = ["--log-dir", text(&directory), "--train-from", "checkpoint_0000.pth.tar"];
    succeeds(flatnce(&[&again[..], &["--epochs=3"]].concat()));
    assert_eq!(read("checkpoint_0003.pth.tar").lineage.tip().expect("a branch").from_step, 6);
}

#[test]
fn a_run_that_has_grown_says_so_and_goes_on_growing_after_a_kill() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=2"]);
    let mut child = flatnce(&["--resume", text(&directory), "--epochs=20", "--save-every-n-epochs=100"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for(&mut child, || logged(&directory, "resumed: epoch 3 of 20"));
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    assert_eq!(checkpoints(&directory), ["0000", "0001"], "it was killed before its first checkpoint");

    let config = std::fs::read_to_string(directory.join("config.yml")).expect("reads");
    let again = config.lines().nth(1).expect("a command").to_owned();
    assert!(again.contains("--epochs=2 ") && again.ends_with("--epochs=20 --save-every-n-epochs=100"), "{again}");
    assert!(config.contains("epochs: 20\n") && config.contains("epochs: 2 -> 20"), "{config}");
    let page = place.path().join("report.html");
    let report = said(&succeeds(flatnce(&["report", text(place.path()), "--html", text(&page)])));
    let page = std::fs::read_to_string(page).expect("a page").replace("&gt;", ">");
    for told in [&report, &page] {
        assert!(told.contains("was continued after step 12") && told.contains("epochs: 2 -> 20"), "{told}");
    }

    let went_on = said(&succeeds(flatnce(&["--resume", text(&directory)])));
    assert!(went_on.contains("resumed: epoch 3 of 20 is next"), "{went_on}");
    assert_eq!(checkpoints(&directory), ["0000", "0001", "0020"]);
    assert_eq!(config, std::fs::read_to_string(directory.join("config.yml")).expect("reads"), "nothing new to say");
    // The command in it is the run's.
    let words: Vec<&str> = again.trim_start_matches("# ").split_whitespace().skip(1).collect();
    let facts = said(&succeeds(flatnce(&[&words[..], &["--dry-run"]].concat())));
    assert!(facts.contains("120 in 20 epochs"), "{facts}");
}

/// Names and contents of everything in a directory.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten().map(|entry| entry.path());
    let mut all: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(&path).expect("a file"))).collect();
    all.sort();
    all
}

#[test]
fn a_complete_run_that_is_resumed_says_so_and_stays_as_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=1"]);
    let before = contents(&directory);
    let said = said(&succeeds(flatnce(&["--resume", text(&directory)])));
    assert!(said.contains("nothing is left to train: all 1 epochs are done"), "{said}");
    assert!(said.contains(&format!("flatnce --resume {} --epochs 2", text(&directory))), "{said}");
    assert!(!said.contains("is next") && contents(&directory) == before, "{said}");
}

#[test]
fn every_checkpoint_that_is_passed_over_is_named_where_none_is_left() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=2"]);
    for (name, bytes) in [("checkpoint_0000.pth.tar", &b"cut off"[..]), ("checkpoint_0002.pth.tar", b"")] {
        std::fs::write(directory.join(name), bytes).expect("writes");
    }
    let output = start(&["--resume", text(&directory)]);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    assert!(said.contains("checkpoint_0000.pth.tar is passed over: "), "{said}");
    assert!(said.contains("checkpoint_0002.pth.tar is passed over: "), "{said}");
}

#[test]
fn a_run_resumed_within_its_first_epoch_says_where_and_tells_every_step_once() {
    let place = tempfile::tempdir().expect("a directory");
    let long = ["--train-images=480", "--epochs=2", "--save-every-n-steps=1"];
    let mut child = flatnce(&[SMALL, SGD, &long, &[&save_dir(place.path())]].concat())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let within = |directory: PathBuf| checkpoints(&directory).iter().any(|name| name.starts_with("0000_step"));
    wait_for(&mut child, || find_run(place.path()).is_some_and(within));
    child.kill().expect("it is ours");
    child.wait().expect("it ends");
    let directory = run_directory(place.path());
    let newest = checkpoints(&directory).pop().expect("a checkpoint");
    let step: u64 = newest["0000_step_".len()..].parse().expect("a step");
    let metrics = directory.join("metrics.jsonl");
    // As if it had been killed behind the epoch's lines and before its checkpoint, and the disk had its own troubles.
    std::fs::write(&metrics, "{\"epoch\":0,\"step\":6}\n{\"epo\u{0}\n{\"no\":1}\n{\"epoch\":1,\"st").expect("writes");
    let output = said(&succeeds(flatnce(&["--resume", text(&directory), "--save-every-n-steps=0"])));
    assert!(output.contains(&format!("goes on from {}/checkpoint_{newest}.pth.tar", text(&directory))), "{output}");
    assert!(output.contains(&format!("resumed: step {} of 60 in epoch 1 of 2 is next", step + 1)), "{output}");
    assert_eq!(column(&directory.join("steps.jsonl"), "step"), (1..=120).collect::<Vec<_>>());
    assert_eq!(column(&metrics, "epoch"), (0..2).collect::<Vec<_>>());
    assert!(output.contains("metrics.jsonl: 3 damaged lines (2, 3, 4) were taken out and kept in"), "{output}");
    let kept = std::fs::read_to_string(directory.join("metrics.jsonl.damaged")).expect("reads");
    assert_eq!(kept, "{\"epo\u{0}\n{\"no\":1}\n{\"epoch\":1,\"st\n");
}

#[test]
fn another_number_of_threads_is_one_warning() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=1"]);
    let resumed = |epochs: &str, threads: &str| {
        let mut command = flatnce(&["--resume", text(&directory), epochs]);
        command.env("OMP_NUM_THREADS", threads);
        said(&succeeds(command)).matches("OMP_NUM_THREADS=1").count()
    };
    assert_eq!((resumed("--epochs=2", "2"), resumed("--epochs=3", "2")), (1, 0));
}

#[test]
fn what_a_checkpoint_lacks_or_cannot_mean_is_one_clear_error() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path(), &["--epochs=2"]);
    let path = directory.join("checkpoint_0000.pth.tar");
    let whole = std::fs::read(&path).expect("reads");
    let refused = |why: &str| {
        let output = start(&["--log-dir", text(&directory), "--train-from=checkpoint_0000.pth.tar"]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why) && said(&output).contains("checkpoint_0000.pth.tar"), "{}", said(&output));
        std::fs::write(&path, &whole).expect("writes");
        assert!(abandoned(&directory).is_empty());
    };
    let state_of = |keep: fn(usize) -> bool| {
        move |optimizer: &Dict| {
            let mut changed = optimizer.clone();
            let state = optimizer.get("state").and_then(Value::as_dict).expect("there");
            let kept = state.iter().enumerate().filter(|(place, _)| keep(*place));
            let kept: Dict = kept.map(|(_, (key, value))| (key.clone(), value.clone())).collect();
            changed.insert("state", Value::Dict(kept));
            changed
        }
    };
    tamper(&path, "optimizer", state_of(|place| place % 2 == 0));
    refused("its optimiser's momentum_buffer is there for");
    tamper(&path, "optimizer", state_of(|_| false));
    refused("its optimiser has no state after 6 steps");
    tamper(&path, "flatnce", |ours| {
        let mut changed = ours.clone();
        changed.insert("batch_in_epoch", 6i64);
        changed.insert("step", 12i64);
        changed
    });
    refused("it is 6 steps into an epoch, and an epoch has 6");
    tamper(&path, "flatnce", |ours| {
        let mut changed = ours.clone();
        changed.insert("lineage", "[{]");
        changed
    });
    let output = start(&["--log-dir", text(&directory), "--train-from=checkpoint_0000.pth.tar"]);
    assert!(said(&output).contains("its entry lineage cannot be understood"), "{}", said(&output));
}

#[test]
fn a_run_goes_on_with_the_images_that_it_began_with_wherever_they_lie() {
    let place = tempfile::tempdir().expect("a directory");
    let (photos, moved) = (place.path().join("photos"), place.path().join("moved"));
    std::fs::create_dir(&photos).expect("a directory");
    let picture = |name: &str| std::fs::read(Path::new("tests/golden/data/images").join(name)).expect("an image");
    for number in 0..16 {
        let name = if number % 2 == 0 { "420.jpg" } else { "rotated.jpg" };
        std::fs::write(photos.join(format!("{number:02}.jpg")), picture(name)).expect("writes");
    }
    let words = ["--dataset-name=folder", "--image-size=8", "--model=res10", "--batch-size=8", "--warmup-epochs=0"];
    let where_from = format!("--data={}", photos.display());
    let results = place.path().join("results");
    succeeds(flatnce(&[&words[..], SGD, &["--epochs=1", "--device=cpu", &where_from, &save_dir(&results)]].concat()));
    let directory = run_directory(&results);
    let resume = |epochs: &str, data: &Path| {
        let data = format!("--data={}", data.display());
        start(&["--resume", text(&directory), epochs, &data])
    };
    std::fs::rename(&photos, &moved).expect("moves");
    let output = resume("--epochs=2", &moved);
    assert!(output.status.success(), "{}", said(&output));

    let before = contents(&directory);
    let refused = |why: &str| {
        let output = resume("--epochs=3", &moved);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why) && said(&output).contains("--from-pretrained"), "{}", said(&output));
        assert!(contents(&directory) == before, "{why}: nothing was written");
    };
    std::fs::rename(moved.join("00.jpg"), moved.join("99.jpg")).expect("renames");
    refused("the names of their files or the order of them");
    std::fs::write(moved.join("00.jpg"), picture("420.jpg")).expect("writes");
    refused("there were 16 images and are 17 now");
    std::fs::remove_file(moved.join("99.jpg")).expect("removes");
    std::fs::write(moved.join("01.jpg"), picture("ycck.jpg")).expect("writes");
    refused("the sizes of their files have changed");
    std::fs::write(moved.join("01.jpg"), picture("rotated.jpg")).expect("writes");
    let output = resume("--epochs=3", &moved);
    assert!(output.status.success(), "{}", said(&output));
}
