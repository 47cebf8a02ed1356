//! The subcommands.

use super::{DoctorArgs, EmbedArgs, ExportArgs, InspectArgs, PreviewArgs, ReportArgs};

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ToolArgs {
    /// Write the encoder of a checkpoint for another program
    Export(ExportArgs),
    /// Say what is inside a checkpoint, and whether it is whole
    Inspect(InspectArgs),
    /// Draw images and their two views, as training sees them
    Preview(Box<PreviewArgs>),
    /// Write the features of a data set
    Embed(EmbedArgs),
    /// Say whether this machine is fit for training, and what mends it
    Doctor(DoctorArgs),
    /// Gather runs and their evaluations into one table
    Report(ReportArgs),
}
