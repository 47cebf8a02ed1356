//! `flatnce embed`.

use crate::config::Embed;
use crate::report::Console;
use anyhow::{Result, bail};

/// Errors: not built yet.
pub fn run(embed: &Embed, _console: &Console) -> Result<()> {
    bail!("embed is not built yet: {embed:?}")
}
