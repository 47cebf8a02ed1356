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
    /// Opens or creates the file, with no line of `first_epoch` or later in it. Damaged lines go to a file beside it, and
    /// the warning says so.
    ///
    /// # Errors
    /// The file cannot be read, rewritten or opened.
    pub fn continue_at(path: &Path, first_epoch: u64) -> Result<(Self, Option<String>)> {
        let mut warning = None;
        // A device keeps nothing.
        if std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
            warning =
                keep_before(path, first_epoch).with_context(|| format!("cannot go on with {}", path.display()))?;
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
        let (path, mut later) = (directory.join(name), Vec::new());
        if !path.exists() {
            continue;
        }
        each_line(&path, |_, line| {
            if Line::of(line, first_epoch) == Line::Later {
                later.extend_from_slice(line);
            }
            Ok(())
        })?;
        if !later.is_empty() {
            append(&aside.join(name), &later)?;
        }
    }
    Ok(())
}

/// A line, as seen from an epoch.
#[derive(PartialEq, Eq)]
enum Line {
    Before,
    /// Of that epoch or a later one.
    Later,
    /// A crash tore it, or it is no record.
    Damaged,
}

impl Line {
    fn of(line: &[u8], first_epoch: u64) -> Line {
        let whole = Some(line).filter(|line| line.ends_with(b"\n"));
        match whole.and_then(|line| serde_json::from_slice::<Value>(line).ok()?.get("epoch")?.as_u64()) {
            Some(epoch) if epoch < first_epoch => Line::Before,
            Some(_) => Line::Later,
            None => Line::Damaged,
        }
    }
}

/// Calls `take` with every line, its line break, and its number from 1.
fn each_line(path: &Path, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    let read = || format!("cannot read {}", path.display());
    let (mut lines, mut line) = (Lines::of(path).with_context(read)?, Vec::new());
    for number in 1.. {
        if !lines.next(&mut line).with_context(read)? {
            break;
        }
        take(number, &line)?;
    }
    Ok(())
}

/// Leaves the file with the lines of epochs below `first_epoch`; says where the damaged ones went.
fn keep_before(path: &Path, first_epoch: u64) -> Result<Option<String>> {
    let (mut all_stay, mut damaged, mut numbers) = (true, Vec::new(), Vec::new());
    each_line(path, |number, line| {
        let line_is = Line::of(line, first_epoch);
        all_stay &= line_is == Line::Before;
        if line_is == Line::Damaged {
            damaged.extend_from_slice(line);
            numbers.push(number);
        }
        Ok(())
    })?;
    if all_stay {
        return Ok(None);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".damaged");
    let beside = PathBuf::from(beside);
    if !damaged.is_empty() {
        append(&beside, &damaged)?;
    }
    durable::replace(path, |file| {
        each_line(path, |_, line| match Line::of(line, first_epoch) {
            Line::Before => Ok(file.write_all(line)?),
            _ => Ok(()),
        })
    })?;
    Ok((!numbers.is_empty()).then(|| damage(path, &beside, &numbers)))
}

/// Adds whole lines to a file that an earlier part may have added to.
fn append(path: &Path, lines: &[u8]) -> Result<()> {
    durable::replace(path, |file| {
        if path.exists() {
            each_line(path, |_, line| Ok(file.write_all(line)?))?;
        }
        let end: &[u8] = if lines.ends_with(b"\n") { b"" } else { b"\n" };
        Ok(file.write_all(&[lines, end].concat())?)
    })
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
    let mut records = Vec::new();
    each_line(path, |number, line| {
        if line.ends_with(b"\n") {
            records.push(record(line).with_context(|| format!("{} line {number}", path.display()))?);
        }
        Ok(())
    })?;
    Ok(records)
}

/// The records of such a file that can be read, and what is to be said of its other lines, if there are any. A last line
/// that was torn is none of them: it is still being written.
///
/// # Errors
/// The file cannot be read.
pub fn salvage_json_lines<T: DeserializeOwned>(path: &Path) -> Result<(Vec<T>, Option<String>)> {
    let (mut records, mut bad, mut lines) = (Vec::new(), Vec::new(), 0);
    each_line(path, |number, line| {
        lines = number;
        match record(line) {
            Ok(record) => records.push(record),
            Err(error) => {
                let ends_early = error.downcast_ref::<serde_json::Error>().is_some_and(serde_json::Error::is_eof);
                let torn = ends_early && !line.ends_with(b"\n");
                if !torn {
                    bad.push((number, error));
                }
            }
        }
        Ok(())
    })?;
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
