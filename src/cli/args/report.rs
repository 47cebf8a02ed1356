//! `flatnce report`.

use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// Directories of results; everything below them is gathered
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,
}
