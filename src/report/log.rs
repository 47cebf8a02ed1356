//! What every run says: the terminal, `training.log` and `metrics.jsonl`.

use super::console::{Console, Verbosity};
use super::json_lines::JsonLines;
use super::log_file::{LogFile, file_in};
use super::table::Table;
use anyhow::Result;
use serde::Serialize;
use std::path::Path;

/// The reports of a run. A file that fails later on is warned about once and stops nothing.
pub struct Log {
    console: Console,
    text: LogFile,
    metrics: JsonLines,
}

impl Log {
    /// Opens the files in `directory`, which exists; without one nothing is written. A continued run (`first_epoch > 0`) keeps the lines of the epochs
    /// before.
    ///
    /// # Errors
    /// A file cannot be created, read or rewritten.
    pub fn create(directory: Option<&Path>, first_epoch: u64, console: Console) -> Result<Self> {
        let text = LogFile::append(&file_in(directory, "training.log"))?;
        let (metrics, damage) = JsonLines::continue_at(&file_in(directory, "metrics.jsonl"), first_epoch)?;
        let mut log = Log { text, metrics, console };
        damage.iter().for_each(|damage| log.warn(damage));
        Ok(log)
    }

    pub fn console(&self) -> &Console {
        &self.console
    }

    /// An epoch of an evaluation is done: its line in both files, and on the terminal when verbose.
    pub fn evaluation_epoch(&mut self, record: &super::EvalRecord, epochs: u64) {
        let line = record.line(epochs);
        if self.console.verbosity() == Verbosity::Verbose {
            self.console.numbers("evaluation_epoch", record, &line);
        }
        self.write("DETAIL", &line);
        self.record(record.epoch, record);
    }

    /// A line of `metrics.jsonl`.
    pub(super) fn record(&mut self, epoch: u64, record: &impl Serialize) {
        if let Some(warning) = self.metrics.write(std::slice::from_ref(record), &self.console) {
            self.warn(&format!("epoch {}: {warning}", epoch + 1));
        }
    }

    /// A line for the terminal (not when quiet) and for `training.log`.
    pub fn note(&mut self, text: &str) {
        self.console.note(text);
        self.write("INFO", text);
    }

    /// A line for `training.log`, and for the terminal when verbose.
    pub fn detail(&mut self, text: &str) {
        self.console.detail(text);
        self.write("DETAIL", text);
    }

    /// Something that the user should look at, with the next step in it.
    pub fn warn(&mut self, text: &str) {
        self.console.warn(text);
        self.write("WARNING", text);
    }

    /// Why the run stops, for `training.log`; printing it is the caller's part.
    pub fn failed(&mut self, text: &str) {
        self.write("ERROR", text);
    }

    /// A table on the way to the result: for programs lines of this kind.
    pub fn note_table(&mut self, kind: &str, table: &Table) {
        let text = table.to_string();
        self.console.all_numbers(kind, table.records(), &text);
        self.write("INFO", &text);
    }

    /// The table of the result, printed whatever the verbosity.
    pub fn result_table(&mut self, kind: &str, table: &Table) {
        let text = table.to_string();
        self.console.results(kind, table.records(), &text);
        self.write("INFO", &text);
    }

    /// The result, printed whatever the verbosity.
    pub fn result(&mut self, text: &str) {
        self.console.result(text);
        self.write("INFO", text);
    }

    /// A line of `training.log`.
    pub(super) fn write(&mut self, level: &str, text: &str) {
        self.text.stamped(level, text, &self.console);
    }
}
