//! The facts of a pre-training run.

use super::{Facts, memory_line, optimizer_line, parameters, schedule_line};
use crate::cli::Resolved;
use crate::config::{Augmentation, DataOnDevice, Engine, HeadMode, LearningRateScaling, Objective, Pretrain, Start};
use crate::data::{Part, grouped};
use crate::loader::packed;
use crate::model::{Encoder, HeadKind, feature_dim, footprint};
use crate::optim::scaled_lr;
use crate::report::short;
use crate::run_dir;
use anyhow::anyhow;
use tch::Device;

pub fn tell(facts: &mut Facts, resolved: &Resolved, run: &Pretrain) {
    let loss = match run.objective {
        Objective::FlatClr => "FlatNCE",
        Objective::SimClr => "InfoNCE",
    };
    facts.say(
        "job",
        format!("pre-train with {} ({loss}), temperature {}", run.objective.directory_suffix(), short(run.temperature)),
    );
    if let Some(target) = run.ess_target {
        facts.say("temperature", format!("steered so that the mean NESS is {}", short(target)));
    }
    facts.say("start", start_line(&resolved.config.start));
    let split = facts.data("data", &run.data, Part::Unlabelled);
    let views = u64::from(run.batch_size) * 2;
    let side = run.data.image_size_px;
    facts.say("batch", format!("{} images, views [{views}, 3, {side}, {side}]", grouped(run.batch_size as usize)));
    if run.grad_cache > 1 {
        facts.say("batch", format!("through the encoder in {} parts", run.grad_cache));
    }
    facts.say("views", views_line(&run.augmentation));
    let streams = resolved.config.data_on_device == DataOnDevice::No
        || split.as_ref().is_some_and(|split| split.packed().is_none());
    let renderer = match run.engine {
        Engine::Cpu => "rendered by CPU threads",
        Engine::Tensor if streams => "cropped and resized by CPU threads, coloured on the training device",
        Engine::Tensor => "rendered on the training device",
    };
    facts.say("views", format!("{renderer}, seed {}", run.seed));
    if let (Some(split), DataOnDevice::Yes) = (&split, resolved.config.data_on_device)
        && let Err(error) = packed(split)
    {
        facts.hinder(error);
    }

    let encoder = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, run.seed);
    let weights = grouped(parameters(&encoder));
    facts.say("model", format!("{}, {} stem, {weights} weights", run.model.depth, run.model.stem));
    facts.say("model", head_line(run));

    // The last, incomplete batch of an epoch is left out, as upstream leaves it out.
    let images = split.map(|split| split.len() as u64);
    let per_epoch = images.map(|images| images / u64::from(run.batch_size));
    if let (Some(images), Some(per_epoch)) = (images, per_epoch) {
        let steps = per_epoch * u64::from(run.epochs);
        facts.say(
            "steps",
            format!(
                "{} per epoch, {} in {} epochs; {} images of an epoch left out",
                grouped(per_epoch as usize),
                grouped(steps as usize),
                grouped(run.epochs as usize),
                grouped((images % u64::from(run.batch_size)) as usize)
            ),
        );
        if per_epoch == 0 {
            let images = grouped(images as usize);
            facts.hinder(anyhow!("--batch-size {} is more than the {images} images there are", run.batch_size));
        }
    }
    facts.say("optimiser", optimizer_line(&run.optimizer));
    facts.say("learning rate", lr_line(run));
    facts.say("schedule", schedule_line(run.schedule, run.optimizer.lr, per_epoch, run.epochs));
    let step = footprint::StepSize {
        stem: run.model.stem,
        image_size_px: side,
        views: 2 * u64::from(run.batch_size.div_ceil(run.grad_cache)),
        precision: run.precision,
        optimizer: run.optimizer.name,
    };
    facts.say("memory", memory_line(footprint::estimate(&encoder.parameters(), step), resolved.device));
    facts.say("results", results_line(resolved, run));
    facts.say("checkpoints", checkpoints_line(run));
}

fn checkpoints_line(run: &Pretrain) -> String {
    let mut text = format!("every {} epochs and after the last", run.save_every_n_epochs);
    if let Some(steps) = run.checkpoints.every_n_steps {
        text.push_str(&format!(", and every {steps} steps"));
    }
    if let Some(last) = run.checkpoints.keep_last {
        text.push_str(&format!("; the newest {last} stay"));
    }
    if let (Some(_), Some(every)) = (run.checkpoints.keep_last, run.checkpoints.keep_every) {
        text.push_str(&format!(", and every {every}th"));
    }
    text
}

/// The peak, and the rule that gives it where one does.
fn lr_line(run: &Pretrain) -> String {
    let lr = run.optimizer.lr;
    let rule = LearningRateScaling::ALL.iter().find(|&&rule| scaled_lr(rule, run.batch_size) == lr);
    let origin = rule.map_or("as given".to_owned(), |rule| format!("{rule} in the batch size"));
    format!("{}, {origin}", short(lr))
}

fn start_line(start: &Start) -> String {
    match start {
        Start::Fresh => "random weights".to_owned(),
        Start::Resume(path) => format!("continue from {}", path.display()),
        Start::Pretrained(path) => format!("a new run from the weights in {}", path.display()),
    }
}

fn views_line(recipe: &Augmentation) -> String {
    let blur = if recipe.blur_prob == 0.0 {
        "no blur".to_owned()
    } else {
        format!(
            "blur {} ({} px, sigma {} to {})",
            short(recipe.blur_prob),
            recipe.blur_kernel_px,
            short(recipe.blur_sigma_min),
            short(recipe.blur_sigma_max)
        )
    };
    format!(
        "crop {} to {} of the area, flip {}, greyscale {},\njitter {} (strength {}), {blur}",
        short(recipe.crop_scale_min),
        short(recipe.crop_scale_max),
        short(recipe.flip_prob),
        short(recipe.grayscale_prob),
        short(recipe.jitter_prob),
        short(recipe.jitter_strength)
    )
}

fn head_line(run: &Pretrain) -> String {
    let width = feature_dim(run.model.depth);
    let head = run.model.head;
    match head.mode {
        HeadMode::None => format!("features of width {width}, no projection head"),
        HeadMode::Linear => format!("features of width {width}, linear head to {}", head.out_dim),
        HeadMode::Nonlinear => {
            format!("features of width {width}, nonlinear head of {} layers to {}", head.layers, head.out_dim)
        }
    }
}

fn results_line(resolved: &Resolved, run: &Pretrain) -> String {
    if let Start::Resume(path) = &resolved.config.start {
        // The run goes on in its own directory.
        return path.parent().unwrap_or(path).display().to_string();
    }
    let parent = run_dir::pretrain_parent(&resolved.config.save_dir, run.data.dataset, run.batch_size, run.objective);
    parent.join("{dd-mm-YYYY-HH-MM-SS}").display().to_string()
}
