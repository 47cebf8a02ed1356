//! `flatnce inspect`.

use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// Checkpoint to look into
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}
