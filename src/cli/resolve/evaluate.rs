//! An evaluation from flags (upstream: `main_eval`, `main_transfer`,
//! `main_transfer_ft`, `main_supervised`).
//!
//! | `--train-mode` | images | what is trained |
//! |---|---|---|
//! | eval | `--dataset-name` | what `--transfer-mode` says |
//! | transfer | `--transfer-dataset-name` | what `--transfer-mode` says |
//! | semi | a share of `--dataset-name` | everything, from a checkpoint |
//! | supervised | `--dataset-name` | everything, from scratch |
//!
//! Upstream's `eval` and `semi` know ImageNet only, and its `supervised` reads
//! `--transfer-dataset-name`; here all three take the data set that the command names.

use super::pretrain::{data_config, model, numerics};
use crate::cli::Typed;
use crate::config::{
    EncoderSource, Evaluate, KnnConfig, OptimizerConfig, OptimizerName, Precision, ScheduleConfig, ScheduleName,
    TrainMode, TransferMode,
};
use anyhow::{Result, bail};

/// Epochs without a gain after which upstream's fine-tuning stops.
const FINETUNE_PATIENCE_EPOCHS: u32 = 5;

pub fn from_flags(typed: &Typed, precision: Precision) -> Result<Evaluate> {
    let args = &typed.args;
    let flags = &args.evaluation;
    let train_mode = flags.train_mode;
    let mode = match train_mode {
        TrainMode::Semi | TrainMode::Supervised => whole_network(typed)?,
        _ => flags.transfer_mode,
    };
    let dataset = match train_mode {
        TrainMode::Transfer => flags.transfer_dataset_name,
        _ => args.data.dataset_name,
    };
    let data = data_config(&args.data, dataset);
    let source = match train_mode {
        TrainMode::Supervised => EncoderSource::Scratch(model(args, &data)),
        _ => encoder_source(typed)?,
    };
    if flags.fc_optimizer == OptimizerName::Lbfgs && mode == TransferMode::Finetune {
        bail!("--fc-optimizer LBFGS works on a frozen trunk only; use sgd, lars or adam with --transfer-mode finetune");
    }
    // Upstream fine-tunes a pre-trained network without a schedule and stops early.
    let finetune = mode == TransferMode::Finetune && train_mode != TrainMode::Supervised;
    let (usual_schedule, usual_patience) =
        if finetune { (ScheduleName::Constant, FINETUNE_PATIENCE_EPOCHS) } else { (ScheduleName::Cosine, 0) };
    Ok(Evaluate {
        source,
        mode,
        data,
        label_ratio: if train_mode == TrainMode::Semi { flags.semi_ratio } else { 1.0 },
        optimizer: OptimizerConfig {
            name: flags.fc_optimizer,
            lr: flags.fc_lr,
            weight_decay: flags.fc_weight_decay,
            momentum: flags.fc_momentum,
            lars_exclude_bn: args.optimisation.lars_exclude.bn,
            lars_exclude_bias: args.optimisation.lars_exclude.bias,
        },
        schedule: ScheduleConfig { name: flags.fc_scheduler.unwrap_or(usual_schedule), warmup_epochs: 0 },
        batch_size: flags.fc_batch_size,
        epochs: flags.fc_epochs,
        patience_epochs: flags.patience_epochs.unwrap_or(usual_patience),
        early_stop_on: flags.early_stop_on,
        augment: flags.fc_augment,
        standardize: flags.fc_standardize,
        reg_weights: flags.reg_weight.clone(),
        knn: KnnConfig { neighbours: flags.knn_neighbours, temperature: flags.knn_temperature },
        save_every_n_epochs: flags.fc_save_every_n_epochs,
        resume: flags.fc_log_dir.clone().zip(flags.fc_train_from.clone()),
        seed: args.optimisation.seed,
        precision,
        numerics: numerics(&args.machine),
    })
}

/// `semi` and `supervised` train the whole network; a typed `--transfer-mode linear_eval` contradicts them.
fn whole_network(typed: &Typed) -> Result<TransferMode> {
    let flags = &typed.args.evaluation;
    if typed.has("transfer_mode") && flags.transfer_mode != TransferMode::Finetune {
        bail!(
            "--train-mode {} trains the whole network, --transfer-mode {} only a classifier; leave one of them out",
            flags.train_mode,
            flags.transfer_mode
        );
    }
    Ok(TransferMode::Finetune)
}

fn encoder_source(typed: &Typed) -> Result<EncoderSource> {
    let flags = &typed.args.evaluation;
    match (&flags.checkpoint, &flags.checkpoint_dir) {
        (Some(file), _) => Ok(EncoderSource::File(file.clone())),
        (None, Some(directory)) => {
            Ok(EncoderSource::Directory { directory: directory.clone(), which: flags.transfer_from_epoch })
        }
        (None, None) => bail!(
            "--train-mode {} needs a trained encoder: give the directory of its run with --checkpoint-dir, or one \
             file with --checkpoint",
            flags.train_mode
        ),
    }
}
