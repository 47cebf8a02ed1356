//! `flatnce export`.

use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// Checkpoint whose encoder is written
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}
