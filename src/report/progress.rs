//! A progress bar that costs the loop it watches one look at the clock per call.

use super::console::{Console, Verbosity};
use super::format::{cut, duration, short};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Smooth enough to watch, too seldom to cost anything.
const REDRAW: Duration = Duration::from_millis(125);
/// Without a terminal: seldom enough for a log file, often enough to see that work goes on.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// The width of plain lines.
pub(super) const COLUMNS: usize = 100;

/// One bar (or its plain substitute). Cleared when finished or dropped.
pub struct Progress {
    console: Console,
    title: String,
    unit: &'static str,
    total: u64,
    position: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    due: Instant,
}

impl Progress {
    pub(super) fn new(console: Console, title: &str, total: u64, unit: &'static str) -> Self {
        let bar = (!console.bars().is_hidden()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {percent:>3}% {wide_bar} {msg}")
                .expect("the template is ours")
                .progress_chars("━╸ ");
            let bar = ProgressBar::new(total).with_style(style).with_prefix(title.to_string());
            console.bars().add(bar)
        });
        let now = Instant::now();
        let due = if bar.is_some() { now } else { now + HEARTBEAT };
        Progress { console, title: title.to_string(), unit, total, position: 0, bar, started: now, due }
    }

    /// `count` more pieces are done.
    pub fn advance(&mut self, count: u64) {
        self.advance_with(count, |progress| {
            let eta = progress.eta().map_or(String::new(), |eta| format!("  ETA {}", duration(eta)));
            format!("{}/{} {}{eta}", progress.position, progress.total, progress.unit)
        });
    }

    /// `count` more pieces are done; `message` is only called when the bar is redrawn.
    pub fn advance_with(&mut self, count: u64, message: impl FnOnce(&Progress) -> String) {
        self.position += count;
        if self.console.verbosity() == Verbosity::Quiet {
            return;
        }
        let now = Instant::now();
        if now < self.due {
            return;
        }
        let message = message(self);
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.position);
                bar.set_message(message);
                self.due = now + REDRAW;
            }
            None => {
                let percent = 100 * self.position / self.total.max(1);
                self.console.note(&cut(&format!("{} {percent:>3}%  {message}", self.title), COLUMNS));
                self.due = now + HEARTBEAT;
            }
        }
    }

    /// Pieces done.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Pieces a second since the bar began; 0 before the first.
    pub fn per_second(&self) -> f64 {
        self.position as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Time left at the mean speed so far.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.position);
        (self.position > 0).then(|| self.started.elapsed().mul_f64(left as f64 / self.position as f64))
    }

    /// Takes the bar off the screen and says how long it took where details are wanted.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.console.detail(&format!(
            "{}: {} {} in {} s ({}/s)",
            self.title,
            self.position,
            self.unit,
            short(seconds),
            short(self.per_second())
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.console.bars().remove(bar);
        }
    }
}
