//! Evaluation of encoders: features, linear classifiers, fine-tuning, and where their results lie.

mod support;

use flatnce::augment::EvalTransform;
use flatnce::checkpoint::{from_tensor, read_evaluation};
use flatnce::config::*;
use flatnce::data::{self, Part};
use flatnce::model::{Encoder, HeadKind};
use flatnce::monitor::knn::{Bank, Vote};
use flatnce::report::{Console, Verbosity};
use flatnce::rng::{Purpose, Stream};
use flatnce::torch_file::{self, Dict, Value};
use flatnce::train::encoder_source::{Origin, Reading, origins};
use flatnce::train::evaluate::accuracy::accuracy_of;
use flatnce::train::evaluate::fit::Fit;
use flatnce::train::evaluate::outcome::{Outcome, Protocol};
use flatnce::train::evaluate::{self, penalty};
use flatnce::train::evaluate::{Images, Plan};
use flatnce::train::features::{Extractor, Features, trunk_hash};
use flatnce::train::ranks::Ranks;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tch::{Device, Kind, Tensor};

fn quiet() -> Console {
    Console::to_writers(Verbosity::Quiet, std::io::sink(), std::io::sink())
}

fn model() -> ModelConfig {
    ModelConfig {
        depth: Depth::Res10,
        stem: Stem::Small,
        normalisation: Normalisation::of(DatasetName::FashionMnistMini),
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 },
    }
}

/// A linear evaluation of random weights on small images, in a few epochs.
fn settings() -> Evaluate {
    Evaluate {
        source: EncoderSource::Scratch(model()),
        stated: StatedEncoder::default(),
        mode: TransferMode::LinearEval,
        data: DataConfig::new(DatasetName::FashionMnistMini, "datasets", 16),
        label_ratio: 1.0,
        optimizer: OptimizerConfig {
            name: OptimizerName::Sgd,
            lr: 0.3,
            weight_decay: 0.0,
            momentum: 0.9,
            lars_exclude_bn: true,
            lars_exclude_bias: true,
        },
        schedule: ScheduleConfig { name: ScheduleName::Cosine, warmup_epochs: 0 },
        batch_size: 64,
        epochs: 4,
        patience_epochs: 0,
        early_stop_on: EarlyStopOn::Test,
        augment: None,
        standardize: false,
        rate_follows_batch: false,
        reg_weights: vec![0.0],
        knn: KnnConfig { neighbours: 50, temperature: 0.1 },
        save_every_n_epochs: 1000,
        resume: None,
        seed: 42,
        precision: Precision::Fp32,
        numerics: flatnce::config::Numerics::default(),
    }
}

fn config(run: &Evaluate, save_dir: &Path) -> Config {
    Config {
        job: Job::Evaluate(Box::new(run.clone())),
        start: Start::Fresh,
        device: DeviceChoice::Cpu,
        workers: 2,
        data_on_device: DataOnDevice::Auto,
        cuda: CudaSettings::default(),
        name: None,
        save_dir_is_default: false,
        save_dir: save_dir.to_owned(),
        nproc: None,
        distributed_timeout_seconds: 600,
        memory_check: true,
        checkpoint_key: None,
        feature_cache: None,
        talk: Verbosity::Quiet,
        log_format: LogFormat::Text,
        dry_run: false,
        command: vec!["flatnce".into(), "--train-mode".into(), "eval".into()],
        adopted: Vec::new(),
    }
}

/// The first images of the embedded data set, which come class by class in turn.
fn images(train: usize, test: usize) -> Images {
    let data = settings().data;
    let first = |part, count: usize| {
        let split = data::load(&data, part).unwrap();
        let step = split.len() / count;
        Arc::new(split.subset(&(0..count).map(|i| i * step).collect::<Vec<_>>()))
    };
    Images {
        train: first(Part::Train, train),
        test: first(Part::Test, test),
        left_out: Arc::default(),
        held_out: false,
    }
}

fn plan_on(config: &Config, run: &Evaluate, images: &Images) -> anyhow::Result<Plan> {
    Plan::on(images.clone(), config, run, Device::Cpu, &quiet(), &Ranks::alone())
}

fn run_in(directory: &Path, run: &Evaluate, images: &Images) -> anyhow::Result<Vec<Outcome>> {
    let config = config(run, directory);
    let evaluated = evaluate::run(&plan_on(&config, run, images)?, &quiet(), &AtomicBool::new(false))?;
    assert!(!evaluated.stopped);
    Ok(evaluated.outcomes)
}

/// The one directory, of those below `directory`, that holds a file of this name.
fn holder_of(directory: &Path, file: &str) -> PathBuf {
    fn search(directory: &Path, file: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                search(&entry.path(), file, found);
            } else if entry.file_name().to_str() == Some(file) {
                found.push(directory.to_owned());
            }
        }
    }
    let mut found = Vec::new();
    search(directory, file, &mut found);
    assert_eq!(found.len(), 1, "{file} below {}: {found:?}", directory.display());
    found.remove(0)
}

fn json_in(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn extractor<'a>(encoder: &'a Encoder, console: &'a Console) -> Extractor<'a> {
    let alone = Box::leak(Box::new(Ranks::alone()));
    Extractor { encoder, compute: Kind::Float, seed: 1, workers: 2, console, ranks: alone }
}

/// Points around one corner of a cube per class.
fn clouds(images: usize, classes: i64, salt: u64) -> Features {
    let mut stream = Stream::new(salt, Purpose::Evaluation, 0, 0, 0);
    let labels: Vec<i64> = (0..images as i64).map(|i| i % classes).collect();
    let mut values = Vec::new();
    for &label in &labels {
        values.extend(
            (0..classes).map(|axis| if axis == label { 3.0 } else { 0.0 } + stream.normal_pair().0 as f32 * 0.3),
        );
    }
    Features { values: Tensor::from_slice(&values).view([images as i64, classes]), labels: Tensor::from_slice(&labels) }
}

fn accuracy(fit: &Fit, data: &Features) -> f64 {
    accuracy_of(|x| fit.classifier.logits(x), &data.values, &data.labels).top1
}

#[test]
fn features_repeat_and_making_them_changes_nothing() {
    let images = images(120, 60);
    let encoder = Encoder::new(&model(), HeadKind::Classifier(10), Device::Cpu, 1);
    let before = trunk_hash(&encoder).unwrap();
    let console = quiet();
    let extract = |workers| {
        let extractor = Extractor { workers, ..extractor(&encoder, &console) };
        extractor.extract(&images.train, EvalTransform::Plain { size_px: 16 }, 0).unwrap()
    };
    let (first, again) = (extract(1), extract(3));
    assert_eq!(first.values.size(), [120, 512]);
    assert_eq!(first.values, again.values);
    assert_eq!(Vec::<i64>::try_from(&first.labels).unwrap(), *images.train.labels.as_ref().unwrap());
    assert_eq!(trunk_hash(&encoder).unwrap(), before);
    // The hash sees one bit of one statistic, and does not see the head.
    let state = encoder.state_dict();
    let _guard = tch::no_grad_guard();
    let _ = state.get("fc.linear_layer.net.0.weight").unwrap().shallow_clone().fill_(1.0);
    assert_eq!(trunk_hash(&encoder).unwrap(), before);
    let _ = state.get("layer3.0.bn1.running_mean").unwrap().get(7).fill_(1e-30);
    assert_ne!(trunk_hash(&encoder).unwrap(), before);
}

#[test]
fn every_method_separates_what_can_be_separated_and_nothing_else() {
    let (train, test) = (clouds(400, 4, 1), clouds(200, 4, 2));
    let mut names = Vec::<i64>::try_from(&train.labels).unwrap();
    Stream::new(5, Purpose::Shuffle, 0, 0, 0).shuffle(&mut names);
    let shuffled = Features { values: train.values.shallow_clone(), labels: Tensor::from_slice(&names) };
    for (name, lr) in [
        (OptimizerName::Sgd, 0.3),
        (OptimizerName::Adam, 0.05),
        (OptimizerName::Lars, 30.0),
        (OptimizerName::Lbfgs, 1.0),
    ] {
        let mut run = Evaluate { epochs: 30, ..settings() };
        (run.optimizer.name, run.optimizer.lr) = (name, lr);
        let fitted = |data: &Features| {
            let mut fit = Fit::new(&run, 1e-4, 400, 4, 4, Device::Cpu).unwrap();
            for epoch in 0..30 {
                if fit.epoch(data, epoch).unwrap().converged {
                    break;
                }
            }
            accuracy(&fit, &test)
        };
        assert_eq!(fitted(&train), 100.0, "{name}");
        let chance = fitted(&shuffled);
        assert!((5.0..50.0).contains(&chance), "{name} finds {chance}% in shuffled labels");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_with_step_and_learning_rate() {
    let mut run = settings();
    run.optimizer.lr = 1e38;
    let mut fit = Fit::new(&run, 0.0, 400, 4, 4, Device::Cpu).unwrap();
    let error = fit.epoch(&clouds(400, 4, 1), 0).unwrap_err().to_string();
    assert!(error.contains("in step ") && error.contains("e37)") && error.contains("--fc-lr"), "{error}");
}

#[test]
fn a_linear_evaluation_writes_every_number_with_its_meaning() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = run_in(directory.path(), &settings(), &images(200, 100)).unwrap().remove(0);
    assert_eq!((outcome.protocol, outcome.epochs_trained, outcome.batch_size), (Protocol::LinearEval, 4, 64));
    let results = holder_of(directory.path(), "linear_eval.json");
    assert!(results.starts_with(directory.path().join("fashion_mnist_mini/scratch/64_4_fc")));
    let json = json_in(&results.join("linear_eval.json"));
    // Times are read back to their last bit but one.
    let timeless = |outcome: Outcome| Outcome { seconds_features: 0.0, seconds_training: 0.0, ..outcome };
    assert_eq!(timeless(serde_json::from_value(json.clone()).unwrap()), timeless(outcome.clone()));
    for name in [
        "test_top1_last_epoch",
        "test_top1_best_epoch",
        "test_top5_last_epoch",
        "best_epoch",
        "train_top1",
        "knn_weighted_top1",
        "knn_plain_top1",
        "trunk_hash",
        "train_images",
        "seconds_features",
        "seconds_training",
    ] {
        assert!(!json[name].is_null() && json["meaning"][name].is_string(), "{name} in {json}");
    }
    let lines = std::fs::read_to_string(results.join("metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["test_top1"], json["test_top1_last_epoch"]);
    let best = lines.iter().map(|line| line["test_top1"].as_f64().unwrap()).fold(0.0, f64::max);
    assert_eq!(json["test_top1_best_epoch"], best);
    assert!(std::fs::read_to_string(results.join("config.yml")).unwrap().contains("linear_eval"));
    let log = std::fs::read_to_string(results.join("training.log")).unwrap();
    assert!(log.contains(&format!("trunk frozen: {}", outcome.trunk_hash)), "{log}");
}

#[test]
fn the_penalty_is_chosen_without_the_test_images() {
    let all = images(300, 100);
    let mut poisoned = (*all.test).clone();
    poisoned.labels = poisoned.labels.map(|labels| labels.iter().map(|label| 9 - label).collect());
    let poisoned =
        Images { train: Arc::clone(&all.train), test: Arc::new(poisoned), left_out: Arc::default(), held_out: false };
    let mut run = Evaluate { reg_weights: vec![1e-4, 1e-1, 1e3], epochs: 20, ..settings() };
    run.optimizer.name = OptimizerName::Lbfgs;
    let (honest, misled) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let with = run_in(honest.path(), &run, &all).unwrap().remove(0);
    let without = run_in(misled.path(), &run, &poisoned).unwrap().remove(0);
    assert!(run.reg_weights[..2].contains(&with.reg_weight), "1e3 leaves nothing of the classifier");
    assert_eq!(with.reg_weight, without.reg_weight);
    assert_ne!(with.test_top1_last_epoch, without.test_top1_last_epoch);
    let weights = |directory: &Path| {
        let path = holder_of(directory, "checkpoint_0020.pth.tar").join("checkpoint_0020.pth.tar");
        let saved = read_evaluation(&path).unwrap();
        from_tensor(saved.state.get("fc.linear_layer.net.0.weight").unwrap()).unwrap().bytes().to_vec()
    };
    assert_eq!(weights(honest.path()), weights(misled.path()));
}

#[test]
fn a_fifth_of_every_class_is_held_out() {
    let labels: Vec<i64> = (0..1000).map(|i| if i < 500 { 0 } else { i % 3 }).collect();
    let (kept, held_out) = penalty::split(&labels, 3);
    let mut all: Vec<i64> = kept.iter().chain(&held_out).copied().collect();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    for class in 0..3 {
        let count = |of: &[i64]| of.iter().filter(|&&i| labels[i as usize] == class).count();
        assert_eq!(count(&held_out), labels.iter().filter(|&&l| l == class).count() / 5);
    }
    assert_ne!(penalty::split(&labels, 4).1, held_out);
}

/// Four epochs at once, and the last two of them, or none, from the checkpoint after two or four, end in the same bytes.
fn resumed_equals_whole(run: &Evaluate, images: &Images, json: &str) {
    let run = Evaluate { save_every_n_epochs: 1, epochs: 4, ..run.clone() };
    let whole = tempfile::tempdir().unwrap();
    let wanted = run_in(whole.path(), &run, images).unwrap().remove(0);
    let from = holder_of(whole.path(), json);
    let numbers = |outcome: &Outcome| Outcome { seconds_features: 0.0, seconds_training: 0.0, ..outcome.clone() };
    let last = |directory: &Path| read_evaluation(&directory.join("checkpoint_0004.pth.tar")).unwrap();
    let epochs = |directory: &Path| std::fs::read_to_string(directory.join("metrics.jsonl")).unwrap().lines().count();
    for begun in ["checkpoint_0001.pth.tar", "checkpoint_0004.pth.tar"] {
        let resumed = tempfile::tempdir().unwrap();
        for file in [begun, "metrics.jsonl"] {
            std::fs::copy(from.join(file), resumed.path().join(file)).unwrap();
        }
        let resume = Some((resumed.path().to_owned(), begun.to_owned()));
        let run = Evaluate { resume, ..run.clone() };
        let got = run_in(&resumed.path().join("unused"), &run, images).unwrap().remove(0);
        assert_eq!(numbers(&got), numbers(&wanted), "{} from {begun}", run.optimizer.name);
        let (got, wanted) = (last(resumed.path()), last(&from));
        for (name, tensor) in wanted.state.iter() {
            let same = from_tensor(got.state.get(name).unwrap()).unwrap() == from_tensor(tensor).unwrap();
            assert!(same, "{name} after {} from {begun}", run.optimizer.name);
        }
        assert_eq!((epochs(resumed.path()), epochs(&from)), (4, 4), "from {begun}");
    }
}

/// Stopped after the first step, after the second, which ends the epoch, and then not: the bits of a run that nobody
/// stopped.
#[test]
fn fine_tuning_that_was_stopped_within_an_epoch_ends_as_if_it_had_not_been() {
    let images = images(100, 50);
    let run = Evaluate { early_stop_on: EarlyStopOn::HeldOut, patience_epochs: 3, epochs: 3, ..finetune() };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = run_in(whole.path(), &run, &images).unwrap().remove(0);
    let mut resume = None;
    for expected in [Some("checkpoint_0000_step_00000001.pth.tar"), Some("checkpoint_0000_step_00000002.pth.tar"), None]
    {
        let run = Evaluate { resume: resume.clone(), ..run.clone() };
        let config = config(&run, parts.path());
        let stop = AtomicBool::new(expected.is_some());
        let ended = evaluate::run(&plan_on(&config, &run, &images).unwrap(), &quiet(), &stop).unwrap();
        assert_eq!((ended.stopped, ended.outcomes.len()), (expected.is_some(), usize::from(expected.is_none())));
        let directory = holder_of(parts.path(), "training.log");
        let Some(file) = expected else {
            let numbers =
                |outcome: &Outcome| Outcome { seconds_features: 0.0, seconds_training: 0.0, ..outcome.clone() };
            assert_eq!(numbers(&ended.outcomes[0]), numbers(&wanted));
            let state = |directory: &Path| read_evaluation(&directory.join("checkpoint_0003.pth.tar")).unwrap().state;
            let (got, wanted) = (state(&directory), state(&holder_of(whole.path(), "supervised.json")));
            for (name, tensor) in wanted.iter() {
                assert_eq!(bytes_of(got.get(name).unwrap()), bytes_of(tensor), "{name}");
            }
            let numbers = |directory: &Path| -> Vec<serde_json::Value> {
                let text = std::fs::read_to_string(directory.join("metrics.jsonl")).unwrap();
                let line = |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap() };
                let timeless = |mut line: serde_json::Value| {
                    line["epoch_seconds"] = 0.into();
                    line
                };
                text.lines().map(line).map(timeless).collect()
            };
            assert_eq!(numbers(&directory), numbers(&holder_of(whole.path(), "supervised.json")));
            return;
        };
        assert!(!directory.join("supervised.json").exists());
        let log = std::fs::read_to_string(directory.join("training.log")).unwrap();
        assert!(log.contains(&format!("--fc-log-dir {} --fc-train-from {file}", directory.display())), "{log}");
        resume = Some((directory, file.to_owned()));
    }
}

/// The rate goes with the batch where neither was asked for, and stays where it was.
#[test]
fn a_batch_of_all_images_shrinks_a_rate_that_nobody_gave() {
    let images = images(64, 50);
    let rates = |run: &Evaluate| {
        let directory = tempfile::tempdir().unwrap();
        let outcome = run_in(directory.path(), run, &images).unwrap().remove(0);
        let place = std::fs::read_dir(directory.path().join("fashion_mnist_mini/scratch")).unwrap().next().unwrap();
        let log = holder_of(&place.unwrap().path(), "metrics.jsonl");
        let line = std::fs::read_to_string(log.join("metrics.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        let log = std::fs::read_to_string(log.join("training.log")).unwrap();
        (outcome.lr, line["lr"].as_f64().unwrap(), log)
    };
    for mode in [TransferMode::LinearEval, TransferMode::Finetune] {
        let mut run = Evaluate { mode, batch_size: 256, rate_follows_batch: true, epochs: 1, ..settings() };
        (run.optimizer.lr, run.schedule.name) = (0.8, ScheduleName::Constant);
        let (told, used, log) = rates(&run);
        assert_eq!((told, used), (0.2, 0.2), "{mode}");
        assert!(log.contains("in proportion, 0.2 instead of 0.8") && !log.contains("stays as it was given"), "{log}");
        let (told, used, log) = rates(&Evaluate { rate_follows_batch: false, ..run.clone() });
        assert_eq!((told, used), (0.8, 0.8), "{mode}");
        assert!(
            log.contains("WARNING") && log.contains("--fc-lr 0.8 stays") && log.contains("--fc-lr 0.2 is"),
            "{log}"
        );
        let (told, used, _) = rates(&Evaluate { batch_size: 32, ..run });
        assert_eq!((told, used), (0.8, 0.8), "{mode} in whole batches");
    }
}

/// What a newer program would choose otherwise stays as the evaluation began, where the command does not say it.
#[test]
fn an_evaluation_of_an_older_version_goes_on_as_it_began() {
    let images = images(60, 30);
    let mut old = Evaluate { epochs: 2, save_every_n_epochs: 1, batch_size: 256, ..settings() };
    old.data.dataset = DatasetName::Folder;
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wanted = run_in(whole.path(), &old, &images).unwrap().remove(0);
    let from = holder_of(whole.path(), "linear_eval.json");
    std::fs::copy(from.join("checkpoint_0000.pth.tar"), parts.path().join("checkpoint_0000.pth.tar")).unwrap();
    let resume = Some((parts.path().to_owned(), "checkpoint_0000.pth.tar".to_owned()));
    let mut now = Evaluate { resume, rate_follows_batch: true, ..old };
    now.optimizer.lr = 1.6;
    let got = run_in(parts.path(), &now, &images).unwrap().remove(0);
    let numbers = |outcome: Outcome| Outcome { seconds_features: 0.0, seconds_training: 0.0, ..outcome };
    assert_eq!(numbers(got), numbers(wanted));
    let log = std::fs::read_to_string(parts.path().join("training.log")).unwrap();
    assert!(!log.contains("differs from the evaluation"), "{log}");
}

#[test]
fn numbers_that_say_nothing_are_told() {
    let all = images(100, 50);
    let of_classes = |count: i64| -> Images {
        let few = |split: &data::Split| {
            let labels = split.labels.as_ref().unwrap();
            let own: Vec<usize> = (0..labels.len()).filter(|&image| labels[image] < count).collect();
            let names = split.classes[..count as usize].to_vec();
            Arc::new(data::Split { classes: names, ..split.subset(&own) })
        };
        Images { train: few(&all.train), test: few(&all.test), left_out: Arc::default(), held_out: false }
    };
    for (classes, parts) in [
        (1, ["are of a single class", "--knn-neighbours 50 are more than the "]),
        (2, ["top-5 says nothing of 2 classes", "--knn-neighbours 50 are more than the "]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        run_in(directory.path(), &settings(), &of_classes(classes)).unwrap();
        let log = std::fs::read_to_string(holder_of(directory.path(), "training.log").join("training.log")).unwrap();
        for part in parts {
            assert!(log.contains(part), "{part}: {log}");
        }
        assert!(!log.contains("test top-5"), "{log}");
    }
    let directory = tempfile::tempdir().unwrap();
    run_in(directory.path(), &Evaluate { epochs: 20, standardize: true, ..settings() }, &all).unwrap();
    let log = std::fs::read_to_string(holder_of(directory.path(), "training.log").join("training.log")).unwrap();
    assert!(log.contains("test top-5") && !log.contains("WARNING"), "{log}");

    // Whoever knows one class only is right in a tenth of ten.
    let directory = tempfile::tempdir().unwrap();
    let same = Arc::new(data::Split { labels: Some(vec![7; all.train.len()]), ..(*all.train).clone() });
    run_in(directory.path(), &settings(), &Images { train: same, ..all }).unwrap();
    let log = std::fs::read_to_string(holder_of(directory.path(), "training.log").join("training.log")).unwrap();
    assert!(
        log.contains("is no more than guessing gives") && log.contains("whether both parts have the same classes"),
        "{log}"
    );
}

#[test]
fn a_classifier_that_was_stopped_ends_as_if_it_had_not_been() {
    let images = images(150, 50);
    for name in [OptimizerName::Sgd, OptimizerName::Adam, OptimizerName::Lars, OptimizerName::Lbfgs] {
        let mut run = settings();
        run.optimizer.name = name;
        resumed_equals_whole(&run, &images, "linear_eval.json");
    }
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    from_tensor(tensor).unwrap().bytes().to_vec()
}

#[test]
fn linear_and_neighbours_agree_with_scikit_learn() {
    let Some(python) = support::python("sklearn") else { return };
    let images = images(600, 500);
    let (encoder, console) = (Encoder::new(&model(), HeadKind::Classifier(10), Device::Cpu, 1), quiet());
    let features =
        |split| extractor(&encoder, &console).extract(split, EvalTransform::Plain { size_px: 16 }, 0).unwrap();
    let (train, test) = (features(&images.train), features(&images.test));
    let reg_weight = 1e-3;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(directory.path().join(name), bytes).unwrap();
    for (part, features) in [("train", &train), ("test", &test)] {
        write(&format!("{part}_values"), bytes_of(&features.values));
        write(&format!("{part}_labels"), bytes_of(&features.labels));
    }
    write("shape.json", format!(r#"{{"width": 512, "reg_weight": {reg_weight}}}"#).into_bytes());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/evaluate/peer.py");
    let output = std::process::Command::new(python)
        .arg(script)
        .arg(directory.path())
        .env("OMP_NUM_THREADS", "1") // Its many small products are slower on several threads.
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let peer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut run = Evaluate { epochs: 3000, ..settings() };
    run.optimizer.name = OptimizerName::Lbfgs;
    let mut fit = Fit::new(&run, reg_weight, train.len(), 512, 10, Device::Cpu).unwrap();
    let mut epoch = 0;
    while epoch < 3000 && !fit.epoch(&train, epoch).unwrap().converged {
        epoch += 1;
    }
    let (ours, theirs) = (accuracy(&fit, &test), peer["linear_top1"].as_f64().unwrap());
    println!("linear top-1: {ours:.2} here after {epoch} iterations, {theirs:.2} in scikit-learn");
    assert!((ours - theirs).abs() <= 0.5 && ours > 60.0, "{ours} here, {theirs} in scikit-learn");

    let bank = Bank::new(&train.values.to_kind(Kind::Double), &train.labels, 10);
    for neighbours in [1, 20] {
        let ours =
            Vec::<i64>::try_from(bank.classify(&test.values.to_kind(Kind::Double), neighbours, Vote::Plain)).unwrap();
        let theirs: Vec<i64> = serde_json::from_value(peer[format!("knn_{neighbours}")].clone()).unwrap();
        assert_eq!(ours, theirs, "{neighbours} neighbours");
    }
}

/// What PyTorch writes for a network on several GPUs: no configuration, every name behind `module.`.
fn write_like_pytorch(path: &Path, encoder: &Encoder, leave_out: &str) {
    let mut model = Dict::ordered();
    for (name, tensor) in encoder.state_dict().iter().filter(|(name, _)| !name.contains(leave_out)) {
        model.insert(format!("module.{name}").as_str(), from_tensor(tensor).unwrap());
    }
    let mut root = Dict::new();
    root.insert("batch_size", 512i64);
    root.insert("epoch", 100i64);
    root.insert("model_state_dict", Value::Dict(model));
    let mut file = std::fs::File::create(path).unwrap();
    torch_file::write(&mut file, "checkpoint", &Value::Dict(root)).unwrap();
}

fn no_warning(text: String) {
    panic!("{text}");
}

#[test]
fn a_checkpoint_of_pytorchs_says_itself_what_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("cifar10/512_larsSimCLR");
    std::fs::create_dir_all(&runs).unwrap();
    let path = runs.join("checkpoint_0026.pth.tar");
    let normalisation = Normalisation::of(DatasetName::Cifar10);
    for (depth, stem) in [(Depth::Res10, Stem::Small), (Depth::Res50, Stem::Imagenet)] {
        let head = HeadConfig { mode: HeadMode::Nonlinear, layers: 3, out_dim: 64 };
        let config = ModelConfig { depth, stem, normalisation, head };
        let encoder = Encoder::new(&config, HeadKind::Projection, Device::Cpu, 3);
        write_like_pytorch(&path, &encoder, "nothing");
        let source = Origin::File(path.clone()).open(Reading::default(), &mut no_warning).unwrap();
        let source = source.as_stated(&StatedEncoder::default()).unwrap();
        assert_eq!(source.model, config);
        assert_eq!((source.epoch, source.batch_size, source.objective), (26, Some(512), Some(Objective::SimClr)));
        let rebuilt = source.build(HeadKind::Classifier(7), Device::Cpu, 9).unwrap();
        assert_eq!(trunk_hash(&rebuilt).unwrap(), trunk_hash(&encoder).unwrap());
    }
    let encoder = Encoder::new(&model(), HeadKind::Projection, Device::Cpu, 3);
    for (left_out, complaint) in [
        ("normalize.std", "normalisation it was trained with is unknown"),
        ("layer3.0.conv1", "stages have [1, 1, 0, 1] basic blocks"),
        ("conv1.weight", "no ResNet with torchvision's names"),
    ] {
        write_like_pytorch(&path, &encoder, left_out);
        let error = format!("{:#}", Origin::File(path.clone()).open(Reading::default(), &mut no_warning).unwrap_err());
        assert!(error.contains(complaint) && error.contains("checkpoint_0026"), "{error}");
    }
    write_like_pytorch(&path, &encoder, "layer3.0.bn2.weight");
    let source = Origin::File(path).open(Reading::default(), &mut no_warning).unwrap();
    let error = format!("{:#}", source.build(HeadKind::Classifier(7), Device::Cpu, 9).unwrap_err());
    assert!(error.contains("missing: layer3.0.bn2.weight"), "{error}");
}

#[test]
fn all_checkpoints_give_a_curve_and_damaged_ones_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("64_FlatCLR");
    std::fs::create_dir_all(&runs).unwrap();
    for (epoch, seed) in [(2u32, 2), (0, 1)] {
        let encoder = Encoder::new(&model(), HeadKind::Projection, Device::Cpu, seed);
        write_like_pytorch(&runs.join(format!("checkpoint_{epoch:04}.pth.tar")), &encoder, "nothing");
    }
    std::fs::write(runs.join("checkpoint_0001.pth.tar"), b"PK\x03\x04 and no more").unwrap();
    std::fs::write(runs.join("checkpoint_0003_step_00000012.pth.tar"), b"").unwrap();
    let of = |which| EncoderSource::Directory { directory: runs.clone(), which };
    let error = origins(&of(CheckpointChoice::Epoch(7))).unwrap_err().to_string();
    assert!(error.contains("no checkpoint_0007.pth.tar") && error.contains("epochs 0, 1, 2"), "{error}");
    let last = origins(&of(CheckpointChoice::Last)).unwrap();
    assert_eq!(last, [Origin::Newest(runs.clone())]);

    let run = Evaluate { source: of(CheckpointChoice::All), epochs: 2, ..settings() };
    let outcomes = run_in(directory.path(), &run, &images(100, 50)).unwrap();
    assert_eq!(outcomes.iter().map(|o| o.checkpoint_epoch).collect::<Vec<_>>(), [0, 2]);
    assert_ne!(outcomes[0].trunk_hash, outcomes[1].trunk_hash);
    let results = holder_of(directory.path(), "accuracy_over_epochs.png");
    assert!(results.starts_with(directory.path().join("fashion_mnist_mini/flatclr/512_all_fc")), "{results:?}");
    let table = std::fs::read_to_string(results.join("accuracy_over_epochs.md")).unwrap();
    assert!(table.contains("| checkpoint_0000.pth.tar |") && table.contains("kNN, plain"), "{table}");
    let json: Vec<Outcome> = serde_json::from_value(json_in(&results.join("accuracy_over_epochs.json"))).unwrap();
    assert_eq!(json, outcomes);
    for epoch in [0, 2] {
        assert!(directory.path().join(format!("fashion_mnist_mini/flatclr/512_{epoch}_fc")).is_dir());
    }
}

#[test]
fn a_stem_that_does_not_go_with_the_images_is_explained() {
    let imagenet = Origin::Scratch(ModelConfig { stem: Stem::Imagenet, ..model() })
        .open(Reading::default(), &mut no_warning)
        .unwrap();
    let small = Origin::Scratch(model()).open(Reading::default(), &mut no_warning).unwrap();
    let of = |size| DataConfig { image_size_px: size, ..settings().data };
    assert!(imagenet.mismatches(&of(32))[0].contains("last stage sees 1x1 positions"));
    assert!(small.mismatches(&of(224))[0].contains("small images"));
    assert!(imagenet.mismatches(&of(224)).is_empty() && small.mismatches(&of(32)).is_empty());
}

/// Fine-tuning of random weights on few small images.
fn finetune() -> Evaluate {
    let mut run = Evaluate { mode: TransferMode::Finetune, batch_size: 50, ..settings() };
    (run.optimizer.name, run.optimizer.lr, run.schedule.name) = (OptimizerName::Adam, 1e-3, ScheduleName::Constant);
    run
}

#[test]
fn fine_tuning_learns_and_its_network_is_an_encoder_itself() {
    let (directory, images) = (tempfile::tempdir().unwrap(), images(301, 100));
    let run = Evaluate { epochs: 6, ..finetune() };
    let outcome = run_in(directory.path(), &run, &images).unwrap().remove(0);
    assert_eq!(outcome.protocol, Protocol::Supervised);
    assert!(outcome.test_top1_best_epoch > 55.0 && outcome.train_top1 > 70.0, "{outcome:?}");
    let results = holder_of(directory.path(), "supervised.json");
    assert!(results.starts_with(directory.path().join("fashion_mnist_mini/scratch/50_6_ft")), "{results:?}");
    let network = results.join("checkpoint_0006.pth.tar");
    let source = Origin::File(network.clone()).open(Reading::default(), &mut no_warning).unwrap();
    assert_ne!(trunk_hash(&source.build(HeadKind::Projection, Device::Cpu, 1).unwrap()).unwrap(), outcome.trunk_hash);
    // And can be fine-tuned again, from where it is.
    let again = Evaluate { source: EncoderSource::File(network), epochs: 1, ..run };
    let outcome = run_in(directory.path(), &again, &images).unwrap().remove(0);
    assert_eq!(outcome.protocol, Protocol::Finetune);
    assert!(outcome.test_top1_last_epoch > 40.0, "{outcome:?}");
}

#[test]
fn a_network_that_was_stopped_ends_as_if_it_had_not_been() {
    resumed_equals_whole(&finetune(), &images(100, 50), "supervised.json");
}

#[test]
fn fine_tuning_stops_without_gain_and_when_the_loss_is_lost() {
    let (directory, images) = (tempfile::tempdir().unwrap(), images(100, 50));
    let mut run = Evaluate { epochs: 20, patience_epochs: 2, ..finetune() };
    run.optimizer.lr = 0.0;
    let outcome = run_in(directory.path(), &run, &images).unwrap().remove(0);
    assert!(outcome.epochs_trained < 20, "{outcome:?}");
    assert_eq!(outcome.epochs_trained, outcome.best_epoch + 3);
    assert_eq!((outcome.held_out_images, outcome.chosen), (0, None), "the test images decided");
    run.optimizer = OptimizerConfig { name: OptimizerName::Sgd, lr: 1e30, ..run.optimizer };
    let error = format!("{:#}", run_in(directory.path(), &run, &images).unwrap_err());
    assert!(error.contains("in step 1 ") && error.contains("1.000e30"), "{error}");
}

/// A tenth of the training images decides when to stop, and is not trained on.
#[test]
fn held_out_images_stop_the_training_and_choose_the_epoch() {
    let (directory, images) = (tempfile::tempdir().unwrap(), images(100, 50));
    let run = Evaluate { epochs: 20, patience_epochs: 2, early_stop_on: EarlyStopOn::HeldOut, ..finetune() };
    let outcome = run_in(directory.path(), &run, &images).unwrap().remove(0);
    let chosen = outcome.chosen.unwrap();
    let results = holder_of(directory.path(), "supervised.json");
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(results.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // By hand from the epochs' lines: the first of the best, then two epochs more.
    let column = |name: &str| lines.iter().map(|line| line[name].as_f64().unwrap()).collect::<Vec<f64>>();
    let (held_out, test) = (column("held_out_top1"), column("test_top1"));
    let best = held_out.iter().copied().fold(0.0, f64::max);
    let first = held_out.iter().position(|&top1| top1 == best).unwrap();
    assert_eq!((chosen.chosen_epoch as usize, chosen.held_out_top1), (first, best));
    assert_eq!(chosen.test_top1_chosen_epoch, test[first]);
    assert!(lines.len() == 20 || lines.len() == first + 3, "{held_out:?}");
    assert_eq!((outcome.held_out_images, outcome.train_images), (10, 100));
    // Percentages of 10 and of 90 images, as many as there are in each part.
    assert!(held_out.iter().all(|top1| (top1 / 10.0).fract().abs() < 1e-9), "{held_out:?}");
    let of_90 = |top1: f64| (top1 * 0.9 - (top1 * 0.9).round()).abs() < 1e-6;
    assert!(column("train_top1").into_iter().all(of_90), "{:?}", column("train_top1"));
    let json = json_in(&results.join("supervised.json"));
    assert_eq!(json["test_top1_chosen_epoch"], chosen.test_top1_chosen_epoch);
    assert!(json["meaning"]["test_top1_chosen_epoch"].as_str().unwrap().contains("held-out"));

    // One image a class: nothing can be held out, and no test image takes its place.
    let few = Images { train: Arc::new(images.train.subset(&first_of_each_class(&images))), ..images.clone() };
    let outcome = run_in(directory.path(), &Evaluate { epochs: 4, patience_epochs: 1, ..run }, &few).unwrap().remove(0);
    assert_eq!((outcome.held_out_images, outcome.chosen, outcome.epochs_trained), (0, None, 4));
}

fn first_of_each_class(images: &Images) -> Vec<usize> {
    let labels = images.train.labels.as_ref().unwrap();
    (0..10).map(|class| labels.iter().position(|&label| label == class).unwrap()).collect()
}

#[test]
fn an_early_stop_by_held_out_images_survives_a_stop() {
    let run = Evaluate { patience_epochs: 3, early_stop_on: EarlyStopOn::HeldOut, ..finetune() };
    resumed_equals_whole(&run, &images(100, 50), "supervised.json");
}

#[test]
fn training_images_are_drawn_as_asked() {
    let images = images(60, 30);
    let losses = |augment| {
        let directory = tempfile::tempdir().unwrap();
        let mut run = Evaluate { epochs: 2, augment, ..settings() };
        // At a learning rate of next to nothing only the features can move the loss.
        run.optimizer.lr = 1e-12;
        run_in(directory.path(), &run, &images).unwrap();
        let text = std::fs::read_to_string(holder_of(directory.path(), "metrics.jsonl").join("metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
        text.lines().map(loss).collect::<Vec<f64>>()
    };
    let still = losses(Some(ClassifierAugment::None));
    assert!((still[0] - still[1]).abs() < 1e-5, "{still:?}");
    assert_eq!(still, losses(None), "fashion_mnist's own");
    for augment in [ClassifierAugment::CropFlip, ClassifierAugment::ShiftFlip] {
        let drawn = losses(Some(augment));
        assert!((drawn[0] - drawn[1]).abs() > 1e-4 && (drawn[0] - still[0]).abs() > 1e-4, "{augment}: {drawn:?}");
    }
}

#[test]
fn a_share_of_the_labels_is_balanced_and_repeats() {
    let load = |ratio, seed| Images::load(&Evaluate { label_ratio: ratio, seed, ..settings() }, &quiet()).unwrap();
    let counts = |images: &Images| {
        let labels = images.train.labels.clone().unwrap();
        (0..10).map(|class| labels.iter().filter(|&&label| label == class).count()).collect::<Vec<_>>()
    };
    let tenth = load(0.1, 1);
    assert_eq!(counts(&tenth), [40; 10]);
    assert_eq!(tenth.test.len(), 1000);
    let pixels = |images: &Images| images.train.packed().expect("the embedded images are packed").pixels().to_vec();
    assert_eq!(pixels(&tenth), pixels(&load(0.1, 1)));
    assert_ne!(pixels(&tenth), pixels(&load(0.1, 2)));
    assert_eq!(load(1.0, 1).train.len(), 4000);
}

#[test]
fn random_crops_are_drawn_anew_in_every_epoch_but_not_for_lbfgs() {
    let images = images(60, 30);
    // ImageNet's protocol on other images.
    let mut run = Evaluate { epochs: 3, ..settings() };
    run.data.dataset = DatasetName::Folder;
    let losses = |run: &Evaluate| {
        let directory = tempfile::tempdir().unwrap();
        run_in(directory.path(), run, &images).unwrap();
        let text = std::fs::read_to_string(holder_of(directory.path(), "metrics.jsonl").join("metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
        text.lines().map(loss).collect::<Vec<f64>>()
    };
    // At a learning rate of next to nothing only the features can move the loss.
    run.optimizer.lr = 1e-12;
    let redrawn = losses(&run);
    assert!(redrawn[0] != redrawn[1] && redrawn[1] != redrawn[2], "{redrawn:?}");
    assert_eq!(redrawn, losses(&run));
    run.optimizer.name = OptimizerName::Lbfgs;
    assert!(losses(&run).is_sorted_by(|a, b| a >= b));
}

#[test]
fn data_without_labels_are_refused() {
    let mut images = images(20, 20);
    images.test = Arc::new(data::Split { labels: None, ..(*images.test).clone() });
    let error = run_in(tempfile::tempdir().unwrap().path(), &settings(), &images).unwrap_err();
    assert!(format!("{error:#}").contains("has no labels"), "{error:#}");
}

#[test]
fn cached_features_give_the_same_result_and_damaged_ones_are_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (run, images) = (Evaluate { standardize: true, ..settings() }, images(300, 100));
    let cache = directory.path().join("cache");
    let with_cache = Config { feature_cache: Some(cache.clone()), ..config(&run, directory.path()) };
    let evaluate = |config: &Config| {
        let plan = plan_on(config, &run, &images).unwrap();
        let outcome = evaluate::run(&plan, &quiet(), &AtomicBool::new(false)).unwrap().outcomes.remove(0);
        let read = outcome.features_from_cache;
        (Outcome { seconds_features: 0.0, seconds_training: 0.0, features_from_cache: 0, ..outcome }, read)
    };
    let plain = evaluate(&config(&run, directory.path()));
    let (first, second) = (evaluate(&with_cache), evaluate(&with_cache));
    assert_eq!([plain.1, first.1, second.1], [0, 0, 2], "features read from the disk");
    assert_eq!(plain.0, first.0);
    assert_eq!(first.0, second.0);
    assert!(first.0.features_standardized);
    let files: Vec<PathBuf> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let repaired = evaluate(&with_cache);
    assert_eq!((repaired.0 == first.0, repaired.1), (true, 1));
    assert_eq!(evaluate(&with_cache).1, 2);
    // Where nothing can be written, nothing is lost but time.
    let blocked = directory.path().join("blocked");
    std::fs::write(&blocked, "a file").unwrap();
    let without_place = evaluate(&Config { feature_cache: Some(blocked), ..with_cache });
    assert_eq!((without_place.0 == first.0, without_place.1), (true, 0));
}
