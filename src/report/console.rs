//! The terminal: lines of text and progress bars that do not tear each other.
//!
//! Notes and results go to standard output, warnings, errors and bars to
//! standard error. A bar is drawn only where standard error is a terminal;
//! elsewhere long work writes a plain line every five minutes instead.

use super::progress::Progress;
use ::console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

/// How much is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Errors and the final result.
    Quiet,
    #[default]
    Normal,
    /// Details too.
    Verbose,
}

/// A handle on the terminal; clones share it.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    verbosity: Verbosity,
    bars: MultiProgress,
    colour: bool,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// The program's own standard output and error.
    pub fn new(verbosity: Verbosity) -> Self {
        let draw = if verbosity == Verbosity::Quiet {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden by indicatif itself where standard error is no terminal or TERM is `dumb`.
            ProgressDrawTarget::stderr()
        };
        let colour = std::io::stderr().is_terminal() && colour_is_welcome();
        Self::build(verbosity, draw, colour, Box::new(std::io::stdout()), Box::new(std::io::stderr()))
    }

    /// Plain lines into two writers: for tests and for callers that own their output.
    pub fn to_writers(
        verbosity: Verbosity,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        Self::build(verbosity, ProgressDrawTarget::hidden(), false, Box::new(out), Box::new(err))
    }

    /// Bars on a terminal of a test's own.
    #[cfg(test)]
    pub(super) fn drawing_on(draw: ProgressDrawTarget) -> Self {
        Self::build(Verbosity::Normal, draw, false, Box::new(std::io::sink()), Box::new(std::io::sink()))
    }

    fn build(
        verbosity: Verbosity,
        draw: ProgressDrawTarget,
        colour: bool,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(draw);
        Console(Arc::new(Inner { verbosity, bars, colour, out: Mutex::new(out), err: Mutex::new(err) }))
    }

    pub fn verbosity(&self) -> Verbosity {
        self.0.verbosity
    }

    /// A line that tells what happens; not printed when quiet.
    pub fn note(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            self.line(&self.0.out, text);
        }
    }

    /// A line for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Verbose {
            self.line(&self.0.out, text);
        }
    }

    /// Something that the user should look at; not printed when quiet.
    pub fn warn(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            self.line(&self.0.err, &self.labelled("warning:", "33", text));
        }
    }

    /// Why the program stops; always printed.
    pub fn error(&self, text: &str) {
        self.line(&self.0.err, &self.labelled("error:", "31", text));
    }

    /// What the program was run for; always printed.
    pub fn result(&self, text: &str) {
        self.line(&self.0.out, text.trim_end());
    }

    /// A bar for `total` pieces of work called `unit` (`images`, `steps`).
    pub fn progress(&self, title: &str, total: u64, unit: &'static str) -> Progress {
        Progress::new(self.clone(), title, total, unit)
    }

    /// The terminal's width in characters.
    pub(super) fn columns(&self) -> usize {
        Term::stderr().size_checked().map_or(80, |(_, columns)| columns.into())
    }

    pub(super) fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    fn labelled(&self, label: &str, ansi_colour: &str, text: &str) -> String {
        if self.0.colour { format!("\x1b[1;{ansi_colour}m{label}\x1b[0m {text}") } else { format!("{label} {text}") }
    }

    /// Clears the bars, writes, draws them again. A closed pipe (`| head`) must not end a run of days.
    fn line(&self, to: &Mutex<Box<dyn Write + Send>>, text: &str) {
        self.0.bars.suspend(|| {
            let mut to = to.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _ = writeln!(to, "{text}").and_then(|()| to.flush());
        });
    }
}

/// <https://no-color.org>: set and not empty means no colour.
fn colour_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
