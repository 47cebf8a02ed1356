//! A run that was stopped and continued is the run that was never stopped, to the bit.

#[path = "support/program.rs"]
mod program;

use flatnce::torch_file::{self, Value};
use program::{find_run, flatnce, run_directory, said, save_dir, succeeds};
use std::path::{Path, PathBuf};
use std::process::Child;
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
fn neighbours_are_asked_while_training_goes_on_and_change_no_bit_of_it() {
    let place = tempfile::tempdir().expect("a directory");
    let states: Vec<Vec<Value>> = ["2", "0"]
        .iter()
        .map(|every| {
            let results = place.path().join(every);
            let (save_dir, flag) = (save_dir(&results), format!("--knn-every={every}"));
            succeeds(flatnce(&[SMALL, &["--epochs=4", "--optimizer=adam", "--lr=1e-3", &flag, &save_dir]].concat()));
            let directory = run_directory(&results);
            let metrics = std::fs::read_to_string(directory.join("metrics.jsonl")).expect("metrics");
            let judged: Vec<bool> = metrics
                .lines()
                .map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    let [weighted, plain] = ["knn_top1", "knn_plain_top1"].map(|key| line[key].as_f64());
                    // Ten classes: better than chance, and not perfect.
                    weighted.is_some_and(|top1| (15.0..99.0).contains(&top1)) && plain.is_some()
                })
                .collect();
            assert_eq!(judged, if *every == "2" { [false, true, false, true] } else { [false; 4] }, "{metrics}");
            state(&directory.join("checkpoint_0004.pth.tar"))
        })
        .collect();
    assert_eq!(states[0], states[1]);
}
