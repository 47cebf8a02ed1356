//! `flatnce export`: the encoder of a checkpoint alone, for other programs. What is
//! in the file says [`encoder_file`]; normalisation is printed.

use crate::checkpoint;
use crate::config::{ExportFormat, StatedEncoder};
use crate::report::Console;
use crate::train::encoder_file;
use crate::train::encoder_source::{Origin, Reading};
use crate::values::one_of;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// The encoder of a checkpoint, for another program.
#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// Checkpoint whose encoder is written
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Where in another program's file the network stands: what is before the names of its tensors, or words of that
    #[arg(long, value_name = "PREFIX")]
    pub checkpoint_key: Option<String>,
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

/// Writes the file and prints the lines of Python that load it.
///
/// Errors: a checkpoint that cannot be read or is no whole network, a file that is there already, a directory that is
/// not, a disk that is full.
pub fn run(export: &Export, console: &Console) -> Result<()> {
    if export.out.exists() && !export.force {
        bail!("{} is there already; choose another --out, or --force to replace it", export.out.display());
    }
    let directory = export.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(missing) = directory.filter(|directory| !directory.is_dir()) {
        bail!("the directory {} does not exist; create it, or choose another --out", missing.display());
    }
    let reading = Reading { key: export.checkpoint_key.as_deref(), images: None };
    let source = Origin::File(export.checkpoint.clone()).open(reading, &mut |text| console.warn(&text))?;
    let source = source.as_stated(&StatedEncoder::default())?;
    if let Some(taken) = &source.taken {
        console.note(&format!("{}: {taken}", source.name()));
    }
    if let Some(assumed) = &source.assumed {
        console.warn(assumed);
    }
    let trunk = encoder_file::trunk(&source).with_context(|| format!("{} is not written", export.out.display()))?;
    let bytes = match export.format {
        ExportFormat::Safetensors => checkpoint::write_safetensors(&export.out, &trunk, &encoder_file::notes(&source))?,
        ExportFormat::Torchvision | ExportFormat::Timm => checkpoint::write_state_dict(&export.out, &trunk)?,
    };
    let model = &source.model;
    console.note(&format!(
        "{}: the trunk of a {} with the {} stem, {} tensors, {:.1} MiB; it loads with",
        export.out.display(),
        model.depth,
        model.stem,
        trunk.len(),
        bytes as f64 / 1048576.0
    ));
    console.result(&encoder_file::recipe(&export.out, export.format, model).join("\n"));
    Ok(())
}
