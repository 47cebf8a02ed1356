//! fp16 with its scaler, batches in parts, the settings of the arithmetic: whole runs on the CPU.

#[path = "support/program.rs"]
mod program;

use flatnce::torch_file::{self, Value};
use program::{flatnce, run_directory, save_dir, succeeds};
use std::path::{Path, PathBuf};

/// Seconds even in fp16, for which a CPU has no arithmetic.
const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--image-size=8",
    "--model=res10",
    "--warmup-epochs=0",
    "--save-every-n-epochs=1",
    "--knn-every=0",
    "--device=cpu",
    "--workers=1",
];

/// Trains `SMALL` with `settings` below `results` and gives the run's directory.
fn trained(results: &Path, settings: &[&str]) -> PathBuf {
    succeeds(flatnce(&[SMALL, settings, &[&save_dir(results)]].concat()));
    run_directory(results)
}

/// What training changes, in a checkpoint.
fn state(path: &Path) -> Vec<Value> {
    let root = torch_file::read(path).expect("a checkpoint");
    ["model_state_dict", "optimizer", "scaler", "epoch"].iter().filter_map(|key| root.get(key).cloned()).collect()
}

/// 3 epochs, and 1 epoch continued to 3, end in the same bits.
fn goes_on_exactly(settings: &[&str]) -> PathBuf {
    let place = tempfile::tempdir().expect("a directory").keep();
    let whole = trained(&place.join("whole"), &[settings, &["--epochs=3"]].concat());
    let part = place.join("part");
    std::fs::create_dir(&part).expect("a directory");
    std::fs::copy(whole.join("checkpoint_0000.pth.tar"), part.join("checkpoint_0000.pth.tar")).expect("a copy");
    succeeds(flatnce(&["--resume", part.to_str().expect("utf-8")]));
    let last = "checkpoint_0003.pth.tar";
    assert_eq!(state(&whole.join(last)), state(&part.join(last)), "{settings:?}");
    whole
}

fn epochs(directory: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(directory.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn fp16_trains_counts_its_overflows_and_goes_on_exactly() {
    let settings = ["--precision=fp16", "--batch-size=4", "--train-images=12", "--optimizer=adam", "--lr=1e-3"];
    let whole = goes_on_exactly(&settings);
    let saved = flatnce::checkpoint::read(&whole.join("checkpoint_0003.pth.tar")).expect("reads");
    let scaler = saved.scaler.expect("fp16 has a scaler");
    let count = |epoch: &serde_json::Value| epoch["overflow_steps"].as_u64().expect("a count");
    let epochs = epochs(&whole);
    let overflows: u64 = epochs.iter().map(count).sum();
    // Nothing has grown in so few steps: every halving is a step that was left out.
    assert_eq!(scaler.scale, 65536.0 * 0.5_f64.powi(overflows as i32));
    assert_eq!(epochs[2]["loss_scale"].as_f64(), Some(scaler.scale));
    // A step left out is a step of the schedule, and none of Adam's.
    assert_eq!(saved.step, 9);
    let adam_steps = saved.optimizer.get(0, "step").expect("Adam counts").double_value(&[]);
    assert_eq!(adam_steps as u64 + overflows, 9);
    std::fs::remove_dir_all(whole.ancestors().nth(4).expect("the place")).expect("ours");
}

#[test]
fn fp16_that_cannot_be_saved_by_any_scale_stops_with_advice() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    // Weights of millions: every product overflows.
    let settings = ["--precision=fp16", "--batch-size=2", "--train-images=6", "--optimizer=sgd", "--lr=1e9"];
    let rest = ["--epochs=30", "--save-every-n-epochs=100", &save_dir];
    let small: Vec<&str> = SMALL.iter().copied().filter(|flag| !flag.starts_with("--save-every")).collect();
    let output = flatnce(&[&small[..], &settings, &rest].concat()).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the loss scale has fallen to") && errors.contains("--precision fp32"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn fine_tuning_in_fp16_scales_its_loss() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    let settings = ["--train-mode=supervised", "--dataset-name=fashion_mnist_mini", "--image-size=8", "--fc-epochs=2"];
    let sizes = ["--model=res10", "--train-images=16", "--fc-batch-size=8", "--fc-lr=0.05", "--precision=fp16"];
    succeeds(flatnce(&[&settings[..], &sizes, &["--device=cpu", "--workers=1", &save_dir]].concat()));
    let mut found = vec![place.path().to_owned()];
    let checkpoint = loop {
        let at = found.pop().expect("a checkpoint somewhere");
        if at.is_dir() {
            found.extend(std::fs::read_dir(at).expect("a directory").map(|entry| entry.expect("readable").path()));
        } else if at.to_string_lossy().ends_with(".pth.tar") {
            break at;
        }
    };
    let saved = flatnce::checkpoint::read_evaluation(&checkpoint).expect("reads");
    let scaler = saved.scaler.expect("fp16 has a scaler");
    // Powers of two below the first scale, one for each step that was left out.
    let halvings = (65536.0 / scaler.scale).log2();
    assert_eq!(halvings.fract(), 0.0);
    assert!(halvings >= 0.0 && halvings < saved.step as f64, "{scaler:?} after {} steps", saved.step);
    assert_eq!(scaler.growth_tracker > 0, halvings < saved.step as f64);
}

#[test]
fn a_batch_in_parts_goes_on_exactly() {
    let whole =
        goes_on_exactly(&["--precision=fp32", "--batch-size=6", "--train-images=18", "--grad-cache=3", "--lr=0.1"]);
    assert!(epochs(&whole).iter().all(|epoch| epoch.get("overflow_steps").is_none()));
    // The number of parts belongs to the run.
    let output = flatnce(&["--resume", whole.to_str().expect("utf-8"), "--grad-cache=2", "--epochs=4"])
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("--grad-cache 2: the run has 3"), "{errors}");
    std::fs::remove_dir_all(whole.ancestors().nth(4).expect("the place")).expect("ours");
}

#[test]
fn settings_for_gpus_change_no_bit_on_the_cpu() {
    let place = tempfile::tempdir().expect("a directory");
    let settings = ["--precision=fp32", "--batch-size=6", "--train-images=12", "--epochs=1", "--lr=0.1"];
    let plain = trained(&place.path().join("plain"), &settings);
    let set = trained(&place.path().join("set"), &[&settings[..], &["--deterministic", "--allow-tf32"]].concat());
    let last = "checkpoint_0001.pth.tar";
    assert_eq!(state(&plain.join(last)), state(&set.join(last)));
    // They go on with the run.
    let config = flatnce::checkpoint::read(&set.join(last)).expect("reads").config.expect("ours");
    assert!(config.numerics.deterministic && config.numerics.allow_tf32);
}

/// Calls that wait for the device.
const READS: &[&str] = &[
    "double_value(",
    ".item",
    "int64_value(",
    "::try_from(",
    "copy_data",
    "Device::Cpu)",
    "read_scalars(",
    ".print()",
    "nonzero(",
    "masked_select(",
];

/// Where they stand all the same, in what a step runs through: file, text of the line, why nothing waits for it.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("src/model/layers.rs", "store(found.int64_value", "from a checkpoint"),
    ("src/model/layers.rs", "found.int64_value(&[]) < 0", "from a checkpoint"),
    ("src/model/layers.rs", "condition.all().int64_value", "from a checkpoint"),
    ("src/optim/scaler.rs", "overflowed.double_value", "on the CPU only"),
    ("src/optim/scaler.rs", "self.scale.double_value", "for a checkpoint"),
    ("src/optim/scaler.rs", "self.growth_tracker.int64_value", "for a checkpoint"),
    ("src/optim/first_order.rs", "saved.double_value", "from a checkpoint"),
    ("src/optim/mod.rs", "Tensor::zeros([], (Kind::Float, tch::Device::Cpu))", "of a network without gradients"),
];

/// Files of the same rooms that no step on a device runs through.
const ELSEWHERE: &[&str] = &["src/optim/lbfgs.rs", "src/optim/fused.rs"];

#[test]
fn nothing_in_a_step_waits_for_the_device() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Every file of the rooms that a step runs through, so that a new one is looked at too.
    let rooms = ["src/loss", "src/model", "src/optim"].map(|room| std::fs::read_dir(root.join(room)).expect(room));
    let in_rooms = rooms.into_iter().flatten().map(|entry| entry.expect("readable").path());
    let step = ["recorded", "numbers", "statistics", "step"].map(|file| format!("train/pretrain/{file}.rs"));
    let others = step.into_iter().chain(["native/lists.rs", "native/lists.cpp"].map(str::to_owned));
    let files: Vec<String> = in_rooms
        .filter(|path| path.is_file())
        .chain(others.map(|file| root.join("src").join(file)))
        .map(|path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned())
        .filter(|file| !ELSEWHERE.contains(&file.as_str()))
        .collect();
    assert!(files.len() > 20, "{files:?}");
    let mut allowed_seen = 0;
    for file in files {
        let text = std::fs::read_to_string(root.join(&file)).expect(&file);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if !READS.iter().any(|read| line.contains(read)) {
                continue;
            }
            let allowed = ALLOWED.iter().any(|(path, part, _)| *path == file.as_str() && line.contains(part));
            assert!(allowed, "{file} waits for the device: {}", line.trim());
            allowed_seen += 1;
        }
    }
    assert_eq!(allowed_seen, ALLOWED.len(), "an exception that no line needs");
}
