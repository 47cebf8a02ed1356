//! Pre-training: what is trained, towards what and how; its flags, and a new run from them.

use super::flags::{ENCODER_TOO, EVERY, Flag, Only, PRETRAINING, flag};
use super::{Args, Typed};
use crate::config::TrainMode::{Eval, Ssl, Supervised};
use crate::config::{
    CheckpointPolicy, DataConfig, Depth, HeadConfig, HeadMode, KnnConfig, LearningRateScaling, ModelConfig,
    Normalisation, Objective, OnlineKnn, OnlineProbe, OptimizerConfig, OptimizerName, Precision, Pretrain,
    ScheduleConfig, ScheduleName, Stem,
};
use crate::optim::scaled_lr;
use crate::values::{
    LarsExclude, above_zero, between, count, inside_unit, lars_exclude, momentum, not_negative, one_of, switch,
    two_views,
};
use anyhow::{Result, bail};
use clap::ArgAction::Set;
use tch::Device;

/// From this side on, images meet the stem that halves them twice before the first block.
const IMAGENET_STEM_FROM_PX: u32 = 128;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Objective and model")]
pub struct ObjectiveArgs {
    /// Objective: InfoNCE (simclr) or FlatNCE (flatclr)
    #[arg(long, value_name = "NAME", default_value = "flatclr", value_parser = one_of!(Objective))]
    pub clr: Objective,
    /// Temperature of the similarities
    #[arg(long, value_name = "T", default_value = "0.1", value_parser = above_zero)]
    pub temperature: f64,
    /// Adapt the temperature so that the mean NESS stays at this, above 0 and below 1
    ///
    /// NESS is the normalised effective sample size of the negatives. Every 10
    /// steps the temperature moves by at most 5%. An extension of the paper.
    /// Default: the temperature is fixed.
    #[arg(long, value_name = "NESS", hide_short_help = true, value_parser = inside_unit)]
    pub ess_target: Option<f64>,
    /// ResNet trunk
    #[arg(long, value_name = "NAME", default_value = "res50", value_parser = one_of!(Depth))]
    pub model: Depth,
    /// First layers: 3x3 convolution (small), or 7x7 and pooling (imagenet)
    ///
    /// Default: imagenet for images of 128 pixels and more, small below.
    #[arg(long, value_name = "NAME", value_parser = one_of!(Stem), hide_short_help = true)]
    pub stem: Option<Stem>,
    /// Projection head: Linear+ReLU layers (nonlinear), Linear+BatchNorm (linear), or none
    #[arg(long, value_name = "NAME", default_value = "nonlinear", hide_short_help = true)]
    #[arg(value_parser = one_of!(HeadMode))]
    pub proj_head_mode: HeadMode,
    /// Linear layers of the nonlinear projection head
    #[arg(long, value_name = "N", default_value = "2", hide_short_help = true, value_parser = between::<1, 64>)]
    pub num_proj_layers: u32,
    /// Width of the projection head's output
    #[arg(long, value_name = "N", default_value = "128", hide_short_help = true, value_parser = between::<1, 65536>)]
    pub proj_out_dim: u32,
    /// Views per image; the objectives need exactly 2
    #[arg(long, value_name = "N", default_value = "2", hide_short_help = true, value_parser = two_views)]
    pub n_views: u32,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Optimisation")]
pub struct OptimisationArgs {
    /// Images per step; each is seen in two views
    #[arg(long, value_name = "IMAGES", default_value = "512", value_parser = count::<2>)]
    pub batch_size: u32,
    /// Parts in which a batch goes through the encoder, one after the other
    ///
    /// For batches that do not fit into memory: it holds one part's activations
    /// at a time. Each image goes through twice forward and once back, so a step
    /// takes a third longer. The contrast is that of the whole batch; BatchNorm
    /// normalises each part by its own statistics, so the result is not that of
    /// an undivided batch, nor are the running statistics.
    #[arg(long, value_name = "PARTS", default_value = "1", hide_short_help = true, value_parser = count::<1>)]
    pub grad_cache: u32,
    /// Passes over the images
    ///
    /// 0 trains nothing and saves the initial weights: the baseline of an
    /// evaluation.
    #[arg(long, value_name = "N", default_value = "100", value_parser = between::<0, 1_000_000>)]
    pub epochs: u32,
    /// Peak learning rate
    ///
    /// Default: it follows from the batch size, see --learning-rate-scaling.
    #[arg(long, value_name = "RATE", value_parser = above_zero)]
    #[arg(help = "Peak learning rate [default: from the batch size]")]
    pub lr: Option<f64>,
    /// How the learning rate follows from the batch size B when --lr is not given
    ///
    /// linear: 0.3 B / 256; sqrt: 0.075 times the root of B.
    #[arg(long, value_name = "RULE", default_value = "linear", value_parser = one_of!(LearningRateScaling))]
    pub learning_rate_scaling: LearningRateScaling,
    /// Optimiser
    #[arg(long, value_name = "NAME", default_value = "lars", value_parser = one_of!(OptimizerName: Lars, Adam, Sgd))]
    pub optimizer: OptimizerName,
    /// Weight decay
    #[arg(long, value_name = "FACTOR", default_value = "1e-6", hide_short_help = true, value_parser = not_negative)]
    pub weight_decay: f64,
    /// Momentum of LARS and SGD
    #[arg(long, value_name = "FACTOR", default_value = "0.9", hide_short_help = true, value_parser = momentum)]
    pub momentum: f64,
    /// Parameters that LARS neither decays nor adapts: bn, bias, bn,bias or none
    ///
    /// none is what main.py does in effect: its list is never looked at.
    #[arg(long, value_name = "LIST", default_value = "bn,bias", hide_short_help = true, value_parser = lars_exclude)]
    pub lars_exclude: LarsExclude,
    /// Schedule of the learning rate; constant and none hold it
    #[arg(long, value_name = "NAME", default_value = "cosine", value_parser = one_of!(ScheduleName))]
    pub scheduler: ScheduleName,
    /// false is --scheduler none
    #[arg(long, value_name = "BOOL", default_value = "true", hide_short_help = true, action = Set, value_parser = switch)]
    pub use_scheduler: bool,
    /// Epochs in which the cosine schedule's learning rate rises from 0
    #[arg(long, value_name = "N", default_value = "10", value_parser = count::<0>)]
    pub warmup_epochs: u32,
    /// With several processes, BatchNorm's statistics are of the images of all
    ///
    /// false: each process's own images; cheaper, and another training for
    /// another number of processes. Of one process it changes nothing.
    #[arg(long, value_name = "BOOL", default_value = "true", hide_short_help = true, action = Set, value_parser = switch)]
    pub sync_bn: bool,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
}

pub const FLAGS: &[Flag] = &[
    flag("clr", ENCODER_TOO).identity("objective").evaluated("stated.objective"),
    flag("temperature", PRETRAINING).identity("temperature"),
    flag("ess_target", PRETRAINING).identity("ess_target"),
    flag("model", EVERY).identity("model.depth").evaluated("stated.depth"),
    flag("stem", &[Ssl, Supervised]).identity("model.stem").evaluated("source.scratch.stem"),
    flag("proj_head_mode", PRETRAINING).identity("model.head.mode").evaluated("source.scratch.head.mode"),
    flag("num_proj_layers", PRETRAINING).identity("model.head.layers").evaluated("source.scratch.head.layers"),
    flag("proj_out_dim", PRETRAINING).identity("model.head.out_dim").evaluated("source.scratch.head.out_dim"),
    // There is one value, whatever is done.
    flag("n_views", EVERY),
    flag("batch_size", ENCODER_TOO).identity("batch_size").evaluated("stated.batch_size"),
    flag("grad_cache", PRETRAINING).identity("grad_cache"),
    flag("epochs", &[Ssl, Eval]).only(Only::Sweep).adopted("epochs"),
    flag("lr", PRETRAINING).identity("optimizer.lr"),
    flag("learning_rate_scaling", PRETRAINING).identity("optimizer.lr"),
    flag("optimizer", PRETRAINING).identity("optimizer.name"),
    flag("weight_decay", PRETRAINING).identity("optimizer.weight_decay"),
    flag("momentum", PRETRAINING).identity("optimizer.momentum"),
    flag("lars_exclude", EVERY).identity("optimizer.lars_exclude").evaluated("optimizer.lars_exclude"),
    flag("scheduler", PRETRAINING).identity("schedule.name"),
    flag("use_scheduler", PRETRAINING).identity("schedule.name"),
    flag("warmup_epochs", PRETRAINING).identity("schedule.warmup_epochs"),
    flag("sync_bn", PRETRAINING).identity("sync_bn"),
    flag("seed", EVERY).identity("seed").evaluated("seed"),
];

/// A new run.
///
/// Errors: flags that contradict each other.
pub fn from_flags(typed: &Typed, precision: Precision, device: Device) -> Result<Pretrain> {
    let Args { data, objective, optimisation, augmentation, evaluation, results, machine, output, .. } = &typed.args;
    let data = data.config(data.dataset_name);
    let &OptimisationArgs { batch_size, grad_cache, lars_exclude, .. } = optimisation;
    if grad_cache > batch_size {
        bail!("--grad-cache {grad_cache} are more parts than --batch-size {batch_size} has images");
    }
    let knn = KnnConfig { neighbours: evaluation.knn_neighbours, temperature: evaluation.knn_temperature };
    let some = |count: u32| (count > 0).then_some(count);
    Ok(Pretrain {
        augmentation: augmentation.recipe(&data)?,
        engine: augmentation.engine(data.dataset, device),
        objective: objective.clr,
        temperature: objective.temperature,
        ess_target: objective.ess_target,
        model: objective.model(&data),
        optimizer: OptimizerConfig {
            name: optimisation.optimizer,
            lr: optimisation.lr.unwrap_or_else(|| scaled_lr(optimisation.learning_rate_scaling, batch_size)),
            weight_decay: optimisation.weight_decay,
            momentum: optimisation.momentum,
            lars_exclude_bn: lars_exclude.bn,
            lars_exclude_bias: lars_exclude.bias,
        },
        schedule: ScheduleConfig { name: schedule(typed)?, warmup_epochs: optimisation.warmup_epochs },
        batch_size,
        epochs: optimisation.epochs,
        seed: optimisation.seed,
        precision,
        numerics: machine.numerics(),
        grad_cache,
        sync_bn: optimisation.sync_bn,
        online_knn: some(evaluation.knn_every).map(|every_epochs| OnlineKnn { every_epochs, knn }),
        online_probe: some(evaluation.probe_every).map(|every_epochs| OnlineProbe { every_epochs }),
        log_every: output.log_every,
        save_every_n_epochs: results.save_every_n_epochs,
        checkpoints: CheckpointPolicy {
            every_n_steps: some(results.save_every_n_steps),
            keep_last: some(results.keep_last),
            keep_every: some(results.keep_every),
            prefix: results.checkpoint_prefix,
        },
        workers: machine.workers,
        data,
    })
}

impl ObjectiveArgs {
    /// The network for these images.
    pub fn model(&self, data: &DataConfig) -> ModelConfig {
        let usual = if data.image_size_px >= IMAGENET_STEM_FROM_PX { Stem::Imagenet } else { Stem::Small };
        ModelConfig {
            depth: self.model,
            stem: self.stem.unwrap_or(usual),
            normalisation: Normalisation::of(data.dataset),
            head: HeadConfig { mode: self.proj_head_mode, layers: self.num_proj_layers, out_dim: self.proj_out_dim },
        }
    }
}

fn schedule(typed: &Typed) -> Result<ScheduleName> {
    let optimisation = &typed.args.optimisation;
    match optimisation.scheduler {
        name if optimisation.use_scheduler => Ok(name),
        ScheduleName::Cosine if typed.has("scheduler") => {
            bail!("--scheduler cosine and --use-scheduler false contradict each other; leave one of them out")
        }
        _ => Ok(ScheduleName::None),
    }
}
