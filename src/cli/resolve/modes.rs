//! Which flags go with which `--train-mode`.

use crate::cli::{Typed, flag_name};
use crate::config::TrainMode;
use anyhow::{Result, bail};

/// Refuses the flags that another `--train-mode` reads, where leaving them unread would give another result than
/// the one that was asked for.
pub fn refuse(typed: &Typed) -> Result<()> {
    let mode = typed.args.evaluation.train_mode;
    let evaluates_checkpoint: &[TrainMode] = &[TrainMode::Eval, TrainMode::Transfer, TrainMode::Semi];
    let evaluates: &[TrainMode] = &[TrainMode::Eval, TrainMode::Transfer, TrainMode::Semi, TrainMode::Supervised];
    let readers: [(&str, &[TrainMode]); 9] = [
        ("transfer_dataset_name", &[TrainMode::Transfer]),
        ("semi_ratio", &[TrainMode::Semi]),
        ("checkpoint_dir", evaluates_checkpoint),
        ("checkpoint", evaluates_checkpoint),
        ("transfer_from_epoch", evaluates_checkpoint),
        ("fc_log_dir", evaluates),
        ("resume", &[TrainMode::Ssl]),
        ("log_dir", &[TrainMode::Ssl]),
        ("from_pretrained", &[TrainMode::Ssl]),
    ];
    for (id, modes) in readers {
        if typed.has(id) && !modes.contains(&mode) {
            let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
            bail!(
                "{} goes with --train-mode {}; this command's is {mode}{}",
                flag_name(id),
                names.join(", "),
                advice(id)
            );
        }
    }
    Ok(())
}

fn advice(id: &str) -> &'static str {
    match id {
        "transfer_dataset_name" => ": give the images with --dataset-name",
        "resume" | "log_dir" => ": an evaluation is continued with --fc-log-dir and --fc-train-from",
        "from_pretrained" => ": give the encoder with --checkpoint",
        _ => "",
    }
}

/// Settings of pre-training that an evaluation takes from its checkpoint or does not have.
const PRETRAINING_ONLY: &[&str] = &[
    "clr",
    "temperature",
    "ess_target",
    "proj_head_mode",
    "num_proj_layers",
    "proj_out_dim",
    "batch_size",
    "epochs",
    "lr",
    "learning_rate_scaling",
    "optimizer",
    "weight_decay",
    "momentum",
    "scheduler",
    "use_scheduler",
    "warmup_epochs",
    "sync_bn",
    "faster_version",
    "crop_scale_min",
    "crop_scale_max",
    "crop_ratio_min",
    "crop_ratio_max",
    "flip_prob",
    "jitter_prob",
    "jitter_strength",
    "grayscale_prob",
    "blur",
    "blur_prob",
    "blur_kernel",
    "blur_sigma_min",
    "blur_sigma_max",
    "log_every",
    "knn_every",
    "save_every_n_epochs",
    "save_every_n_steps",
    "keep_last",
    "keep_every",
    "checkpoint_prefix",
];

/// The encoder's shape, which only training from scratch takes from the flags.
const MODEL: &[&str] = &["model", "stem"];

const EVALUATION_ONLY: &[&str] = &[
    "transfer_mode",
    "fc_epochs",
    "fc_batch_size",
    "fc_lr",
    "fc_optimizer",
    "fc_scheduler",
    "fc_weight_decay",
    "fc_momentum",
    "fc_save_every_n_epochs",
    "fc_standardize",
    "reg_weight",
    "patience_epochs",
    "feature_cache",
];

/// A warning for typed flags that change nothing in this `--train-mode`, as upstream's scripts often carry them.
pub fn without_effect(typed: &Typed) -> Option<String> {
    let mode = typed.args.evaluation.train_mode;
    let idle: Vec<&[&str]> = match mode {
        TrainMode::Ssl => vec![EVALUATION_ONLY],
        TrainMode::Supervised => vec![PRETRAINING_ONLY],
        TrainMode::Eval | TrainMode::Transfer | TrainMode::Semi => vec![PRETRAINING_ONLY, MODEL],
    };
    let names: Vec<String> = idle.concat().into_iter().filter(|id| typed.has(id)).map(flag_name).collect();
    (!names.is_empty()).then(|| format!("no effect with --train-mode {mode}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_name_flags_that_exist() {
        let command = crate::cli::command();
        for id in [PRETRAINING_ONLY, MODEL, EVALUATION_ONLY].concat() {
            assert!(command.get_arguments().any(|arg| arg.get_id() == id), "{id}");
        }
    }
}
