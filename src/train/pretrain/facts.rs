//! What a pre-training run says of itself before it begins.

use super::pace;
use super::plan::{Place, Plan};
use crate::checkpoint::Checkpoint;
use crate::config::{Augmentation, Config, HeadMode, LearningRateScaling, Objective, Pretrain, Start};
use crate::data::grouped;
use crate::model::{feature_dim, footprint};
use crate::optim::scaled_lr;
use crate::report::{Console, short};
use crate::run_dir;
use crate::train::facts::{Facts, weights};
use crate::train::ranks::Ranks;
use anyhow::Result;
use tch::Device;

/// Says what was asked for, makes the plan and says what it comes to, then takes a few steps for the time. Of the network
/// nothing is left afterwards. `processes` will train together; with several no step is taken.
///
/// Errors: those of the run until then.
pub fn tell(
    facts: &mut Facts,
    config: &Config,
    run: &Pretrain,
    saved: Option<Checkpoint>,
    device: Device,
    processes: u32,
    console: &Console,
) -> Result<()> {
    asked(facts, config, run);
    let plan = Plan::make(config, run, saved, device, console, &Ranks::alone())?;
    plan.warnings.iter().for_each(|warning| console.warn(warning));
    plan.tell(facts);
    if processes > 1 {
        facts.say("time", format!("not measured: {processes} processes will train together"));
        return Ok(());
    }
    pace::tell(facts, plan, console)
}

/// What follows from the configuration alone.
fn asked(facts: &mut Facts, config: &Config, run: &Pretrain) {
    let loss = match run.objective {
        Objective::FlatClr => "FlatNCE",
        Objective::SimClr => "InfoNCE",
    };
    let (name, temperature) = (run.objective.directory_suffix(), short(run.temperature));
    facts.say("job", format!("pre-train with {name} ({loss}), temperature {temperature}"));
    if let Some(target) = run.ess_target {
        facts.say("temperature", format!("steered so that the mean NESS is {}", short(target)));
    }
    facts.say(
        "start",
        match &config.start {
            Start::Fresh => "random weights".to_owned(),
            Start::Resume(path) => format!("continue from {}", path.display()),
            Start::Pretrained(path) => format!("a new run from the weights in {}", path.display()),
        },
    );
    let (views, side) = (2 * run.batch_size, run.data.image_size_px);
    facts.say("batch", format!("{} images, views [{views}, 3, {side}, {side}]", grouped(run.batch_size as usize)));
    if run.grad_cache > 1 {
        facts.say("batch", format!("through the encoder in {} parts", run.grad_cache));
    }
    facts.say("views", format!("{}\nseed {}", recipe(&run.augmentation), run.seed));
    facts.optimizer(&run.optimizer);
    let lr = run.optimizer.lr;
    let rule = LearningRateScaling::ALL.iter().find(|&&rule| scaled_lr(rule, run.batch_size) == lr);
    let origin = rule.map_or("as given".to_owned(), |rule| format!("{rule} in the batch size"));
    facts.say("learning rate", format!("{}, {origin}", short(lr)));
    if !matches!(config.start, Start::Resume(_)) {
        // Known without the data, and worth knowing where they are not there.
        let parent = run_dir::pretrain_parent(&config.save_dir, run.data.dataset, run.batch_size, run.objective);
        facts.say("results", parent.join("{dd-mm-YYYY-HH-MM-SS}").display().to_string());
    }
    facts.say("checkpoints", checkpoints(run));
}

fn recipe(recipe: &Augmentation) -> String {
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

fn checkpoints(run: &Pretrain) -> String {
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

impl Plan {
    /// What data, network and checkpoint come to.
    fn tell(&self, facts: &mut Facts) {
        let run = &self.pretrain;
        if let Place::Here(directory, _) = &self.place {
            facts.say("results", format!("{}, where the run goes on", directory.display()));
        }
        facts.say("data", self.loader.split().describe());
        facts.say("views", self.loader.describe().trim_start_matches("views: "));
        let (width, head) = (feature_dim(run.model.depth), run.model.head);
        let head = match head.mode {
            HeadMode::None => "no projection head".to_owned(),
            HeadMode::Linear => format!("linear head to {}", head.out_dim),
            HeadMode::Nonlinear => format!("nonlinear head of {} layers to {}", head.layers, head.out_dim),
        };
        let weights = weights(&self.state.encoder);
        facts.say("model", format!("{}, {} stem, {weights} weights", run.model.depth, run.model.stem));
        facts.say("model", format!("features of width {width}, {head}"));
        facts.say("model", self.state.taken.as_deref().unwrap_or_default());
        facts.say("kNN", self.judge.as_ref().map_or(String::new(), |judge| judge.describe().replacen("kNN ", "", 1)));
        // The last, incomplete batch of an epoch is left out, as upstream leaves it out.
        let (per_epoch, epochs) = (self.loader.batches(), run.epochs as usize);
        let left_out = self.loader.split().len() % run.batch_size as usize;
        let number = |count: usize| grouped(count);
        facts.say(
            "steps",
            format!(
                "{} per epoch, {} in {} epochs; {} images of an epoch left out",
                number(per_epoch),
                number(per_epoch * epochs),
                number(epochs),
                number(left_out)
            ),
        );
        match self.steps_left() {
            0 => facts.say("steps", "nothing is left to train"),
            left if self.state.at.step > 0 => {
                let next = number(self.state.at.epoch as usize + 1);
                facts.say("steps", format!("{} of them are left, from epoch {next} on", number(left as usize)));
            }
            _ => {}
        }
        facts.schedule(run.schedule, run.optimizer.lr, per_epoch as u64, run.epochs);
        let estimate = footprint::estimate(&self.state.parameters, self.room.size);
        facts.memory(estimate, self.room.free, self.device);
    }
}
