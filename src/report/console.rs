//! The terminal: lines of text and progress bars that do not tear each other.
//!
//! Notes and results go to standard output, warnings, errors and bars to
//! standard error. A bar is drawn only where standard error is a terminal;
//! elsewhere long work writes a plain line every five minutes instead. With
//! `--log-format json` every line is an object on standard output, without bars.

use super::format::plain;
use crate::clock;
use crate::config::LogFormat;
pub use crate::config::Verbosity;
use ::console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};

/// A handle on the terminal; clones share it.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    verbosity: Verbosity,
    format: LogFormat,
    bars: MultiProgress,
    colour: bool,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// The program's own standard output and error.
    pub fn new(verbosity: Verbosity, format: LogFormat) -> Self {
        let draw = if verbosity == Verbosity::Quiet || format == LogFormat::Json {
            ProgressDrawTarget::hidden()
        } else {
            // Hidden by indicatif itself where standard error is no terminal or TERM is `dumb`.
            ProgressDrawTarget::stderr()
        };
        let colour = std::io::stderr().is_terminal() && colour_is_welcome();
        Self::build(verbosity, format, draw, colour, Box::new(std::io::stdout()), Box::new(std::io::stderr()))
    }

    /// Plain lines into two writers: for tests and for callers that own their output.
    pub fn to_writers(
        verbosity: Verbosity,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        Self::build(verbosity, LogFormat::Text, hidden, false, Box::new(out), Box::new(err))
    }

    /// JSON lines into a writer.
    pub fn json_to(verbosity: Verbosity, out: impl Write + Send + 'static) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        Self::build(verbosity, LogFormat::Json, hidden, false, Box::new(out), Box::new(std::io::sink()))
    }

    /// Bars on a terminal of a test's own.
    #[cfg(test)]
    pub(super) fn drawing_on(draw: ProgressDrawTarget) -> Self {
        let sink = || Box::new(std::io::sink());
        Self::build(Verbosity::Normal, LogFormat::Text, draw, false, sink(), sink())
    }

    fn build(
        verbosity: Verbosity,
        format: LogFormat,
        draw: ProgressDrawTarget,
        colour: bool,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(draw);
        Console(Arc::new(Inner { verbosity, format, bars, colour, out: Mutex::new(out), err: Mutex::new(err) }))
    }

    pub fn verbosity(&self) -> Verbosity {
        self.0.verbosity
    }

    /// A line that tells what happens; not printed when quiet.
    pub fn note(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            self.say("info", text);
        }
    }

    /// A line for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Verbose {
            self.say("detail", text);
        }
    }

    /// Something that the user should look at; not printed when quiet.
    pub fn warn(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            match self.0.format {
                LogFormat::Text => self.line(&self.0.err, &self.labelled("warning:", "33", text)),
                LogFormat::Json => self.say("warning", text),
            }
        }
    }

    /// Why the program stops; always printed.
    pub fn error(&self, text: &str) {
        match self.0.format {
            LogFormat::Text => self.line(&self.0.err, &self.labelled("error:", "31", text)),
            LogFormat::Json => self.say("error", text),
        }
    }

    /// What the program was run for; always printed.
    pub fn result(&self, text: &str) {
        self.say("result", text.trim_end());
    }

    /// Numbers that `text` tells to people: the line of one format or the fields of the other. Not printed when quiet.
    pub fn numbers(&self, what: &str, fields: &impl Serialize, text: &str) {
        match self.0.format {
            LogFormat::Text => self.note(text),
            LogFormat::Json if self.0.verbosity >= Verbosity::Normal => {
                let fields = serde_json::to_value(fields).expect("reports are plain numbers and names");
                self.json(what, fields);
            }
            LogFormat::Json => {}
        }
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

    fn say(&self, level: &str, text: &str) {
        match self.0.format {
            LogFormat::Text => self.line(&self.0.out, text),
            LogFormat::Json => self.json(level, json!({ "message": plain(text) })),
        }
    }

    /// One object a line, its kind and time first; all of them on standard output.
    fn json(&self, kind: &str, fields: Value) {
        let time = clock::now().format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let mut object = Map::from_iter([("time".to_owned(), json!(time)), ("kind".to_owned(), json!(kind))]);
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        self.line(&self.0.out, &Value::Object(object).to_string());
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
