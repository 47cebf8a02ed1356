//! What a finished run leaves beside its checkpoints, what it says may come next, and the name that it may have.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint;
use flatnce::model::{Encoder, HeadKind, Pass};
use program::{flatnce, run_directory, said, save_dir, start, succeeds};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tch::{Device, Kind, Tensor};

const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=8",
    "--batch-size=4",
    "--warmup-epochs=0",
    "--optimizer=sgd",
    "--lr=0.05",
    "--precision=fp32",
    "--device=cpu",
];
const TINY: &[&str] = &["--model=res10", "--image-size=8", "--save-every-n-epochs=1"];

fn trains(place: &Path, more: &[&str]) -> String {
    said(&succeeds(flatnce(&[SMALL, more, &[&save_dir(place)]].concat())))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn described(run: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(run.join("encoder.json")).expect("it is there")).expect("JSON")
}

/// The header of a safetensors file, whose notes have no order of their own, and its numbers.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = std::fs::read(path).expect("it is there");
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
    (serde_json::from_slice(&rest[..length]).expect("JSON"), rest[length..].to_vec())
}

/// The three commands that a run has printed at its end.
fn commands(said: &str) -> Vec<String> {
    let (_, after) = said.split_once("to be pasted: ").expect("what comes next");
    after.lines().skip(1).take(3).map(str::to_owned).collect()
}

/// Runs a printed line as a shell does into which it is pasted, with this program and that Python; `input` goes to what
/// it starts.
fn pasted(line: &str, place: &Path, python: Option<&Path>, input: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_flatnce")).parent().expect("a directory").to_owned();
    let links = place.join("bin");
    std::fs::create_dir_all(&links).expect("a directory");
    if let Some(python) = python {
        // A link would find no packages.
        let script = format!("#!/bin/sh\nexec {python:?} \"$@\"\n");
        std::fs::write(links.join("python3"), script).expect("it is written");
        succeeds({
            let mut command = Command::new("chmod");
            command.args(["+x", text(&links.join("python3"))]);
            command
        });
    }
    let path = format!("{}:{}:{}", text(&links), text(&bin), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("PATH", path).env("OMP_NUM_THREADS", "1").current_dir(place);
    command.env("XDG_CACHE_HOME", place.join("cache"));
    let given = place.join("input");
    std::fs::write(&given, input).expect("it is written");
    command.stdin(Stdio::from(std::fs::File::open(&given).expect("it opens")));
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{line}\n{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Our trunk's features of images that Python makes by the same formula, `[2, 3, 32, 32]`.
fn features(path: &Path) -> Vec<f64> {
    let saved = checkpoint::read(path).expect("our own file");
    let config = saved.config.expect("our own configuration");
    let encoder = Encoder::new(&config.model, HeadKind::Projection, Device::Cpu, 0);
    encoder.load(&saved.model).expect("it fits");
    let values: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| (0.5 + 0.5 * (0.37 * f64::from(i)).sin()) as f32).collect();
    let _guard = tch::no_grad_guard();
    let hidden = encoder.hidden(&Tensor::from_slice(&values).view([2, 3, 32, 32]), Pass::eval(Kind::Float));
    Vec::<f64>::try_from(hidden.to_kind(Kind::Double).contiguous().view(-1)).expect("numbers")
}

#[test]
fn a_finished_run_leaves_its_encoder_and_three_commands_that_work() {
    let Some(python) = support::python("safetensors") else { return };
    for (model, stem, width) in [("res10", "small", 512), ("res18", "imagenet", 512), ("res50", "small", 2048)] {
        let place = tempfile::tempdir().expect("a directory");
        let (depth, stem_flag) = (format!("--model={model}"), format!("--stem={stem}"));
        let results = place.path().join("my results");
        let said = trains(&results, &["--epochs=1", "--image-size=32", &depth, &stem_flag]);
        let run = run_directory(&results);
        let last = run.join("checkpoint_0001.pth.tar");
        // What export writes.
        let exported = place.path().join("exported.safetensors");
        succeeds(flatnce(&["export", "--checkpoint", text(&last), "--out", text(&exported)]));
        let weights = parts(&run.join("encoder.safetensors"));
        assert!(weights == parts(&exported), "{model}: another file than export's");
        let about = described(&run);
        assert_eq!(
            (&about["model"], &about["stem"], &about["feature_width"]),
            (&model.into(), &stem.into(), &width.into())
        );
        assert_eq!(
            (&about["image_size_px"], &about["epochs"], &about["batch_size"]),
            (&32.into(), &1.into(), &4.into())
        );
        assert_eq!((&about["checkpoint"], &about["objective"]), (&"checkpoint_0001.pth.tar".into(), &"flatclr".into()));
        assert_eq!(about["trained_on"]["dataset"], "fashion_mnist_mini");
        assert_eq!(about["trained_on"]["images"], 8);
        assert_eq!(
            about["torchvision"].as_str(),
            (model != "res10").then(|| model.replace("res", "resnet")).as_deref()
        );

        let lines = commands(&said);
        assert!(lines[0].starts_with("flatnce --train-mode eval") && lines[2].starts_with("flatnce report"), "{said}");
        if model == "res10" {
            let evaluated = pasted(&lines[0], place.path(), None, "");
            assert!(evaluated.contains("test top-1"), "{evaluated}");
            let reported = pasted(&lines[2], place.path(), None, "");
            assert!(reported.contains("flatclr") && reported.contains("kNN weighted (%)"), "{reported}");
        }
        // Strictly, into torchvision; then what the description says of normalisation.
        let script = format!(
            "
import json
about = json.load(open({:?}))
i = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
x = (0.5 + 0.5 * torch.sin(0.37 * i)).float().reshape(2, 3, 32, 32)
mean, std = (torch.tensor(about['normalisation'][k]).view(1, 3, 1, 1) for k in ('mean', 'std'))
assert not model.training and normalize == dict(mean=about['normalisation']['mean'], std=about['normalisation']['std'])
found = model((x - mean) / std)
assert found.shape == (2, about['feature_width'])
print(json.dumps(found.flatten().tolist()))
",
            text(&run.join("encoder.json"))
        );
        let answer = pasted(&lines[1], place.path(), Some(&python), &script);
        let theirs: Vec<f64> = serde_json::from_str(answer.trim()).expect(&answer);
        let ours = features(&last);
        let scale = ours.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        let error = ours.iter().zip(&theirs).fold(0f64, |largest, (a, b)| largest.max((a - b).abs()));
        assert!(ours.len() == theirs.len() && scale > 0.1 && error < 1e-5 * scale.max(1.0), "{model}: {error:e}");
    }
}

#[test]
fn the_encoder_in_a_directory_is_that_of_its_end() {
    let place = tempfile::tempdir().expect("a directory");
    trains(place.path(), &[TINY, &["--epochs=2"]].concat());
    let run = run_directory(place.path());
    let weights = |at: &Path| parts(&at.join("encoder.safetensors"));
    let (first, resume) = (weights(&run), format!("--resume={}", text(&run)));
    let changed =
        || std::fs::metadata(run.join("encoder.safetensors")).expect("it is there").modified().expect("a time");

    // Nothing is written again of a complete run; what is missing comes back.
    let before = changed();
    succeeds(flatnce(&[&resume]));
    assert_eq!(changed(), before);
    std::fs::remove_file(run.join("encoder.json")).expect("removes");
    std::fs::write(run.join("encoder.safetensors"), "half").expect("it is written");
    succeeds(flatnce(&[&resume]));
    assert!(weights(&run) == first && described(&run)["epochs"] == 2);

    // Of a longer run it is the later one, and of a run that goes back it is set aside.
    succeeds(flatnce(&[&resume, "--epochs=4", "--keep-last=3"]));
    let later = weights(&run);
    assert!(later != first);
    assert_eq!(
        (&described(&run)["epochs"], &described(&run)["checkpoint"]),
        (&4.into(), &"checkpoint_0004.pth.tar".into())
    );
    let log_dir = format!("--log-dir={}", text(&run));
    succeeds(flatnce(&[&log_dir, "--train-from=checkpoint_0002.pth.tar", "--epochs=5"]));
    let entries = std::fs::read_dir(&run).expect("a directory").map(|entry| entry.expect("readable").path());
    let aside: Vec<PathBuf> = entries.filter(|path| text(path).contains("abandoned-")).collect();
    assert_eq!((aside.len(), described(&aside[0])["epochs"].as_u64()), (1, Some(4)));
    assert!(weights(&aside[0]) == later && described(&run)["epochs"] == 5);

    let report = said(&succeeds(flatnce(&["report", text(place.path()), "--format=json"])));
    assert_eq!(report.matches("\"directory\"").count(), 1, "{report}");
}

#[test]
fn an_encoder_that_cannot_be_written_costs_no_run() {
    let place = tempfile::tempdir().expect("a directory");
    trains(place.path(), &[TINY, &["--epochs=1"]].concat());
    let run = run_directory(place.path());
    std::fs::remove_file(run.join("encoder.safetensors")).expect("removes");
    std::fs::create_dir(run.join("encoder.safetensors")).expect("a directory");
    let said = said(&succeeds(flatnce(&["--resume", text(&run), "--epochs=2"])));
    assert!(said.contains("encoder.safetensors was not written") && said.contains("the run is complete"), "{said}");
    assert!(run.join("checkpoint_0002.pth.tar").is_file() && !run.join("encoder.json").exists());
    // The line that makes up for it, once the place is free.
    std::fs::remove_dir(run.join("encoder.safetensors")).expect("removes");
    let line = said.lines().find_map(|line| line.split_once("writes the encoder: ")).expect("a command").1;
    pasted(line, place.path(), None, "");
    assert!(run.join("encoder.safetensors").is_file());
    assert!(commands(&said)[1].starts_with("flatnce export --force --checkpoint"), "{said}");
}

#[test]
fn of_several_processes_one_writes_the_encoder_and_says_what_comes_next() {
    let place = tempfile::tempdir().expect("a directory");
    let said = trains(place.path(), &[TINY, &["--epochs=1", "--nproc=2", "--sync-bn=true"]].concat());
    assert_eq!(said.matches("to be pasted: ").count(), 1, "{said}");
    let run = run_directory(place.path());
    let exported = place.path().join("exported.safetensors");
    let last = run.join("checkpoint_0001.pth.tar");
    succeeds(flatnce(&["export", "--checkpoint", text(&last), "--out", text(&exported)]));
    assert!(parts(&run.join("encoder.safetensors")) == parts(&exported));
}

/// One's own images without labels are judged by nobody: their features are what comes next.
#[test]
fn images_without_labels_are_embedded() {
    let place = tempfile::tempdir().expect("a directory");
    let photos = place.path().join("my photos");
    std::fs::create_dir(&photos).expect("a directory");
    for number in 0..8u8 {
        let picture =
            image::RgbImage::from_fn(12, 12, |x, y| image::Rgb([20 * number, (x * 20) as u8, (y * 20) as u8]));
        picture.save(photos.join(format!("{number}.png"))).expect("it is written");
    }
    let mut command = flatnce(&[
        "--dataset-name=folder",
        "--data=my photos",
        "--batch-size=4",
        "--epochs=1",
        "--warmup-epochs=0",
        "--device=cpu",
        "--model=res10",
        "--image-size=16",
    ]);
    command.current_dir(place.path());
    let said = said(&succeeds(command));
    let lines = commands(&said);
    assert!(lines[0].starts_with("flatnce embed --checkpoint-dir"), "{said}");
    pasted(&lines[0], place.path(), None, "");
    let features = run_directory(&place.path().join("results")).join("features");
    assert_eq!(std::fs::read_to_string(features.join("names.txt")).expect("names").lines().count(), 8);
}

#[test]
fn a_named_run_has_its_name_and_goes_on() {
    let place = tempfile::tempdir().expect("a directory");
    let words = [TINY, &["--epochs=1", "--name=first try"]].concat();
    let said_first = trains(place.path(), &words);
    let run = place.path().join("fashion_mnist_mini/4_FlatCLR/first try");
    assert_eq!(run_directory(place.path()), run);
    assert!(said_first.contains("first try/checkpoint_0001.pth.tar"), "{said_first}");
    // The name is taken, which a dry run knows too, and nothing of the run is touched.
    let before = std::fs::read(run.join("config.yml")).expect("settings");
    let results = save_dir(place.path());
    for more in [&[][..], &["--dry-run"]] {
        let output = start(&[SMALL, &words, &[&results], more].concat());
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("is there already") && said.contains("--resume") && said.contains("--name"), "{said}");
    }
    assert_eq!(std::fs::read(run.join("config.yml")).expect("settings"), before);
    succeeds(flatnce(&["--resume", text(&run), "--epochs=2"]));
    assert!(run.join("checkpoint_0002.pth.tar").is_file() && run_directory(place.path()) == run);
    let told = said(&succeeds(flatnce(&[SMALL, TINY, &["--dry-run", "--name=second", &results]].concat())));
    assert!(told.contains("4_FlatCLR/second"), "{told}");
    for (name, why) in [("a/b", "slash"), ("", "empty"), ("..", "dot")] {
        let output = start(&[&format!("--name={name}")]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(said(&output).contains("--name") && said(&output).contains(why), "{}", said(&output));
    }
    assert_eq!(start(&["--name=other", "--resume", text(&run)]).status.code(), Some(2));
}
