//! Checkpoints cross to PyTorch and back: real runs, real PyTorch.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint;
use flatnce::model::{Encoder, HeadKind, Pass};
use program::{SMALL_EVALUATION, flatnce, run_directory, said, save_dir, succeeds};
use std::path::Path;
use std::process::Command;
use tch::{Device, Kind, Tensor};

fn peer(python: &Path, words: &[&str]) -> String {
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interchange.py")).args(words);
    command.env("OMP_NUM_THREADS", "1");
    said(&succeeds(command))
}

const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=48",
    "--image-size=16",
    "--model=res10",
    "--batch-size=8",
    "--warmup-epochs=0",
    "--precision=fp32",
    "--device=cpu",
];

/// The images of `interchange.py`.
fn images() -> Tensor {
    let values: Vec<f32> = (0..4 * 3 * 16 * 16).map(|i| (0.5 + 0.5 * (0.37 * f64::from(i)).sin()) as f32).collect();
    Tensor::from_slice(&values).view([4, 3, 16, 16])
}

fn outputs(path: &Path) -> Vec<f64> {
    let saved = checkpoint::read(path).expect("our own file");
    let config = saved.config.expect("our own configuration");
    let encoder = Encoder::new(&config.model, HeadKind::Projection, Device::Cpu, 0);
    encoder.load(&saved.model).expect("it fits");
    let _guard = tch::no_grad_guard();
    let out = encoder.forward(&images(), Pass::eval(Kind::Float)).projected;
    Vec::try_from(out.to_kind(Kind::Double).contiguous().view(-1)).expect("numbers")
}

#[test]
fn pytorch_continues_with_what_a_run_saves() {
    let Some(python) = support::python("torchvision") else { return };
    for (optimizer, lr) in [("lars", "0.6"), ("sgd", "0.05"), ("adam", "1e-3")] {
        let place = tempfile::tempdir().expect("a directory");
        let (optimizer_flag, lr, save_dir) =
            (format!("--optimizer={optimizer}"), format!("--lr={lr}"), save_dir(place.path()));
        succeeds(flatnce(&[SMALL, &["--epochs=2", &optimizer_flag, &lr, &save_dir]].concat()));
        let path = run_directory(place.path()).join("checkpoint_0002.pth.tar");
        let answer = peer(&python, &["read", path.to_str().expect("utf-8"), optimizer]);
        let answer: serde_json::Value = serde_json::from_str(answer.lines().next().expect("a line")).expect("JSON");
        assert_eq!(
            (&answer["epoch"], &answer["batch_size"], &answer["last_epoch"]),
            (&1.into(), &8.into(), &12.into())
        );
        assert_eq!(answer["model"], "res10");
        let theirs: Vec<f64> = serde_json::from_value(answer["outputs"].clone()).expect("numbers");
        let ours = outputs(&path);
        let scale = ours.iter().fold(0f64, |m, x| m.max(x.abs()));
        let error = ours.iter().zip(&theirs).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale;
        assert!(ours.len() == theirs.len() && scale > 0.0 && error < 1e-5, "{optimizer}: {error:e}");
    }
}

#[test]
fn a_run_of_pytorch_is_continued_evaluated_and_started_from() {
    let Some(python) = support::python("torchvision") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let their_directory = place.path().join("theirs");
    std::fs::create_dir(&their_directory).expect("a directory");
    let file = their_directory.join("checkpoint_0000.pth.tar");
    let (file_name, directory) = (file.to_str().expect("utf-8"), their_directory.to_str().expect("utf-8"));
    peer(&python, &["write", file_name]);

    // 6 steps are one epoch of 48 images at 8: the second one follows, with Adam's state.
    let log_dir = format!("--log-dir={directory}");
    let words = ["--train-from=checkpoint_0000.pth.tar", "--epochs=2", "--optimizer=adam", "--lr=1e-3", &log_dir];
    succeeds(flatnce(&[SMALL, &words].concat()));
    let theirs = checkpoint::read(&file).expect("theirs");
    let ours = checkpoint::read(&their_directory.join("checkpoint_0002.pth.tar")).expect("ours");
    assert_eq!((ours.epochs_done, ours.step), (2, 12));
    let steps = |saved: &checkpoint::Checkpoint| saved.optimizer.get(0, "step").expect("there").double_value(&[]);
    assert_eq!((steps(&theirs), steps(&ours)), (6.0, 12.0));
    let bound = |saved: &checkpoint::Checkpoint| saved.model.get("layer4.0.conv2.weight").expect("there").copy();
    let moved = (bound(&theirs) - bound(&ours)).abs().max().double_value(&[]);
    // Adam moves a weight by about lr in each of 6 steps.
    assert!(moved > 1e-4 && moved < 1e-2, "{moved}");

    let (results, from) = (place.path().join("results"), format!("--from-pretrained={file_name}"));
    succeeds(flatnce(&[SMALL, &["--epochs=0", &from, &save_dir(&results)]].concat()));
    let started = checkpoint::read(&run_directory(&results).join("checkpoint_0000.pth.tar")).expect("ours");
    assert_eq!(bound(&started), bound(&theirs));

    let save_dir = save_dir(&place.path().join("evaluation"));
    let words = [SMALL_EVALUATION, &["--checkpoint", file_name, &save_dir]].concat();
    assert!(said(&succeeds(flatnce(&words))).contains("test top-1"));
}
