//! `flatnce export`: the encoder of a checkpoint alone, for other programs. What is
//! in the file says [`encoder_file`]; how it is loaded, and what it is to be fed, is printed.

use crate::config::{ExportFormat, StatedEncoder};
use crate::report::Console;
use crate::train::encoder_file::{self, huggingface};
use crate::train::encoder_source::{Origin, Reading};
use crate::values::one_of;
use anyhow::{Result, bail};
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
    /// For whom: what is written, and the lines of Python that are printed
    ///
    /// All hold the trunk without head; the printed lines load it.
    ///
    /// safetensors, torchvision, timm: the tensors under the names that
    /// torchvision and timm share, as safetensors or a state dict of
    /// torch.save. It loads strictly; images are normalised before.
    ///
    /// onnx: a model (operator set 17) from uint8 images [batch, height,
    /// width, 3], RGB, to features [batch, 512 or 2048]. Normalisation is
    /// inside; its properties say what the encoder is.
    ///
    /// huggingface: a directory for transformers' ResNetModel, whose
    /// pooler_output has the features; its image processor normalises.
    /// Of the stems it knows imagenet alone.
    #[arg(long, value_name = "NAME", default_value = "safetensors", value_parser = one_of!(ExportFormat))]
    pub format: ExportFormat,
    /// File to write; with --format huggingface a directory
    #[arg(long, value_name = "FILE|DIR")]
    pub out: PathBuf,
    /// Replace what is there already
    #[arg(long)]
    pub force: bool,
}

/// Writes the file and prints the lines of Python that load it.
///
/// Errors: a checkpoint that cannot be read or is no whole network, one that the format cannot express, a file that is
/// there already, a directory that is not, a disk that is full.
pub fn run(export: &Export, console: &Console) -> Result<()> {
    refuse_to_overwrite(export)?;
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
    let bytes = encoder_file::write(&export.out, export.format, &source)?;
    let model = &source.model;
    console.note(&format!(
        "{}: the trunk of a {} with the {} stem, {:.1} MiB; it loads with",
        export.out.display(),
        model.depth,
        model.stem,
        bytes as f64 / 1048576.0
    ));
    console.result(&encoder_file::recipe(&export.out, export.format, model, source.image_size_px).join("\n"));
    Ok(())
}

/// Errors: what would be written is there, or a directory is to be made of a file.
fn refuse_to_overwrite(export: &Export) -> Result<()> {
    let out = &export.out;
    let directory = export.format == ExportFormat::Huggingface;
    if directory && out.exists() && !out.is_dir() {
        bail!("{} is no directory, and --format huggingface writes one; choose another --out", out.display());
    }
    let written = if directory { huggingface::FILES.map(|name| out.join(name)).to_vec() } else { vec![out.clone()] };
    match written.iter().find(|path| path.exists()) {
        Some(path) if !export.force => {
            bail!("{} is there already; choose another --out, or --force to replace it", path.display())
        }
        _ => Ok(()),
    }
}
