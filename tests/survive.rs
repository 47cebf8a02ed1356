//! Runs that are killed, disks that are full: nothing saved is lost and the run goes on.

#[path = "support/program.rs"]
mod program;

use flatnce::checkpoint;
use flatnce::rng::{Purpose, Stream};
use flatnce::run_dir;
use flatnce::torch_file::{self, Value};
use program::{find_run, flatnce, run_directory, said, save_dir, succeeds};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// 8 steps an epoch of some milliseconds, each followed by a checkpoint of 40 MiB: there is nearly always one under way.
const SETTINGS: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=64",
    "--image-size=8",
    "--model=res10",
    "--batch-size=8",
    "--optimizer=sgd",
    "--lr=0.05",
    "--warmup-epochs=1",
    "--epochs=4",
    "--precision=fp32",
    "--save-every-n-epochs=1",
    "--save-every-n-steps=1",
    "--keep-last=2",
    "--log-every=3",
    "--ess-target=0.6",
    "--device=cpu",
];

/// What training changes, of the last checkpoint of a complete run.
fn final_state(directory: &Path) -> Vec<Value> {
    let root = torch_file::read(&directory.join("checkpoint_0004.pth.tar")).expect("a checkpoint");
    ["model_state_dict", "optimizer", "scheduler"].iter().map(|key| root.get(key).expect("there").clone()).collect()
}

/// The run's curves without its times.
fn curves(directory: &Path) -> Vec<(i64, i64, String)> {
    let text = std::fs::read_to_string(directory.join("steps.jsonl")).expect("steps");
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let number = |key: &str| line[key].as_i64().expect("a count");
            (number("epoch"), number("step"), line.to_string())
        })
        .collect()
}

fn half_written(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let temporary = |name: &str| name.contains(".pth.tar.") && name.ends_with(".tmp");
    names.filter(|name| temporary(&name.to_string_lossy())).count()
}

/// Waits until `saves` checkpoints have been begun, or the process has ended.
fn wait_for_saves(child: &mut Child, results: &Path, saves: u64) {
    let (mut begun, mut writing, start) = (0, false, Instant::now());
    while begun < saves && child.try_wait().expect("it is ours").is_none() && start.elapsed().as_secs() < 60 {
        let now = find_run(results).is_some_and(|directory| half_written(&directory) > 0);
        begun += u64::from(now && !writing);
        writing = now;
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Kills runs with SIGKILL, `FLATNCE_KILLS` times (10 unless told), three of four times while a checkpoint is being
/// written. Whatever is left continues, never behind what had been saved, to the bits of a run that nobody killed.
#[test]
fn killed_runs_continue_to_the_same_bits() {
    let count = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (kills, seed) = (count("FLATNCE_KILLS", 10), count("FLATNCE_KILLS_SEED", 1));
    let mut draw = Stream::new(seed, Purpose::Initialisation, 0, 0, 0);
    let mut below = |bound: u64| draw.below(bound);

    let place = tempfile::tempdir().expect("a directory");
    let whole = place.path().join("whole");
    succeeds(flatnce(&[SETTINGS, &[&save_dir(&whole)]].concat()));
    let whole = run_directory(&whole);

    let (mut killed, mut while_saving, mut complete, mut lives) = (0u64, 0u64, 0, 0);
    let mut results = place.path().join("killed-0");
    let mut step_saved = 0;
    while killed < kills || complete == 0 {
        let directory = find_run(&results);
        // Killed before its first checkpoint, a run begins again.
        let goes_on = directory.filter(|d| run_dir::list_checkpoints(d).is_ok_and(|found| !found.is_empty()));
        let mut command = match &goes_on {
            Some(directory) => flatnce(&["--resume", directory.to_str().expect("utf-8")]),
            None => {
                let _ = std::fs::remove_dir_all(&results);
                flatnce(&[SETTINGS, &[&save_dir(&results)]].concat())
            }
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        lives += 1;
        if killed < kills {
            if below(4) > 0 {
                wait_for_saves(&mut child, &results, 1 + below(6));
                std::thread::sleep(Duration::from_millis(below(25)));
            } else {
                std::thread::sleep(Duration::from_millis(below(1500)));
            }
            child.kill().expect("it is ours");
        }
        let output = child.wait_with_output().expect("it ends");
        let directory = find_run(&results);
        if output.status.success() {
            let directory = directory.expect("a complete run");
            assert!(final_state(&whole) == final_state(&directory), "other weights, after kills, seed {seed}");
            assert_eq!(curves(&whole), curves(&directory), "other curves, seed {seed}");
            let left = run_dir::list_checkpoints(&directory).expect("a listing");
            let left: Vec<String> = left.iter().map(|(name, _)| name.to_string()).collect();
            assert_eq!(left, ["checkpoint_0002.pth.tar", "checkpoint_0004.pth.tar"], "--keep-last 2");
            complete += 1;
            std::fs::remove_dir_all(&results).expect("removes");
            results = place.path().join(format!("killed-{complete}"));
            step_saved = 0;
            continue;
        }
        assert_eq!(output.status.code(), None, "it failed by itself: {}", said(&output));
        killed += 1;
        let Some(directory) = directory else { continue };
        while_saving += u64::from(half_written(&directory) > 0);
        if run_dir::list_checkpoints(&directory).expect("a listing").is_empty() {
            assert_eq!(step_saved, 0, "a checkpoint has gone, seed {seed}");
            continue;
        }
        let mut damaged = Vec::new();
        let (path, newest) =
            checkpoint::newest_good(&directory, &mut |warning| damaged.push(warning)).expect("a good one");
        assert!(damaged.is_empty(), "{damaged:?}, seed {seed}");
        assert!(newest.step >= step_saved, "{} is behind step {step_saved}, seed {seed}", path.display());
        step_saved = newest.step;
    }
    println!(
        "{killed} runs killed with SIGKILL, {while_saving} of them while a checkpoint was being written; every one of \
         the {lives} starts went on; complete to the end: {complete}, each with the bits of a run that was never killed"
    );
    // The first process of a run writes much less than half of the time: it starts up.
    assert!(
        2 * while_saving >= killed,
        "only {while_saving} of {killed} kills hit a save; the test is not what it claims"
    );
}
