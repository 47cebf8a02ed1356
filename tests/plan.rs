//! What `--dry-run` promises is what the run does: the same plan, the same errors, nothing left behind.

use assert_cmd::cargo::CommandCargoExt;
use flatnce::checkpoint::{Notes, read_evaluation, write_safetensors, write_state_dict};
use flatnce::config::{DatasetName, Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Stem};
use flatnce::model::{Encoder, HeadKind};
use flatnce::run_dir;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A pre-training of seconds: 6 steps an epoch.
const PRETRAIN: &str = "--dataset-name=fashion_mnist_mini --train-images=48 --image-size=8 --model=res10 --batch-size=8 \
                        --epochs=1 --knn-every=0 --device=cpu --precision=fp32 --workers=1";

/// An evaluation of seconds, without its encoder.
const EVALUATE: &str = "--dataset-name=fashion_mnist_mini --train-images=60 --image-size=8 --fc-epochs=1 --fc-batch-size=16 \
                        --fc-lr=0.01 --reg-weight=0 --feature-cache=off --device=cpu --precision=fp32 --workers=1";

/// Exit code, standard output, and what standard error says from `error: ` on.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    error: String,
}

fn run(words: &[String]) -> Ended {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    let output = command.args(words).env("OMP_NUM_THREADS", "1").output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    let error = errors.find("error: ").map_or("", |at| &errors[at..]).to_owned();
    Ended { code: output.status.code().expect("it ends by itself"), out: text(&output.stdout), error }
}

/// Everything below a directory: names and sizes.
fn tree(directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        found.push((entry.path(), entry.metadata().unwrap().len()));
        if entry.path().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found.sort();
    found
}

/// Runs a command line dry, then wet, in `place`: both end the same way with the same words, and the dry run has left
/// nothing. Answers with both.
fn agree(place: &Path, base: &str, more: &[&str]) -> (Ended, Ended) {
    let mut words: Vec<String> = base.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect();
    if !more.iter().any(|word| word.starts_with("--save-dir") || word.starts_with("--resume")) {
        words.push(format!("--save-dir={}", place.join("results").display()));
    }
    let before = tree(place);
    let dry = run(&[&words[..], &["--dry-run".to_owned()]].concat());
    assert_eq!(tree(place), before, "{words:?} left something behind");
    let wet = run(&words);
    assert_eq!((dry.code, &dry.error), (wet.code, &wet.error), "{words:?}\n{}\n{}", dry.out, wet.out);
    (dry, wet)
}

/// As [`agree`], of a command that fails; its error.
fn both_fail(place: &Path, base: &str, more: &[&str]) -> String {
    let (dry, _) = agree(place, base, more);
    assert_ne!(dry.code, 0, "{base} {more:?}\n{}", dry.out);
    assert!(dry.error.starts_with("error: "), "{base} {more:?}");
    dry.error
}

/// As [`agree`], of a command that succeeds; what the dry run printed.
fn both_succeed(place: &Path, base: &str, more: &[&str]) -> String {
    let (dry, wet) = agree(place, base, more);
    assert_eq!(wet.code, 0, "{base} {more:?}\n{}", wet.error);
    dry.out
}

/// The directories that hold a file of this name, in order.
fn holders(directory: &Path, file: &str) -> Vec<PathBuf> {
    let found = tree(directory).into_iter().filter(|(path, _)| path.file_name().and_then(|n| n.to_str()) == Some(file));
    found.map(|(path, _)| path.parent().unwrap().to_owned()).collect()
}

fn encoder(depth: Depth) -> Encoder {
    let model = ModelConfig {
        depth,
        stem: Stem::Small,
        normalisation: Normalisation::of(DatasetName::FashionMnistMini),
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 },
    };
    Encoder::new(&model, HeadKind::Projection, tch::Device::Cpu, 1)
}

/// One small image file after the other, all different.
fn pictures(directory: &Path, numbers: std::ops::Range<u32>) {
    std::fs::create_dir_all(directory).unwrap();
    for number in numbers {
        let picture = image::RgbImage::from_fn(10, 10, |x, y| image::Rgb([x as u8, 20 * y as u8, number as u8]));
        picture.save(directory.join(format!("{number:03}.png"))).unwrap();
    }
}

/// The number before a word of a text.
fn number_before(text: &str, word: &str) -> f64 {
    let before =
        text.split(word).next().filter(|before| before.len() < text.len()).unwrap_or_else(|| panic!("{word}: {text}"));
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').next().unwrap();
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("{word}: {text}"))
}

#[test]
fn weights_of_every_kind_can_be_evaluated() {
    let place = tempfile::tempdir().unwrap();
    let state = encoder(Depth::Res10).state_dict();
    let (safetensors, plain) = (place.path().join("weights.safetensors"), place.path().join("weights.pth"));
    write_safetensors(&safetensors, &state, &Notes::new()).unwrap();
    write_state_dict(&plain, &state).unwrap();
    for path in [&safetensors, &plain] {
        let facts =
            both_succeed(place.path(), EVALUATE, &["--train-mode=eval", &format!("--checkpoint={}", path.display())]);
        assert!(facts.contains(&path.display().to_string()) && facts.contains("res10, small stem"), "{facts}");
    }
}

#[test]
fn weights_to_begin_with_are_read_before_anything_is_promised() {
    let place = tempfile::tempdir().unwrap();
    let start_from = |path: &Path| format!("--from-pretrained={}", path.display());
    let missing = place.path().join("missing.pth");
    let error = both_fail(place.path(), PRETRAIN, &[&start_from(&missing)]);
    assert!(error.contains("missing.pth"), "{error}");
    let text = place.path().join("notes.txt");
    std::fs::write(&text, "no weights").unwrap();
    let error = both_fail(place.path(), PRETRAIN, &[&start_from(&text)]);
    assert!(error.contains("notes.txt"), "{error}");
    let foreign = place.path().join("res18.pth");
    write_state_dict(&foreign, &encoder(Depth::Res18).state_dict()).unwrap();
    let error = both_fail(place.path(), PRETRAIN, &[&start_from(&foreign)]);
    assert!(error.contains("give --model res18 --stem small"), "{error}");
    let own = place.path().join("res10.pth");
    write_state_dict(&own, &encoder(Depth::Res10).state_dict()).unwrap();
    let facts = both_succeed(place.path(), PRETRAIN, &[&start_from(&own)]);
    assert!(facts.contains("res10 with its projection head"), "{facts}");
}

#[test]
fn an_evaluation_needs_labels_and_images() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    pictures(&data.join("train"), 0..12);
    pictures(&data.join("test"), 0..4);
    let folder = format!("--data={}", data.display());
    let supervised = EVALUATE.replace("--dataset-name=fashion_mnist_mini --train-images=60", "--dataset-name=folder");
    let error = both_fail(place.path(), &supervised, &["--train-mode=supervised", &folder]);
    assert!(error.contains("has no labels"), "{error}");

    let weights = place.path().join("weights.pth");
    write_state_dict(&weights, &encoder(Depth::Res10).state_dict()).unwrap();
    let from = format!("--checkpoint={}", weights.display());
    let error = both_fail(place.path(), EVALUATE, &["--train-mode=semi", "--semi-ratio=0.001", &from]);
    assert!(error.contains("a share of 0.001 of 60 images is none"), "{error}");
}

/// Whoever runs this, root too, makes no directory below a file, nor in /proc.
#[test]
fn results_must_have_a_place() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for nowhere in [file.join("results"), "/proc/flatnce/results".into()] {
        let save_dir = format!("--save-dir={}", nowhere.display());
        let supervised = ["--train-mode=supervised", "--model=res10", &save_dir];
        for (base, more) in [(PRETRAIN, &[save_dir.as_str()][..]), (EVALUATE, &supervised[..])] {
            let error = both_fail(place.path(), base, more);
            assert!(error.contains("cannot create") && error.contains("--save-dir"), "{error}");
        }
    }
}

/// The one run directory below `place`, after one epoch of 4 steps on 16 pictures.
fn trained_on_pictures(place: &Path) -> (String, PathBuf) {
    pictures(&place.join("data"), 0..16);
    let base = PRETRAIN
        .replace("--dataset-name=fashion_mnist_mini --train-images=48", "--dataset-name=folder")
        .replace("--batch-size=8", "--batch-size=4");
    let data = format!("--data={}", place.join("data").display());
    both_succeed(place, &base, &[&data, "--save-every-n-epochs=1"]);
    (data, holders(place, "metrics.jsonl").remove(0))
}

#[test]
fn without_labels_nothing_is_judged_while_training_goes_on_and_one_warning_says_so() {
    let place = tempfile::tempdir().unwrap();
    pictures(&place.path().join("data"), 0..8);
    let base = PRETRAIN
        .replace("--dataset-name=fashion_mnist_mini --train-images=48", "--dataset-name=folder")
        .replace("--batch-size=8", "--batch-size=4")
        .replace("--knn-every=0", "--knn-every=1 --probe-every=1");
    let facts = both_succeed(place.path(), &base, &[&format!("--data={}", place.path().join("data").display())]);
    assert!(!facts.contains("probe"), "{facts}");
    let run = holders(place.path(), "metrics.jsonl").remove(0);
    let text = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
    let log = text("training.log");
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("has no labels")).collect();
    let [warning] = warnings[..] else { panic!("{log}") };
    assert!(warning.contains("no kNN evaluation and no probe during training: "), "{warning}");
    assert!(warning.ends_with("(--knn-every 0 and --probe-every 0 ask for none)"), "{warning}");
    let metrics = text("metrics.jsonl");
    assert!(!metrics.contains("knn_top1") && !metrics.contains("probe_top1"), "{metrics}");
}

#[test]
fn data_that_changed_stop_a_run_that_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let (_, run) = trained_on_pictures(place.path());
    pictures(&place.path().join("data"), 16..24);
    let resume = format!("--resume={}", run.display());
    let error = both_fail(place.path(), "--epochs=2 --device=cpu", &[&resume]);
    assert!(error.contains("there were 16 images and are 24 now"), "{error}");
}

#[test]
fn a_run_that_goes_on_says_what_is_left() {
    let place = tempfile::tempdir().unwrap();
    let (_, run) = trained_on_pictures(place.path());
    let resume = format!("--resume={}", run.display());
    let steps = || std::fs::read_to_string(run.join("steps.jsonl")).unwrap().lines().count();
    assert_eq!(steps(), 4);
    {
        let _claim = run_dir::claim(&run).unwrap();
        let error = both_fail(place.path(), "--epochs=3 --device=cpu", &[&resume]);
        assert!(error.contains("another process is training in"), "{error}");
    }
    let facts = both_succeed(place.path(), "--epochs=3 --device=cpu", &[&resume]);
    assert_eq!(number_before(&facts, " of them are left"), (steps() - 4) as f64, "{facts}");
    assert!(facts.contains(&run.display().to_string()), "{facts}");
    let facts = both_succeed(place.path(), "--device=cpu", &[&resume]);
    assert!(facts.contains("nothing is left to train"), "{facts}");
}

/// 60 images in batches of 10 would be 6 steps; a tenth of every class is held out. A last batch of one is no step.
#[test]
fn held_out_images_are_no_part_of_the_steps() {
    for (batch, steps) in [("10", 5), ("7", 7)] {
        let place = tempfile::tempdir().unwrap();
        let base = EVALUATE.replace("--fc-batch-size=16", &format!("--fc-batch-size={batch}"));
        let more = ["--train-mode=supervised", "--model=res10", "--patience-epochs=3"];
        let facts = both_succeed(place.path(), &base, &more);
        let run = holders(place.path(), "metrics.jsonl").remove(0);
        let saved = read_evaluation(&run.join("checkpoint_0001.pth.tar")).unwrap();
        assert_eq!((saved.step, number_before(&facts, " per epoch")), (steps, steps as f64), "{facts}");
        let outcome = std::fs::read_to_string(run.join("supervised.json")).unwrap();
        let outcome: serde_json::Value = serde_json::from_str(&outcome).unwrap();
        let held_out = number_before(&facts, " of the 60 training images are held out");
        assert_eq!(outcome["held_out_images"].as_f64(), Some(held_out), "{facts}");
        assert!(held_out > 0.0);
    }
}

#[test]
fn processes_must_divide_the_batch() {
    let place = tempfile::tempdir().unwrap();
    let words = |more: &[&str]| -> Vec<String> {
        PRETRAIN.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let save_dir = format!("--save-dir={}", place.path().display());
    for more in [&["--nproc=3"][..], &["--nproc=2", "--grad-cache=2"]] {
        let (dry, wet) =
            (run(&words(&[more, &["--dry-run", &save_dir]].concat())), run(&words(&[more, &[&save_dir]].concat())));
        assert_eq!((dry.code, wet.code), (1, 1), "{}\n{}", dry.error, wet.error);
        let why = dry.error.strip_prefix("error: ").unwrap().lines().next().unwrap();
        assert!(wet.error.contains(why), "{why}\n{}", wet.error);
    }
}

/// Measured, not guessed: a third to three times what the run itself then reports, on a machine with other work to do.
#[test]
fn the_speed_is_that_of_the_run() {
    let place = tempfile::tempdir().unwrap();
    let base = PRETRAIN.replace("--train-images=48", "--train-images=800").replace("--image-size=8", "--image-size=16");
    let facts = both_succeed(place.path(), &base, &[]);
    let promised = number_before(&facts, " images a second");
    let run = holders(place.path(), "metrics.jsonl").remove(0);
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let measured = metrics["images_per_second"].as_f64().unwrap();
    println!("promised {promised} images a second, measured {measured}");
    assert!(promised > measured / 3.0 && promised < 3.0 * measured, "promised {promised}, measured {measured}");
}

/// What cannot end well: said before anything is written, by the dry run in the same words. How much is free may differ.
#[test]
fn what_cannot_fit_does_not_begin() {
    let place = tempfile::tempdir().unwrap();
    let large = PRETRAIN
        .replace("--train-images=48", "--train-images=2000")
        .replace("--image-size=8", "--image-size=1024")
        .replace("--batch-size=8", "--batch-size=2000");
    let long = PRETRAIN.replace("--model=res10", "--model=res18").replace("--epochs=1", "--epochs=1000000");
    let supervised = EVALUATE
        .replace("--train-images=60", "--train-images=2000")
        .replace("--image-size=8", "--image-size=1024")
        .replace("--fc-batch-size=16", "--fc-batch-size=2000");
    for (base, more, parts) in [
        (&large, &["--batch-size=2000"][..], ["in main memory", "--grad-cache ", "--memory-check off"]),
        (&supervised, &["--train-mode=supervised"], ["in main memory", "--fc-batch-size ", "--memory-check off"]),
        (&long, &["--save-every-n-epochs=1"], ["room for 1,000,000 of ", "--keep-last 3", "--save-dir"]),
    ] {
        let save_dir = format!("--save-dir={}", place.path().join("results").display());
        let words: Vec<String> = base.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect();
        let words = [words, vec![save_dir]].concat();
        let (dry, wet) = (run(&[&words[..], &["--dry-run".to_owned()]].concat()), run(&words));
        assert_eq!((dry.code, wet.code), (1, 1), "{}\n{}", dry.error, wet.error);
        let wordless = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == '.' || c == ',', "");
        assert_eq!(wordless(&dry.error), wordless(&wet.error));
        for part in parts {
            assert!(wet.error.contains(part), "{part}: {}", wet.error);
        }
        assert_eq!(tree(place.path()), [], "{words:?}");
    }
}

#[test]
fn the_room_for_checkpoints_is_told_and_is_what_they_take() {
    for (more, kept) in [
        (&["--epochs=4", "--save-every-n-epochs=1"][..], 4.0),
        (&["--epochs=4", "--save-every-n-epochs=1", "--keep-last=2", "--optimizer=adam"], 2.0),
        (&["--epochs=3", "--optimizer=sgd", "--momentum=0"], 2.0),
    ] {
        let place = tempfile::tempdir().unwrap();
        let (dry, wet) = agree(place.path(), PRETRAIN, &[more, &["--lr=0.001", "--warmup-epochs=0"]].concat());
        assert_eq!(wet.code, 0, "{}", wet.error);
        let sizes: Vec<u64> = tree(place.path())
            .into_iter()
            .filter(|(path, _)| path.to_string_lossy().ends_with(".pth.tar"))
            .map(|(_, bytes)| bytes)
            .collect();
        for out in [&dry.out, &wet.out] {
            assert_eq!((number_before(out, " will be kept"), sizes.len() as f64), (kept, kept), "{out}");
            let (told, took) = (number_before(out, " MiB each"), sizes[0] as f64 / 1_048_576.0);
            assert!((told / took - 1.0).abs() < 0.03, "{told} MiB were told, {took:.1} taken");
            assert!(out.contains(" are free there"), "{out}");
        }
    }
}
