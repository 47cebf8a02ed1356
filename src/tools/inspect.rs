//! `flatnce inspect`.

use crate::config::Inspect;
use crate::report::Console;
use anyhow::{Result, bail};

/// Errors: not built yet.
pub fn run(inspect: &Inspect, _console: &Console) -> Result<()> {
    bail!("inspect is not built yet: {inspect:?}")
}
