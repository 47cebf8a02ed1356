//! What the subcommands do, each resolved.

use super::{
    Augmentation, DataConfig, DeviceChoice, EmbedFormat, EncoderSource, Engine, ExportFormat, Numerics, Part,
    Precision, ReportFormat,
};
use std::path::PathBuf;

/// A subcommand.
#[derive(Clone, Debug, PartialEq)]
pub enum Tool {
    Doctor(Doctor),
    Export(Export),
    Inspect(Inspect),
    Embed(Embed),
    Report(Report),
    Preview(Preview),
}

/// Say whether this machine is fit, and what mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// The device that is to work.
    pub device: DeviceChoice,
    pub bench: bool,
    /// JSON instead of a table.
    pub json: bool,
}

/// Write the encoder of a checkpoint for another program.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    pub checkpoint: PathBuf,
    pub format: ExportFormat,
    pub out: PathBuf,
    /// A file that is there already may go.
    pub replace: bool,
}

/// Say what is inside a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspect {
    pub file: PathBuf,
    /// JSON instead of a table.
    pub json: bool,
}

/// Write an encoder's features of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Embed {
    pub source: EncoderSource,
    pub data: DataConfig,
    pub part: Part,
    /// What the projection head gives instead of what the trunk gives.
    pub projected: bool,
    pub format: EmbedFormat,
    /// Directory.
    pub out: PathBuf,
    /// Files that are there already may go.
    pub replace: bool,
    pub device: DeviceChoice,
    /// `None`: the fastest that is safe.
    pub precision: Option<Precision>,
    pub numerics: Numerics,
    pub workers: u32,
    /// Processes to start on this machine, where this program is to start them itself.
    pub nproc: Option<u32>,
    pub distributed_timeout_seconds: u32,
}

/// Gather runs and their evaluations.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub directories: Vec<PathBuf>,
    pub format: ReportFormat,
    /// File for the table; `None` = the terminal.
    pub out: Option<PathBuf>,
    /// PNG file: accuracy over epochs.
    pub plot: Option<PathBuf>,
    /// The page.
    pub html: Option<PathBuf>,
    /// Directory for the pictures.
    pub pictures: Option<PathBuf>,
}

/// Draw images and their views.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub data: DataConfig,
    pub augmentation: Augmentation,
    /// On the CPU, whichever it is.
    pub engine: Engine,
    pub seed: u64,
    /// Counted from 0.
    pub epoch: u32,
    pub images: u32,
    /// PNG file.
    pub out: PathBuf,
    /// Print what was drawn.
    pub parameters: bool,
    /// File for batches of views, and how many.
    pub views: Option<(PathBuf, u32)>,
}
