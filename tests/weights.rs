//! Encoders cross to torchvision and timm and back (`flatnce export`, `--from-pretrained`, `--checkpoint`), and
//! `flatnce inspect` says what a file holds.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint::{self, WeightsFile};
use flatnce::model::{Encoder, HeadKind, Pass};
use program::{run_directory, said, save_dir, start, succeeds};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::{Device, Kind, Tensor};

fn flatnce(words: &[&str]) -> String {
    said(&succeeds(program::flatnce(words)))
}

fn refused(words: &[&str]) -> String {
    let output = start(words);
    assert_eq!(output.status.code(), Some(1), "{words:?}\n{}", said(&output));
    said(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// Two steps of training, so that BatchNorm's statistics are no longer those of the beginning.
fn trained(place: &Path, model: &str, stem: &str, more: &[&str]) -> PathBuf {
    let results = place.join(format!("{model}-{stem}"));
    let (model, stem) = (format!("--model={model}"), format!("--stem={stem}"));
    let save_dir = save_dir(&results);
    let words = [
        "--dataset-name=fashion_mnist_mini",
        "--train-images=8",
        "--batch-size=4",
        "--epochs=1",
        "--warmup-epochs=0",
        "--image-size=32",
        "--optimizer=sgd",
        "--lr=0.05",
        "--precision=fp32",
        "--device=cpu",
        &model,
        &stem,
        &save_dir,
    ];
    flatnce(&[&words[..], more].concat());
    run_directory(&results).join("checkpoint_0001.pth.tar")
}

/// Images that Python makes by the same formula.
fn images() -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * 32 * 32).map(|i| (0.5 + 0.5 * (0.37 * f64::from(i)).sin()) as f32).collect();
    Tensor::from_slice(&values).view([2, 3, 32, 32])
}

/// Our trunk's features of [`images`].
fn features(path: &Path) -> Vec<f64> {
    let saved = checkpoint::read(path).expect("our own file");
    let config = saved.config.expect("our own configuration");
    let encoder = Encoder::new(&config.model, HeadKind::Projection, Device::Cpu, 0);
    encoder.load(&saved.model).expect("it fits");
    let _guard = tch::no_grad_guard();
    let hidden = encoder.hidden(&images(), Pass::eval(Kind::Float));
    Vec::<f64>::try_from(hidden.to_kind(Kind::Double).contiguous().view(-1)).expect("numbers")
}

/// Runs Python and reads the JSON of its last line.
fn python(interpreter: &Path, script: &str) -> serde_json::Value {
    let output =
        Command::new(interpreter).args(["-c", script]).env("OMP_NUM_THREADS", "1").output().expect("it starts");
    assert!(output.status.success(), "{script}\n{}", said(&output));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(out.trim().lines().last().expect("a line")).expect("JSON")
}

#[test]
fn exported_encoders_load_strictly_and_give_the_same_features() {
    let Some(interpreter) = support::python("timm") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let mut script = "import json, torch\nfound = []\n".to_owned();
    let mut expected = Vec::new();
    for (model, stem) in [("res10", "small"), ("res18", "small"), ("res18", "imagenet"), ("res50", "imagenet")] {
        let file = trained(place.path(), model, stem, &[]);
        for format in ["safetensors", "torchvision", "timm"] {
            let out = place.path().join(format!("{model}-{stem}.{format}"));
            let said = flatnce(&["export", "--checkpoint", text(&file), "--format", format, "--out", text(&out)]);
            // The printed lines themselves are what is run.
            script.push_str(said.split_once("it loads with\n").expect("a recipe").1);
            script.push_str(
                "
i = torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)
x = (0.5 + 0.5 * torch.sin(0.37 * i)).float().reshape(2, 3, 32, 32)
mean, std = (torch.tensor(normalize[k]).view(1, 3, 1, 1) for k in ('mean', 'std'))
with torch.no_grad():
    found.append(model.eval()((x - mean) / std).flatten().tolist())
",
            );
            expected.push((format!("{model} {stem} {format}"), features(&file)));
        }
    }
    let found = python(&interpreter, &(script + "print(json.dumps(found))"));
    for ((name, ours), theirs) in expected.iter().zip(found.as_array().expect("a list")) {
        let theirs: Vec<f64> =
            theirs.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let scale = theirs.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        let largest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-5 * scale, "{name}: {largest:e} of {scale}");
        assert!(ours.iter().any(|value| value.abs() > 0.1), "{name}: features of nothing");
    }
}

#[test]
fn weights_of_torchvision_and_timm_begin_a_run_and_are_evaluated() {
    let Some(interpreter) = support::python("timm") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let script = format!(
        "
import json, os, timm, torch, torchvision
from safetensors.torch import save_file
os.chdir({:?})
torch.manual_seed(1)
def shaken(model):
    for buffer in model.buffers():
        if buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 1.5)
    return model.state_dict()
vision = shaken(torchvision.models.resnet18())
torch.save(vision, 'plain.pth')
torch.save({{'epoch': 3, 'state_dict': {{'module.' + k: v for k, v in vision.items()}}}}, 'wrapped.pth')
torch.save(vision, 'old.pth', _use_new_zipfile_serialization=False)
save_file(shaken(timm.create_model('resnet18')), 'timm.safetensors')
torch.save({{k: v for k, v in vision.items() if 'layer4' not in k or 'conv' in k}}, 'holes.pth')
print(json.dumps('done'))
",
        text(place.path())
    );
    python(&interpreter, &script);
    let run = |file: &str, model: &str| -> Output {
        let (from, save_dir) = (
            format!("--from-pretrained={}", place.path().join(file).display()),
            format!("--save-dir={}", place.path().join(format!("{file}-results")).display()),
        );
        let words = [
            "--dataset-name=fashion_mnist_mini",
            "--train-images=8",
            "--batch-size=4",
            "--epochs=0",
            "--image-size=32",
            model,
            "--stem=imagenet",
            "--device=cpu",
            &from,
            &save_dir,
        ];
        start(&words)
    };
    for file in ["plain.pth", "wrapped.pth", "old.pth", "timm.safetensors"] {
        let output = run(file, "--model=res18");
        let said = said(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("the trunk of a res18") && said.contains("its head (2 tensors under fc.) is left out"),
            "{said}"
        );
        assert!(said.contains("it names no normalisation, so the run's is kept"), "{said}");
        let mut at = place.path().join(format!("{file}-results"));
        for _ in 0..3 {
            at = std::fs::read_dir(&at).expect("a directory").next().expect("an entry").expect("readable").path();
        }
        let began = checkpoint::read(&at.join("checkpoint_0000.pth.tar")).expect("reads").model;
        let given = checkpoint::read_weights(&place.path().join(file)).expect("reads").state;
        let mut compared = 0;
        for (name, tensor) in given.iter().filter(|(name, _)| !name.starts_with("fc.")) {
            assert!(began.get(name).is_some_and(|ours| ours.equal(tensor)), "{file}: {name}");
            compared += 1;
        }
        assert_eq!(compared, 120, "{file}");
    }
    let output = run("plain.pth", "--model=res50");
    assert!(!output.status.success());
    assert!(said(&output).contains("give --model res18 --stem imagenet"), "{}", said(&output));
    // Everything that is missing is named at once, with shapes.
    let output = run("holes.pth", "--model=res18");
    let errors = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors.contains("missing: layer4.0.bn1.weight [512]") && errors.contains("missing: layer4.1.bn2.bias [512]"),
        "{errors}"
    );

    let file = format!("--checkpoint={}", place.path().join("timm.safetensors").display());
    let save_dir = format!("--save-dir={}", place.path().join("evaluation").display());
    let said = flatnce(&[
        "--dataset-name=fashion_mnist_mini",
        "--train-mode=eval",
        "--train-images=100",
        "--image-size=32",
        "--fc-epochs=2",
        "--precision=fp32",
        "--device=cpu",
        &file,
        &save_dir,
    ]);
    assert!(said.contains("names no normalisation: that of torchvision's and timm's own weights is taken"), "{said}");
    assert!(said.contains("test top-1, last epoch"), "{said}");
}

#[test]
fn an_export_is_evaluated_as_its_checkpoint_is() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &[]);
    let out = place.path().join("encoder.safetensors");
    flatnce(&["export", "--checkpoint", text(&file), "--out", text(&out)]);
    let taken = refused(&["export", "--checkpoint", text(&file), "--out", text(&out)]);
    assert!(taken.contains("encoder.safetensors is there already") && taken.contains("--force"), "{taken}");
    flatnce(&["export", "--checkpoint", text(&file), "--out", text(&out), "--force"]);

    let weights = checkpoint::read_weights(&out).expect("reads");
    let WeightsFile::Safetensors(notes) = &weights.file else { panic!("{:?}", weights.file) };
    assert_eq!((notes["model"].as_str(), notes["normalize_mean"].as_str()), ("res10", "[0.5, 0.5, 0.5]"));
    assert!(weights.state.iter().all(|(name, _)| !name.starts_with("fc.") && !name.starts_with("normalize.")));

    let results = |name: &str, of: &Path| {
        let save_dir = place.path().join(name);
        let words = [
            "--dataset-name=fashion_mnist_mini".to_owned(),
            "--train-mode=eval".to_owned(),
            "--train-images=200".to_owned(),
            "--fc-epochs=3".to_owned(),
            "--precision=fp32".to_owned(),
            "--device=cpu".to_owned(),
            format!("--checkpoint={}", of.display()),
            format!("--save-dir={}", save_dir.display()),
        ];
        let said = flatnce(&words.iter().map(String::as_str).collect::<Vec<_>>());
        said.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(results("of-checkpoint", &file), results("of-export", &out));
}

#[test]
fn inspect_tells_what_a_file_holds_and_what_is_wrong_with_it() {
    let place = tempfile::tempdir().expect("a directory");
    let file = trained(place.path(), "res10", "small", &["--clr=simclr"]);
    let table = flatnce(&["inspect", text(&file)]);
    for expected in ["pre-training checkpoint of flatnce", "simclr", "fashion_mnist_mini", "whole (every record"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    let row = table.lines().find(|line| line.contains("model_state_dict.layer4.0.conv2.weight ")).expect("a row");
    assert!(row.contains("[512, 512, 3, 3]") && row.contains("float32"), "{row}");
    let json: serde_json::Value = serde_json::from_str(&flatnce(&["inspect", text(&file), "--json"])).expect("JSON");
    assert_eq!(json["facts"]["steps_done"], 2);
    assert_eq!(json["facts"]["optimiser"], "sgd");
    let tensors = json["tensors"].as_array().expect("a list");
    let named = |name: &str| tensors.iter().find(|t| t["name"] == name).expect("a tensor");
    assert_eq!(named("model_state_dict.fc.linear_layers.net.2.weight")["shape"], serde_json::json!([128, 512]));
    assert_eq!(named("optimizer.state.0.momentum_buffer")["not_finite"], 0);
    assert_eq!(json["other_entries"]["scheduler.last_epoch"], 2);

    let mut bytes = std::fs::read(&file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = place.path().join("damaged.pth.tar");
    std::fs::write(&damaged, &bytes).expect("writes");
    let errors = refused(&["inspect", text(&damaged)]);
    assert!(errors.contains("damaged.pth.tar, record ") && errors.contains("checksum"), "{errors}");
    assert!(refused(&["inspect", text(&place.path().join("absent"))]).contains("absent"));
    std::fs::write(&damaged, "no checkpoint").expect("writes");
    assert!(refused(&["inspect", text(&damaged)]).contains("unknown kind"));
    assert!(refused(&["export", "--checkpoint", text(&damaged), "--out", "x"]).contains("unknown kind"));
}
