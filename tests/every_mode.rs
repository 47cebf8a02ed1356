//! Every mode of `--train-mode` and `--transfer-mode`, on a tree of every data set, from checkpoints of ours and of
//! PyTorch's. The networks learn nothing here: what counts is that each run ends well and says truly what it did.

#[path = "support/formats.rs"]
mod formats;
#[path = "support/program.rs"]
mod program;
mod support;
#[path = "support/trees.rs"]
mod trees;

use flatnce::torch_file::{self, Dict, Value};
use program::{said, start, succeeds};
use serde_json::Value as Json;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use trees::{TREES, Tree, named};

/// What the network, the machine and the length of the runs have in common.
const SMALL: [&str; 6] =
    ["--image-size=16", "--device=cpu", "--precision=fp32", "--workers=1", "--fc-epochs=1", "--fc-lr=0.01"];

/// Runs the program, which must succeed, and answers with what it said.
fn flatnce(words: &[&str]) -> String {
    said(&succeeds(program::flatnce(words)))
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    found.map(|entry| entry.unwrap().path()).collect()
}

/// The one entry of a directory.
fn only(directory: &Path) -> PathBuf {
    let mut found = entries(directory);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Whether a run's directory is named by the date, `dd-mm-YYYY-HH-MM-SS`.
fn is_date(directory: &Path) -> bool {
    let name = directory.file_name().unwrap().to_str().unwrap();
    chrono::NaiveDateTime::parse_from_str(name, "%d-%m-%Y-%H-%M-%S").is_ok()
}

/// One epoch of pre-training on the tree's images; answers with the last checkpoint.
fn pretrain(tree: Tree, data: &Path, results: &Path, more: &[&str]) -> PathBuf {
    let (data, save_dir) = (format!("--data={}", data.display()), format!("--save-dir={}", results.display()));
    let dataset = format!("--dataset-name={}", tree.dataset);
    let words = ["--model=res10", "--batch-size=8", "--train-images=16", "--epochs=1", "--warmup-epochs=0", &data];
    flatnce(&[&SMALL[..4], &words, &[&dataset, &save_dir], more].concat());
    let run = only(&results.join(tree.dataset).join("8_FlatCLR"));
    assert!(is_date(&run), "{}", run.display());
    run.join("checkpoint_0001.pth.tar")
}

/// A network of another program in upstream's layout, with the names of several GPUs and nothing of ours: a file named
/// as upstream names it. PyTorch writes it where there is one.
fn theirs(place: &Path) -> PathBuf {
    let run = place.join("fashion_mnist/8_SimCLR/01-02-2023-04-05-06");
    std::fs::create_dir_all(&run).unwrap();
    let path = run.join("checkpoint_0100.pth.tar");
    if let Some(python) = support::python("torchvision") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interchange.py");
        let output = Command::new(python).args([script, "write"]).arg(&path).env("OMP_NUM_THREADS", "1").output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        write_in_upstreams_layout(place, &path);
    }
    path
}

/// The stand-in: a run of ours with DataParallel's names, and without the entry that only we write.
fn write_in_upstreams_layout(place: &Path, path: &Path) {
    let (data, results) = (place.join("data"), place.join("results"));
    let tree = named("fashion_mnist");
    tree.write(&data);
    let ours = torch_file::read(&pretrain(tree, &data, &results, &["--checkpoint-prefix=module."])).unwrap();
    let mut root = Dict::new();
    for (key, value) in ours.as_dict().unwrap().iter().filter(|(key, _)| key.as_str() != Some("flatnce")) {
        root.insert(key.clone(), value.clone());
    }
    let names: Vec<_> = root.iter().filter_map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["batch_size", "epoch", "model", "model_state_dict", "optimizer", "scheduler"]);
    let mut file = std::fs::File::create(path).unwrap();
    torch_file::write(&mut file, "checkpoint", &Value::Dict(root)).unwrap();
}

/// One evaluation, and what must come out of it.
struct Case<'a> {
    tree: Tree,
    /// The flags that choose the mode and the images.
    mode: Vec<&'a str>,
    /// The flags that name the encoder; none: random weights.
    encoder: Vec<String>,
    /// `linear_eval`, `finetune` or `supervised`.
    protocol: &'a str,
    /// Below the data set's directory.
    lies_in: &'a str,
    labelled: usize,
}

impl Case<'_> {
    fn check(&self, data: &Path) {
        let place = tempfile::tempdir().unwrap();
        let (data, save_dir) = (format!("--data={}", data.display()), format!("--save-dir={}", place.path().display()));
        let encoder: Vec<&str> = self.encoder.iter().map(String::as_str).collect();
        let said = flatnce(&[&SMALL[..], &self.mode, &encoder, &[&data, &save_dir]].concat());
        assert!(said.contains("test top-1, last epoch"), "{said}");

        // Upstream's layout, and nothing beside it.
        let run = only(&only(place.path()).join(self.lies_in.split('/').next().unwrap()));
        let run = only(&run);
        let expected = place.path().join(self.tree.dataset).join(self.lies_in);
        assert!(run.parent() == Some(&expected) && is_date(&run), "{} should lie in {}", run.display(), self.lies_in);

        let path = run.join(format!("{}.json", self.protocol));
        let json: Json = serde_json::from_str(&std::fs::read_to_string(&path).expect("the results")).unwrap();
        let context = format!("{:?} {:?}\n{json:#}", self.mode, self.encoder);
        assert_eq!(json["protocol"], self.protocol, "{context}");
        assert_eq!(json["dataset"], self.tree.dataset, "{context}");
        assert_eq!(json["classes"], self.tree.classes, "{context}");
        assert_eq!(json["train_images"], self.labelled, "{context}");
        assert_eq!(json["test_images"], self.tree.test, "{context}");
        assert_eq!(json["epochs_trained"], 1, "{context}");
        assert_eq!(json["checkpoint"].is_null(), self.encoder.is_empty(), "{context}");
        // Fine-tuning holds a tenth of a class out, and one image at least where a class has two.
        let held_out = json["held_out_images"].as_u64().expect("a number") as usize;
        let fine_tuned = self.protocol == "finetune";
        assert!(fine_tuned || held_out == 0, "{context}");
        assert!(!fine_tuned || self.labelled <= self.tree.classes || held_out > 0, "{context}");
        let mut accuracies: Vec<&str> =
            vec!["test_top1_last_epoch", "test_top5_last_epoch", "test_top1_best_epoch", "train_top1"];
        if held_out > 0 {
            accuracies.push("test_top1_chosen_epoch");
        }
        if self.protocol == "linear_eval" {
            accuracies.extend(["knn_weighted_top1", "knn_plain_top1"]);
        }
        for name in accuracies {
            // Whole numbers of images: a count of another set would show.
            let images = if name == "train_top1" { self.labelled - held_out } else { self.tree.test } as f64;
            let percent = json[name].as_f64().unwrap_or_else(|| panic!("{name}: {context}"));
            let correct = percent / 100.0 * images;
            assert!((0.0..=100.0).contains(&percent), "{name}: {context}");
            assert!((correct - correct.round()).abs() < 1e-3, "{name} is {correct} of {images} images: {context}");
        }
        assert!(json["test_top1_last_epoch"].as_f64() <= json["test_top5_last_epoch"].as_f64(), "{context}");
    }
}

/// Pre-training, linear evaluation and fine-tuning on these trees, each from its own checkpoint.
fn trained_and_evaluated(trees: &[Tree]) {
    for &tree in trees {
        let place = tempfile::tempdir().unwrap();
        let (data, results) = (place.path().join("data"), place.path().join("results"));
        tree.write(&data);
        let checkpoint = pretrain(tree, &data, &results, &[]);
        let dataset = format!("--dataset-name={}", tree.dataset);
        for (mode, protocol, lies_in) in [
            ("--transfer-mode=linear_eval", "linear_eval", "flatclr/8_1_fc"),
            ("--transfer-mode=finetune", "finetune", "flatclr/8_1_ft"),
        ] {
            Case {
                tree,
                mode: vec!["--train-mode=eval", mode, &dataset],
                encoder: vec![format!("--checkpoint={}", checkpoint.display())],
                protocol,
                lies_in,
                labelled: tree.train,
            }
            .check(&data);
        }
    }
}

// In two halves, so that they run beside each other.
#[test]
fn every_data_set_is_trained_and_evaluated_on_first_half() {
    trained_and_evaluated(&TREES[..TREES.len() / 2]);
}

#[test]
fn every_data_set_is_trained_and_evaluated_on_second_half() {
    trained_and_evaluated(&TREES[TREES.len() / 2..]);
}

/// Every mode, on images other than the encoder's own: the flags, the tree, the protocol, the labelled images.
const MODES: [(&[&str], &str, &str, usize); 8] = [
    (&["--train-mode=eval", "--dataset-name=tiny_imagenet"], "tiny_imagenet", "linear_eval", 22),
    (&["--train-mode=eval", "--transfer-mode=finetune", "--dataset-name=cifar10"], "cifar10", "finetune", 20),
    (&["--train-mode=transfer", "--transfer-dataset-name=flower"], "flower", "linear_eval", 22),
    (&["--train-mode=transfer", "--transfer-mode=finetune", "--transfer-dataset-name=voc"], "voc", "finetune", 20),
    // By its list, by a seeded choice, and a tenth where there is a list of another share only.
    (&["--train-mode=semi", "--semi-ratio=0.01", "--dataset-name=imagenet"], "imagenet", "finetune", 2),
    (&["--train-mode=semi", "--semi-ratio=0.01", "--dataset-name=fashion_mnist"], "fashion_mnist", "finetune", 10),
    (&["--train-mode=semi", "--semi-ratio=0.1", "--dataset-name=imagenet"], "imagenet", "finetune", 4),
    (&["--train-mode=semi", "--dataset-name=cifar10"], "cifar10", "finetune", 2),
];

fn every_mode(encoder: &[String], epoch_directory: &str) {
    let place = tempfile::tempdir().unwrap();
    for dataset in ["tiny_imagenet", "cifar10", "flower", "voc", "imagenet", "fashion_mnist"] {
        named(dataset).write(place.path());
    }
    for (flags, dataset, protocol, labelled) in MODES {
        let suffix = if protocol == "linear_eval" { "fc" } else { "ft" };
        let lies_in = format!("{epoch_directory}_{suffix}");
        let (mode, encoder) = (flags.to_vec(), encoder.to_vec());
        Case { tree: named(dataset), mode, encoder, protocol, lies_in: &lies_in, labelled }.check(place.path());
    }
}

#[test]
fn every_mode_runs_from_a_checkpoint_of_ours() {
    let place = tempfile::tempdir().unwrap();
    let tree = named("fashion_mnist");
    tree.write(&place.path().join("data"));
    let checkpoint = pretrain(tree, &place.path().join("data"), &place.path().join("results"), &[]);
    let directory = checkpoint.parent().unwrap().display().to_string();
    // As upstream's README asks for it.
    every_mode(&[format!("--checkpoint-dir={directory}"), "--transfer-from-epoch=1".to_owned()], "flatclr/8_1");
}

#[test]
fn every_mode_runs_from_a_checkpoint_of_pytorchs() {
    let place = tempfile::tempdir().unwrap();
    let path = theirs(place.path());
    every_mode(&[format!("--checkpoint={}", path.display())], "simclr/8_100");
}

#[test]
fn supervised_training_takes_no_checkpoint() {
    let words = ["--train-mode=supervised", "--dataset-name=fashion_mnist_mini", "--checkpoint=x.pth.tar"];
    let output = start(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--checkpoint goes with --train-mode eval"), "{said}");

    let place = tempfile::tempdir().unwrap();
    for dataset in ["folder", "SUN"] {
        let tree = named(dataset);
        let data = place.path().join(dataset);
        tree.write(&data);
        let name = format!("--dataset-name={dataset}");
        let mode = vec!["--train-mode=supervised", "--model=res10", "--fc-batch-size=12", &name];
        let labelled = tree.train;
        Case { tree, mode, encoder: vec![], protocol: "supervised", lies_in: "scratch/12_1_ft", labelled }.check(&data);
    }
}

/// An evaluation that a signal stops says how it goes on, and ends as one that nobody stopped.
#[test]
fn an_evaluation_stops_on_a_signal_and_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let images = ["--dataset-name=fashion_mnist_mini", "--train-images=200", "--feature-cache=off"];
    let encoder = ["--train-mode=eval", "--model=res10", "--fc-lr=0.01", "--fc-batch-size=20", "--early-stop-on=test"];
    let source = place.path().join("encoder");
    let saved = format!("--save-dir={}", source.display());
    flatnce(
        &[&SMALL[..4], &images[..2], &["--model=res10", "--epochs=0", "--knn-every=0", "--batch-size=8", &saved]]
            .concat(),
    );
    let run = only(&source.join("fashion_mnist_mini/8_FlatCLR"));
    let from = format!("--checkpoint={}", run.join("checkpoint_0000.pth.tar").display());
    for (mode, protocol, signal, epochs) in [
        ("linear_eval", "linear_eval", libc::SIGTERM, "--fc-epochs=400"),
        ("finetune", "finetune", libc::SIGUSR1, "--fc-epochs=3"),
    ] {
        let results = place.path().join(format!("{mode}{signal}"));
        let (mode, save_dir) = (format!("--transfer-mode={mode}"), format!("--save-dir={}", results.display()));
        let words =
            [&SMALL[..4], &images, &encoder, &[&from, &mode, epochs, "--patience-epochs=0", &save_dir]].concat();
        let mut command = program::flatnce(&words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let below = results.join("fashion_mnist_mini/flatclr");
        // An epoch is done.
        let metrics = || -> Option<PathBuf> {
            let run = below.read_dir().ok()?.next()?.ok()?.path().read_dir().ok()?.next()?.ok()?.path();
            std::fs::read_to_string(run.join("metrics.jsonl")).ok().filter(|text| text.contains('\n')).map(|_| run)
        };
        while metrics().is_none() {
            assert!(child.try_wait().unwrap().is_none(), "it ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(child.id() as i32, signal) };
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{}", said(&output));
        let run = metrics().unwrap();
        let answer = said(&output);
        assert!(answer.contains("stopping after the step under way"), "{answer}");
        let advice = answer.lines().find_map(|line| line.split_once("with the same command and ")).expect("advice").1;
        assert!(!run.join(format!("{protocol}.json")).exists());

        let advice: Vec<&str> = advice.split_whitespace().collect();
        flatnce(&[&words[..], &advice].concat());
        let whole = place.path().join(format!("{protocol}{signal}_whole"));
        flatnce(&[&words[..], &[&format!("--save-dir={}", whole.display())]].concat());
        let whole = only(&only(&whole.join("fashion_mnist_mini/flatclr")));
        let numbers = |run: &Path| -> Json {
            let text = std::fs::read_to_string(run.join(format!("{protocol}.json"))).unwrap();
            let mut json: Json = serde_json::from_str(&text).unwrap();
            (json["seconds_features"], json["seconds_training"]) = (0.into(), 0.into());
            json
        };
        assert_eq!(numbers(&run), numbers(&whole));
    }
}

/// With steps of many seconds: the first SIGTERM is answered, a later one ends the program.
#[test]
fn a_second_sigterm_does_not_wait_for_the_step() {
    let place = tempfile::tempdir().unwrap();
    let save_dir = format!("--save-dir={}", place.path().display());
    let long_steps = ["--image-size=160", "--batch-size=256", "--model=res50", "--knn-every=0", "--device=cpu"];
    let images = ["--dataset-name=fashion_mnist_mini", "--train-images=256", "--memory-check=off", "--grad-cache=64"];
    let mut command = program::flatnce(&[&long_steps[..], &images, &[&save_dir]].concat());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("checkpoints: ")), "it begins");
    let terminate = |child: &Child| {
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    };
    terminate(&child);
    assert!(lines.any(|line| line.contains("SIGTERM: stopping after the step under way")), "it answers");
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => terminate(&child),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
}
