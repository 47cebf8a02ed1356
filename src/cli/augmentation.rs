//! The distribution of the views. Every default is the paper's for the data set.

use super::flag_name;
use super::flags::{Flag, PRETRAINING, flag};
use crate::config::{Augmentation, DataConfig, DatasetName, Engine};
use crate::data::protocol;
use crate::values::{above_zero, jitter_strength, odd, one_of, probability, share, switch};
use anyhow::{Result, bail};
use clap::ArgAction::Set;
use tch::Device;

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
    #[arg(long, value_name = "BOOL", default_value = "false", hide_short_help = true, action = Set, value_parser = switch)]
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
    #[arg(long, value_name = "BOOL", action = Set, value_parser = switch)]
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

pub const FLAGS: &[Flag] = &[
    flag("engine", PRETRAINING).identity("engine"),
    flag("faster_version", PRETRAINING).identity("engine"),
    flag("crop_scale_min", PRETRAINING).identity("augmentation.crop_scale_min"),
    flag("crop_scale_max", PRETRAINING).identity("augmentation.crop_scale_max"),
    flag("crop_ratio_min", PRETRAINING).identity("augmentation.crop_ratio_min"),
    flag("crop_ratio_max", PRETRAINING).identity("augmentation.crop_ratio_max"),
    flag("flip_prob", PRETRAINING).identity("augmentation.flip_prob"),
    flag("jitter_prob", PRETRAINING).identity("augmentation.jitter_prob"),
    flag("jitter_strength", PRETRAINING).identity("augmentation.jitter_strength"),
    flag("grayscale_prob", PRETRAINING).identity("augmentation.grayscale_prob"),
    flag("blur", PRETRAINING).identity("augmentation.blur"),
    flag("blur_prob", PRETRAINING).identity("augmentation.blur_prob"),
    flag("blur_kernel", PRETRAINING).identity("augmentation.blur_kernel_px"),
    flag("blur_sigma_min", PRETRAINING).identity("augmentation.blur_sigma_min"),
    flag("blur_sigma_max", PRETRAINING).identity("augmentation.blur_sigma_max"),
];

impl AugmentationArgs {
    /// What was asked for; else the tensor engine where the recipe brings it along, and on a GPU with a data set that can lie
    /// in its memory: worker threads would not keep up with it.
    pub fn engine(&self, dataset: DatasetName, device: Device) -> Engine {
        let usual = self.faster_version || (device != Device::Cpu && protocol(dataset).packed);
        self.engine.unwrap_or(if usual { Engine::Tensor } else { Engine::Cpu })
    }

    /// The paper's recipe for the data set, with what was typed in its place.
    pub fn recipe(&self, data: &DataConfig) -> Result<Augmentation> {
        let mut recipe = Augmentation::paper(data.dataset, data.image_size_px, self.faster_version);
        recipe.blur_prob = match (self.blur, self.blur_prob) {
            (Some(false), Some(prob)) if prob > 0.0 => {
                bail!("--blur false and --blur-prob {prob} contradict each other; leave one of them out")
            }
            (Some(false), _) => 0.0,
            (_, Some(prob)) => prob,
            (Some(true), None) => 0.5,
            (None, None) => recipe.blur_prob,
        };
        recipe.blur_kernel_px = self.blur_kernel.unwrap_or(recipe.blur_kernel_px);
        for (number, typed) in [
            (&mut recipe.crop_scale_min, self.crop_scale_min),
            (&mut recipe.crop_scale_max, self.crop_scale_max),
            (&mut recipe.crop_ratio_min, self.crop_ratio_min),
            (&mut recipe.crop_ratio_max, self.crop_ratio_max),
            (&mut recipe.flip_prob, self.flip_prob),
            (&mut recipe.jitter_prob, self.jitter_prob),
            (&mut recipe.jitter_strength, self.jitter_strength),
            (&mut recipe.grayscale_prob, self.grayscale_prob),
            (&mut recipe.blur_sigma_min, self.blur_sigma_min),
            (&mut recipe.blur_sigma_max, self.blur_sigma_max),
        ] {
            *number = typed.unwrap_or(*number);
        }
        ordered(["crop_scale_min", "crop_scale_max"], recipe.crop_scale_min, recipe.crop_scale_max)?;
        ordered(["crop_ratio_min", "crop_ratio_max"], recipe.crop_ratio_min, recipe.crop_ratio_max)?;
        ordered(["blur_sigma_min", "blur_sigma_max"], recipe.blur_sigma_min, recipe.blur_sigma_max)?;
        Ok(recipe)
    }
}

/// Checks that two values stand in order; `ids` are their flags.
fn ordered(ids: [&str; 2], low: f64, high: f64) -> Result<()> {
    if low > high {
        bail!("{} {low} is above {} {high}", flag_name(ids[0]), flag_name(ids[1]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_renders_what_can_lie_in_its_memory_unless_told_otherwise() {
        let engine_of = |line: &str, device: Device| {
            let typed = crate::cli::parse(line.split(' ')).unwrap();
            typed.args.augmentation.engine(typed.args.data.dataset_name, device)
        };
        let gpu = Device::Cuda(0);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10", gpu), Engine::Tensor);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10", Device::Cpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=imagenet", gpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10 --engine=cpu", gpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=imagenet --engine=tensor", Device::Cpu), Engine::Tensor);
    }
}
