//! The command line: every flag, every command of the paper's README, the errors, the dry run and the exit codes.

mod support;

use assert_cmd::Command;
use flatnce::checkpoint::{self, Checkpoint, SavedOptimizer};
use flatnce::cli::resolve::{Origin, Saved, read_saved};
use flatnce::cli::{self, Resolved, Typed};
use flatnce::config::*;
use flatnce::model::{Encoder, HeadKind};
use flatnce::run_dir;
use std::path::{Path, PathBuf};

fn typed(line: &str) -> Typed {
    let words = std::iter::once("flatnce").chain(line.split_whitespace());
    cli::parse(words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn no_checkpoint(origin: &Origin, _: &mut dyn FnMut(String)) -> anyhow::Result<Saved> {
    panic!("no checkpoint was to be read, but {origin:?} was")
}

/// Resolves on the CPU in fp32, so that tests do not depend on the machine.
fn resolve(line: &str) -> anyhow::Result<Resolved> {
    cli::resolve(&typed(&format!("{line} --device cpu --precision fp32")), &no_checkpoint)
}

fn pretrain(line: &str) -> Pretrain {
    match resolve(line).unwrap().config.job {
        Job::Pretrain(run) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn evaluate(line: &str) -> Evaluate {
    match resolve(line).unwrap().config.job {
        Job::Evaluate(run) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

/// What clap says of a wrong line.
fn refused(line: &str) -> String {
    let words = std::iter::once("flatnce").chain(line.split_whitespace());
    cli::parse(words).map(|_| ()).expect_err(line).to_string()
}

/// What the resolution says of a wrong line.
fn unresolved(line: &str) -> String {
    format!("{:#}", resolve(line).map(|_| ()).expect_err(line))
}

// Every flag.

#[test]
fn every_flag_with_a_dash_has_its_underscore_spelling() {
    let command = cli::command();
    let mut count = 0;
    for arg in command.get_arguments() {
        let long = arg.get_long().unwrap_or_else(|| panic!("{} has no long name", arg.get_id()));
        assert_eq!(long.replace('-', "_"), arg.get_id().as_str());
        assert!(!long.contains('_'), "{long}");
        if long.contains('-') {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            assert!(aliases.contains(&long.replace('-', "_").as_str()), "{long}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} flags with a dash");
}

/// The flags of upstream's parser, and those it uses without declaring them.
#[test]
fn every_flag_of_the_python_program_is_there() {
    let upstream = "data dataset_name clr faster_version workers batch_size epochs lr optimizer weight_decay momentum \
        use_scheduler scheduler warmup_epochs model proj_head_mode num_proj_layers proj_out_dim n_views \
        save_every_n_epochs temperature fc_epochs fc_batch_size fc_lr fc_optimizer reg_weight fc_scheduler \
        fc_weight_decay fc_momentum fc_train_from fc_log_dir fc_save_every_n_epochs disable_cuda fp16_precision device \
        train_mode semi_ratio transfer_mode transfer_dataset_name transfer_from_epoch checkpoint_dir save_dir log_dir \
        train_from from_pretrained seed";
    let command = cli::command();
    for id in upstream.split_whitespace() {
        assert!(command.get_arguments().any(|arg| arg.get_id() == id), "{id}");
    }
}

#[test]
fn every_flag_has_help_a_heading_and_a_documented_default() {
    /// Without them, nothing is continued or evaluated: they have no default to tell.
    const ABSENT_IS_ABSENT: [&str; 9] = [
        "resume",
        "log_dir",
        "train_from",
        "from_pretrained",
        "checkpoint",
        "checkpoint_dir",
        "checkpoint_key",
        "fc_log_dir",
        "fc_train_from",
    ];
    for arg in cli::command().get_arguments() {
        let id = arg.get_id().as_str();
        let short = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let long = arg.get_long_help().map_or(short.clone(), ToString::to_string);
        assert!(short.len() > 5 && !short.ends_with('.'), "{id}: {short:?}");
        assert!(arg.get_help_heading().is_some(), "{id} stands under no heading");
        let shown = !arg.get_default_values().is_empty();
        assert!(shown || ABSENT_IS_ABSENT.contains(&id) || long.to_lowercase().contains("default"), "{id}");
    }
}

#[test]
fn help_fits_80_columns_under_its_headings() {
    let mut command = cli::command().term_width(80);
    let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
    for text in [&short, &long] {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let headings = [
            "Data:",
            "Objective and model:",
            "Optimisation:",
            "Augmentation:",
            "Evaluation:",
            "Results and resuming:",
            "Machine:",
            "Output:",
        ];
        let places: Vec<usize> = headings.iter().map(|heading| text.find(&format!("\n{heading}")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
    assert!(short.lines().count() < 120 && long.lines().count() > 2 * short.lines().count());
}

#[test]
fn every_default_is_a_value_that_its_flag_accepts() {
    let command = cli::command();
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        for value in arg.get_default_values() {
            let line = format!("--{}={}", arg.get_long().unwrap(), value.to_str().unwrap());
            typed(&line);
        }
    }
}

#[test]
fn switches_read_every_spelling() {
    type Get = fn(&Typed) -> bool;
    let switches: [(&str, Get); 6] = [
        ("faster_version", |t| t.args.augmentation.faster_version),
        ("disable_cuda", |t| t.args.machine.disable_cuda),
        ("use_scheduler", |t| t.args.optimisation.use_scheduler),
        ("blur", |t| t.args.augmentation.blur == Some(true)),
        ("dry_run", |t| t.args.output.dry_run),
        ("quiet", |t| t.args.output.quiet),
    ];
    for (id, get) in switches {
        for (spelling, value) in [
            ("", true),
            ("=True", true),
            (" true", true),
            ("=1", true),
            ("=False", false),
            (" FALSE", false),
            ("=no", false),
        ] {
            assert_eq!(get(&typed(&format!("--{id}{spelling}"))), value, "--{id}{spelling}");
        }
    }
    assert!(refused("--faster_version=maybe").contains("true or false"));
}

/// As argparse has it; lists too, and the flags of tools.
#[test]
fn of_a_flag_given_twice_the_last_one_counts() {
    let args =
        typed("--batch_size 64 --lr=1 --batch-size=128 --lr 2 --quiet --quiet=false --reg-weight 1,2 --reg-weight 3")
            .args;
    assert_eq!((args.optimisation.batch_size, args.optimisation.lr, args.output.quiet), (128, Some(2.0), false));
    assert_eq!(args.evaluation.reg_weight, [3.0]);
    let tool = typed("report a b --format csv --format json --out x --out y").args.tool;
    let Some(cli::ToolArgs::Report(report)) = tool else { panic!("{tool:?}") };
    assert_eq!((report.directories.len(), report.format, report.out), (2, ReportFormat::Json, Some("y".into())));
    assert!(refused("--resume x --log-dir y --log-dir z").contains("cannot be used with"));
}

/// Where a data set takes several directories, all of them count.
#[test]
fn folder_keeps_every_directory_and_other_sets_the_last() {
    let roots = |dataset: &str| -> Vec<String> {
        let run = pretrain(&format!("--dataset-name {dataset} --data a --epochs 3 --data b --epochs 4 --data=c"));
        assert_eq!(run.epochs, 4);
        run.data.roots().map(|root| root.display().to_string()).collect()
    };
    assert_eq!((roots("folder"), roots("cifar10")), (vec!["a".into(), "b".into(), "c".into()], vec!["c".into()]));
    let began = "--dataset-name folder --data a --data b --image-size 32 --epochs 8";
    let roots = |line: &str| -> Vec<String> {
        let Job::Pretrain(run) = resumed(began, line).unwrap().config.job else { panic!("a run") };
        run.data.roots().map(|root| root.display().to_string()).collect()
    };
    assert_eq!((roots(""), roots("--data a --data b")), (vec!["a".into(), "b".into()], vec!["a".into(), "b".into()]));
    assert_eq!((roots("--data c --data b"), roots("--data c")), (vec!["c".into(), "b".into()], vec!["c".into()]));
    let adopted = resumed(began, "--data c --data d").unwrap().config.adopted;
    assert_eq!(adopted, ["--data=c", "--data=d"]);
    let refused = resumed(began, "--labels none").unwrap_err().to_string();
    assert!(refused.contains("--labels none: the run has the default"), "{refused}");
}

// The modes of main.py, and what each reads.

/// The line that chooses a mode, and what main.py's code for it reads, each with a value that is not the default. Flags
/// with a comma between them go together.
const MODES_OF_MAIN_PY: [(&str, &str); 6] = [
    (
        "--dataset_name=cifar10",
        "data=/x dataset_name=cifar100 clr=simclr faster_version=True workers=3 batch_size=64 epochs=7 lr=0.5 \
         optimizer=adam weight_decay=0.1 momentum=0.5 use_scheduler=False scheduler=constant warmup_epochs=3 model=res18 \
         proj_head_mode=linear num_proj_layers=3 proj_out_dim=64 n_views=2 save_every_n_epochs=5 temperature=0.5 \
         disable_cuda fp16_precision device=cpu save_dir=s log_dir=d,train_from=f from_pretrained=f seed=7",
    ),
    (
        "--train_mode=eval --dataset_name=cifar10 --checkpoint_dir=d",
        "data=/x workers=3 dataset_name=cifar100 model=res18 clr=simclr batch_size=64 epochs=7 save_every_n_epochs=5 \
         checkpoint_dir=e save_dir=s fc_epochs=7 fc_batch_size=64 fc_lr=0.5 fc_optimizer=adam fc_weight_decay=0.1 \
         fc_momentum=0.5 fc_scheduler=constant fc_log_dir=l,fc_train_from=c fc_save_every_n_epochs=3 fp16_precision \
         disable_cuda device=cpu",
    ),
    (
        "--train_mode=transfer --checkpoint_dir=d",
        "data=/x workers=3 transfer_dataset_name=voc transfer_from_epoch=50 dataset_name=cifar10 model=res18 clr=simclr \
         batch_size=64 checkpoint_dir=e save_dir=s fc_epochs=7 fc_lr=0.5 fc_optimizer=adam fc_weight_decay=0.1 \
         fc_momentum=0.5 fc_scheduler=constant fc_log_dir=l,fc_train_from=c fc_save_every_n_epochs=3 fp16_precision \
         disable_cuda device=cpu",
    ),
    (
        "--train_mode=transfer --transfer_mode=finetune --checkpoint_dir=d",
        "data=/x workers=3 transfer_dataset_name=voc transfer_from_epoch=50 model=res18 checkpoint_dir=e save_dir=s \
         fc_epochs=7 fc_batch_size=64 fc_lr=0.5 fc_optimizer=adam fc_weight_decay=0.1 fc_momentum=0.5 device=cpu",
    ),
    (
        "--train_mode=semi --checkpoint_dir=d",
        "data=/x workers=3 semi_ratio=0.01 transfer_dataset_name=cifar10 transfer_from_epoch=50 model=res18 \
         checkpoint_dir=e save_dir=s fc_epochs=7 fc_batch_size=64 fc_lr=0.5 fc_optimizer=adam fc_weight_decay=0.1 \
         fc_momentum=0.5 device=cpu",
    ),
    (
        "--train_mode=supervised",
        "data=/x workers=3 transfer_dataset_name=cifar10 model=res18 save_dir=s fc_epochs=7 fc_batch_size=64 fc_lr=0.5 \
         fc_optimizer=adam fc_weight_decay=0.1 fc_momentum=0.5 fc_scheduler=constant device=cpu",
    ),
];

#[test]
fn what_a_mode_of_the_python_program_reads_has_an_effect_here() {
    let by_pytorch =
        |_: &Origin, _: &mut dyn FnMut(String)| Ok(Saved { path: "d/f".into(), checkpoint: Checkpoint::default() });
    let resolve = |line: &str| {
        let resolved = cli::resolve(&typed(line), &by_pytorch).unwrap_or_else(|error| panic!("{line}: {error:#}"));
        assert!(
            !resolved.warnings.iter().any(|warning| warning.contains("no effect")),
            "{line}: {:?}",
            resolved.warnings
        );
        Config { command: Vec::new(), ..resolved.config }
    };
    let mut read = 0;
    for (mode, flags) in MODES_OF_MAIN_PY {
        let before = resolve(mode);
        for flag in flags.split_whitespace() {
            let after = resolve(&format!("{mode} --{}", flag.replace(',', " --")));
            // Of the number of views there is one value.
            assert!(after != before || flag.starts_with("n_views"), "{mode} --{flag} changes nothing");
            read += 1;
        }
    }
    assert!(read > 100, "{read} flags");
}

#[test]
fn the_flags_of_the_python_programs_modes_mean_what_they_meant() {
    let run = evaluate("--train_mode=supervised --dataset_name=imagenet --transfer_dataset_name=cifar10");
    assert_eq!((run.data.dataset, run.data.image_size_px), (DatasetName::Cifar10, 32));
    let EncoderSource::Scratch(model) = run.source else { panic!("{:?}", run.source) };
    assert_eq!((model.stem, run.stated), (Stem::Small, StatedEncoder::default()));

    let semi = "--train_mode=semi --checkpoint_dir=d --dataset_name=stl10";
    assert_eq!(evaluate(semi).data.dataset, DatasetName::Stl10);
    let run = evaluate(&format!("{semi} --transfer_dataset_name=cifar10"));
    assert_eq!((run.data.dataset, run.stated.dataset), (DatasetName::Cifar10, Some(DatasetName::Stl10)));

    // main_eval counts through the checkpoints, and its command says what the encoder is.
    let eval = "--train_mode=eval --checkpoint_dir=d --clr=simclr --batch_size=64 --model=res18";
    let run = evaluate(&format!("{eval} --epochs=100 --save_every_n_epochs=20"));
    let which = CheckpointChoice::Every { epochs: 20, until: 100 };
    assert_eq!(run.source, EncoderSource::Directory { directory: "d".into(), which });
    let taken: Vec<u32> = (0..200).filter(|&number| which.takes(number)).collect();
    assert_eq!(taken, [20, 40, 60, 80, 100]);
    let (objective, depth) = (Some(Objective::SimClr), Some(Depth::Res18));
    assert_eq!(run.stated, StatedEncoder { dataset: None, objective, depth, batch_size: Some(64) });
    let EncoderSource::Directory { which, .. } = evaluate(eval).source else { panic!("a directory") };
    assert_eq!(which, CheckpointChoice::Last);

    // Its linear transfer takes batches of the size of pre-training's.
    let transfer = "--train_mode=transfer --checkpoint_dir=d --batch_size=64";
    let run = evaluate(transfer);
    assert_eq!((run.batch_size, run.stated.batch_size), (64, None));
    let run = evaluate(&format!("{transfer} --fc_batch_size=32"));
    assert_eq!((run.batch_size, run.stated.batch_size), (32, Some(64)));
    let run = evaluate(&format!("{transfer} --transfer_mode=finetune"));
    assert_eq!((run.batch_size, run.stated.batch_size), (4096, Some(64)));
}

// The commands of the paper's README.

#[test]
fn pretraining_commands_of_the_paper() {
    let run = pretrain("--dataset_name=cifar10 --clr=simclr --faster_version=True");
    assert_eq!(
        (run.data.dataset, run.objective, run.engine),
        (DatasetName::Cifar10, Objective::SimClr, Engine::Tensor)
    );
    assert_eq!(run.augmentation, Augmentation::paper(DatasetName::Cifar10, 32, true));
    assert_eq!((run.augmentation.blur_prob, run.augmentation.jitter_strength), (0.5, 0.5));

    let run = pretrain("--dataset_name=cifar10 --clr=flatclr --faster_version=False");
    assert_eq!((run.objective, run.engine), (Objective::FlatClr, Engine::Cpu), "False is false");
    assert_eq!(run.augmentation.blur_prob, 0.0);
    assert_eq!((run.data.image_size_px, run.model.stem), (32, Stem::Small));

    let run = pretrain("--dataset_name=cifar10 --faster_version --engine=cpu");
    assert_eq!((run.engine, run.augmentation.blur_prob), (Engine::Cpu, 0.5), "what is asked for counts");
    let run = pretrain("--dataset_name=cifar10 --engine=tensor");
    assert_eq!((run.engine, run.augmentation.blur_prob), (Engine::Tensor, 0.0), "the recipe stays");
    let error = resolve("--dataset_name=cifar10 --data-on-device=yes").unwrap_err().to_string();
    assert!(error.contains("--engine tensor"), "{error}");
    assert_eq!(resolve("--engine=tensor --data-on-device=no").unwrap().config.data_on_device, DataOnDevice::No);

    let resolved = resolve("--dataset_name=imagenet --clr=simclr").unwrap();
    let Job::Pretrain(run) = resolved.config.job else { panic!("pre-training") };
    let expected = Pretrain {
        data: DataConfig::new(DatasetName::Imagenet, "datasets", 224),
        augmentation: Augmentation::paper(DatasetName::Imagenet, 224, false),
        engine: Engine::Cpu,
        objective: Objective::SimClr,
        temperature: 0.1,
        ess_target: None,
        model: ModelConfig {
            depth: Depth::Res50,
            stem: Stem::Imagenet,
            normalisation: Normalisation::of(DatasetName::Imagenet),
            head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 },
        },
        optimizer: OptimizerConfig {
            name: OptimizerName::Lars,
            lr: 0.6,
            weight_decay: 1e-6,
            momentum: 0.9,
            lars_exclude_bn: true,
            lars_exclude_bias: true,
        },
        schedule: ScheduleConfig { name: ScheduleName::Cosine, warmup_epochs: 10 },
        batch_size: 512,
        epochs: 100,
        seed: 42,
        precision: Precision::Fp32,
        numerics: Numerics::default(),
        grad_cache: 1,
        sync_bn: true,
        log_every: 50,
        save_every_n_epochs: 2,
        checkpoints: CheckpointPolicy::default(),
        online_knn: Some(OnlineKnn { every_epochs: 10, knn: KnnConfig { neighbours: 200, temperature: 0.1 } }),
        online_probe: None,
        workers: None,
    };
    assert_eq!(*run, expected);
    assert_eq!(resolved.config.start, Start::Fresh);
    assert_eq!(resolved.config.save_dir, Path::new("results"));
    assert_eq!(resolved.config.command[..2], ["flatnce", "--dataset_name=imagenet"]);
    assert!(resolved.warnings.is_empty());
    assert_eq!(pretrain("--dataset_name=imagenet --clr=flatclr").objective, Objective::FlatClr);
}

#[test]
fn the_resume_command_of_the_paper() {
    let directory = "results/imagenet/512_FlatCLR/01-06-2021-21-52-10";
    let line = format!("--clr=flatclr --log_dir={directory} --train_from=checkpoint_0026.pth.tar");
    let file = Path::new(directory).join("checkpoint_0026.pth.tar");
    let asked = std::cell::RefCell::new(None);
    // As PyTorch writes it: no configuration but the two settings of upstream.
    let saved = |origin: &Origin, _: &mut dyn FnMut(String)| {
        *asked.borrow_mut() = Some(origin.clone());
        let (model_name, batch_size) = (Some("res18".into()), Some(256));
        Ok(Saved { path: file.clone(), checkpoint: Checkpoint { model_name, batch_size, ..Checkpoint::default() } })
    };
    let resolved = cli::resolve(&typed(&format!("{line} --device cpu")), &saved).unwrap();
    assert_eq!(asked.take(), Some(Origin::File(file.clone())));
    assert_eq!(resolved.config.start, Start::Resume(file.clone()));
    let Job::Pretrain(run) = resolved.config.job else { panic!("pre-training") };
    assert_eq!((run.data.dataset, run.objective), (DatasetName::Imagenet, Objective::FlatClr));
    assert_eq!((run.model.depth, run.batch_size, run.optimizer.lr), (Depth::Res18, 256, 0.3), "the checkpoint's own");

    let error = cli::resolve(&typed(&format!("{line} --device cpu --model res50")), &saved).unwrap_err().to_string();
    assert!(error.contains("--model res50") && error.contains("res18"), "{error}");
}

#[test]
fn evaluation_commands_of_the_paper() {
    let directory = PathBuf::from("results/imagenet/512_FlatCLR/01-06-2021-21-52-10");
    let line = |mode: &str| {
        format!(
            "--dataset_name=imagenet --train_mode=eval --transfer_mode={mode} --checkpoint_dir={}",
            directory.display()
        )
    };
    let run = evaluate(&line("linear_eval"));
    let expected = Evaluate {
        source: EncoderSource::Directory { directory: directory.clone(), which: CheckpointChoice::Last },
        stated: StatedEncoder::default(),
        mode: TransferMode::LinearEval,
        data: DataConfig { size_is_default: true, ..DataConfig::new(DatasetName::Imagenet, "datasets", 224) },
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
        rate_follows_batch: true,
        patience_epochs: 0,
        early_stop_on: EarlyStopOn::HeldOut,
        augment: Some(ClassifierAugment::CropFlip),
        standardize: false,
        reg_weights: vec![0.0],
        knn: KnnConfig { neighbours: 200, temperature: 0.1 },
        save_every_n_epochs: 10,
        resume: None,
        seed: 42,
        precision: Precision::Fp32,
        numerics: Numerics::default(),
    };
    assert_eq!(run, expected);
    let run = evaluate(&line("finetune"));
    assert_eq!((run.mode, run.schedule.name, run.patience_epochs), (TransferMode::Finetune, ScheduleName::Constant, 5));
    assert_eq!(run.source, expected.source);
}

// What follows from what.

/// The table of the paper's README.
#[test]
fn the_learning_rate_follows_from_the_batch_size_unless_it_is_given() {
    for (batch, linear, sqrt) in [
        (128, 0.15, 0.85),
        (256, 0.3, 1.20),
        (512, 0.6, 1.70),
        (1024, 1.2, 2.40),
        (2048, 2.4, 3.39),
        (4096, 4.8, 4.80),
        (8192, 9.6, 6.79),
    ] {
        let lr = |line: &str| pretrain(&format!("--batch-size {batch} {line}")).optimizer.lr;
        assert!((lr("") - linear).abs() < 1e-9);
        assert!((lr("--learning-rate-scaling linear") - linear).abs() < 1e-9);
        assert!((lr("--learning_rate_scaling=sqrt") - sqrt).abs() < 0.005);
        assert_eq!(lr("--lr 0.05 --learning-rate-scaling sqrt"), 0.05);
    }
}

#[test]
fn image_size_stem_and_recipe_follow_from_the_data() {
    for (name, side, stem) in [
        ("cifar100", 32, Stem::Small),
        ("fashion_mnist_mini", 32, Stem::Small),
        ("tiny_imagenet", 64, Stem::Small),
        ("stl10", 96, Stem::Small),
        ("folder", 224, Stem::Imagenet),
    ] {
        let run = pretrain(&format!("--dataset-name {name}"));
        assert_eq!((run.data.image_size_px, run.model.stem), (side, stem), "{name}");
        assert_eq!(run.augmentation, Augmentation::paper(run.data.dataset, side, false));
    }
    let run = pretrain("--dataset-name imagenet --image-size 64");
    assert_eq!((run.data.image_size_px, run.model.stem, run.augmentation.blur_kernel_px), (64, Stem::Small, 7));
    assert_eq!(pretrain("--dataset-name cifar10 --stem imagenet").model.stem, Stem::Imagenet);
}

#[test]
fn the_recipe_takes_what_was_typed() {
    let run = pretrain(
        "--dataset-name cifar10 --crop-scale-min .2 --crop-scale-max .9 --crop-ratio-min .5 --crop-ratio-max 2 \
         --flip-prob 0 --jitter-prob .7 --jitter-strength 1.5 --grayscale-prob .1 --blur --blur-kernel 5 \
         --blur-sigma-min .3 --blur-sigma-max 1.5",
    );
    let expected = Augmentation {
        crop_scale_min: 0.2,
        crop_scale_max: 0.9,
        crop_ratio_min: 0.5,
        crop_ratio_max: 2.0,
        flip_prob: 0.0,
        jitter_prob: 0.7,
        jitter_strength: 1.5,
        grayscale_prob: 0.1,
        blur_prob: 0.5,
        blur_kernel_px: 5,
        blur_sigma_min: 0.3,
        blur_sigma_max: 1.5,
    };
    assert_eq!(run.augmentation, expected);
    assert_eq!(pretrain("--dataset-name imagenet --blur=False").augmentation.blur_prob, 0.0);
    assert_eq!(pretrain("--dataset-name cifar10 --blur-prob 0.25").augmentation.blur_prob, 0.25);
}

#[test]
fn the_other_flags_of_pretraining_arrive() {
    let run = pretrain(
        "--data /elsewhere --dataset-name stl10 --temperature 0.2 --model res18 --proj-head-mode linear \
         --num-proj-layers 3 --proj-out-dim 64 --batch-size 32 --epochs 7 --optimizer sgd --weight-decay 1e-4 \
         --momentum 0.8 --lars-exclude none --scheduler None --warmup-epochs 1 --seed 7 --save-every-n-epochs 3",
    );
    assert_eq!(run.data.root, Path::new("/elsewhere"));
    assert_eq!((run.temperature, run.model.depth), (0.2, Depth::Res18));
    assert_eq!(run.model.head, HeadConfig { mode: HeadMode::Linear, layers: 3, out_dim: 64 });
    assert_eq!((run.batch_size, run.epochs, run.seed, run.save_every_n_epochs), (32, 7, 7, 3));
    assert_eq!(
        (run.optimizer.name, run.optimizer.weight_decay, run.optimizer.momentum),
        (OptimizerName::Sgd, 1e-4, 0.8)
    );
    assert!(!run.optimizer.lars_exclude_bn && !run.optimizer.lars_exclude_bias);
    assert_eq!(run.schedule, ScheduleConfig { name: ScheduleName::None, warmup_epochs: 1 });
    assert_eq!(pretrain("--use_scheduler=False").schedule.name, ScheduleName::None);
    let optimizer = pretrain("--lars-exclude bias").optimizer;
    assert!(optimizer.lars_exclude_bias && !optimizer.lars_exclude_bn);

    assert!(unresolved("--keep-every 4").contains("give --keep-last as well"));
    let kept =
        pretrain("--save-every-n-steps 50 --keep-last 3 --keep-every 10 --checkpoint-prefix module.").checkpoints;
    let prefix = KeyPrefix::Module;
    let wanted = CheckpointPolicy { every_n_steps: Some(50), keep_last: Some(3), keep_every: Some(10), prefix };
    assert_eq!(kept, wanted);

    let resolved = resolve("--workers 3 --save-dir out --from-pretrained a.pth --verbose --dry-run").unwrap().config;
    assert_eq!((resolved.workers, resolved.save_dir.as_path()), (3, Path::new("out")));
    assert_eq!((resolved.talk, resolved.dry_run), (Verbosity::Verbose, true));
    assert_eq!(resolved.start, Start::Pretrained("a.pth".into()));
    assert!(resolve("").unwrap().config.workers >= 1);
}

#[test]
fn every_kind_of_evaluation_resolves() {
    let run =
        evaluate("--train-mode transfer --transfer-dataset-name voc --checkpoint-dir d --transfer-from-epoch all");
    assert_eq!((run.data.dataset, run.mode), (DatasetName::Voc, TransferMode::LinearEval));
    let which = |run: &Evaluate| match &run.source {
        EncoderSource::Directory { which, .. } => *which,
        other => panic!("{other:?}"),
    };
    assert_eq!(which(&run), CheckpointChoice::All);
    assert_eq!(
        which(&evaluate("--train-mode eval --checkpoint-dir d --transfer_from_epoch=100")),
        CheckpointChoice::Epoch(100)
    );

    let run = evaluate("--train-mode semi --semi-ratio 0.01 --dataset-name cifar10 --checkpoint some.pth.tar");
    assert_eq!((run.label_ratio, run.mode, run.data.dataset), (0.01, TransferMode::Finetune, DatasetName::Cifar10));
    assert_eq!(run.source, EncoderSource::File("some.pth.tar".into()));
    assert_eq!(evaluate("--train-mode semi --checkpoint x").label_ratio, 0.1);

    let run = evaluate("--train-mode supervised --dataset-name cifar10 --model res18");
    assert!(
        matches!(&run.source, EncoderSource::Scratch(model) if model.depth == Depth::Res18 && model.stem == Stem::Small)
    );
    assert_eq!((run.mode, run.schedule.name, run.patience_epochs), (TransferMode::Finetune, ScheduleName::Cosine, 0));
    let run = evaluate("--train-mode supervised --early-stop-on=test --fc-augment=shift_flip --patience-epochs 2");
    assert_eq!((run.early_stop_on, run.patience_epochs), (EarlyStopOn::Test, 2));
    assert_eq!(run.augment, Some(ClassifierAugment::ShiftFlip));

    let run = evaluate(
        "--train-mode eval --checkpoint x --fc-epochs 5 --fc-batch-size 64 --fc-lr 0.1 --fc-optimizer lbfgs \
         --reg-weight 0,1e-4,0.01 --fc-scheduler constant --fc-weight-decay 1e-5 --fc-momentum 0.5 --patience-epochs 3 \
         --knn-neighbours 20 --knn-temperature 0.07 --fc-log-dir logs --fc-train-from c.pth.tar \
         --fc-save-every-n-epochs 4",
    );
    assert_eq!((run.epochs, run.batch_size, run.optimizer.lr), (5, 64, 0.1));
    assert_eq!(
        (run.optimizer.name, run.optimizer.weight_decay, run.optimizer.momentum),
        (OptimizerName::Lbfgs, 1e-5, 0.5)
    );
    assert_eq!(run.reg_weights, [0.0, 1e-4, 0.01]);
    assert_eq!((run.schedule.name, run.patience_epochs, run.save_every_n_epochs), (ScheduleName::Constant, 3, 4));
    assert_eq!(run.knn, KnnConfig { neighbours: 20, temperature: 0.07 });
    assert_eq!(run.resume, Some(("logs".into(), "c.pth.tar".to_owned())));
}

#[test]
fn flags_without_effect_are_named() {
    let warnings = |line: &str| resolve(line).unwrap().warnings;
    let [warning] = &warnings("--train-mode eval --checkpoint x --lr 1 --stem small")[..] else { panic!("one") };
    assert_eq!(warning, "no effect with --train-mode eval: --stem, --lr");
    assert_eq!(
        warnings("--train-mode eval --checkpoint x --epochs 4"),
        ["no effect where --transfer-from-epoch or --checkpoint names the checkpoint: --epochs"]
    );
    assert_eq!(
        warnings("--train-mode supervised --dataset-name cifar10 --transfer-dataset-name stl10"),
        ["no effect where --transfer-dataset-name names the images: --dataset-name"]
    );
    let [warning] = &warnings("--fc-lr 3")[..] else { panic!("one") };
    assert!(warning.ends_with("ssl: --fc-lr"));
    assert!(warnings("--train-mode supervised --model res18").is_empty());
    assert_eq!(warnings("--labels none"), ["no effect on a data set that has labels of its own: --labels"]);
    assert!(warnings("--dataset-name folder --labels none").is_empty());
    let eval = "--train-mode eval --checkpoint x";
    assert_eq!(
        warnings(&format!("{eval} --transfer-mode finetune --reg-weight 1 --knn-neighbours 5 --patience-epochs 3")),
        ["no effect where the whole network is trained: --reg-weight, --knn-neighbours"]
    );
    assert_eq!(
        warnings(&format!("{eval} --fc-optimizer LBFGS --fc-lr 1 --early-stop-on test --reg-weight 1e-3")),
        ["no effect on a linear evaluation: --early-stop-on", "no effect with --fc-optimizer LBFGS: --fc-lr"]
    );
}

// Errors.

#[test]
fn an_unknown_value_lists_the_allowed_ones() {
    for (line, flag, allowed) in [
        ("--clr moco", "--clr", "simclr, flatclr"),
        ("--model vit", "--model", "res10, res18, res34, res50, res101, res152"),
        ("--optimizer LBFGS", "--optimizer", "lars, adam, sgd"),
        ("--precision fp8", "--precision", "auto, fp32, bf16, fp16"),
        ("--scheduler step", "--scheduler", "cosine, constant, none"),
        ("--dataset_name mnist", "--dataset-name", "fashion_mnist_mini"),
        ("--train_mode train", "--train-mode", "ssl, eval, transfer, semi, supervised"),
        ("--device tpu", "--device", "auto, cpu, cuda or cuda:N"),
        ("--lars-exclude gain", "--lars-exclude", "bn, bias, both as bn,bias, or none"),
        ("--transfer-from-epoch best", "--transfer-from-epoch", "last or all"),
    ] {
        let message = refused(line);
        assert!(message.contains(flag) && message.contains(allowed), "{line}: {message}");
    }
    assert!(refused("--n-views 3").contains("exactly 2 views"));
    assert!(refused("--temprature 3").contains("--temperature"), "a misspelt flag is recognised");
}

#[test]
fn numbers_out_of_range_name_their_flag() {
    for line in [
        "--batch-size 1",
        "--batch-size 0.5",
        "--epochs -1",
        "--temperature 0",
        "--temperature nan",
        "--lr -1",
        "--lr inf",
        "--weight-decay -0.001",
        "--momentum 1",
        "--semi-ratio 0",
        "--semi-ratio 1.1",
        "--image-size 4",
        "--workers 0",
        "--flip-prob 1.5",
        "--crop-scale-min 0",
        "--crop-ratio-min 0",
        "--blur-kernel 4",
        "--jitter-strength 3",
        "--fc-batch-size 1",
        "--reg-weight 0,-1",
        "--knn-neighbours 0",
        "--save-every-n-epochs 0",
        "--seed -1",
    ] {
        let message = refused(line);
        let flag = line.split_whitespace().next().unwrap();
        assert!(message.contains(flag) && message.contains("invalid value"), "{line}: {message}");
    }
}

#[test]
fn a_value_by_another_name_is_told_which_one_is_meant() {
    for (line, meant) in [
        ("--clr flatnce", "flatclr"),
        ("--clr InfoNCE", "simclr"),
        ("--model resnet18", "res18"),
        ("--train-mode supervised --model ResNet-50", "res50"),
        ("--dataset-name cifar-1O", "cifar10"),
        ("--precision bfloat16", "bf16"),
        ("--optimizer adamw", "adam"),
    ] {
        let message = refused(line);
        assert!(message.contains(&format!("did you mean '{meant}'?")), "{line}: {message}");
    }
    assert!(!refused("--model vit").contains("did you mean"));
}

#[test]
fn what_an_evaluation_was_not_asked_for_follows_from_its_images() {
    let eval = |more: &str| evaluate(&format!("--train-mode eval --checkpoint x {more}"));
    let augment = |more: &str| eval(more).augment;
    // One pass over images of one's own; the paper's way where it has published numbers.
    assert_eq!(augment("--dataset-name folder"), Some(ClassifierAugment::None));
    assert_eq!(augment("--dataset-name folder --transfer-mode finetune"), Some(ClassifierAugment::CropFlip));
    assert_eq!(augment("--dataset-name imagenet"), Some(ClassifierAugment::CropFlip));
    assert_eq!(augment("--dataset-name cifar10"), Some(ClassifierAugment::None));
    assert_eq!(augment("--dataset-name folder --fc-augment crop-flip"), Some(ClassifierAugment::CropFlip));
    // As the evaluation that is continued began.
    assert_eq!(augment("--dataset-name folder --fc-log-dir x --fc-train-from y"), None);
    assert!(eval("").rate_follows_batch && !eval("--fc-lr 1.6").rate_follows_batch);
}

#[test]
fn contradictions_name_both_sides() {
    for (line, parts) in [
        ("--crop-scale-min 0.9 --crop-scale-max 0.5", ["--crop-scale-min 0.9", "--crop-scale-max 0.5"]),
        ("--crop-ratio-min 2", ["--crop-ratio-min 2", "--crop-ratio-max 1.33"]),
        ("--blur-sigma-max 0.05", ["--blur-sigma-min 0.1", "--blur-sigma-max 0.05"]),
        ("--blur=false --blur-prob 0.5", ["--blur false", "--blur-prob 0.5"]),
        ("--quiet --verbose", ["--quiet", "--verbose"]),
        ("--use-scheduler=False --scheduler cosine", ["--use-scheduler false", "--scheduler cosine"]),
        ("--train-mode eval", ["--checkpoint-dir", "--checkpoint"]),
        ("--train-mode eval --checkpoint x --semi-ratio 0.1", ["--semi-ratio", "semi"]),
        ("--train-mode eval --checkpoint x --transfer-dataset-name voc", ["--transfer-dataset-name", "--dataset-name"]),
        ("--train-mode eval --resume x", ["--resume", "--fc-log-dir"]),
        ("--train-mode semi --checkpoint x --transfer-mode linear_eval", ["semi", "linear_eval"]),
        ("--train-mode transfer --transfer-mode finetune --checkpoint x --fc-optimizer LBFGS", ["LBFGS", "finetune"]),
        ("--checkpoint-dir x", ["--checkpoint-dir", "eval"]),
    ] {
        let message = unresolved(line);
        assert!(parts.iter().all(|part| message.contains(part)), "{line}: {message}");
    }
    let machine = |line: &str| cli::resolve(&typed(line), &no_checkpoint).unwrap_err().to_string();
    assert!(machine("--disable_cuda --device cuda:1").contains("--device cuda:1 and --disable-cuda"));
    assert!(machine("--fp16_precision --precision bf16").contains("--precision bf16 and --fp16-precision"));
    let slow = cli::resolve(&typed("--fp16_precision --device cpu"), &no_checkpoint).unwrap();
    assert!(slow.warnings.iter().any(|warning| warning.contains("fp16 is slow on the CPU")), "{:?}", slow.warnings);
    let parts = machine("--batch-size 8 --grad-cache 9");
    assert!(parts.contains("--grad-cache 9") && parts.contains("--batch-size 8"), "{parts}");
    assert!(refused("--checkpoint x --checkpoint-dir y").contains("cannot be used with"));
    assert!(refused("--resume x --log-dir y").contains("cannot be used with"));
    assert!(refused("--train-from x").contains("--log-dir"));
}

#[test]
fn the_device_is_the_one_asked_for() {
    for line in ["--device cpu", "--disable_cuda", "--disable-cuda=True --device auto"] {
        let resolved = cli::resolve(&typed(line), &no_checkpoint).unwrap();
        assert_eq!((resolved.device, resolved.config.device), (tch::Device::Cpu, DeviceChoice::Cpu), "{line}");
        assert!(resolved.device_note.starts_with("CPU"));
    }
    assert_eq!(typed("--device CUDA:3").args.machine.device, DeviceChoice::Cuda(3));
    assert_eq!(typed("--device cuda").args.machine.device, DeviceChoice::Cuda(0));
    if flatnce::device::cuda_obstacle().is_some() {
        let error = cli::resolve(&typed("--device cuda"), &no_checkpoint).unwrap_err().to_string();
        assert!(error.contains("--device cuda:0") && error.contains("--device cpu"), "{error}");
    }
}

// Resuming.

/// A run to continue, and the command line's answer to it.
fn resumed(began: &str, line: &str) -> anyhow::Result<Resolved> {
    let config = pretrain(began);
    let saved = |origin: &Origin, _: &mut dyn FnMut(String)| {
        assert_eq!(*origin, Origin::Newest("run".into()));
        let path = "run/checkpoint_0003.pth.tar".into();
        Ok(Saved { path, checkpoint: Checkpoint { config: Some(config.clone()), ..Checkpoint::default() } })
    };
    cli::resolve(&typed(&format!("--resume run --device cpu {line}")), &saved)
}

const BEGAN: &str =
    "--dataset-name cifar10 --model res18 --batch-size 64 --epochs 8 --learning-rate-scaling sqrt --blur";

#[test]
fn a_continued_run_keeps_its_own_settings() {
    let began = pretrain(BEGAN);
    // Bare, and with the line that began it.
    for (line, workers) in [("", None), (BEGAN, None), ("--lr 0.6", None), ("--quiet --workers 1", Some(1))] {
        let resolved = resumed(BEGAN, line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(resolved.config.start, Start::Resume("run/checkpoint_0003.pth.tar".into()));
        assert_eq!(resolved.config.job, Job::Pretrain(Box::new(Pretrain { workers, ..began.clone() })), "{line}");
        assert!(resolved.precision_note.contains("fp32"), "as the run began, whatever this machine would choose");
        assert!(resolved.warnings.is_empty());
    }
}

#[test]
fn what_may_change_in_a_continued_run() {
    let resolved =
        resumed(BEGAN, "--epochs 20 --data /moved --save-every-n-epochs 5 --keep-last 4 --precision bf16").unwrap();
    let mut expected = pretrain(BEGAN);
    expected.epochs = 20;
    expected.data.root = "/moved".into();
    expected.save_every_n_epochs = 5;
    expected.checkpoints.keep_last = Some(4);
    expected.precision = Precision::Bf16;
    assert_eq!(resolved.config.job, Job::Pretrain(Box::new(expected)));
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(warning.contains("fp32") && warning.contains("bf16"));
}

/// What the run was given holds on another machine too; what it was not given is that machine's number of cores.
#[test]
fn a_continued_run_keeps_its_number_of_workers() {
    let cores = resolve("").unwrap().config.workers;
    let workers = |began: &str, line: &str| resumed(&format!("{BEGAN} {began}"), line).unwrap().config.workers;
    assert_eq!((workers("--workers 3", ""), workers("--workers 3", "--workers 5"), workers("", "")), (3, 5, cores));
}

#[test]
fn the_online_evaluation_of_a_continued_run_changes_in_what_was_typed() {
    let online = |began: &str, line: &str| match resumed(&format!("{BEGAN} {began}"), line).unwrap().config.job {
        Job::Pretrain(run) => run.online_knn,
        Job::Evaluate(_) => panic!("pre-training"),
    };
    let knn = KnnConfig { neighbours: 7, temperature: 0.1 };
    assert_eq!(online("--knn-neighbours 7", "--knn-every 3"), Some(OnlineKnn { every_epochs: 3, knn }));
    assert_eq!(online("--knn-neighbours 7", "--knn-every 0"), None);
    assert_eq!(online("--knn-every 0", "--knn-every 4 --knn-neighbours 7"), Some(OnlineKnn { every_epochs: 4, knn }));
    let probe = |began: &str, line: &str| match resumed(&format!("{BEGAN} {began}"), line).unwrap().config.job {
        Job::Pretrain(run) => run.online_probe.map(|probe| probe.every_epochs),
        Job::Evaluate(_) => panic!("pre-training"),
    };
    assert_eq!((probe("", ""), probe("--probe-every 3", ""), probe("", "--probe_every 5")), (None, Some(3), Some(5)));
    // Checkpoints of older versions do not know it.
    let mut older = serde_json::to_value(pretrain(BEGAN)).unwrap();
    assert!(older.as_object_mut().unwrap().remove("online_probe").is_some());
    assert_eq!(serde_json::from_value::<Pretrain>(older).unwrap(), pretrain(BEGAN));
    assert_eq!(
        (probe("--probe-every 3", "--probe-every 0"), probe("--probe-every 3", "--probe-every 2")),
        (None, Some(2))
    );
}

#[test]
fn contradictions_with_the_run_are_listed_with_both_values() {
    let line = "--dataset-name stl10 --model res50 --batch_size 128 --lr 1 --optimizer adam --clr simclr --seed 1 \
                --temperature 0.5 --blur=false --faster-version --epochs 4 --scheduler none --crop-scale-min 0.3";
    let message = resumed(BEGAN, line).unwrap_err().to_string();
    for part in [
        "run/checkpoint_0003.pth.tar",
        "--dataset-name stl10: the run has cifar10",
        "--model res50: the run has res18",
        "--batch-size 128: the run has 64",
        "--lr 1: the run has 0.6",
        "--optimizer adam: the run has lars",
        "--clr simclr: the run has flatclr",
        "--seed 1: the run has 42",
        "--temperature 0.5: the run has 0.1",
        "--blur false: the run has true",
        "--faster-version tensor: the run has cpu",
        "--epochs 4: the run has 8, and a run may only grow",
        "--scheduler none: the run has cosine",
        "--crop-scale-min 0.3: the run has 0.08",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
    assert_eq!(message.matches("the run has").count(), 13, "{message}");
    let message = resumed(BEGAN, "--lars-exclude none --train-images 100 --ess-target .5").unwrap_err().to_string();
    for part in ["--lars-exclude none: the run has bn,bias", "--train-images 100: the run has all", "the run has none"]
    {
        assert!(message.contains(part), "{part}\n{message}");
    }
    let changed = resumed(BEGAN, "--deterministic --allow-tf32 --fp16-precision").unwrap().warnings.join("\n");
    for part in
        ["--allow-tf32 true: the run began with false", "on a GPU its numbers will differ", "--fp16-precision fp16"]
    {
        assert!(changed.contains(part), "{part}\n{changed}");
    }
    let message = resumed(BEGAN, "--learning-rate-scaling linear").unwrap_err().to_string();
    assert!(message.contains("--learning-rate-scaling linear (lr 0.075): the run has lr 0.6"), "{message}");
}

// A file of settings.

/// The settings of this command line in a file, as a run leaves them; the directory that it lies in.
fn left_by(line: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = resolve(line).unwrap_or_else(|error| panic!("{line}: {error:#}")).config;
    run_dir::write_config(directory.path(), &serde_json::to_value(&config).unwrap(), &config.command).unwrap();
    directory
}

/// The settings of that command line again, with more typed.
fn again(directory: &tempfile::TempDir, more: &str) -> anyhow::Result<Resolved> {
    let file = directory.path().join("config.yml");
    cli::resolve(&typed(&format!("--config {} {more}", file.display())), &no_checkpoint)
}

const ODD: &str = "\
    --dataset-name folder --data photos --data more --image-size 40 --train-images 77 --bad-images skip:5% \
    --orientation exif --labels none --clr simclr --temperature 0.07 --ess-target 0.5 --model res18 --stem imagenet \
    --proj-head-mode linear --num-proj-layers 3 --proj-out-dim 32 --batch-size 48 --grad-cache 3 --epochs 7 \
    --learning-rate-scaling sqrt --optimizer sgd --weight-decay 1e-5 --momentum 0.8 --lars-exclude bn \
    --use-scheduler false --warmup-epochs 3 --sync-bn false --seed 12345678901234567890 --faster-version \
    --crop-scale-min 0.3 --crop-scale-max 0.9 --crop-ratio-min 0.5 --crop-ratio-max 2 --flip-prob 0.1 --jitter-prob \
    0.2 --jitter-strength 0.3 --grayscale-prob 0.4 --blur-prob 0.6 --blur-kernel 7 --blur-sigma-min 0.2 \
    --blur-sigma-max 1.5 --knn-neighbours 9 --knn-temperature 0.2 --knn-every 4 --log-every 6 --probe-every 5 \
    --save-every-n-epochs 3 --save-every-n-steps 11 --keep-last 2 --keep-every 6 --checkpoint-prefix module. \
    --workers 3 --allow-tf32 --deterministic --distributed-timeout 30 --cuda-graph no --fused-kernels no \
    --memory-check off --data-on-device no --save-dir out --from-pretrained some.pth --checkpoint-key teacher \
    --feature-cache off";

#[test]
fn the_settings_of_a_file_are_those_of_the_run_that_left_it() {
    for line in [ODD, "", "--dataset-name cifar10 --blur", "--knn-every 0 --lars-exclude none", BEGAN] {
        let (began, directory) = (resolve(line).unwrap().config, left_by(line));
        let again = again(&directory, "").unwrap_or_else(|error| panic!("{line}: {error:#}"));
        assert!(again.warnings.is_empty(), "{:?}", again.warnings);
        let note = again.settings_note.unwrap();
        assert!(note.ends_with("config.yml: its settings as they are"), "{note}");
        // What was typed is kept as it was typed.
        let command = again.config.command.clone();
        assert_eq!(command[..2], ["flatnce", "--config"]);
        assert_eq!(Config { command: began.command.clone(), ..again.config }, began, "{line}");
    }
}

#[test]
fn the_settings_of_a_file_are_those_of_the_evaluation_that_left_it() {
    for line in [
        "--train-mode eval --checkpoint some.pth --dataset-name cifar10 --clr simclr --model res18 --batch-size 64",
        "--train-mode eval --checkpoint-dir d --transfer-from-epoch 3 --fc-epochs 5 --fc-batch-size 64 --fc-lr 0.1 \
         --fc-optimizer lars --reg-weight 0,1e-4,0.01 --fc-scheduler constant --fc-weight-decay 1e-5 --fc-momentum 0.5 \
         --knn-neighbours 20 --knn-temperature 0.07 --fc-save-every-n-epochs 4 --fc-standardize --fc-augment crop-flip \
         --lars-exclude none --seed 7 --image-size 48 --save-dir out --feature-cache there --checkpoint-key encoder_q",
        "--train-mode eval --checkpoint-dir d --transfer-from-epoch all --fc-optimizer lbfgs",
        "--train-mode eval --checkpoint-dir d --epochs 9 --save-every-n-epochs 3",
        "--train-mode eval --checkpoint-dir d --transfer-mode finetune --patience-epochs 3 --early-stop-on test",
        "--train-mode transfer --transfer-dataset-name voc --checkpoint-dir d --batch-size 32",
        "--train-mode transfer --transfer-dataset-name voc --dataset-name cifar10 --checkpoint-dir d --batch-size 32 \
         --fc-batch-size 99",
        "--train-mode semi --semi-ratio 0.01 --checkpoint some.pth --dataset-name cifar10",
        "--train-mode semi --semi-ratio 1 --checkpoint some.pth --dataset-name stl10 --transfer-dataset-name cifar10",
        "--train-mode supervised --dataset-name cifar10 --model res18 --stem imagenet --proj-out-dim 17",
    ] {
        let (began, directory) = (evaluate(line), left_by(line));
        let again = again(&directory, "").unwrap_or_else(|error| panic!("{line}: {error:#}"));
        assert!(again.warnings.is_empty(), "{:?}", again.warnings);
        let Job::Evaluate(run) = again.config.job else { panic!("{line}: an evaluation") };
        // The size that the images had is one that was asked for.
        let data = DataConfig { size_is_default: false, ..began.data.clone() };
        assert_eq!(*run, Evaluate { data, ..began }, "{line}");
    }
    // What it continued is not continued again.
    let line = "--train-mode eval --checkpoint some.pth --fc-log-dir logs --fc-train-from c.pth.tar";
    let Job::Evaluate(run) = again(&left_by(line), "").unwrap().config.job else { panic!("an evaluation") };
    assert_eq!((run.resume, run.source), (None, EncoderSource::File("some.pth".into())));
}

#[test]
fn what_is_typed_beside_a_file_wins_and_is_said() {
    let directory = left_by(ODD);
    let resolved = |more: &str| again(&directory, more).unwrap_or_else(|error| panic!("{more}: {error:#}"));
    let changed = |more: &str| {
        let note = resolved(more).settings_note.unwrap();
        note.split_once("config.yml: ").unwrap().1.to_owned()
    };
    let run = |more: &str| match resolved(more).config.job {
        Job::Pretrain(run) => *run,
        Job::Evaluate(_) => panic!("pre-training"),
    };
    let began = pretrain(ODD);
    let lr = began.optimizer.lr;
    assert_eq!(changed("--epochs 2 --lr 0.1"), format!("--epochs 2 instead of 7, --lr 0.1 instead of {lr}"));
    let expected =
        Pretrain { epochs: 2, optimizer: OptimizerConfig { lr: 0.1, ..began.optimizer.clone() }, ..began.clone() };
    assert_eq!(run("--epochs 2 --lr 0.1"), expected);
    // What the file has none of.
    let plain = left_by("--dataset-name cifar10");
    let note = again(&plain, "--train-images 100 --ess-target 0.5 --from-pretrained a.pth").unwrap().settings_note;
    let expected =
        "--train-images 100 instead of all, --ess-target 0.5 instead of none, --from-pretrained a.pth instead of none";
    assert!(note.as_ref().unwrap().ends_with(expected), "{note:?}");
    // The same in other words is no change, and names have their underscores here too.
    assert_eq!(changed("--weight_decay 0.00001 --sync_bn=no --save_dir out"), "its settings as they are");
    // Flags of one setting.
    assert_eq!(
        changed("--learning-rate-scaling linear"),
        format!("--learning-rate-scaling linear instead of --lr {lr}")
    );
    assert_eq!(run("--learning-rate-scaling linear").optimizer.lr, 0.3 * 48.0 / 256.0);
    assert_eq!(changed("--blur false"), "--blur false instead of --blur-prob 0.6");
    assert_eq!(run("--blur false").augmentation.blur_prob, 0.0);
    assert_eq!(resolved("--data elsewhere").config.job, {
        let data = DataConfig { root: "elsewhere".into(), more_roots: Vec::new(), ..began.data.clone() };
        Job::Pretrain(Box::new(Pretrain { data, ..began.clone() }))
    });
    assert_eq!(changed("--data elsewhere"), "--data elsewhere instead of photos, more");
    assert_eq!(run("--knn-every 0").online_knn, None);
    // What follows from nothing typed stays.
    assert_eq!(run("--batch-size 96").optimizer.lr, lr);
    let config = resolved("--save-dir other --disable-cuda").config;
    assert_eq!((config.save_dir.as_path(), config.device), (Path::new("other"), DeviceChoice::Cpu));
    assert_eq!(config.start, Start::Pretrained("some.pth".into()));
    // A directory stands for its file.
    let whole = cli::resolve(&typed(&format!("--config {}", directory.path().display())), &no_checkpoint).unwrap();
    assert_eq!(whole.config.job, Job::Pretrain(Box::new(began)));

    let directory = left_by("--train-mode eval --checkpoint-dir d --transfer-from-epoch 3 --dataset-name cifar10");
    let resolved = again(&directory, "--checkpoint other.pth --fc-lr 0.2").unwrap();
    let Job::Evaluate(run) = resolved.config.job else { panic!("an evaluation") };
    assert_eq!((run.source, run.rate_follows_batch), (EncoderSource::File("other.pth".into()), false));
    let note = resolved.settings_note.unwrap();
    assert!(note.contains("--checkpoint other.pth instead of --checkpoint-dir d"), "{note}");
    let run = again(&directory, "--train-mode semi --semi-ratio 0.5").unwrap().config.job;
    assert!(matches!(run, Job::Evaluate(run) if run.label_ratio == 0.5 && run.mode == TransferMode::Finetune));
}

/// What no flag asks for, and what somebody has written by hand.
#[test]
fn a_file_may_have_been_edited() {
    let directory = left_by("--dataset-name cifar10");
    let file = directory.path().join("config.yml");
    let edit = |old: &str, new: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(old), "{old} in {text}");
        std::fs::write(&file, text.replacen(old, new, 1)).unwrap();
    };
    edit("mean: [", "mean: [0.125, 0.25, 0.5] # ");
    let Job::Pretrain(run) = again(&directory, "").unwrap().config.job else { panic!("pre-training") };
    assert_eq!(run.model.normalisation.mean, [0.125, 0.25, 0.5]);
    let Job::Pretrain(run) = again(&directory, "--dataset-name stl10").unwrap().config.job else { panic!() };
    assert_eq!(run.model.normalisation, Normalisation::of(DatasetName::Stl10));
    // The least that is a file of settings.
    edit("device: cpu\n", "");
    assert!(again(&directory, "--device cpu").is_ok());

    let wrong = |more: &str| format!("{:#}", again(&directory, more).map(|_| ()).expect_err(more));
    edit("temperature: 0.1", "temperature: -1");
    let error = wrong("");
    assert!(
        error.contains("config.yml") && error.contains("temperature is -1; it has to be a number above 0"),
        "{error}"
    );
    edit("temperature: -1", "temperature: 0.1");
    edit("distributed_timeout_seconds: 600", "distributed_timeout_seconds: 0");
    let error = wrong("");
    assert!(error.contains("config.yml cannot be used: invalid value '0' for '--distributed-timeout"), "{error}");
    edit("distributed_timeout_seconds: 0", "distributed_timeout_seconds: 600");
    edit("depth: res50", "depth: vit");
    assert!(wrong("").contains("config.yml cannot be used: \"vit\" is none of res10, res18"), "{}", wrong(""));
    edit("depth: vit", "depth: res50");
    edit("pretrain:", "dream:");
    assert!(wrong("").contains("config.yml has no job of this program"), "{}", wrong(""));
    std::fs::write(&file, "job: [1, 2\n").unwrap();
    assert!(wrong("").contains("config.yml is damaged"), "{}", wrong(""));
    std::fs::remove_file(&file).unwrap();
    assert!(wrong("").contains("config.yml: there is no such file; give a run's directory"), "{}", wrong(""));

    let (training, evaluation) = (left_by(""), left_by("--train-mode eval --checkpoint some.pth"));
    let error = again(&training, "--train-mode eval --checkpoint some.pth").unwrap_err().to_string();
    assert!(error.contains("is of a pre-training, and --train-mode eval is none"), "{error}");
    let error = again(&evaluation, "--train-mode ssl").unwrap_err().to_string();
    assert!(error.contains("is of an evaluation, and --train-mode ssl is none"), "{error}");
    for continued in ["--resume d", "--log-dir d", "--fc-log-dir d --fc-train-from c"] {
        let (flag, line) = (continued.split(' ').next().unwrap(), format!("--config x {continued}"));
        assert!(refused(&line).contains("cannot be used with") && refused(&line).contains(flag), "{}", refused(&line));
    }
}

#[test]
fn a_run_begins_with_the_settings_of_another_one() {
    let place = tempfile::tempdir().unwrap();
    let below = |results: &str| holder(&place.path().join(results), "config.yml");
    let settings = |run: &Path| run_dir::read_config(run).unwrap()["job"]["pretrain"].clone();
    let line = "--dataset_name fashion_mnist_mini --train_images 40 --image_size 16 --model res10 --batch_size 20 \
                --epochs 0 --temperature 0.3 --jitter_strength 0.25 --knn_every 3 --device cpu --save_dir first";
    let (code, _, errors) = output(program(place.path()).args(line.split_whitespace()));
    assert_eq!(code, 0, "{errors}");
    let first = below("first");
    let line = format!("--config {} --temperature 0.4 --save-dir=second", first.join("config.yml").display());
    let (code, facts, errors) = output(program(place.path()).args(line.split_whitespace()).arg("--dry-run"));
    assert_eq!(code, 0, "{errors}");
    let said = format!(
        "--config {}: --temperature 0.4 instead of 0.3, --save-dir second instead of first",
        first.join("config.yml").display()
    );
    assert!(facts.contains(&said) && !place.path().join("second").exists(), "{facts}");
    let (code, told, errors) = output(program(place.path()).args(line.split_whitespace()));
    assert_eq!(code, 0, "{errors}");
    assert!(told.contains(&said), "{told}");
    let second = below("second");
    let mut expected = settings(&first);
    expected["temperature"] = serde_json::json!(0.4);
    assert_eq!(settings(&second), expected);
    let recorded = run_dir::read_config(&second).unwrap();
    let words: Vec<&str> = recorded["command"].as_array().unwrap().iter().skip(1).filter_map(|w| w.as_str()).collect();
    assert_eq!(words, line.split_whitespace().collect::<Vec<_>>());
}

// The program itself.

fn program(directory: &Path) -> Command {
    let mut command = Command::cargo_bin("flatnce").unwrap();
    command.current_dir(directory).env_remove("NO_COLOR");
    command
}

fn output(command: &mut Command) -> (i32, String, String) {
    let out = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[test]
fn a_dry_run_prints_the_facts_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let line = "--dataset-name fashion_mnist_mini --model res10 --batch-size 64 --epochs 20 --device cpu --precision fp32 \
                --workers 2 --dry-run";
    let (code, facts, errors) = output(program(directory.path()).args(line.split_whitespace()));
    assert_eq!((code, errors.as_str()), (0, ""));
    for fact in [
        "FlatCLR (FlatNCE), temperature 0.1",
        "4,000 images of 32x32 pixels, 10 classes",
        "views [128, 3, 32, 32]",
        "res10, small stem, 5,226,432 weights",
        "62 per epoch, 1,240 in 20 epochs; 32 images of an epoch left out",
        "0.075, linear in the batch size",
        "cosine: 0 rises to 0.075 at step 620",
        "an estimate",
        "results/fashion_mnist_mini/64_FlatCLR/{dd-mm-YYYY-HH-MM-SS}",
        "CPU",
        "fp32",
    ] {
        assert!(facts.contains(fact), "{fact}\n{facts}");
    }
    assert!(facts.lines().all(|line| line.chars().count() <= 100), "{facts}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Colour on a terminal, none where NO_COLOR is set, and no control character in what goes to a file.
#[test]
fn colour_is_for_terminals_that_want_it() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["--dry-run", "--dataset-name=fashion_mnist_mini", "--model=res10", "--batch-size=8", "--fc-lr=3"];
    let (_, out, err) = output(program(directory.path()).args(words));
    assert!(err.contains("warning: no effect") && !(out + &err).contains('\u{1b}'), "{err}");
    // util-linux's `script` gives the program a terminal of its own.
    let line = format!("{} {}", assert_cmd::cargo::cargo_bin("flatnce").display(), words.join(" "));
    let on_terminal = |no_color: &str| {
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(directory.path());
        command.env("NO_COLOR", no_color).env("TERM", "xterm").stdin(std::process::Stdio::null());
        command.output().ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (Some(coloured), Some(plain)) = (on_terminal(""), on_terminal("1")) else {
        return support::skipped("no `script` to make a terminal with");
    };
    assert!(coloured.contains("\u{1b}[1;33mwarning:"), "{coloured:?}");
    assert!(plain.contains("warning: no effect") && !plain.contains("\u{1b}[1;33m"), "{plain:?}");
}

#[test]
fn a_dry_run_without_the_data_shows_the_rest_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let (code, facts, errors) =
        output(program(directory.path()).args(["--dataset-name", "cifar10", "--model", "res10", "--dry-run"]));
    assert_eq!(code, 1);
    assert!(facts.contains("results/cifar10/512_FlatCLR"), "{facts}");
    assert!(errors.starts_with("error: cifar10") && errors.contains("get_data.sh cifar10"), "{errors}");
    let line = "--dataset-name fashion_mnist_mini --model res10 --batch-size 5000 --dry-run";
    let (code, _, errors) = output(program(directory.path()).args(line.split_whitespace()));
    assert_eq!(code, 1);
    assert!(errors.contains("--batch-size 5000") && errors.contains("4,000"), "{errors}");
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let directory = tempfile::tempdir().unwrap();
    for line in ["--clr moco", "--quiet --verbose", "--resume nowhere", "--train-mode eval", "inspect"] {
        let (code, out, errors) = output(program(directory.path()).args(line.split_whitespace()));
        assert_eq!((code, out.as_str()), (2, ""), "{line}");
        assert!(errors.starts_with("error: "), "{errors}");
    }
    for flag in ["--help", "-h", "--version"] {
        let (code, out, errors) = output(program(directory.path()).arg(flag));
        assert_eq!((code, errors.as_str()), (0, ""), "{flag}");
        assert!(out.contains("flatnce"), "{out}");
    }
}

#[test]
fn a_real_checkpoint_gives_its_run_back() {
    let directory = tempfile::tempdir().unwrap();
    let began = "--dataset-name fashion_mnist_mini --model res10 --batch-size 64 --epochs 4";
    let encoder = Encoder::new(&pretrain(began).model, HeadKind::Projection, tch::Device::Cpu, 1);
    let (model, parameters) = (encoder.state_dict(), encoder.parameters());
    let momentum = parameters.iter().map(|parameter| parameter.tensor.detach().zeros_like()).enumerate();
    let state = momentum.map(|(index, tensor)| (index, "momentum_buffer".to_owned(), tensor)).collect();
    let mut checkpoint = Checkpoint {
        epochs_done: 2,
        step: 124,
        batch_in_epoch: 0,
        model,
        optimizer: SavedOptimizer { state, parameters: parameters.len(), lr: 0.1 },
        config: Some(pretrain(began)),
        model_name: Some("res10".into()),
        batch_size: Some(64),
        ..Checkpoint::default()
    };
    let path = directory.path().join("checkpoint_0001.pth.tar");
    checkpoint::write(&path, &checkpoint).unwrap();
    // An objective's own state comes back as well.
    let (queue, other) = (tch::Tensor::from_slice(&[0.5f32, -1.0, 3.0]), directory.path().join("other.pth.tar"));
    checkpoint.loss.push("queue", queue.shallow_clone());
    checkpoint::write(&other, &checkpoint).unwrap();
    let read = checkpoint::read(&other).unwrap().loss;
    assert!(read.len() == 1 && read.get("queue").unwrap().equal(&queue));
    std::fs::write(directory.path().join("checkpoint_0003.pth.tar"), b"cut off").unwrap();

    let line = format!("--resume {} --device cpu", directory.path().display());
    let resolved = cli::resolve(&typed(&line), &read_saved).unwrap();
    assert_eq!(resolved.config.start, Start::Resume(path.clone()));
    assert_eq!(resolved.config.job, Job::Pretrain(Box::new(pretrain(began))));
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert!(warning.contains("checkpoint_0003.pth.tar is passed over"), "{warning}");

    let (code, facts, errors) = output(program(directory.path()).args(["--resume", ".", "--dry-run"]));
    assert_eq!(code, 0, "{errors}");
    assert!(facts.contains("continue from ./checkpoint_0001.pth.tar"), "{facts}");
    assert!(errors.starts_with("warning: "), "{errors}");
    let (code, _, errors) = output(program(directory.path()).args(["--resume", ".", "--model", "res50"]));
    assert_eq!(code, 2);
    assert!(errors.contains("--model res50: the run has res10"), "{errors}");

    let line =
        "--dataset-name fashion_mnist_mini --train-mode eval --checkpoint-dir . --transfer-from-epoch 1 --dry-run";
    let (code, facts, errors) = output(program(directory.path()).args(line.split_whitespace()));
    assert_eq!(code, 0, "{errors}");
    assert!(facts.contains("results/fashion_mnist_mini/flatclr/64_1_fc/{dd-mm-YYYY-HH-MM-SS}"), "{facts}");
    assert!(facts.contains("2 epochs of flatclr on fashion_mnist_mini"), "{facts}");
}

/// The directory below `results` that has this file.
fn holder(results: &Path, file: &str) -> PathBuf {
    let mut places = vec![results.to_owned()];
    while let Some(place) = places.pop() {
        if place.join(file).exists() {
            return place;
        }
        places.extend(
            std::fs::read_dir(&place).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()),
        );
    }
    panic!("{file} is nowhere in {}", results.display())
}

#[test]
fn for_programs_every_line_is_an_object_and_results_have_fields() {
    let directory = tempfile::tempdir().unwrap();
    let lines = |line: &str| -> Vec<serde_json::Value> {
        let mut command = program(directory.path());
        command.env("OMP_NUM_THREADS", "1").args(line.split_whitespace()).args([
            "--log-format=json",
            "--device=cpu",
            "--train-images=60",
        ]);
        let (code, text, errors) = output(command.args(["--dataset-name=fashion_mnist_mini", "--image-size=8"]));
        assert!(code == 0 && errors.is_empty(), "{text}{errors}");
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let of_kind = |lines: &[serde_json::Value], kind: &str| -> Vec<serde_json::Value> {
        let mut found: Vec<_> = lines.iter().filter(|line| line["kind"] == kind).cloned().collect();
        for line in &mut found {
            let fields = line.as_object_mut().unwrap();
            assert!(fields.remove("kind").is_some() && fields.remove("time").is_some());
        }
        found
    };
    lines("--model res10 --batch-size 20 --epochs 1 --warmup-epochs 0 --save-every-n-epochs 1 --save-dir runs");
    let run = holder(&directory.path().join("runs"), "checkpoint_0001.pth.tar");
    // A second checkpoint of the same weights.
    std::fs::copy(run.join("checkpoint_0001.pth.tar"), run.join("checkpoint_0000.pth.tar")).unwrap();
    let evaluation = format!("--train-mode eval --checkpoint-dir {} --fc-epochs 2 --feature-cache off", run.display());

    let said = lines(&format!("{evaluation} --transfer-from-epoch all --reg-weight 0,0.1 --save-dir all"));
    let (results, over_epochs) = (of_kind(&said, "result"), of_kind(&said, "accuracy_over_epochs"));
    let penalties = of_kind(&said, "reg_weight");
    assert_eq!((results.len(), over_epochs.len(), penalties.len()), (2, 2, 4), "{said:?}");
    let weights: Vec<_> = penalties.iter().map(|row| row["reg_weight"].as_f64().unwrap()).collect();
    assert_eq!(weights, [0.0, 0.1, 0.0, 0.1]);
    assert!(penalties.iter().all(|row| row["held_out_top1"].is_f64()), "{penalties:?}");
    for (one, row) in results.iter().zip(&over_epochs) {
        assert!(one["checkpoint"].as_str().unwrap().ends_with(row["checkpoint"].as_str().unwrap()));
        for field in ["test_top1_last_epoch", "test_top1_best_epoch", "knn_weighted_top1", "knn_plain_top1"] {
            assert!(row[field].is_f64() && row[field] == one[field], "{field}: {row} {one}");
        }
    }
    let file = holder(&directory.path().join("all"), "linear_eval.json").join("linear_eval.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    file.as_object_mut().unwrap().remove("meaning");
    assert!(results.contains(&file), "{file} is none of {results:?}");

    let plan = of_kind(&lines(&format!("{evaluation} --dry-run")), "plan");
    assert!(plan.len() == 1 && plan[0]["facts"]["optimiser"] == "sgd, weight decay 0, momentum 0.9", "{plan:?}");
}
