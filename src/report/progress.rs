//! A progress bar that costs the loop it watches one look at the clock per call.

use super::console::{Console, Verbosity};
use super::format::{cut, duration, plain, short};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// Where it began.
    first: u64,
    bar: Option<Bar>,
    started: Instant,
    due: Instant,
}

/// indicatif's bar, and the words beside it.
struct Bar {
    bar: ProgressBar,
    /// Not indicatif's own message, because setting that one redraws the bar once more.
    words: Arc<Mutex<String>>,
}

impl Bar {
    fn new(console: &Console, title: &str, total: u64) -> Self {
        let words = Arc::new(Mutex::new(String::new()));
        let shown = words.clone();
        let style = ProgressStyle::with_template("{prefix} {percent:>3}% {wide_bar} {words}")
            .expect("the template is ours")
            .progress_chars("━╸ ")
            .with_key("words", move |_: &ProgressState, out: &mut dyn Write| {
                let _ = out.write_str(&shown.lock().unwrap_or_else(PoisonError::into_inner));
            });
        let bar = ProgressBar::new(total).with_style(style).with_prefix(title.to_string());
        let bar = console.bars().add(bar);
        bar.tick();
        Bar { bar, words }
    }

    fn draw(&self, position: u64, words: String) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
        self.bar.set_position(position);
    }
}

impl Console {
    /// A bar for `total` pieces of work called `unit` (`images`, `steps`).
    pub fn progress(&self, title: &str, total: u64, unit: &'static str) -> Progress {
        let title = plain(title);
        let bar = (!self.bars().is_hidden()).then(|| Bar::new(self, &title, total));
        let now = Instant::now();
        let due = if bar.is_some() { now } else { now + HEARTBEAT };
        let console = self.clone();
        Progress { console, title, unit, total, position: 0, first: 0, bar, started: now, due }
    }

    /// A title and the time so far on a terminal, for work whose extent nobody knows, until the answer is dropped.
    pub fn waiting(&self, title: &str) -> Waiting {
        let bar = (!self.bars().is_hidden()).then(|| {
            let style = ProgressStyle::with_template("{prefix} {elapsed}").expect("the template is ours");
            let bar = self.bars().add(ProgressBar::new_spinner().with_style(style).with_prefix(plain(title)));
            // A thread of indicatif's draws; what is done sooner is never seen.
            bar.enable_steady_tick(4 * REDRAW);
            bar
        });
        Waiting { console: self.clone(), bar }
    }
}

impl Progress {
    /// The bar of work of which `done` pieces were done by others: they count as done, not for the speed.
    pub fn beginning_at(mut self, done: u64) -> Progress {
        (self.position, self.first) = (done, done);
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.set_position(done);
        }
        self
    }

    /// `count` more pieces are done.
    pub fn advance(&mut self, count: u64) {
        self.advance_with(count, |progress, _| {
            let eta = progress.eta().map_or(String::new(), |eta| format!(" ETA {}", duration(eta)));
            format!("{}/{} {}{eta}", progress.position, progress.total, progress.unit)
        });
    }

    /// `count` more pieces are done. `words` is only called when they are shown; it is given the columns that
    /// are free, and what is longer is cut.
    pub fn advance_with(&mut self, count: u64, words: impl FnOnce(&Progress, usize) -> String) {
        self.position += count;
        if self.console.verbosity() == Verbosity::Quiet {
            return;
        }
        let now = Instant::now();
        if now < self.due {
            return;
        }
        // `title 100% `, and for a bar one more space on its right.
        let frame = self.title.chars().count() + 6;
        match &self.bar {
            Some(bar) => {
                let room = self.console.columns().saturating_sub(frame + 1);
                bar.draw(self.position, cut(&words(self, room), room));
                self.due = now + REDRAW;
            }
            None => {
                let room = COLUMNS.saturating_sub(frame);
                let percent = 100 * self.position / self.total.max(1);
                self.console.note(&format!("{} {percent:>3}% {}", self.title, cut(&words(self, room), room)));
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
        self.done_here() as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Time left at the mean speed so far.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.position);
        let done = self.done_here();
        (done > 0).then(|| self.started.elapsed().mul_f64(left as f64 / done as f64))
    }

    fn done_here(&self) -> u64 {
        self.position - self.first
    }

    /// Takes the bar off the screen and says how long it took where details are wanted.
    pub fn finish(self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.console.detail(&format!(
            "{}: {} {} in {} s ({}/s)",
            self.title,
            self.done_here(),
            self.unit,
            short(seconds),
            short(self.per_second())
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Bar { bar, .. }) = &self.bar {
            bar.finish_and_clear();
            self.console.bars().remove(bar);
        }
    }
}

/// Work of unknown length, on a terminal: its title and the time so far. Gone when dropped.
pub struct Waiting {
    console: Console,
    bar: Option<ProgressBar>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            self.console.bars().remove(bar);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::io::Result;

    /// A terminal that only keeps what is written.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> Result<()> {
            Ok(())
        }
        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_asks_for_words_only_when_it_is_redrawn() {
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let console = Console::drawing_on(target);
        let mut progress = console.progress("epoch 3/100", 1000, "steps");
        let (mut calls, started) = (0, Instant::now());
        for step in 0..1000 {
            progress.advance_with(1, |_, _| {
                calls += 1;
                format!("loss of step {step}")
            });
        }
        let most = 1 + started.elapsed().as_millis() / REDRAW.as_millis();
        assert!((1..=most).contains(&calls), "{calls} redraws, not {most}");
        assert_eq!((progress.position(), progress.eta()), (1000, Some(Duration::ZERO)));
        drop(progress);
        let shown = terminal.0.lock().unwrap().clone();
        assert!(shown.contains("epoch 3/100   0% ") && shown.contains("loss of step 0"), "{shown:?}");
    }

    #[test]
    fn a_bar_begins_where_others_left_off() {
        let terminal = Terminal::default();
        let console = Console::drawing_on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let mut progress = console.progress("epoch 3/100", 1000, "steps").beginning_at(750);
        assert_eq!((progress.position(), progress.per_second(), progress.eta()), (750, 0.0, None));
        progress.advance_with(1, |_, _| "goes on".to_owned());
        let shown = terminal.0.lock().unwrap().clone();
        assert!(shown.contains(" 75% ") && shown.contains("goes on"), "{shown:?}");
        // One step here, 249 left.
        let (eta, speed) = (progress.eta().unwrap().as_secs_f64(), progress.per_second());
        assert!(eta * speed > 200.0, "{eta} s at {speed}/s");
    }

    #[test]
    fn waiting_is_shown_where_it_lasts() {
        let terminal = Terminal::default();
        let console = Console::drawing_on(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let shown = || terminal.0.lock().unwrap().clone();
        let (waiting, started) = (console.waiting("reading imagenet"), Instant::now());
        while !shown().contains("reading imagenet 1s") && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(waiting);
        assert!(shown().contains("reading imagenet 1s"), "{:?}", shown());
    }
}
