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
    /// Opens or creates the file, with no line of `first_epoch` or later in it.
    ///
    /// # Errors
    /// The file cannot be read, rewritten or opened.
    pub fn continue_at(path: &Path, first_epoch: u64) -> Result<Self> {
        if path.exists() {
            let old = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let kept = lines_before(&old, first_epoch);
            if kept != old {
                durable::replace(path, |file| Ok(file.write_all(&kept)?))?;
            }
        }
        Ok(JsonLines { path: path.to_path_buf(), file: LogFile::append(path)? })
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

/// The whole lines of epochs below `first_epoch`; what a crash tore is left out.
fn lines_before(old: &[u8], first_epoch: u64) -> Vec<u8> {
    let mut kept = Vec::with_capacity(old.len());
    for line in old.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let epoch = serde_json::from_slice::<Value>(line).ok().and_then(|value| value.get("epoch")?.as_u64());
        if epoch.is_some_and(|epoch| epoch < first_epoch) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// Reads every line of such a file; a torn last line is passed over.
///
/// # Errors
/// The file cannot be read, or a whole line is not what it should be (named by its number).
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
        records.push(record(line.as_bytes()).with_context(|| format!("{} line {}", path.display(), index + 1))?);
    }
    Ok(records)
}

/// The records of such a file that can be read, and what is to be said of its other lines, if there are any. A last line
/// that was torn is none of them: it is still being written.
///
/// # Errors
/// The file cannot be read.
pub fn salvage_json_lines<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, Option<String>)> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut records, mut bad, mut lines) = (Vec::new(), Vec::new(), 0);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        lines += 1;
        match record(line) {
            Ok(record) => records.push(record),
            Err(error) => {
                let ends_early = error.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_eof);
                let torn = ends_early && !line.ends_with(b"\n");
                if !torn {
                    bad.push((lines, error));
                }
            }
        }
    }
    let complaint = bad.first().map(|(first, error)| {
        let number =
            if bad.len() == lines { "none of its lines".to_owned() } else { format!("not all of {lines} lines") };
        let others = if bad.len() > 1 { format!(", and {} more after it", bad.len() - 1) } else { String::new() };
        format!("{}: {number} can be read: line {first} ({error:#}){others}", path.display())
    });
    Ok((records, complaint))
}

fn record<T: DeserializeOwned>(line: &[u8]) -> Result<T> {
    let mut value: Value = serde_json::from_slice(line).context("not a JSON object")?;
    if let Value::Object(fields) = &mut value {
        fields.remove("non_finite");
    }
    serde_json::from_value(value).context("not a record of this file")
}
