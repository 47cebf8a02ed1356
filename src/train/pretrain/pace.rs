//! How long a run will take: a few of its own steps, timed and thrown away, and
//! where that comes to days, what would make it shorter.
//!
//! A step of the whole batch may take minutes, so the batch begins small and grows
//! as far as a step takes [`STEP_SECONDS`].

use super::budget::{Choice, Fixed, Way, choose, ways};
use super::recorded::WARM_UP_STEPS;
use super::session::{Plan, Session};
use super::tally::peak_memory_mib;
use crate::config::{Config, Pretrain, Start};
use crate::data::counted;
use crate::model::footprint;
use crate::native;
use crate::report::Console;
use crate::threads;
use crate::train::facts::{DAY, Facts, HOUR, about, per_second};
use crate::train::ranks::Ranks;
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::Device;

/// The batch that is tried first.
const FIRST_IMAGES: usize = 8;
/// The longest step that is taken on purpose, and the time for the steps that count.
const STEP_SECONDS: f64 = 1.0;
const TIMED_SECONDS: f64 = 2.5;

/// Steps of one batch size.
struct Pace {
    images: usize,
    steps: u64,
    seconds: f64,
}

impl Pace {
    fn images_per_second(&self) -> f64 {
        self.images as f64 * self.steps as f64 / self.seconds.max(1e-9)
    }
}

/// Takes the steps and says what they tell of the whole run. Nothing is written.
///
/// Errors: those of steps.
pub fn tell(facts: &mut Facts, mut session: Session, console: &Console) -> Result<()> {
    let (steps_left, device, resumes) = (session.steps_left(), session.device, session.at.step > 0);
    if steps_left == 0 {
        return Ok(());
    }
    let run = session.pretrain.clone();
    let judged =
        session.online.as_ref().map_or(0, |online| online.images_left(session.at.epoch, u64::from(run.epochs)));
    let whole = run.batch_size as usize;
    let waiting = console.waiting("taking a few steps");
    let pace = rehearse(&mut session)?;
    drop(waiting);
    let Some(pace) = pace else {
        facts.say("time", "not measured: there may be too little memory for a step");
        return Ok(());
    };

    let rate = pace.images_per_second();
    // Forward and backward take three times the forward pass alone, and a step has two views of an image.
    let images = (steps_left * whole as u64) as f64 + judged as f64 / 6.0;
    let seconds = images / rate;
    let all = if resumes { "for what is left" } else { "in all" };
    // An image of a larger batch takes no more time than one of a smaller.
    let (most, part) = match pace.images == whole {
        true => ("about", String::new()),
        false => ("at most", format!(" (a part of the batch of {whole})")),
    };
    let steps = if pace.steps == 1 { "1 step".to_owned() } else { format!("{} steps", pace.steps) };
    if let Some(peak) = peak_memory_mib(device).filter(|_| pace.images == whole) {
        facts.say("memory", format!("{:.1} GiB at most in the steps that were measured", peak / 1024.0));
    }
    facts.say("time", format!("{most} {} {all}, at {}", about(seconds), per_second(rate)));
    facts.say("time", format!("measured just now: {steps} of {} images{part}, thrown away", pace.images));
    if seconds > DAY {
        facts.say("time", shorter(&session, &run, resumes, rate));
    }
    Ok(())
}

/// Takes steps that leave nothing behind; `None` where there may be too little memory for one.
fn rehearse(session: &mut Session) -> Result<Option<Pace>> {
    let Some(fitting) = session.memory.fitting(&session.parameters) else { return Ok(None) };
    native::caught(|| measure(session, fitting as usize))
        .unwrap_or_else(|error| Err(session.memory.explain(error, &session.parameters, session.at.step + 1)))
        .map(Some)
}

/// Times steps of the largest batch that a step of [`STEP_SECONDS`] has time for, of those whose `fitting` images fit into
/// memory.
fn measure(session: &mut Session, fitting: usize) -> Result<Pace> {
    let (whole, parts) = (session.pretrain.batch_size as usize, session.pretrain.grad_cache);
    // Parts of about the size that they will have.
    let mut steps = |images: usize, seconds: f64| {
        let parts = ((parts as usize * images).div_ceil(whole) as u32).max(parts.min(2));
        steps(session, images, parts, seconds)
    };
    // Less than what just fits: the estimate is one.
    let most = if fitting < whole { (fitting / 2).max(2) } else { whole };
    let mut images = most.min(FIRST_IMAGES);
    while images < most {
        let tried = steps(images, 0.0)?;
        let fits = (STEP_SECONDS * tried.images_per_second()) as usize;
        if fits <= images {
            break;
        }
        images = fits.min(8 * images).min(most);
    }
    steps(images, TIMED_SECONDS)
}

/// Trains on batches of `images` images for `seconds` and the step under way then, after what warms up.
fn steps(session: &mut Session, images: usize, parts: u32, seconds: f64) -> Result<Pace> {
    session.practise(images, parts)?;
    // A GPU's step is recorded after some, and replayed from then on.
    let warm_up = if seconds > 0.0 && session.device != Device::Cpu { WARM_UP_STEPS + 2 } else { 1 };
    for _ in 0..warm_up {
        // One step: the request to stop is there already.
        super::train(session, &AtomicBool::new(true))?;
    }
    session.practise(images, parts)?;
    let (stop, first, started) = (Arc::new(AtomicBool::new(seconds == 0.0)), session.at.step, Instant::now());
    let timer = Arc::clone(&stop);
    let count_down = move || {
        std::thread::sleep(Duration::from_secs_f64(seconds));
        timer.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().spawn(count_down).with_context(|| threads::refused("a timer's thread"))?;
    super::train(session, &stop)?;
    // Without the first step, which waits for the first images.
    let all = (session.at.step - first, started.elapsed());
    let (steps, took) = session.log.pace().unwrap_or(all);
    Ok(Pace { images, steps, seconds: took.as_secs_f64() })
}

/// Images a second of a run, in steps that are thrown away; `None` where there may be too little memory for one. Nothing is
/// written.
///
/// Errors: those of the run's plan, and of steps.
pub fn rate(config: &Config, run: &Pretrain, device: Device) -> Result<Option<f64>> {
    let console = Console::silent();
    // Neighbours and probe are no part of a step.
    let (config, run) = (
        Config { start: Start::Fresh, ..config.clone() },
        Pretrain { online_knn: None, online_probe: None, ..run.clone() },
    );
    let mut session = Plan::make(&config, &run, None, device, &console, &Ranks::alone())?.session;
    session.release();
    Ok(rehearse(&mut session)?.map(|pace| pace.images_per_second()))
}

/// Says how long a new run on a CPU will take, where that may be long: a few steps are taken beforehand. Where it is more than
/// a day, what would end within an hour is said too.
///
/// Errors: those of [`rate`].
pub fn foresee(plan: &Plan, config: &Config, console: &Console) -> Result<()> {
    let Plan { session, .. } = plan;
    let run = &session.pretrain;
    let images = session.loader.split().len();
    let passes = (session.steps_left() * u64::from(run.batch_size)) as f64;
    if session.device != Device::Cpu || session.ranks.count() > 1 || session.at.step > 0 {
        return Ok(());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    if 6.0 * passes * multiplications(session) < FORESEEN_SECONDS * cores * FASTEST_CORE {
        return Ok(());
    }
    let waiting = console.waiting("taking a few steps to see how long this will take");
    let rate = rate(config, run, session.device)?;
    drop(waiting);
    let Some(rate) = rate else { return Ok(()) };
    let seconds = passes / rate;
    let epochs = counted(run.epochs as usize, "epoch");
    let (images, speed) = (counted(images, "image"), per_second(rate));
    let memory = session.memory.describe(&session.parameters);
    console.note(&format!(
        "time: about {} for {epochs} of {images}, at {speed} in steps just now; memory: about {memory}",
        about(seconds)
    ));
    if seconds > DAY {
        let shorter = shorter(session, run, false, rate);
        console.warn(&format!("this will take about {}; {shorter}", about(seconds)));
    }
    Ok(())
}

/// From this on a run's time is told before its first step, and what a core multiplies a second at best; for an image there are
/// two views, forward and, with twice the work, backward.
const FORESEEN_SECONDS: f64 = 600.0;
const FASTEST_CORE: f64 = 3e10;

/// Of one view's way through the network of a run.
fn multiplications(session: &Session) -> f64 {
    let run = &session.pretrain;
    footprint::multiplications(&session.parameters, run.model.stem, run.data.image_size_px)
}

/// What would bring a run, which trains `rate` images a second in the session, to an hour.
fn shorter(session: &Session, run: &Pretrain, resumes: bool, rate: f64) -> String {
    let (own, images) = (multiplications(session), session.loader.split().len());
    let gpu = (session.device == Device::Cpu).then_some("a machine with a GPU is the other way");
    let ways: Vec<Way> = ways(run.model.depth, run.data.image_size_px, Fixed::default());
    let ways: Vec<Way> = ways.into_iter().filter(|way| way.multiplications <= own).collect();
    // A run that goes on keeps what it is.
    let choice = choose(&ways, images, HOUR, rate * own).filter(|_| !resumes);
    let within = choice.map(|Choice { way, epochs, train_images }| {
        let part = train_images.map(|count| format!("--train-images={count}"));
        let flags: Vec<String> = way.flags().into_iter().chain([format!("--epochs={epochs}")]).chain(part).collect();
        format!("within an hour on this machine: {}", flags.join(" "))
    });
    within.as_deref().into_iter().chain(gpu).collect::<Vec<_>>().join("; ")
}
