//! Numbers of single steps are on the disk within seconds, whatever becomes of the run.

#[path = "support/program.rs"]
mod program;

use program::{find_run, flatnce, run_directory, said, save_dir, succeeds};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Steps of some hundredths of a second, and an epoch of half a minute.
const LONG_EPOCH: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--model=res10",
    "--image-size=32",
    "--batch-size=8",
    "--warmup-epochs=0",
    "--precision=fp32",
    "--device=cpu",
    "--workers=1",
    "--knn-every=0",
];

fn steps(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("steps.jsonl")).unwrap_or_default();
    let whole = text.lines().filter(|_| text.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("a line is whole")).collect()
}

fn events(run: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(run).expect("a directory").map(|entry| entry.expect("readable").path());
    let events = entries.filter(|path| path.to_string_lossy().contains("tfevents"));
    events.flat_map(|path| std::fs::read(path).expect("readable")).collect()
}

fn begins(place: &Path, more: &[&str]) -> Child {
    let mut command = flatnce(&[LONG_EPOCH, more, &[&save_dir(place)]].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// Waits until `what` holds; the time that it took.
fn waits(limit_seconds: u64, what: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed().as_secs() < limit_seconds, "it does not come");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

#[test]
fn steps_are_on_the_disk_while_their_epoch_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let mut child = begins(place.path(), &["--epochs=1", "--train-images=1600", "--save-every-n-steps=40"]);
    let run = || find_run(place.path()).filter(|run| run.join("steps.jsonl").is_file());
    waits(120, || run().is_some());
    let run = run().expect("it has begun");
    waits(120, || !steps(&run).is_empty());
    // The next ones follow within five seconds, a step, and what a busy machine takes.
    let so_far = steps(&run).len();
    let took = waits(60, || steps(&run).len() > so_far);
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(events(&run).windows(5).any(|bytes| bytes == b"step/"), "no events");
    assert_eq!(std::fs::metadata(run.join("metrics.jsonl")).expect("it is there").len(), 0, "the epoch is not over");
    // A killed run tells its steps once when it goes on: those after the checkpoint come again.
    waits(120, || {
        run.read_dir().expect("a directory").flatten().any(|entry| {
            let name = entry.file_name().into_string().expect("text");
            name.contains("_step_") && name.ends_with(".pth.tar")
        })
    });
    child.kill().expect("it dies");
    child.wait().expect("it ends");
    let left = steps(&run).len();
    assert!(left > 0);
    succeeds(flatnce(&["--resume", run.to_str().expect("utf-8")]));
    let all: Vec<u64> = steps(&run).iter().map(|step| step["step"].as_u64().expect("a number")).collect();
    assert_eq!(all, (1..=200).collect::<Vec<u64>>());
}

#[test]
fn a_stopped_run_has_every_step_on_the_disk() {
    let place = tempfile::tempdir().expect("a directory");
    let mut child = begins(place.path(), &["--epochs=1"]);
    waits(120, || find_run(place.path()).is_some_and(|run| !steps(&run).is_empty()));
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(child.wait().expect("it ends").code(), Some(75));
    let run = run_directory(place.path());
    let saved = flatnce::run_dir::list_checkpoints(&run).expect("a directory").pop().expect("a checkpoint").1;
    let saved = flatnce::checkpoint::read(&saved).expect("reads");
    let all: Vec<u64> = steps(&run).iter().map(|step| step["step"].as_u64().expect("a number")).collect();
    assert_eq!(all, (1..=saved.step).collect::<Vec<u64>>());
}

#[test]
fn a_run_that_dies_of_nan_leaves_the_steps_that_led_there() {
    let place = tempfile::tempdir().expect("a directory");
    let ruin = ["--optimizer=sgd", "--lr=1e18", "--train-images=160", "--epochs=1", &save_dir(place.path())];
    let output = flatnce(&[LONG_EPOCH, &ruin].concat()).output().expect("it starts");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let at = said.split("at step ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the step is named");
    let at: u64 = at.parse().expect("a number");
    let run = run_directory(place.path());
    let all = steps(&run);
    assert_eq!(all.len() as u64, at, "{said}");
    let (last, before) = all.split_last().expect("steps");
    assert!(last["loss_infonce"].is_null() && last["non_finite"].to_string().contains("loss_infonce"), "{last}");
    assert!(before.iter().all(|step| step["loss_infonce"].is_number()), "{before:?}");
    assert!(events(&run).windows(5).any(|bytes| bytes == b"step/"), "TensorBoard has them too");
}
