//! How pre-training proceeds.

use crate::cli::values::{
    LarsExclude, above_zero, between, count, lars_exclude, momentum, not_negative, one_of, switch,
};
use crate::config::{LearningRateScaling, OptimizerName, ScheduleName};
use clap::ArgAction::Set;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Optimisation")]
pub struct OptimisationArgs {
    /// Images per step; each is seen in two views
    #[arg(long, value_name = "IMAGES", default_value = "512")]
    #[arg(value_parser = count::<2>)]
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
    #[arg(long, value_name = "NAME", default_value = "lars")]
    #[arg(value_parser = one_of!(OptimizerName: Lars, Adam, Sgd))]
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
    #[arg(long, value_name = "BOOL", default_value = "true", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub use_scheduler: bool,
    /// Epochs in which the cosine schedule's learning rate rises from 0
    #[arg(long, value_name = "N", default_value = "10", value_parser = count::<0>)]
    pub warmup_epochs: u32,
    /// With several processes, BatchNorm's statistics are of the images of all
    ///
    /// false: each process's own images; cheaper, and another training for
    /// another number of processes. Of one process it changes nothing.
    #[arg(long, value_name = "BOOL", default_value = "true", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub sync_bn: bool,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
}
