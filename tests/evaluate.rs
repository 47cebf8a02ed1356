//! Evaluation of encoders: features, linear classifiers, fine-tuning, and where their results lie.

use flatnce::config::*;
use flatnce::data::{self, Images as Pixels, Packed, Part, Split};
use flatnce::report::{Console, Verbosity};
use flatnce::train::evaluate;
use flatnce::train::trial::Images;
use std::path::Path;
use std::sync::Arc;
use tch::Device;

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

/// A linear evaluation of random weights on small images.
fn settings() -> Evaluate {
    Evaluate {
        source: EncoderSource::Scratch(model()),
        mode: TransferMode::LinearEval,
        data: DataConfig { dataset: DatasetName::FashionMnistMini, root: "datasets".into(), image_size_px: 32 },
        label_ratio: 1.0,
        optimizer: OptimizerConfig {
            name: OptimizerName::Sgd,
            lr: 1.6,
            weight_decay: 0.0,
            momentum: 0.9,
            lars_exclude_bn: true,
            lars_exclude_bias: true,
        },
        schedule: ScheduleConfig { name: ScheduleName::Cosine, warmup_epochs: 0 },
        batch_size: 4096,
        epochs: 100,
        patience_epochs: 0,
        reg_weights: vec![0.0],
        knn: KnnConfig { neighbours: 200, temperature: 0.1 },
        save_every_n_epochs: 1000,
        resume: None,
        seed: 42,
        precision: Precision::Fp32,
    }
}

fn config(run: &Evaluate, save_dir: &Path) -> Config {
    Config {
        job: Job::Evaluate(Box::new(run.clone())),
        start: Start::Fresh,
        device: DeviceChoice::Cpu,
        workers: 2,
        save_dir: save_dir.to_owned(),
        talk: Talk::Quiet,
        dry_run: false,
        command: vec!["flatnce".into(), "--train-mode".into(), "eval".into()],
    }
}

#[test]
fn smoke() {
    let directory = tempfile::tempdir().unwrap();
    let run = Evaluate { precision: Precision::Bf16, ..settings() };
    let console = Console::new(Verbosity::Verbose);
    let outcomes = evaluate::run(&config(&run, directory.path()), &run, Device::Cpu, &console).unwrap();
    println!("{:#?}", outcomes);
}
