//! Which flags go with which `--train-mode`.

use crate::cli::{Typed, flag_name};
use crate::config::{OptimizerName, TrainMode, TransferMode};
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
    "grad_cache",
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
    "engine",
    "faster_version",
    "data_on_device",
    "cuda_graph",
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
    "early_stop_on",
    "fc_augment",
    "feature_cache",
];

/// What a classifier on frozen features reads, and the training of a whole network does not.
const LINEAR_ONLY: &[&str] = &["fc_standardize", "reg_weight", "feature_cache", "knn_neighbours", "knn_temperature"];

/// The other way round.
const WHOLE_NETWORK_ONLY: &[&str] = &["patience_epochs", "early_stop_on"];

/// LBFGS takes all images at once and searches its own step.
const NOT_FOR_LBFGS: &[&str] = &["fc_batch_size", "fc_lr", "fc_scheduler", "fc_weight_decay", "fc_momentum"];

/// A warning for typed flags that change nothing in what this command does, as upstream's scripts often carry them.
pub fn without_effect(typed: &Typed) -> Vec<String> {
    let flags = &typed.args.evaluation;
    let mode = flags.train_mode;
    let idle: Vec<&[&str]> = match mode {
        TrainMode::Ssl => vec![EVALUATION_ONLY],
        TrainMode::Supervised => vec![PRETRAINING_ONLY],
        TrainMode::Eval | TrainMode::Transfer | TrainMode::Semi => vec![PRETRAINING_ONLY, MODEL],
    };
    let mut found = vec![named(typed, &format!("with --train-mode {mode}"), &idle.concat())];
    let whole = match mode {
        TrainMode::Ssl => return found.into_iter().flatten().collect(),
        TrainMode::Semi | TrainMode::Supervised => true,
        TrainMode::Eval | TrainMode::Transfer => flags.transfer_mode == TransferMode::Finetune,
    };
    if whole {
        found.push(named(typed, "where the whole network is trained", LINEAR_ONLY));
    } else {
        found.push(named(typed, "on a linear evaluation", WHOLE_NETWORK_ONLY));
    }
    if flags.fc_optimizer == OptimizerName::Lbfgs {
        found.push(named(typed, "with --fc-optimizer LBFGS", NOT_FOR_LBFGS));
    }
    found.into_iter().flatten().collect()
}

fn named(typed: &Typed, circumstance: &str, ids: &[&'static str]) -> Option<String> {
    let names: Vec<String> = ids.iter().copied().filter(|id| typed.has(id)).map(flag_name).collect();
    (!names.is_empty()).then(|| format!("no effect {circumstance}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_name_flags_that_exist() {
        let command = crate::cli::command();
        for id in [PRETRAINING_ONLY, MODEL, EVALUATION_ONLY, LINEAR_ONLY, WHOLE_NETWORK_ONLY, NOT_FOR_LBFGS].concat() {
            assert!(command.get_arguments().any(|arg| arg.get_id() == id), "{id}");
        }
    }
}
