//! The terminal: lines of text and progress bars that do not tear each other.
//!
//! Notes and results go to standard output, warnings, errors and bars to
//! standard error. A bar is drawn only where standard error is a terminal;
//! elsewhere long work writes a plain line every five minutes instead. With
//! `--log-format json` every line is an object on standard output, without bars,
//! and a table is a line a row, in fields.
//!
//! Whatever is printed comes through [`Console`], which spells control characters out: names of files and of what is
//! inside them are other people's.

use super::format::{message, visible};
use crate::clock;
use crate::config::LogFormat;
pub use crate::config::Verbosity;
use ::console::Term;
use anyhow::{Result, anyhow};
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock};

/// A handle on the terminal; clones share it.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    verbosity: Verbosity,
    format: LogFormat,
    bars: MultiProgress,
    colour: bool,
    result_columns: Option<usize>,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// Why a result was not printed.
    lost: OnceLock<std::io::Error>,
    known: Mutex<BTreeSet<String>>,
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
        // A terminal that does not know its width has none.
        let width = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        let columns = width.filter(|&columns| columns > 0 && std::io::stdout().is_terminal());
        let (out, err) = (Box::new(std::io::stdout()), Box::new(std::io::stderr()));
        Self::build(verbosity, format, draw, colour, columns, out, err)
    }

    /// Plain lines into two writers: for tests and for callers that own their output.
    pub fn to_writers(
        verbosity: Verbosity,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        Self::build(verbosity, LogFormat::Text, hidden, false, None, Box::new(out), Box::new(err))
    }

    /// JSON lines into a writer.
    pub fn json_to(verbosity: Verbosity, out: impl Write + Send + 'static) -> Self {
        let hidden = ProgressDrawTarget::hidden();
        Self::build(verbosity, LogFormat::Json, hidden, false, None, Box::new(out), Box::new(std::io::sink()))
    }

    /// Bars on a terminal of a test's own.
    #[cfg(test)]
    pub(super) fn drawing_on(draw: ProgressDrawTarget) -> Self {
        let sink = || Box::new(std::io::sink());
        Self::build(Verbosity::Normal, LogFormat::Text, draw, false, None, sink(), sink())
    }

    fn build(
        verbosity: Verbosity,
        format: LogFormat,
        draw: ProgressDrawTarget,
        colour: bool,
        result_columns: Option<usize>,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        let bars = MultiProgress::with_draw_target(draw);
        let (out, err, lost, known) = (Mutex::new(out), Mutex::new(err), OnceLock::new(), Mutex::default());
        Console(Arc::new(Inner { verbosity, format, bars, colour, result_columns, out, err, lost, known }))
    }

    /// One that says nothing.
    pub fn silent() -> Self {
        Console::to_writers(Verbosity::Quiet, std::io::sink(), std::io::sink())
    }

    pub fn verbosity(&self) -> Verbosity {
        self.0.verbosity
    }

    /// A line that tells what happens; not printed when quiet.
    pub fn note(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            let _ = self.say("info", &message(text));
        }
    }

    /// True the first time that it is asked about a text: for what is said once, however often it comes up.
    pub fn is_new(&self, text: &str) -> bool {
        self.0.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(text.to_owned())
    }

    /// A line for those who asked for more.
    pub fn detail(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Verbose {
            let _ = self.say("detail", &message(text));
        }
    }

    /// Something that the user should look at; not printed when quiet.
    pub fn warn(&self, text: &str) {
        if self.0.verbosity >= Verbosity::Normal {
            match self.0.format {
                LogFormat::Text => self.labelled("warning:", "33", &message(text)),
                LogFormat::Json => drop(self.say("warning", &message(text))),
            }
        }
    }

    /// Why the program stops, with its causes; always printed.
    pub fn error(&self, error: &anyhow::Error) {
        match self.0.format {
            LogFormat::Text => {
                let causes =
                    error.chain().skip(1).map(|cause| format!("\n  caused by: {}", message(&cause.to_string())));
                let causes: String = causes.collect();
                self.labelled("error:", "31", &(message(&error.to_string()) + &causes));
            }
            LogFormat::Json => drop(self.say("error", &message(&format!("{error:#}")))),
        }
    }

    /// What the program was run for; always printed, its line breaks with it. [`Console::delivered`] knows whether it
    /// arrived.
    pub fn result(&self, text: &str) {
        if let Err(error) = self.say("result", text.trim_end()) {
            let _ = self.0.lost.set(error);
        }
    }

    /// The same of results that have fields: `text` in one format; in the other a line of this kind for each record.
    pub fn results(&self, kind: &str, records: &[Map<String, Value>], text: &str) {
        if self.0.format == LogFormat::Text {
            return self.result(text);
        }
        for record in records {
            if let Err(error) = self.json(kind, Value::Object(record.clone())) {
                let _ = self.0.lost.set(error);
            }
        }
    }

    /// Checks that every result has been printed.
    ///
    /// # Errors
    /// Standard output did not take one. A reader that has gone (`| head`) has seen enough, and is none.
    pub fn delivered(&self) -> Result<()> {
        match self.0.lost.get() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(anyhow!("cannot write the result to standard output: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Numbers that `text` tells to people: the line of one format or the fields of the other. Not printed when quiet.
    pub fn numbers(&self, what: &str, fields: &impl Serialize, text: &str) {
        self.all_numbers(what, std::slice::from_ref(fields), text);
    }

    /// The same of several records, a line each.
    pub fn all_numbers(&self, what: &str, records: &[impl Serialize], text: &str) {
        match self.0.format {
            LogFormat::Text => self.note(text),
            LogFormat::Json if self.0.verbosity >= Verbosity::Normal => {
                for fields in records {
                    let fields = serde_json::to_value(fields).expect("reports are plain numbers and names");
                    let _ = self.json(what, fields);
                }
            }
            LogFormat::Json => {}
        }
    }

    /// The width in characters of the terminal that results are printed on; `None` where they go elsewhere, and are to be
    /// complete.
    pub fn result_columns(&self) -> Option<usize> {
        self.0.result_columns
    }

    /// The terminal's width in characters.
    pub(super) fn columns(&self) -> usize {
        Term::stderr().size_checked().map_or(80, |(_, columns)| columns.into())
    }

    pub(super) fn bars(&self) -> &MultiProgress {
        &self.0.bars
    }

    /// A line on standard error behind its label.
    fn labelled(&self, label: &str, ansi_colour: &str, text: &str) {
        let label = if self.0.colour { format!("\x1b[1;{ansi_colour}m{label}\x1b[0m ") } else { format!("{label} ") };
        let _ = self.line(&self.0.err, &label, text);
    }

    fn say(&self, level: &str, text: &str) -> std::io::Result<()> {
        match self.0.format {
            LogFormat::Text => self.line(&self.0.out, "", text),
            LogFormat::Json => self.json(level, json!({ "message": visible(text) })),
        }
    }

    /// One object a line, its kind and time first; all of them on standard output.
    fn json(&self, kind: &str, fields: Value) -> std::io::Result<()> {
        let time = clock::now().format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let mut object = Map::from_iter([("time".to_owned(), json!(time)), ("kind".to_owned(), json!(kind))]);
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        self.line(&self.0.out, "", &Value::Object(object).to_string())
    }

    /// Clears the bars, writes, draws them again. Only a result's failure is anybody's business: a closed pipe
    /// (`| head`) must not end a run of days.
    fn line(&self, to: &Mutex<Box<dyn Write + Send>>, label: &str, text: &str) -> std::io::Result<()> {
        self.0.bars.suspend(|| {
            let mut to = to.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            writeln!(to, "{label}{}", visible(text)).and_then(|()| to.flush())
        })
    }
}

/// <https://no-color.org>: set and not empty means no colour.
fn colour_is_welcome() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
