//! `flatnce embed`.

use super::{DataArgs, MachineArgs};
use crate::cli::values::{checkpoint_choice, one_of};
use crate::config::{CheckpointChoice, EmbedFormat, Part};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("encoder").required(true).args(["checkpoint", "checkpoint_dir"]))]
pub struct EmbedArgs {
    /// Checkpoint of the encoder
    #[arg(long, value_name = "FILE", help_heading = "Features")]
    pub checkpoint: Option<PathBuf>,
    /// Directory of the run that trained the encoder
    #[arg(long, value_name = "DIR", help_heading = "Features")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Which checkpoint of --checkpoint-dir: its number, or last
    #[arg(long, value_name = "N|last", default_value = "last", value_parser = checkpoint_choice, help_heading = "Features")]
    pub transfer_from_epoch: CheckpointChoice,
    /// Which images
    #[arg(long, value_name = "PART", default_value = "test", value_parser = one_of!(Part), help_heading = "Features")]
    pub part: Part,
    /// features.npy and labels.npy, or one embed.safetensors
    #[arg(long, value_name = "NAME", default_value = "npy", value_parser = one_of!(EmbedFormat), help_heading = "Features")]
    pub format: EmbedFormat,
    /// Directory that the files go to, with names.txt and embed.json
    #[arg(long, value_name = "DIR", help_heading = "Features")]
    pub out: PathBuf,
    /// What the projection head gives, not what the trunk gives
    #[arg(long, help_heading = "Features")]
    pub projected: bool,
    /// Replace files that are there already
    #[arg(long, help_heading = "Features")]
    pub force: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}
