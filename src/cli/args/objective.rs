//! What is trained, and towards what.

use crate::cli::values::{above_zero, between, inside_unit, one_of, two_views};
use crate::config::{Depth, HeadMode, Objective, Stem};

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
    #[arg(long, value_name = "N", default_value = "2", hide_short_help = true)]
    #[arg(value_parser = between::<1, 64>)]
    pub num_proj_layers: u32,
    /// Width of the projection head's output
    #[arg(long, value_name = "N", default_value = "128", hide_short_help = true)]
    #[arg(value_parser = between::<1, 65536>)]
    pub proj_out_dim: u32,
    /// Views per image; the objectives need exactly 2
    #[arg(long, value_name = "N", default_value = "2", hide_short_help = true, value_parser = two_views)]
    pub n_views: u32,
}
