//! What a pre-training run says of itself before it begins.

use super::pace;
use super::session::{Plan, new_runs};
use crate::checkpoint::Checkpoint;
use crate::config::{Augmentation, Config, HeadMode, LearningRateScaling, Pretrain, Start};
use crate::data::{counted, grouped};
use crate::model::feature_dim;
use crate::optim::scaled_lr;
use crate::report::{Console, short};
use crate::train::facts::{Facts, weights};
use crate::train::ranks::Ranks;
use anyhow::Result;
use tch::Device;

/// Makes the plan and says what it is, then takes a few steps for the time; nothing is left of them. `processes` will
/// train together; with several no step is taken.
///
/// Errors: those of the run until then; what follows from the configuration alone is said all the same.
pub fn tell(
    facts: &mut Facts,
    config: &Config,
    run: &Pretrain,
    saved: Option<Checkpoint>,
    device: Device,
    processes: u32,
    console: &Console,
) -> Result<()> {
    // Those that a launcher has started too.
    let config = &Config { nproc: (processes > 1).then_some(processes), ..config.clone() };
    let plan = Plan::make(config, run, saved, device, console, &Ranks::alone());
    settings(facts, config, run, plan.as_ref().ok());
    let mut plan = plan?;
    // Nobody is kept waiting for steps that are thrown away.
    plan.session.release();
    plan.warnings.iter().for_each(|warning| console.warn(warning));
    plan.session.memory.tell(facts, &plan.session.parameters);
    if processes > 1 {
        facts.say("time", format!("not measured: {processes} processes will train together"));
        return Ok(());
    }
    pace::tell(facts, plan.session, console)
}

fn settings(facts: &mut Facts, config: &Config, run: &Pretrain, plan: Option<&Plan>) {
    let session = plan.map(|plan| &plan.session);
    let loss = run.objective.title();
    let (name, temperature) = (run.objective.directory_suffix(), short(run.temperature));
    facts.say("job", format!("pre-train with {name} ({loss}), temperature {temperature}"));
    if let Some(target) = run.ess_target {
        facts.say("job", format!("temperature steered so that the mean NESS is {}", short(target)));
    }
    let start = match &config.start {
        Start::Fresh => "random weights".to_owned(),
        Start::Resume(path) => format!("continue from {}", path.display()),
        Start::Pretrained(path) => format!("a new run from the weights in {}", path.display()),
    };
    facts.say("start", plan.and_then(|plan| plan.taken.clone()).unwrap_or(start));
    if let Some(session) = session {
        facts.say("data", session.loader.split().describe());
    }
    let (views, side) = (2 * u64::from(run.batch_size), run.data.image_size_px);
    facts.say("batch", format!("{}, views [{views}, 3, {side}, {side}]", counted(run.batch_size as usize, "image")));
    if run.grad_cache > 1 {
        facts.say("batch", format!("through the encoder in {} parts", run.grad_cache));
    }
    facts.say("views", recipe(&run.augmentation));
    if let Some(session) = session {
        let rendered = session.loader.describe();
        facts.say("views", format!("{}, seed {}", rendered.trim_start_matches("views: "), run.seed));
        let weights = weights(&session.encoder);
        facts.say("model", format!("{}, {} stem, {weights} weights", run.model.depth, run.model.stem));
    }
    let (width, head) = (feature_dim(run.model.depth), run.model.head);
    let head = match head.mode {
        HeadMode::None => "no projection head".to_owned(),
        HeadMode::Linear => format!("linear head to {}", head.out_dim),
        HeadMode::Nonlinear => {
            format!("nonlinear head of {} to {}", counted(head.layers as usize, "layer"), head.out_dim)
        }
    };
    facts.say("model", format!("features of width {width}, {head}"));
    if let Some(session) = session {
        // The last, incomplete batch of an epoch is left out, as upstream leaves it out.
        let (per_epoch, left_out) = (session.loader.batches(), session.loader.split().len() % run.batch_size as usize);
        let (epochs, left) = (counted(run.epochs as usize, "epoch"), session.steps_left() as usize);
        let total = grouped(per_epoch * run.epochs as usize);
        let (per_epoch, left_out) = (grouped(per_epoch), counted(left_out, "image"));
        facts.say("steps", format!("{per_epoch} per epoch, {total} in {epochs}; {left_out} of an epoch left out"));
        if left == 0 {
            facts.say("steps", "nothing is left to train");
        } else if session.at.step > 0 {
            let next = session.at.epoch + 1;
            facts.say("steps", format!("{} of them are left, from epoch {next} on", grouped(left)));
        }
    }
    facts.optimizer(&run.optimizer);
    let lr = run.optimizer.lr;
    let rule = LearningRateScaling::ALL.iter().find(|&&rule| scaled_lr(rule, run.batch_size) == lr);
    let origin = rule.map_or("as given".to_owned(), |rule| format!("{rule} in the batch size"));
    facts.say("learning rate", format!("{}, {origin}", short(lr)));
    facts.schedule(run.schedule, lr, session.map(|session| session.loader.batches() as u64), run.epochs);
    for (name, about) in session.and_then(|session| session.online.as_ref()).iter().flat_map(|online| online.describe())
    {
        facts.say(name, about);
    }
    facts.say("checkpoints", checkpoints(run));
    facts.say("checkpoints", plan.map_or("", |plan| &plan.checkpoints));
    facts.say(
        "results",
        match &config.start {
            Start::Resume(path) => format!("{}, where the run goes on", path.parent().unwrap_or(path).display()),
            _ => {
                let name = config.name.as_deref().unwrap_or("{dd-mm-YYYY-HH-MM-SS}");
                new_runs(config, run).join(name).display().to_string()
            }
        },
    );
    if let Some(later) =
        plan.and_then(|plan| plan.earlier.as_ref()).map(|earlier| earlier.later.len()).filter(|&n| n > 0)
    {
        facts.say("results", format!("set aside: {later} later than that checkpoint"));
    }
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
    let every = |number: u32, noun: &str| match number {
        1 => format!("every {noun}"),
        number => format!("every {}", counted(number as usize, noun)),
    };
    let mut text = format!("{} and after the last", every(run.save_every_n_epochs, "epoch"));
    if let Some(steps) = run.checkpoints.every_n_steps {
        text.push_str(&format!(", and {}", every(steps, "step")));
    }
    if let Some(last) = run.checkpoints.keep_last {
        text.push_str(&format!("; the newest {last} stay"));
    }
    if let (Some(_), Some(every)) = (run.checkpoints.keep_last, run.checkpoints.keep_every) {
        text.push_str(&format!(", and every {every}th"));
    }
    text
}
