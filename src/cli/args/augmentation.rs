//! The distribution of the views. Every default is the paper's for the data set.

use crate::cli::values::{above_zero, jitter_strength, odd, one_of, probability, share, switch};
use crate::config::Engine;
use clap::ArgAction::Set;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentationArgs {
    /// What renders the views: worker threads (cpu), or the training device (tensor)
    ///
    /// Default: cpu, with --faster-version tensor. Both have the same pixels,
    /// but for blur, where a level may differ by 1.
    #[arg(long, value_name = "NAME", value_parser = one_of!(Engine))]
    #[arg(help = "What renders the views: worker threads (cpu), or the training device (tensor) [default: cpu]")]
    pub engine: Option<Engine>,
    /// The recipe of main.py's faster version, which blurs CIFAR-10 too, and --engine tensor
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true)]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub faster_version: bool,
    /// Smallest crop, as a share of the image's area (default 0.08)
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub crop_scale_min: Option<f64>,
    /// Largest crop, as a share of the image's area (default 1)
    #[arg(long, value_name = "SHARE", hide_short_help = true, value_parser = share)]
    pub crop_scale_max: Option<f64>,
    /// Narrowest crop, as width / height (default 3/4)
    #[arg(long, value_name = "RATIO", hide_short_help = true, value_parser = above_zero)]
    pub crop_ratio_min: Option<f64>,
    /// Widest crop, as width / height (default 4/3)
    #[arg(long, value_name = "RATIO", hide_short_help = true, value_parser = above_zero)]
    pub crop_ratio_max: Option<f64>,
    /// Probability of a horizontal flip (default 0.5)
    #[arg(long, value_name = "P", hide_short_help = true, value_parser = probability)]
    pub flip_prob: Option<f64>,
    /// Probability of colour jitter (default 0.8)
    #[arg(long, value_name = "P", hide_short_help = true, value_parser = probability)]
    pub jitter_prob: Option<f64>,
    /// Strength s of colour jitter, 0 to 2.5 (default: the data set's)
    ///
    /// Brightness, contrast and saturation vary by 0.8 s, hue by 0.2 s of a
    /// turn. Default: 0.5 (cifar10, cifar100, fashion_mnist),
    /// 0 (tiny_imagenet), 1 (the others).
    #[arg(long, value_name = "S", value_parser = jitter_strength)]
    pub jitter_strength: Option<f64>,
    /// Probability of greyscale (default 0.2)
    #[arg(long, value_name = "P", hide_short_help = true, value_parser = probability)]
    pub grayscale_prob: Option<f64>,
    /// Gaussian blur on or off (default: the data set's)
    ///
    /// Default: off for cifar10, cifar100, stl10, tiny_imagenet and
    /// fashion_mnist, on for the others and for cifar10 with --faster-version.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = Set, value_parser = switch)]
    pub blur: Option<bool>,
    /// Probability of blur (default 0.5 where blur is on)
    #[arg(long, value_name = "P", hide_short_help = true, value_parser = probability)]
    pub blur_prob: Option<f64>,
    /// Side of the blur's kernel in pixels, odd (default: a tenth of the image)
    #[arg(long, value_name = "PIXELS", hide_short_help = true, value_parser = odd)]
    pub blur_kernel: Option<u32>,
    /// Smallest standard deviation of the blur, in pixels (default 0.1)
    #[arg(long, value_name = "PIXELS", hide_short_help = true, value_parser = above_zero)]
    pub blur_sigma_min: Option<f64>,
    /// Largest standard deviation of the blur, in pixels (default 2)
    #[arg(long, value_name = "PIXELS", hide_short_help = true, value_parser = above_zero)]
    pub blur_sigma_max: Option<f64>,
}
