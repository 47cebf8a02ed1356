//! From a subcommand as typed to what it means.

use super::args::ToolArgs;
use super::args::{DoctorArgs, EmbedArgs, ExportArgs, InspectArgs, PreviewArgs, ReportArgs};
use super::resolve::pretrain::{augmentation, data_config, engine, numerics};
use super::resolve::{device_choice, own_device, own_processes, placement, precision_asked, workers};
use crate::config::{Doctor, Embed, EncoderSource, Export, Inspect, Preview, Report, Tool};
use anyhow::Result;
use tch::Device;

/// Resolves a subcommand.
///
/// Errors: flags that contradict each other, a device that this machine does not have.
pub fn resolve_tool(args: &ToolArgs) -> Result<Tool> {
    match args {
        ToolArgs::Doctor(args) => doctor(args).map(Tool::Doctor),
        ToolArgs::Export(args) => export(args).map(Tool::Export),
        ToolArgs::Inspect(args) => inspect(args).map(Tool::Inspect),
        ToolArgs::Embed(args) => embed(args).map(Tool::Embed),
        ToolArgs::Preview(args) => preview(args).map(Tool::Preview),
        ToolArgs::Report(args) => report(args).map(Tool::Report),
    }
}

fn doctor(args: &DoctorArgs) -> Result<Doctor> {
    let DoctorArgs { device, bench, json } = *args;
    Ok(Doctor { device, bench, json })
}

fn export(args: &ExportArgs) -> Result<Export> {
    let (format, replace) = (args.format, args.force);
    Ok(Export { checkpoint: args.checkpoint.clone(), format, out: args.out.clone(), replace })
}

fn inspect(args: &InspectArgs) -> Result<Inspect> {
    Ok(Inspect { file: args.file.clone(), json: args.json })
}

fn embed(args: &EmbedArgs) -> Result<Embed> {
    let source = match (&args.checkpoint, &args.checkpoint_dir) {
        (Some(file), _) => EncoderSource::File(file.clone()),
        (None, directory) => EncoderSource::Directory {
            directory: directory.clone().unwrap_or_default(),
            which: args.transfer_from_epoch,
        },
    };
    let place = placement(&args.machine)?;
    Ok(Embed {
        source,
        data: data_config(&args.data, args.data.dataset_name),
        part: args.part,
        projected: args.projected,
        format: args.format,
        out: args.out.clone(),
        replace: args.force,
        nproc: own_processes(&args.machine, place.as_ref()),
        distributed_timeout_seconds: args.machine.distributed_timeout,
        device: own_device(device_choice(&args.machine)?, place.as_ref()),
        precision: precision_asked(&args.machine)?,
        numerics: numerics(&args.machine),
        workers: workers(&args.machine, place.as_ref()),
    })
}

fn report(args: &ReportArgs) -> Result<Report> {
    let ReportArgs { directories, format, out, plot, html, pictures } = args.clone();
    Ok(Report { directories, format, out, plot, html, pictures })
}

fn preview(args: &PreviewArgs) -> Result<Preview> {
    let data = data_config(&args.data, args.data.dataset_name);
    let augmentation = augmentation(&args.augmentation, &data)?;
    let PreviewArgs { seed, epoch, images, out, parameters, .. } = args;
    let (seed, epoch, images, parameters) = (*seed, *epoch, *images, *parameters);
    let engine = engine(&args.augmentation, args.data.dataset_name, Device::Cpu);
    let views = args.views.clone().map(|file| (file, args.batches));
    Ok(Preview { data, augmentation, engine, seed, epoch, images, out: out.clone(), parameters, views })
}
