//! Runs that are killed, disks that are full: nothing saved is lost and the run goes on.

#[path = "support/program.rs"]
mod program;

use flatnce::checkpoint;
use flatnce::rng::{Purpose, Stream};
use flatnce::run_dir;
use flatnce::torch_file::{self, Value};
use program::{find_run, flatnce, run_directory, said, save_dir, succeeds};
use std::path::{Path, PathBuf};
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

/// How many kills are asked for, `usual` ones unless told, and the seed that they are drawn from.
fn kills(usual: u64) -> (u64, u64) {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    (number("FLATNCE_KILLS", usual), number("FLATNCE_KILLS_SEED", 1))
}

/// Kills runs with SIGKILL, `FLATNCE_KILLS` times (10 unless told), three of four times while a checkpoint is being
/// written. Whatever is left continues, never behind what had been saved, to the bits of a run that nobody killed.
#[test]
fn killed_runs_continue_to_the_same_bits() {
    let (kills, seed) = kills(10);
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

/// An evaluation that begins with these words, besides those of [`EVALUATED`], and what it writes at its end.
struct Evaluated {
    words: &'static [&'static str],
    outcome: &'static str,
    state: &'static str,
}

const EVALUATED: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=128",
    "--image-size=8",
    "--train-mode=eval",
    "--fc-optimizer=sgd",
    "--fc-batch-size=16",
    "--fc-save-every-n-epochs=1",
    "--precision=fp32",
    "--device=cpu",
];

const EVALUATIONS: [Evaluated; 2] = [
    Evaluated {
        words: &["--transfer-mode=linear_eval", "--fc-augment=none", "--fc-lr=0.1", "--fc-epochs=60"],
        outcome: "linear_eval.json",
        state: "fc_model_state_dict",
    },
    Evaluated {
        words: &["--transfer-mode=finetune", "--fc-lr=0.01", "--fc-epochs=6", "--patience-epochs=0"],
        outcome: "finetune.json",
        state: "model_state_dict",
    },
];

/// The directory of an evaluation that has begun: the one with a configuration.
fn begun(results: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(results).ok()?.flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    if entries.iter().any(|path| path.ends_with("config.yml")) {
        return Some(results.to_owned());
    }
    entries.iter().filter(|path| path.is_dir()).find_map(|path| begun(path))
}

/// What an evaluation found and trained, without its times.
fn found(directory: &Path, evaluated: &Evaluated) -> (serde_json::Value, Value) {
    let text = std::fs::read_to_string(directory.join(evaluated.outcome)).expect("an outcome");
    let mut outcome: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    outcome.as_object_mut().expect("an object").retain(|key, _| {
        // Features that were saved before a kill are read.
        !key.starts_with("seconds_") && key != "features_from_cache"
    });
    let (_, last) = run_dir::list_checkpoints(directory).expect("a listing").pop().expect("a checkpoint");
    let state = torch_file::read(&last).expect("it is whole").get(evaluated.state).expect("its state").clone();
    (outcome, state)
}

/// The same of evaluations: `FLATNCE_KILLS` of them (6 unless told), in turns a linear one and a fine-tuning.
#[test]
fn killed_evaluations_continue_to_the_same_numbers() {
    let (kills, seed) = kills(6);
    let mut draw = Stream::new(seed, Purpose::Initialisation, 1, 0, 0);
    let mut below = |bound: u64| draw.below(bound);

    let place = tempfile::tempdir().expect("a directory");
    let encoder = place.path().join("encoder");
    succeeds(flatnce(&[SETTINGS, &["--epochs=0", &save_dir(&encoder)]].concat()));
    let encoder = format!("--checkpoint={}", run_directory(&encoder).join("checkpoint_0000.pth.tar").display());

    let (mut killed, mut continued, mut complete) = (0_u64, 0, 0);
    for (number, evaluated) in EVALUATIONS.iter().enumerate() {
        let words = |results: &Path| {
            let more = [encoder.clone(), save_dir(results)];
            let words = EVALUATED.iter().chain(evaluated.words).map(|word| (*word).to_owned()).chain(more);
            words.collect::<Vec<String>>()
        };
        let begin = |words: &[String]| flatnce(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let (whole, started) = (place.path().join(format!("whole-{number}")), Instant::now());
        succeeds(begin(&words(&whole)));
        let (whole, took) = (begun(&whole).expect("it has begun"), started.elapsed().as_millis() as u64);
        let whole = found(&whole, evaluated);

        let (until, complete_before) = ((number as u64 + 1) * kills / 2, complete);
        let (mut results, mut saved) = (place.path().join(format!("killed-{number}-0")), 0);
        while killed < until || complete == complete_before {
            let directory = begun(&results);
            let newest = directory.as_ref().and_then(|path| run_dir::list_checkpoints(path).expect("a listing").pop());
            let mut command = match (&directory, &newest) {
                (Some(directory), Some((name, _))) => {
                    continued += 1;
                    let goes_on = [format!("--fc-log-dir={}", directory.display()), format!("--fc-train-from={name}")];
                    begin(&[words(&results), goes_on.to_vec()].concat())
                }
                _ => {
                    let _ = std::fs::remove_dir_all(&results);
                    begin(&words(&results))
                }
            };
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
            if killed < until {
                std::thread::sleep(Duration::from_millis(below(took + took / 4)));
                child.kill().expect("it is ours");
            }
            let output = child.wait_with_output().expect("it ends");
            if output.status.success() {
                let directory = begun(&results).expect("a complete evaluation");
                let (outcome, state) = found(&directory, evaluated);
                assert_eq!(whole.0, outcome, "other numbers, {}, seed {seed}", evaluated.outcome);
                assert!(whole.1 == state, "other weights, {}, seed {seed}", evaluated.outcome);
                complete += 1;
                (results, saved) = (place.path().join(format!("killed-{number}-{complete}")), 0);
                continue;
            }
            assert_eq!(output.status.code(), None, "it failed by itself: {}", said(&output));
            killed += 1;
            let Some(directory) = begun(&results) else { continue };
            let listed = run_dir::list_checkpoints(&directory).expect("a listing");
            let epochs = listed
                .iter()
                .map(|(_, path)| checkpoint::read_evaluation(path).expect("every checkpoint is whole").epochs_done);
            let newest = epochs.max().unwrap_or(0);
            assert!(newest >= saved, "after {newest} epochs, {saved} had been saved, seed {seed}");
            saved = newest;
        }
    }
    println!(
        "{killed} evaluations killed with SIGKILL; {continued} starts went on from a checkpoint; complete to the end: \
         {complete}, each with the numbers of an evaluation that was never killed"
    );
    assert!(continued > 0 || kills < 6, "none was killed after its first checkpoint: the test is not what it claims");
}

/// The files of an embedding that says of itself that it is there, by name.
fn embedded(out: &Path) -> Option<Vec<Vec<u8>>> {
    let read = |name: &str| std::fs::read(out.join(name)).expect("embed.json is there, and so is the rest");
    out.join("embed.json")
        .exists()
        .then(|| ["embed.json", "features.npy", "labels.npy", "names.txt"].map(read).to_vec())
}

/// And of embeddings: `FLATNCE_KILLS` times (4 unless told) the features of one encoder are to be replaced by another's.
#[test]
fn a_killed_embedding_is_the_old_one_or_the_new_one() {
    let (kills, seed) = kills(4);
    let mut draw = Stream::new(seed, Purpose::Initialisation, 2, 0, 0);
    let place = tempfile::tempdir().expect("a directory");
    let encoders = ["1", "2"].map(|seed| {
        let results = place.path().join(seed);
        succeeds(flatnce(&[SETTINGS, &["--epochs=0", "--seed", seed, &save_dir(&results)]].concat()));
        format!("--checkpoint={}", run_directory(&results).join("checkpoint_0000.pth.tar").display())
    });
    let out = place.path().join("out");
    let to = format!("--out={}", out.display());
    let embed = |encoder: &str| {
        let words =
            ["embed", "--dataset-name=fashion_mnist_mini", "--image-size=8", "--precision=fp32", "--device=cpu"];
        flatnce(&[&words[..], &["--force", encoder, &to]].concat())
    };
    let started = Instant::now();
    let whole = [0, 1, 0].map(|which| {
        succeeds(embed(&encoders[which]));
        embedded(&out).expect("it is there")
    });
    let took = started.elapsed().as_millis() as u64 / 3;
    assert!(whole[0] == whole[2] && whole[0][1] != whole[1][1]);

    let (mut old, mut new, mut neither) = (0, 0, 0);
    for kill in 0..kills {
        let mut command = embed(&encoders[(kill + 1) as usize % 2]);
        let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(draw.below(took + took / 8)));
        let _ = child.kill();
        child.wait().expect("it ends");
        match embedded(&out) {
            Some(found) if found == whole[(kill % 2) as usize] => old += 1,
            Some(found) => {
                assert!(found == whole[(kill + 1) as usize % 2], "files of two embeddings, seed {seed}");
                new += 1;
            }
            None => neither += 1,
        }
        succeeds(embed(&encoders[(kill + 1) as usize % 2]));
        assert!(embedded(&out).as_ref() == Some(&whole[(kill + 1) as usize % 2]), "seed {seed}");
        assert_eq!(std::fs::read_dir(&out).expect("a listing").count(), 4, "what was left over is gone");
    }
    println!(
        "{kills} embeddings killed with SIGKILL: {old} left the old files, {new} the new ones, {neither} none; none a mixture"
    );
}

/// Every file of a directory and what is in it, sorted.
fn everything(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| {
            let content = std::fs::read(entry.path()).expect("it is there");
            (entry.file_name().to_string_lossy().into_owned(), content)
        })
        .collect();
    all.sort();
    all
}

/// Packs are killed `FLATNCE_KILLS` times (6 unless told): a finished shard is never written again, and what there is in
/// the end are the bytes of a pack that nobody killed.
#[test]
fn killed_packs_end_with_the_same_bytes() {
    let (kills, seed) = kills(6);
    let mut draw = Stream::new(seed, Purpose::Initialisation, 3, 0, 0);
    let place = tempfile::tempdir().expect("a directory");
    let source = place.path().join("source");
    for index in 0..400_u32 {
        let class = source.join(format!("train/class_{}", index % 4));
        std::fs::create_dir_all(&class).expect("a directory");
        let level = |x: u32, y: u32| [(x * y + index) as u8, (x * 7 + index * y) as u8, (index * 31 + y) as u8];
        let picture = image::RgbImage::from_fn(160, 120, |x, y| image::Rgb(level(x, y)));
        picture.save(class.join(format!("{index:04}.png"))).expect("it is written");
    }
    let begin = |out: &Path| {
        let to = format!("--out={}", out.display());
        flatnce(&["pack", source.to_str().expect("utf-8"), "--shard-mb=1", "--max-side=100", &to])
    };
    let (whole, started) = (place.path().join("whole"), Instant::now());
    succeeds(begin(&whole));
    let (took, whole) = (started.elapsed().as_millis() as u64, everything(&whole));
    assert!(whole.len() > 5, "a pack of some shards");

    let (mut killed, mut while_writing, mut complete) = (0, 0, 0);
    let mut out = place.path().join("killed-0");
    while killed < kills || complete == 0 {
        let before = everything(&out);
        let mut child = begin(&out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        if killed < kills {
            std::thread::sleep(Duration::from_millis(draw.below(took)));
            child.kill().expect("it is ours");
        }
        let output = child.wait_with_output().expect("it ends");
        let after = everything(&out);
        let shards = |files: &[(String, Vec<u8>)]| {
            files.iter().filter(|(name, _)| name.ends_with(".tar")).cloned().collect::<Vec<_>>()
        };
        assert!(shards(&before).iter().all(|shard| whole.contains(shard)), "half a shard has its name, seed {seed}");
        assert!(shards(&before).iter().all(|shard| after.contains(shard)), "a shard has gone, seed {seed}");
        if output.status.success() {
            assert!(after == whole, "other bytes after kills, seed {seed}");
            complete += 1;
            out = place.path().join(format!("killed-{complete}"));
            continue;
        }
        assert_eq!(output.status.code(), None, "it failed by itself: {}", said(&output));
        killed += 1;
        while_writing += u64::from(after.iter().any(|(name, _)| name.starts_with("train-") && name.ends_with(".tmp")));
    }
    println!(
        "{killed} packs killed with SIGKILL, {while_writing} of them while a shard was being written; complete to the end: \
         {complete}, each with the bytes of one that was never killed"
    );
}
