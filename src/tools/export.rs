//! `flatnce export`.

use crate::config::Export;
use crate::report::Console;
use anyhow::{Result, bail};

/// Errors: not built yet.
pub fn run(export: &Export, _console: &Console) -> Result<()> {
    bail!("export is not built yet: {export:?}")
}
