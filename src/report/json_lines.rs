//! `metrics.jsonl` (a line an epoch) and `steps.jsonl` (a line a step).
//!
//! Resumed at epoch e, a file keeps its lines of epochs below e and goes on, so
//! it holds one curve however often the run was stopped.

use super::console::Console;
use super::log_file::LogFile;
use crate::durable;
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) struct JsonLines {
    path: PathBuf,
    file: LogFile,
}

impl JsonLines {
    /// Opens or creates the file, with no line of `first_epoch` or later in it. Damaged lines go to a file beside it, and
    /// the warning says so.
    ///
    /// # Errors
    /// The file cannot be read, rewritten or opened.
    pub fn continue_at(path: &Path, first_epoch: u64) -> Result<(Self, Option<String>)> {
        let mut warning = None;
        if path.exists() {
            let old = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let Sorted { before, damaged, damaged_lines, .. } = sort(&old, first_epoch);
            if !damaged.is_empty() {
                let mut beside = path.as_os_str().to_owned();
                beside.push(".damaged");
                append(Path::new(&beside), &damaged)?;
                warning = Some(damage(path, Path::new(&beside), &damaged_lines));
            }
            if before != old {
                durable::replace(path, |file| Ok(file.write_all(&before)?))?;
            }
        }
        Ok((JsonLines { path: path.to_path_buf(), file: LogFile::append(path)? }, warning))
    }

    /// Appends the records, a line each, in one write. Numbers that are not finite become null;
    /// the line's `non_finite` names them, and so does the warning that comes back.
    pub fn write<T: Serialize>(&mut self, records: &[T], console: &Console) -> Option<String> {
        let mut text = String::new();
        let mut names = Vec::new();
        for record in records {
            let mut line = serde_json::to_value(record).expect("reports are plain numbers and names");
            for name in name_nulls(&mut line) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            text.push_str(&line.to_string());
            text.push('\n');
        }
        self.file.write(text.as_bytes(), console);
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        (!names.is_empty()).then(|| format!("{} not finite: written as null to {file}", names.join(", ")))
    }
}

/// Names the null fields of a line in its `non_finite`.
fn name_nulls(line: &mut Value) -> Vec<String> {
    let Value::Object(fields) = line else { return Vec::new() };
    let names: Vec<String> = fields.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name.clone()).collect();
    if !names.is_empty() {
        fields.insert("non_finite".into(), names.clone().into());
    }
    names
}

/// Keeps the lines of `first_epoch` and later of a run's files in the directory `aside`, before the run is continued at that
/// epoch and drops them.
///
/// # Errors
/// A file cannot be read or written.
pub fn keep_later_lines(directory: &Path, first_epoch: u64, aside: &Path) -> Result<()> {
    for name in ["metrics.jsonl", "steps.jsonl"] {
        let path = directory.join(name);
        if path.exists() {
            let old = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let later = sort(&old, first_epoch).later;
            if !later.is_empty() {
                append(&aside.join(name), &later)?;
            }
        }
    }
    Ok(())
}

/// The lines of a file.
#[derive(Default)]
struct Sorted {
    /// Of earlier epochs.
    before: Vec<u8>,
    /// Of that epoch and later.
    later: Vec<u8>,
    /// What a crash tore, or is no record.
    damaged: Vec<u8>,
    /// Their numbers, from 1.
    damaged_lines: Vec<usize>,
}

fn sort(old: &[u8], first_epoch: u64) -> Sorted {
    let mut sorted = Sorted::default();
    for (index, line) in old.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let whole = Some(line).filter(|line| line.ends_with(b"\n"));
        let epoch = whole.and_then(|line| serde_json::from_slice::<Value>(line).ok()?.get("epoch")?.as_u64());
        match epoch {
            Some(epoch) if epoch < first_epoch => sorted.before.extend_from_slice(line),
            Some(_) => sorted.later.extend_from_slice(line),
            None => {
                sorted.damaged.extend_from_slice(line);
                sorted.damaged_lines.push(index + 1);
            }
        }
    }
    sorted
}

/// Adds whole lines to a file that another run may have added to.
fn append(path: &Path, lines: &[u8]) -> Result<()> {
    let there = if path.exists() { std::fs::read(path)? } else { Vec::new() };
    let end: &[u8] = if lines.ends_with(b"\n") { b"" } else { b"\n" };
    durable::replace(path, |file| Ok(file.write_all(&[&there, lines, end].concat())?))
}

fn damage(path: &Path, beside: &Path, lines: &[usize]) -> String {
    const NAMED: usize = 5;
    let named: Vec<String> = lines.iter().take(NAMED).map(usize::to_string).collect();
    let more = if lines.len() > NAMED { ", ..." } else { "" };
    let (what, were) = if lines.len() == 1 { ("line", "was") } else { ("lines", "were") };
    format!(
        "{}: {} damaged {what} ({}{more}) {were} taken out and kept in {}",
        path.display(),
        lines.len(),
        named.join(", "),
        beside.display()
    )
}

/// Reads every line of such a file; a torn last line is passed over.
///
/// # Errors
/// The file cannot be read, or a whole line is not what it should be (named by its number).
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        let mut value: Value = serde_json::from_str(line)
            .with_context(|| format!("{} line {}: not a JSON object", path.display(), index + 1))?;
        if let Value::Object(fields) = &mut value {
            fields.remove("non_finite");
        }
        let record = serde_json::from_value(value)
            .with_context(|| format!("{} line {}: not a record of this file", path.display(), index + 1))?;
        records.push(record);
    }
    Ok(records)
}
