//! The subcommands. A tool's own flags are a structure of the tool, which takes it as it was typed; what it shares with
//! runs is resolved as there.

use super::about::{self, CompletionsArgs, ManArgs};
use super::list::{self, ListArgs};
use super::machine::{own_device, workers};
use super::train::TrainArgs;
use super::{AugmentationArgs, DataArgs, MachineArgs, Typed};
use crate::config::{CheckpointChoice, DataConfig, DatasetName, EncoderSource};
use crate::tools::{Doctor, Embed, Export, FeatureFiles, Inspect, Pack, Packing, Preview, Report, Sheet, Tool};
use crate::values::checkpoint_choice;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use tch::Device;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum ToolArgs {
    /// Train on your own images, with settings chosen for them and this machine
    Train(TrainArgs),
    /// Write the encoder of a checkpoint for another program
    Export(Export),
    /// Say what is inside a checkpoint, and whether it is whole
    Inspect(Inspect),
    /// Draw images and their two views, as training sees them
    Preview(Box<PreviewArgs>),
    /// Write the features of a data set
    Embed(EmbedArgs),
    /// Write a data set as tar archives, which are read faster
    Pack(Box<PackArgs>),
    /// Say whether this machine is fit for training, and what mends it
    Doctor(Doctor),
    /// Gather runs and their evaluations into one table
    Report(Report),
    /// List the models, the data sets or the flags
    List(ListArgs),
    /// Print what a shell completes flags and their values with
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them
    Man(ManArgs),
}

impl ToolArgs {
    /// The images that the tool reads, if it reads any.
    pub(super) fn data(&self) -> Option<&DataArgs> {
        match self {
            ToolArgs::Preview(args) => Some(&args.data),
            ToolArgs::Embed(args) => Some(&args.data),
            ToolArgs::Pack(args) => Some(&args.data),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct PreviewArgs {
    #[command(flatten)]
    pub sheet: Sheet,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub augmentation: AugmentationArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub struct PackArgs {
    #[command(flatten)]
    pub packing: Packing,
    #[command(flatten)]
    pub data: DataArgs,
}

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
    /// Where in another program's file the network stands: what is before the names of its tensors, or words of that
    #[arg(long, value_name = "PREFIX", help_heading = "Features", hide_short_help = true)]
    pub checkpoint_key: Option<String>,
    #[command(flatten)]
    pub files: FeatureFiles,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl EmbedArgs {
    pub(super) fn source(&self) -> EncoderSource {
        let (directory, which) = (self.checkpoint_dir.clone().unwrap_or_default(), self.transfer_from_epoch);
        self.checkpoint.clone().map_or(EncoderSource::Directory { directory, which }, EncoderSource::File)
    }
}

/// Resolves a subcommand.
///
/// Errors: flags that contradict each other, images without a data set's name, a device that this machine does not have.
pub fn resolve_tool(typed: &Typed, args: &ToolArgs) -> Result<Tool> {
    if let Some(data) = args.data().filter(|_| typed.taken.is_none()) {
        data.check_named(typed)?;
    }
    Ok(match args.clone() {
        ToolArgs::Train(_) => bail!("train stands for a run"),
        ToolArgs::Completions(args) => Tool::Pages(about::completions(&args)),
        ToolArgs::Man(args) => Tool::Pages(about::man(&args)?),
        ToolArgs::List(args) => Tool::Pages(list::list(&args)?),
        ToolArgs::Doctor(doctor) => Tool::Doctor(doctor),
        ToolArgs::Export(export) => Tool::Export(export),
        ToolArgs::Inspect(inspect) => Tool::Inspect(inspect),
        ToolArgs::Report(report) => Tool::Report(report),
        ToolArgs::Embed(args) => Tool::Embed(Box::new(Embed { images_from: typed.taken.clone(), ..embed(args)? })),
        ToolArgs::Pack(args) => Tool::Pack(Box::new(pack(*args)?)),
        ToolArgs::Preview(args) => Tool::Preview(Box::new(preview(*args)?)),
    })
}

fn embed(args: EmbedArgs) -> Result<Embed> {
    let source = args.source();
    let EmbedArgs { checkpoint_key, files, data, machine, .. } = args;
    let place = machine.placement()?;
    Ok(Embed {
        source,
        checkpoint_key,
        images_from: None,
        data: DataConfig { size_is_default: data.image_size.is_none(), ..data.config(data.dataset_name) },
        files,
        nproc: machine.own_processes(place.as_ref()),
        distributed_timeout_seconds: machine.distributed_timeout,
        device: own_device(machine.device_choice()?, place.as_ref()),
        precision: machine.precision_asked()?,
        numerics: machine.numerics(),
        workers: workers(machine.workers, place.as_ref()),
    })
}

fn pack(args: PackArgs) -> Result<Pack> {
    let PackArgs { packing, mut data } = args;
    if let Some(source) = &packing.source {
        match source.to_str().and_then(DatasetName::parse).filter(|_| !source.is_dir()) {
            Some(name) => data.dataset_name = name,
            None if data.data != [Path::new("datasets")] => {
                bail!("{} and --data both say where the images lie: give one of them", source.display())
            }
            None => {
                let archives = !source.is_dir() && source.to_string_lossy().contains(".tar");
                data.dataset_name = if archives { DatasetName::Shards } else { DatasetName::Folder };
                data.data = vec![source.clone()];
            }
        }
    }
    let data = DataConfig { in_order: true, ..data.config(data.dataset_name) };
    Ok(Pack { data, packing })
}

fn preview(args: PreviewArgs) -> Result<Preview> {
    let PreviewArgs { sheet, data, augmentation } = args;
    let engine = augmentation.engine(data.dataset_name, Device::Cpu);
    let data = data.config(data.dataset_name);
    Ok(Preview { sheet, augmentation: augmentation.recipe(&data)?, data, engine })
}
