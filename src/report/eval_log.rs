//! Everything an evaluation says: the terminal, `training.log` and `metrics.jsonl`.

use super::console::{Console, Verbosity};
use super::json_lines::JsonLines;
use super::log_file::LogFile;
use super::numbers::EvalRecord;
use anyhow::Result;
use std::path::Path;

/// The reports of one evaluation. A file that fails later on is warned about once and stops nothing.
pub struct EvalLog {
    console: Console,
    text: LogFile,
    metrics: JsonLines,
}

impl EvalLog {
    /// Opens the files in `directory`, which exists. A continued evaluation (`first_epoch > 0`) keeps the lines of the
    /// epochs before.
    ///
    /// # Errors
    /// A file cannot be created, read or rewritten.
    pub fn create(directory: &Path, first_epoch: u64, console: Console) -> Result<Self> {
        Ok(EvalLog {
            text: LogFile::append(&directory.join("training.log"))?,
            metrics: JsonLines::continue_at(&directory.join("metrics.jsonl"), first_epoch)?,
            console,
        })
    }

    pub fn console(&self) -> &Console {
        &self.console
    }

    /// An epoch is done: its line in both files, and on the terminal when verbose.
    pub fn epoch(&mut self, record: &EvalRecord, epochs: u64) {
        let line = record.line(epochs);
        if self.console.verbosity() == Verbosity::Verbose {
            self.console.numbers("evaluation_epoch", record, &line);
        }
        self.text.stamped("DETAIL", &line, &self.console);
        if let Some(warning) = self.metrics.write(std::slice::from_ref(record), &self.console) {
            self.warn(&warning);
        }
    }

    /// A line for the terminal (not when quiet) and for `training.log`.
    pub fn note(&mut self, text: &str) {
        self.console.note(text);
        self.text.stamped("INFO", text, &self.console);
    }

    /// A line for `training.log`, and for the terminal when verbose.
    pub fn detail(&mut self, text: &str) {
        self.console.detail(text);
        self.text.stamped("DETAIL", text, &self.console);
    }

    /// Something that the user should look at, with the next step in it.
    pub fn warn(&mut self, text: &str) {
        self.console.warn(text);
        self.text.stamped("WARNING", text, &self.console);
    }

    /// Why the evaluation stops, for `training.log`; printing it is the caller's part.
    pub fn failed(&mut self, text: &str) {
        self.text.stamped("ERROR", text, &self.console);
    }

    /// The result, printed whatever the verbosity.
    pub fn result(&mut self, text: &str) {
        self.console.result(text);
        self.text.stamped("INFO", text, &self.console);
    }
}
