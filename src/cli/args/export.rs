//! `flatnce export`.

use crate::cli::values::one_of;
use crate::config::ExportFormat;
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// Checkpoint whose encoder is written
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// For whom: the container, and the lines of Python that are printed
    ///
    /// All hold the trunk without head under the names that torchvision and
    /// timm share: safetensors, or a state dict of torch.save. It loads
    /// strictly; the printed lines show how.
    #[arg(long, value_name = "NAME", default_value = "safetensors", value_parser = one_of!(ExportFormat))]
    pub format: ExportFormat,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
}
