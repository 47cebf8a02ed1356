//! Everything a training loop says, through one object: the terminal,
//! `training.log`, `metrics.jsonl`, `steps.jsonl` and TensorBoard's events.

use super::console::Console;
use super::epoch_line::{epoch_line, step_text};
use super::events::Events;
use super::json_lines::JsonLines;
use super::log::Log;
use super::log_file::file_in;
use super::numbers::{Number, Record};
use super::progress::Progress;
use anyhow::Result;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::{Duration, Instant};

/// A step is recorded within so long, whatever the number of steps: each reading waits for the device once.
const STEPS_RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// The extent of a run: what progress is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// 0, or the first epoch that a resumed run trains.
    pub first_epoch: u64,
    /// Epochs when the run is complete.
    pub epochs: u64,
    pub steps_per_epoch: u64,
    /// Steps of the first epoch that were taken before.
    pub first_batch: u64,
    /// Whether there was a run before.
    pub resumed: bool,
}

/// The reports of one training run: a [`Log`], and what only training has.
pub struct RunLog {
    log: Log,
    plan: Plan,
    numbers: &'static [Number],
    steps: JsonLines,
    /// When steps were last recorded.
    steps_recorded: Instant,
    events: Events,
    clock: Clock,
    bar: Option<Progress>,
}

impl RunLog {
    /// Opens the files in `directory`, which exists; a process without one leaves writing to another. A resumed run continues them:
    /// numbers of its first epoch and later are dropped. `numbers` are those that the run's records hold.
    ///
    /// # Errors
    /// A file cannot be created, read or rewritten.
    pub fn create(directory: Option<&Path>, plan: Plan, numbers: &'static [Number], console: Console) -> Result<Self> {
        let (steps, damage) = JsonLines::continue_at(&file_in(directory, "steps.jsonl"), plan.first_epoch)?;
        let mut log = RunLog {
            log: Log::create(directory, plan.first_epoch, console)?,
            steps,
            steps_recorded: Instant::now(),
            // What the epoch's earlier steps have to say comes again.
            events: Events::create(directory, plan.resumed.then_some(plan.first_epoch * plan.steps_per_epoch))?,
            clock: Clock { plan, steps: 0, first_step_done: None },
            bar: None,
            plan,
            numbers,
        };
        damage.iter().for_each(|damage| log.warn(damage));
        let Plan { first_epoch, epochs, steps_per_epoch, first_batch, resumed } = plan;
        let next = if first_batch > 0 {
            format!("step {} of {steps_per_epoch} in epoch {} of {epochs}", first_batch + 1, first_epoch + 1)
        } else {
            format!("epoch {} of {epochs}", first_epoch + 1)
        };
        if resumed {
            log.note(&format!("resumed: {next} is next"));
        }
        Ok(log)
    }

    /// TensorBoard's events: histograms, images and text; they reach the file with the next steps or the next epoch.
    pub fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    /// An epoch (counted from 0) begins: draws its bar.
    pub fn start_epoch(&mut self, epoch: u64) {
        // The old bar goes before the new one comes.
        self.bar = None;
        let title = format!("epoch {}/{}", epoch + 1, self.plan.epochs);
        let before = if epoch == self.plan.first_epoch { self.plan.first_batch } else { 0 };
        self.bar = Some(self.console().progress(&title, self.plan.steps_per_epoch, "steps").beginning_at(before));
    }

    /// One step over `images` images is done. `record` is called only when the bar is redrawn (at most
    /// 8 times a second, without a terminal every five minutes), so it may fetch its numbers from a device.
    ///
    /// # Panics
    /// No epoch has been started: a bug.
    pub fn step(&mut self, images: u64, record: impl FnOnce() -> Record) {
        let clock = &mut self.clock;
        clock.count_step();
        let bar = self.bar.as_mut().expect("a step belongs to an epoch that was started");
        let speed = |bar: &Progress| bar.per_second() * images as f64;
        bar.advance_with(1, |bar, room| step_text(&record(), self.numbers, speed(bar), clock.eta(), room));
    }

    /// Whether steps are to be recorded now: after the next step, at the mean pace so far, it would be late. The first step of
    /// a process is recorded at once.
    pub fn steps_due(&self) -> bool {
        let step = self.pace().map(|(steps, took)| took.div_f64(steps as f64));
        step.is_none_or(|step| self.steps_recorded.elapsed() + step >= STEPS_RECORDED_WITHIN)
    }

    /// Numbers of single steps, fetched together: `steps.jsonl` and TensorBoard have them from now on.
    pub fn record_steps(&mut self, records: &[Record]) {
        self.steps_recorded = Instant::now();
        for record in records {
            self.events.step(record, self.numbers);
        }
        if let Some(warning) = self.steps.write(records, self.log.console()) {
            self.warn(&warning);
        }
        self.events.flush(self.log.console());
    }

    /// An epoch is done: its line on the terminal and in every file.
    pub fn epoch(&mut self, record: &Record) {
        self.bar = None;
        let line = epoch_line(record, self.numbers, self.plan.epochs, self.clock.eta());
        self.console().numbers("epoch", record, &line);
        self.write("INFO", &line);
        self.record(record.epoch, record);
        self.events.epoch(record, self.numbers);
        self.events.flush(self.log.console());
    }

    /// Steps of this process but the first, which warms caches up, and the time that they have taken.
    pub fn pace(&self) -> Option<(u64, Duration)> {
        self.clock.pace()
    }

    /// Why the run stops, for `training.log`; printing it is the caller's part.
    pub fn failed(&mut self, text: &str) {
        self.bar = None;
        self.log.failed(text);
    }

    /// The run is complete: prints `result` whatever the verbosity, and `next`, a line each; finishes the files.
    pub fn finish(mut self, result: &str, next: &[String]) {
        self.bar = None;
        self.result(result);
        next.iter().for_each(|line| self.note(line));
        self.events.flush(self.log.console());
    }
}

impl Deref for RunLog {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl DerefMut for RunLog {
    fn deref_mut(&mut self) -> &mut Log {
        &mut self.log
    }
}

/// Time left.
struct Clock {
    plan: Plan,
    /// Steps of this process; a resumed run starts at 0.
    steps: u64,
    first_step_done: Option<Instant>,
}

impl Clock {
    fn count_step(&mut self) {
        self.steps += 1;
        self.first_step_done.get_or_insert_with(Instant::now);
    }

    fn pace(&self) -> Option<(u64, Duration)> {
        let counted = self.steps.checked_sub(1).filter(|&steps| steps > 0)?;
        Some((counted, self.first_step_done?.elapsed()))
    }

    /// Steps left at the mean pace since the first step.
    fn eta(&self) -> Option<Duration> {
        let total = self.plan.epochs.saturating_sub(self.plan.first_epoch) * self.plan.steps_per_epoch;
        let left = total.saturating_sub(self.plan.first_batch + self.steps);
        let (counted, took) = self.pace()?;
        Some(took.mul_f64(left as f64 / counted as f64))
    }
}
