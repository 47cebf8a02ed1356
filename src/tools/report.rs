//! `flatnce report`.

use crate::config::Report;
use crate::report::Console;
use anyhow::{Result, bail};

/// Errors: not built yet.
pub fn run(report: &Report, _console: &Console) -> Result<()> {
    bail!("report is not built yet: {report:?}")
}
