//! `flatnce report`: runs and their evaluations in one table, one picture, one page.

mod gather;
mod rows;

use crate::config::{Report, ReportFormat};
use crate::durable;
use crate::report::Console;
use anyhow::Result;
use std::io::Write;
use std::path::Path;

/// Writes whatever is asked for.
///
/// Errors: nothing found; a file that cannot be written.
pub fn run(report: &Report, console: &Console) -> Result<()> {
    let found = gather::gather(&report.directories, console)?;
    let rows = rows::rows(&found);
    let table = match report.format {
        ReportFormat::Markdown => rows::markdown(&rows),
        ReportFormat::Json => serde_json::to_string_pretty(&rows)?,
        ReportFormat::Csv => rows::csv(&rows),
    };
    match &report.out {
        Some(path) => {
            write(path, &table)?;
            console.note(&format!("{} rows: {}", rows.len(), path.display()));
        }
        None => console.result(&table),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let ending = if text.ends_with('\n') { "" } else { "\n" };
    durable::replace(path, |file| Ok(write!(file, "{text}{ending}")?))
}
