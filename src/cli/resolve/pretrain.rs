//! A new pre-training run from flags.

use super::ordered;
use crate::cli::{Args, AugmentationArgs, DataArgs, EvaluationArgs, MachineArgs, ResultsArgs, Typed};
use crate::config::{
    Augmentation, CheckpointPolicy, DataConfig, DatasetName, Engine, HeadConfig, KnnConfig, ModelConfig, Normalisation,
    Numerics, OnlineKnn, OptimizerConfig, Precision, Pretrain, ScheduleConfig, ScheduleName, Stem,
};
use crate::data::protocol;
use crate::optim::scaled_lr;
use anyhow::{Result, bail};
use tch::Device;

/// From this side on, images meet the stem that halves them twice before the first block.
const IMAGENET_STEM_FROM_PX: u32 = 128;

pub fn from_flags(typed: &Typed, precision: Precision, device: Device) -> Result<Pretrain> {
    let Args { data, objective, optimisation, .. } = &typed.args;
    let data = data_config(data, data.dataset_name);
    Ok(Pretrain {
        augmentation: augmentation(&typed.args.augmentation, &data)?,
        engine: engine(&typed.args.augmentation, data.dataset, device),
        objective: objective.clr,
        temperature: objective.temperature,
        ess_target: objective.ess_target,
        model: model(&typed.args, &data),
        optimizer: OptimizerConfig {
            name: optimisation.optimizer,
            lr: optimisation
                .lr
                .unwrap_or_else(|| scaled_lr(optimisation.learning_rate_scaling, optimisation.batch_size)),
            weight_decay: optimisation.weight_decay,
            momentum: optimisation.momentum,
            lars_exclude_bn: optimisation.lars_exclude.bn,
            lars_exclude_bias: optimisation.lars_exclude.bias,
        },
        schedule: ScheduleConfig { name: schedule(typed)?, warmup_epochs: optimisation.warmup_epochs },
        batch_size: optimisation.batch_size,
        epochs: optimisation.epochs,
        seed: optimisation.seed,
        precision,
        numerics: numerics(&typed.args.machine),
        grad_cache: grad_cache(optimisation.grad_cache, optimisation.batch_size)?,
        sync_bn: optimisation.sync_bn,
        online_knn: online_knn(&typed.args.evaluation),
        log_every: typed.args.output.log_every,
        save_every_n_epochs: typed.args.results.save_every_n_epochs,
        checkpoints: checkpoints(&typed.args.results),
        data,
    })
}

pub fn numerics(flags: &MachineArgs) -> Numerics {
    Numerics { allow_tf32: flags.allow_tf32, deterministic: flags.deterministic }
}

fn grad_cache(parts: u32, batch_size: u32) -> Result<u32> {
    if parts > batch_size {
        bail!("--grad-cache {parts} are more parts than --batch-size {batch_size} has images");
    }
    Ok(parts)
}

fn online_knn(flags: &EvaluationArgs) -> Option<OnlineKnn> {
    let knn = KnnConfig { neighbours: flags.knn_neighbours, temperature: flags.knn_temperature };
    (flags.knn_every > 0).then_some(OnlineKnn { every_epochs: flags.knn_every, knn })
}

fn checkpoints(flags: &ResultsArgs) -> CheckpointPolicy {
    let some = |count: u32| (count > 0).then_some(count);
    CheckpointPolicy {
        every_n_steps: some(flags.save_every_n_steps),
        keep_last: some(flags.keep_last),
        keep_every: some(flags.keep_every),
        prefix: flags.checkpoint_prefix,
    }
}

pub fn data_config(flags: &DataArgs, dataset: DatasetName) -> DataConfig {
    let image_size_px = flags.image_size.unwrap_or_else(|| protocol(dataset).size_px);
    DataConfig {
        dataset,
        root: flags.data.clone(),
        image_size_px,
        train_images: flags.train_images,
        bad_images: flags.bad_images,
    }
}

pub fn model(args: &Args, data: &DataConfig) -> ModelConfig {
    let usual = if data.image_size_px >= IMAGENET_STEM_FROM_PX { Stem::Imagenet } else { Stem::Small };
    ModelConfig {
        depth: args.objective.model,
        stem: args.objective.stem.unwrap_or(usual),
        normalisation: Normalisation::of(data.dataset),
        head: HeadConfig {
            mode: args.objective.proj_head_mode,
            layers: args.objective.num_proj_layers,
            out_dim: args.objective.proj_out_dim,
        },
    }
}

/// What was asked for; else the tensor engine where the recipe brings it along, and on a GPU with a data set that can lie
/// in its memory: worker threads would not keep up with it.
pub fn engine(flags: &AugmentationArgs, dataset: DatasetName, device: Device) -> Engine {
    let usual = flags.faster_version || (device != Device::Cpu && protocol(dataset).packed);
    flags.engine.unwrap_or(if usual { Engine::Tensor } else { Engine::Cpu })
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

/// The paper's recipe for the data set, with what was typed in its place.
pub fn augmentation(flags: &AugmentationArgs, data: &DataConfig) -> Result<Augmentation> {
    let mut recipe = Augmentation::paper(data.dataset, data.image_size_px, flags.faster_version);
    recipe.blur_prob = match (flags.blur, flags.blur_prob) {
        (Some(false), Some(prob)) if prob > 0.0 => {
            bail!("--blur false and --blur-prob {prob} contradict each other; leave one of them out")
        }
        (Some(false), _) => 0.0,
        (_, Some(prob)) => prob,
        (Some(true), None) => 0.5,
        (None, None) => recipe.blur_prob,
    };
    recipe.blur_kernel_px = flags.blur_kernel.unwrap_or(recipe.blur_kernel_px);
    for (number, typed) in [
        (&mut recipe.crop_scale_min, flags.crop_scale_min),
        (&mut recipe.crop_scale_max, flags.crop_scale_max),
        (&mut recipe.crop_ratio_min, flags.crop_ratio_min),
        (&mut recipe.crop_ratio_max, flags.crop_ratio_max),
        (&mut recipe.flip_prob, flags.flip_prob),
        (&mut recipe.jitter_prob, flags.jitter_prob),
        (&mut recipe.jitter_strength, flags.jitter_strength),
        (&mut recipe.grayscale_prob, flags.grayscale_prob),
        (&mut recipe.blur_sigma_min, flags.blur_sigma_min),
        (&mut recipe.blur_sigma_max, flags.blur_sigma_max),
    ] {
        *number = typed.unwrap_or(*number);
    }
    ordered(["crop_scale_min", "crop_scale_max"], recipe.crop_scale_min, recipe.crop_scale_max)?;
    ordered(["crop_ratio_min", "crop_ratio_max"], recipe.crop_ratio_min, recipe.crop_ratio_max)?;
    ordered(["blur_sigma_min", "blur_sigma_max"], recipe.blur_sigma_min, recipe.blur_sigma_max)?;
    Ok(recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_renders_what_can_lie_in_its_memory_unless_told_otherwise() {
        let engine_of = |line: &str, device: Device| {
            let typed = crate::cli::parse(line.split(' ')).unwrap();
            engine(&typed.args.augmentation, typed.args.data.dataset_name, device)
        };
        let gpu = Device::Cuda(0);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10", gpu), Engine::Tensor);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10", Device::Cpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=imagenet", gpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=cifar10 --engine=cpu", gpu), Engine::Cpu);
        assert_eq!(engine_of("flatnce --dataset-name=imagenet --engine=tensor", Device::Cpu), Engine::Tensor);
    }
}
