//! `--dry-run`: the resolved command line, printed.

use super::Resolved;
use anyhow::Result;

pub fn run(_resolved: &Resolved) -> Result<()> {
    Ok(())
}
