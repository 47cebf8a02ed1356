//! `flatnce export`: the encoder of a checkpoint alone, for other programs.
//!
//! All formats hold the trunk's tensors under the names that torchvision and
//! timm share, without a classifier: it loads strictly where `fc` is an
//! identity. Normalisation is no part of those networks; it is printed, and kept
//! in the notes of a safetensors file.

use crate::checkpoint::{self, Notes};
use crate::config::{Depth, ExportFormat, ModelConfig, Normalisation, StatedEncoder, Stem};
use crate::model::{HEAD_PREFIX, HeadKind, NORMALISATION_PREFIX};
use crate::report::Console;
use crate::state::StateDict;
use crate::train::encoder_source::{Origin, Reading, Source};
use crate::values::one_of;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use tch::Device;

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
    let trunk = trunk(&source).with_context(|| format!("{} is not written", export.out.display()))?;
    let bytes = match export.format {
        ExportFormat::Safetensors => checkpoint::write_safetensors(&export.out, &trunk, &notes(export, &source))?,
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
    console.result(&recipe(export, model));
    Ok(())
}

/// Every tensor of the network without its head and normalisation, which a strict load asks for: the weights go through
/// the network itself, which knows names, shapes and types.
///
/// Errors: what is missing, too much, of another shape or no number in the checkpoint.
fn trunk(source: &Source) -> Result<StateDict> {
    let encoder = source.build(HeadKind::Classifier(1), Device::Cpu, 0)?;
    let ours = |name: &str| name.starts_with(HEAD_PREFIX) || name.starts_with(NORMALISATION_PREFIX);
    Ok(encoder.state_dict().renamed(|name| (!ours(name)).then(|| name.to_owned())))
}

/// What a safetensors file says of itself; [`Origin::File`] reads it back.
fn notes(export: &Export, source: &Source) -> Notes {
    let Source { model, epoch, batch_size, objective, data, image_size_px, .. } = source;
    let Normalisation { mean, std } = model.normalisation;
    let checkpoint = export.checkpoint.display().to_string();
    let mut notes = Notes::from(
        [
            ("format", "pt".to_owned()),
            ("model", model.depth.to_string()),
            ("stem", model.stem.to_string()),
            ("normalize_mean", format!("{mean:?}")),
            ("normalize_std", format!("{std:?}")),
            ("epoch", epoch.to_string()),
            ("checkpoint", checkpoint),
            ("program", format!("flatnce {}", env!("CARGO_PKG_VERSION"))),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let known = [
        ("objective", objective.map(|objective| objective.to_string())),
        ("dataset", data.as_ref().map(|data| data.dataset.to_string())),
        ("image_size_px", image_size_px.map(|size| size.to_string())),
        ("batch_size", batch_size.map(|size| size.to_string())),
    ];
    notes.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    notes
}

/// Python that builds the network and loads the file strictly, then what to feed it.
fn recipe(export: &Export, model: &ModelConfig) -> String {
    let timm = export.format == ExportFormat::Timm;
    let blocks = "[1, 1, 1, 1]";
    let mut lines = vec!["import torch".to_owned()];
    lines.push(if timm { "import timm" } else { "import torchvision" }.to_owned());
    lines.push(match (timm, torchvision_name(model.depth)) {
        (false, Some(name)) => format!("model = torchvision.models.{name}()"),
        (true, Some(name)) => format!("model = timm.create_model(\"{name}\", num_classes=0)"),
        (false, None) => {
            format!("model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, {blocks})")
        }
        (true, None) => {
            format!("model = timm.models.resnet.ResNet(timm.models.resnet.BasicBlock, {blocks}, num_classes=0)")
        }
    });
    if model.stem == Stem::Small {
        lines.push("model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)".to_owned());
        lines.push("model.maxpool = torch.nn.Identity()".to_owned());
    }
    if !timm {
        lines.push("model.fc = torch.nn.Identity()".to_owned());
    }
    let path = python_string(&export.out.display().to_string());
    let state = if export.format == ExportFormat::Safetensors {
        lines.insert(1, "import safetensors.torch".to_owned());
        format!("safetensors.torch.load_file({path})")
    } else {
        format!("torch.load({path}, weights_only=True)")
    };
    lines.push(format!("model.load_state_dict({state}, strict=True)"));
    lines.push("model.eval()  # or BatchNorm normalises by the images of each batch".to_owned());
    let Normalisation { mean, std } = model.normalisation;
    lines.push(format!("normalize = dict(mean={mean:?}, std={std:?})  # of images in [0, 1], before the model"));
    lines.join("\n")
}

/// The function of torchvision and the model of timm; none has a ResNet-10 without a deep stem.
fn torchvision_name(depth: Depth) -> Option<&'static str> {
    match depth {
        Depth::Res10 => None,
        Depth::Res18 => Some("resnet18"),
        Depth::Res34 => Some("resnet34"),
        Depth::Res50 => Some("resnet50"),
        Depth::Res101 => Some("resnet101"),
        Depth::Res152 => Some("resnet152"),
    }
}

/// A literal that Python reads as `text`.
fn python_string(text: &str) -> String {
    serde_json::to_string(text).with_context(|| text.to_owned()).unwrap_or_else(|_| format!("{text:?}"))
}
