//! A run that is continued: its own settings, read from its checkpoint, apply;
//! what was typed must agree with them.

use super::pretrain;
use crate::checkpoint::{self, Checkpoint};
use crate::cli::{Typed, flag_name};
use crate::config::{Depth, Precision, Pretrain, Start};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use tch::Device;

/// Which checkpoint to continue from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The newest of a directory that verifies.
    Newest(PathBuf),
    File(PathBuf),
}

/// A checkpoint to be continued.
#[derive(Debug)]
pub struct Saved {
    pub path: PathBuf,
    /// Where PyTorch wrote it, it has no `config`; the flags give the settings then.
    pub checkpoint: Checkpoint,
}

/// How a run to be continued is read: [`read_saved`], or a stand-in where there is no file.
pub type ReadSaved<'a> = dyn Fn(&Origin, &mut dyn FnMut(String)) -> Result<Saved> + 'a;

/// Reads and verifies the checkpoint; damaged ones that are passed over go to `warn`.
pub fn read_saved(origin: &Origin, warn: &mut dyn FnMut(String)) -> Result<Saved> {
    let (path, checkpoint) = match origin {
        Origin::Newest(directory) => checkpoint::newest_good(directory, warn)?,
        Origin::File(path) => (path.clone(), checkpoint::read(path)?),
    };
    Ok(Saved { path, checkpoint })
}

/// The checkpoint that the flags name.
pub fn origin(typed: &Typed) -> Result<Option<Origin>> {
    let flags = &typed.args.results;
    Ok(match (&flags.resume, &flags.log_dir, &flags.train_from) {
        (Some(path), ..) if path.is_file() => {
            bail!("--resume takes the directory of a run; for one file use --log-dir DIR --train-from FILE")
        }
        (Some(directory), ..) | (None, Some(directory), None) => Some(Origin::Newest(directory.clone())),
        (None, Some(directory), Some(file)) => Some(Origin::File(directory.join(file))),
        (None, None, _) => None,
    })
}

/// The settings of the continued run.
///
/// Errors: a typed flag that contradicts the run; all of them at once, with both values.
pub fn continued(
    typed: &Typed,
    saved: &Saved,
    precision: Precision,
    device: Device,
    warnings: &mut Vec<String>,
) -> Result<(Pretrain, Start)> {
    let Some(mut config) = saved.checkpoint.config.clone() else {
        let typed = with_upstream_settings(typed, saved)?;
        let config = pretrain::from_flags(&typed, precision, device)?;
        return Ok((config, Start::Resume(saved.path.clone())));
    };
    // Flags that follow from others follow from the run's.
    let mut filled = typed.clone();
    if !typed.has("batch_size") {
        filled.args.optimisation.batch_size = config.batch_size;
    }
    if !typed.has("grad_cache") {
        filled.args.optimisation.grad_cache = config.grad_cache;
    }
    if !typed.has("dataset_name") {
        filled.args.data.dataset_name = config.data.dataset;
    }
    if !typed.has("engine") && !typed.args.augmentation.faster_version {
        // Its default depends on the device, and the run keeps the one that it began with.
        filled.args.augmentation.engine = Some(config.engine);
    }
    let wanted = pretrain::from_flags(&filled, precision, device)?;
    let differing = contradictions(typed, &wanted, &config);
    if !differing.is_empty() {
        bail!(
            "the command contradicts the run that it continues ({}):\n{}\nleave these flags out, or start a new run",
            saved.path.display(),
            differing.join("\n")
        );
    }
    if typed.has("epochs") {
        config.epochs = wanted.epochs;
    }
    if typed.has("data") {
        config.data.root = wanted.data.root;
    }
    if typed.has("save_every_n_epochs") {
        config.save_every_n_epochs = wanted.save_every_n_epochs;
    }
    if ["knn_every", "knn_neighbours", "knn_temperature"].iter().any(|id| typed.has(id)) {
        config.online_knn = wanted.online_knn;
    }
    if typed.has("log_every") {
        config.log_every = wanted.log_every;
    }
    let (kept, asked) = (&mut config.checkpoints, wanted.checkpoints);
    if typed.has("save_every_n_steps") {
        kept.every_n_steps = asked.every_n_steps;
    }
    if typed.has("keep_last") {
        kept.keep_last = asked.keep_last;
    }
    if typed.has("keep_every") {
        kept.keep_every = asked.keep_every;
    }
    if typed.has("checkpoint_prefix") {
        kept.prefix = asked.prefix;
    }
    let before = config.numerics;
    if typed.has("allow_tf32") {
        config.numerics.allow_tf32 = wanted.numerics.allow_tf32;
    }
    if typed.has("deterministic") {
        config.numerics.deterministic = wanted.numerics.deterministic;
    }
    if config.numerics != before {
        warnings.push(
            "--allow-tf32 or --deterministic is not as the run began: on a GPU its numbers will differ from those of an \
             uninterrupted run"
                .to_owned(),
        );
    }
    if config.precision != precision {
        warnings.push(format!(
            "the run began in {} and goes on in {precision}: its numbers will differ from those of an uninterrupted run",
            config.precision
        ));
        config.precision = precision;
    }
    Ok((config, Start::Resume(saved.path.clone())))
}

/// A setting as text, so that flag and run can be compared and shown.
type Setting = fn(&Pretrain) -> String;

/// The settings that make a run what it is, with the flags that set them.
const IDENTITY: &[(&str, Setting)] = &[
    ("dataset_name", |c| c.data.dataset.to_string()),
    ("image_size", |c| c.data.image_size_px.to_string()),
    ("train_images", |c| c.data.train_images.map_or("all".to_owned(), |n| n.to_string())),
    ("bad_images", |c| c.data.bad_images.to_string()),
    ("clr", |c| c.objective.to_string()),
    ("temperature", |c| c.temperature.to_string()),
    ("ess_target", |c| c.ess_target.map_or("none".to_owned(), |target| target.to_string())),
    ("model", |c| c.model.depth.to_string()),
    ("stem", |c| c.model.stem.to_string()),
    ("proj_head_mode", |c| c.model.head.mode.to_string()),
    ("num_proj_layers", |c| c.model.head.layers.to_string()),
    ("proj_out_dim", |c| c.model.head.out_dim.to_string()),
    ("batch_size", |c| c.batch_size.to_string()),
    ("grad_cache", |c| c.grad_cache.to_string()),
    ("lr", |c| c.optimizer.lr.to_string()),
    ("optimizer", |c| c.optimizer.name.to_string()),
    ("weight_decay", |c| c.optimizer.weight_decay.to_string()),
    ("momentum", |c| c.optimizer.momentum.to_string()),
    ("lars_exclude", |c| lars_exclude(c.optimizer.lars_exclude_bn, c.optimizer.lars_exclude_bias).to_owned()),
    ("scheduler", |c| c.schedule.name.to_string()),
    ("use_scheduler", |c| c.schedule.name.to_string()),
    ("warmup_epochs", |c| c.schedule.warmup_epochs.to_string()),
    ("seed", |c| c.seed.to_string()),
    ("sync_bn", |c| c.sync_bn.to_string()),
    ("engine", |c| c.engine.to_string()),
    ("faster_version", |c| c.engine.to_string()),
    ("crop_scale_min", |c| c.augmentation.crop_scale_min.to_string()),
    ("crop_scale_max", |c| c.augmentation.crop_scale_max.to_string()),
    ("crop_ratio_min", |c| c.augmentation.crop_ratio_min.to_string()),
    ("crop_ratio_max", |c| c.augmentation.crop_ratio_max.to_string()),
    ("flip_prob", |c| c.augmentation.flip_prob.to_string()),
    ("jitter_prob", |c| c.augmentation.jitter_prob.to_string()),
    ("jitter_strength", |c| c.augmentation.jitter_strength.to_string()),
    ("grayscale_prob", |c| c.augmentation.grayscale_prob.to_string()),
    ("blur", |c| (c.augmentation.blur_prob > 0.0).to_string()),
    ("blur_prob", |c| c.augmentation.blur_prob.to_string()),
    ("blur_kernel", |c| c.augmentation.blur_kernel_px.to_string()),
    ("blur_sigma_min", |c| c.augmentation.blur_sigma_min.to_string()),
    ("blur_sigma_max", |c| c.augmentation.blur_sigma_max.to_string()),
];

fn lars_exclude(bn: bool, bias: bool) -> &'static str {
    match (bn, bias) {
        (true, true) => "bn,bias",
        (true, false) => "bn",
        (false, true) => "bias",
        (false, false) => "none",
    }
}

/// One line per typed flag that the run disagrees with.
fn contradictions(typed: &Typed, wanted: &Pretrain, run: &Pretrain) -> Vec<String> {
    let line = |id: &str, wanted: String, run: String| format!("  {} {wanted}: the run has {run}", flag_name(id));
    let mut lines: Vec<String> = IDENTITY
        .iter()
        .filter(|(id, setting)| typed.has(id) && setting(wanted) != setting(run))
        .map(|(id, setting)| line(id, setting(wanted), setting(run)))
        .collect();
    if typed.has("learning_rate_scaling") && !typed.has("lr") && wanted.optimizer.lr != run.optimizer.lr {
        let scaling = typed.args.optimisation.learning_rate_scaling;
        let gives = format!("{scaling} (lr {})", wanted.optimizer.lr);
        lines.push(line("learning_rate_scaling", gives, format!("lr {}", run.optimizer.lr)));
    }
    if typed.has("epochs") && wanted.epochs < run.epochs {
        let have = format!("{}, and a run may only grow", run.epochs);
        lines.push(line("epochs", wanted.epochs.to_string(), have));
    }
    lines
}

/// The flags, with the two settings that upstream's checkpoints hold where the user typed none.
fn with_upstream_settings(typed: &Typed, saved: &Saved) -> Result<Typed> {
    let mut filled = typed.clone();
    let name = saved.path.display();
    if let Some(model) = &saved.checkpoint.model_name {
        let depth = Depth::parse(model).with_context(|| format!("{name} holds the unknown model {model:?}"))?;
        if typed.has("model") && typed.args.objective.model != depth {
            bail!("--model {}: the checkpoint {name} has {depth}", typed.args.objective.model);
        }
        filled.args.objective.model = depth;
    }
    if let Some(batch_size) = saved.checkpoint.batch_size {
        if typed.has("batch_size") && typed.args.optimisation.batch_size != batch_size {
            bail!("--batch-size {}: the checkpoint {name} has {batch_size}", typed.args.optimisation.batch_size);
        }
        filled.args.optimisation.batch_size = batch_size;
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags that a continued run may give as it likes: they change nothing in what it computes, are checked in
    /// [`contradictions`] by themselves, or belong to evaluations.
    const FREE: &[&str] = &[
        "data",
        "n_views",
        "learning_rate_scaling",
        "epochs",
        "train_mode",
        "transfer_mode",
        "transfer_dataset_name",
        "transfer_from_epoch",
        "checkpoint",
        "checkpoint_dir",
        "semi_ratio",
        "fc_epochs",
        "fc_batch_size",
        "fc_lr",
        "fc_optimizer",
        "fc_scheduler",
        "fc_weight_decay",
        "fc_momentum",
        "fc_log_dir",
        "fc_train_from",
        "fc_save_every_n_epochs",
        "fc_standardize",
        "reg_weight",
        "patience_epochs",
        "early_stop_on",
        "fc_augment",
        "knn_every",
        "feature_cache",
        "knn_neighbours",
        "knn_temperature",
        "save_dir",
        "save_every_n_epochs",
        "save_every_n_steps",
        "keep_last",
        "keep_every",
        "checkpoint_prefix",
        "resume",
        "log_dir",
        "train_from",
        "from_pretrained",
        "device",
        "disable_cuda",
        "precision",
        "fp16_precision",
        "allow_tf32",
        "deterministic",
        "workers",
        "data_on_device",
        "cuda_graph",
        "fused_kernels",
        "nproc",
        "distributed_timeout",
        "dry_run",
        "log_every",
        "log_format",
        "quiet",
        "verbose",
    ];

    #[test]
    fn every_flag_is_compared_with_the_run_or_known_to_be_free() {
        let command = crate::cli::command();
        let flags: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        let known: Vec<&str> = IDENTITY.iter().map(|(id, _)| *id).chain(FREE.iter().copied()).collect();
        for id in &flags {
            assert_eq!(known.iter().filter(|known| *known == id).count(), 1, "{id}");
        }
        assert!(known.iter().all(|id| flags.contains(id)));
    }
}
