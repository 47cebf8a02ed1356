//! `metrics.jsonl` (a line an epoch) and `steps.jsonl` (a line a step).
//!
//! Resumed at epoch e, a file keeps its lines of epochs below e and goes on, so
//! it holds one curve however often the run was stopped.

use super::console::Console;
use super::log_file::LogFile;
use crate::durable;
use crate::files::Lines;
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
        // A device keeps nothing.
        if std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
            keep_before(path, first_epoch).with_context(|| format!("cannot go on with {}", path.display()))?;
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

/// Leaves the file with the whole lines of epochs below `first_epoch`; what a crash tore goes too.
fn keep_before(path: &Path, first_epoch: u64) -> Result<()> {
    let stays = |line: &[u8]| {
        let epoch = serde_json::from_slice::<Value>(line).ok().and_then(|value| value.get("epoch")?.as_u64());
        line.ends_with(b"\n") && epoch.is_some_and(|epoch| epoch < first_epoch)
    };
    let (mut lines, mut line) = (Lines::of(path)?, Vec::new());
    while lines.next(&mut line)? {
        if !stays(&line) {
            return durable::replace(path, |file| {
                let mut lines = Lines::of(path)?;
                while lines.next(&mut line)? {
                    if stays(&line) {
                        file.write_all(&line)?;
                    }
                }
                Ok(())
            });
        }
    }
    Ok(())
}

/// Reads every line of such a file; a torn last line is passed over.
///
/// # Errors
/// The file cannot be read, or a whole line is not what it should be (named by its number).
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let read = || format!("cannot read {}", path.display());
    let (mut lines, mut line, mut records) = (Lines::of(path).with_context(read)?, Vec::new(), Vec::new());
    while lines.next(&mut line).with_context(read)? && line.ends_with(b"\n") {
        let number = records.len() + 1;
        let mut value: Value = serde_json::from_slice(&line)
            .with_context(|| format!("{} line {number}: not a JSON object", path.display()))?;
        if let Value::Object(fields) = &mut value {
            fields.remove("non_finite");
        }
        let record = serde_json::from_value(value)
            .with_context(|| format!("{} line {number}: not a record of this file", path.display()))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_is_named_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("metrics.jsonl");
        let refused = |expected: &str| {
            let read = format!("{:#}", read_json_lines::<Value>(&path).unwrap_err());
            let begun = format!("{:#}", JsonLines::continue_at(&path, 0).err().unwrap());
            assert!(read.contains("metrics.jsonl") && read.contains(expected), "{read}");
            assert!(begun.contains("metrics.jsonl") && begun.contains(expected), "{begun}");
        };
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        refused("a line has more than");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 40);
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        refused("a FIFO");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "{\"epoch\":1}\n{\"epoch\":2}\n{\"epo").unwrap();
        assert_eq!(read_json_lines::<Value>(&path).unwrap().len(), 2);
        JsonLines::continue_at(&path, 2).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{\"epoch\":1}\n");
    }
}
