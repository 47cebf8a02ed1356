//! An encoder alone, as other programs read it: `flatnce export` writes one, and a
//! pre-training run leaves one beside its checkpoints when it ends.
//!
//! For PyTorch it holds the trunk's tensors under the names that torchvision and timm share,
//! without a classifier: it loads strictly where `fc` is an identity.
//! Normalisation is no part of those networks; the notes of a safetensors file and
//! the description beside it have the constants.
//!
//! Other programs: `onnx`, a model with everything inside, and [`huggingface`], a directory of transformers.

pub mod huggingface;
mod onnx;

use super::encoder_source::Source;
use crate::checkpoint::{self, Notes};
use crate::config::{Depth, ExportFormat, ModelConfig, Normalisation, Stem};
use crate::durable;
use crate::files;
use crate::model::{HEAD_PREFIX, HeadKind, NORMALISATION_PREFIX, feature_dim};
use crate::own::{ENCODER_DESCRIPTION, ENCODER_WEIGHTS};
use crate::state::StateDict;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::path::Path;
use tch::Device;

/// Writes the encoder as `format` has it, a file or a directory, and returns the size of what holds the weights in bytes.
///
/// # Errors
/// Weights that are no network; a network that the format cannot say; no space, no permission.
pub fn write(path: &Path, format: ExportFormat, source: &Source) -> Result<u64> {
    let trunk = trunk(source).with_context(|| format!("{} is not written", path.display()))?;
    match format {
        ExportFormat::Safetensors => checkpoint::write_safetensors(path, &trunk, &notes(source)),
        ExportFormat::Torchvision | ExportFormat::Timm => checkpoint::write_state_dict(path, &trunk),
        ExportFormat::Onnx => {
            let properties = facts(source).into_iter().chain(onnx::interface(source.model.depth));
            checkpoint::write_bytes(path, &onnx::model(&source.model, &trunk, properties)?)
        }
        ExportFormat::Huggingface => huggingface::write(path, &trunk, source),
    }
}

/// Every tensor of the network without its head and normalisation, which a strict load asks for: the weights go through
/// the network itself, which knows names, shapes and types.
///
/// # Errors
/// What is missing, too much, of another shape or no number in the checkpoint.
fn trunk(source: &Source) -> Result<StateDict> {
    let encoder = source.build(HeadKind::Classifier(1), Device::Cpu, 0)?;
    let ours = |name: &str| name.starts_with(HEAD_PREFIX) || name.starts_with(NORMALISATION_PREFIX);
    Ok(encoder.state_dict().renamed(|name| (!ours(name)).then(|| name.to_owned())))
}

/// What a safetensors file says of itself; [`Origin::File`](super::encoder_source::Origin) reads it back.
fn notes(source: &Source) -> Notes {
    let format = ("format", "pt".to_owned());
    facts(source).into_iter().chain([format]).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What is known of the encoder, in words.
fn facts(source: &Source) -> Vec<(&'static str, String)> {
    let Source { model, epoch, batch_size, objective, data, image_size_px, .. } = source;
    let Normalisation { mean, std } = model.normalisation;
    let mut facts = vec![
        ("model", model.depth.to_string()),
        ("stem", model.stem.to_string()),
        ("normalize_mean", format!("{mean:?}")),
        ("normalize_std", format!("{std:?}")),
        ("epoch", epoch.to_string()),
        ("checkpoint", source.name()),
        ("program", program()),
    ];
    let known = [
        ("objective", objective.map(|objective| objective.to_string())),
        ("dataset", data.as_ref().map(|data| data.dataset.to_string())),
        ("image_size_px", image_size_px.map(|size| size.to_string())),
        ("batch_size", batch_size.map(|size| size.to_string())),
    ];
    facts.extend(known.into_iter().filter_map(|(key, value)| Some((key, value?))));
    facts
}

/// The side of the images that the encoder was trained on, or where that is not known, that its stem is made for.
fn image_size_px(model: &ModelConfig, trained: Option<u32>) -> u32 {
    trained.unwrap_or(match model.stem {
        Stem::Small => 32,
        Stem::Imagenet => 224,
    })
}

/// As a person writes it: 0.4914 is no float32.
fn decimals(numbers: [f32; 3]) -> [f64; 3] {
    numbers.map(|number| number.to_string().parse().unwrap_or(number.into()))
}

fn program() -> String {
    format!("flatnce {}", env!("CARGO_PKG_VERSION"))
}

/// Python that loads the encoder which [`write()`] has written to `path`, trained on images of that size, and shows what to
/// feed it; a statement each.
pub fn recipe(path: &Path, format: ExportFormat, model: &ModelConfig, image_size: Option<u32>) -> Vec<String> {
    let path = python_string(&path.display().to_string());
    let size_px = image_size_px(model, image_size);
    match format {
        ExportFormat::Onnx => onnx::recipe(&path, model.depth, size_px),
        ExportFormat::Huggingface => huggingface::recipe(&path, model.depth, size_px),
        ExportFormat::Safetensors | ExportFormat::Torchvision | ExportFormat::Timm => pytorch(&path, format, model),
    }
}

/// Python that builds the network as `model` and loads the file at `path`, a literal, strictly.
fn pytorch(path: &str, format: ExportFormat, model: &ModelConfig) -> Vec<String> {
    let timm = format == ExportFormat::Timm;
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
    let state = if format == ExportFormat::Safetensors {
        lines.insert(1, "import safetensors.torch".to_owned());
        format!("safetensors.torch.load_file({path})")
    } else {
        format!("torch.load({path}, weights_only=True)")
    };
    lines.push(format!("model.load_state_dict({state}, strict=True)"));
    lines.push("model.eval()".to_owned());
    let Normalisation { mean, std } = model.normalisation;
    lines.push(format!("normalize = dict(mean={mean:?}, std={std:?})  # of images in [0, 1], before the model"));
    lines
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

/// Writes the encoder of a run, trained on so many `images`, into its directory: weights and description. Where the
/// description lies, the weights are those that it describes, whenever the program dies.
///
/// # Errors
/// No space, no permission; weights that are no network.
pub fn write_beside_checkpoints(directory: &Path, source: &Source, images: u64) -> Result<()> {
    let (weights, description) = (directory.join(ENCODER_WEIGHTS), directory.join(ENCODER_DESCRIPTION));
    let trunk = trunk(source)?;
    match std::fs::remove_file(&description) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", description.display()));
        }
        _ => {}
    }
    checkpoint::write_safetensors(&weights, &trunk, &notes(source))?;
    let text = serde_json::to_string_pretty(&describe(source, images))?;
    durable::replace(&description, |file| Ok(writeln!(file, "{text}")?))
}

/// The epochs of training that the encoder in a run's directory has had, as its description says; `None` where there is
/// none.
pub fn epochs_of(directory: &Path) -> Option<u64> {
    let text = files::read_text(&directory.join(ENCODER_DESCRIPTION), files::SETTINGS_BYTES).ok()?;
    let said: Value = serde_json::from_str(&text).ok()?;
    said["epochs"].as_u64().filter(|_| directory.join(ENCODER_WEIGHTS).is_file())
}

fn describe(source: &Source, images: u64) -> Value {
    let model = &source.model;
    let Normalisation { mean, std } = model.normalisation;
    let checkpoint = source.path.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    json!({
        "program": program(),
        "weights": ENCODER_WEIGHTS,
        "model": model.depth,
        "torchvision": torchvision_name(model.depth),
        "stem": model.stem,
        "feature_width": feature_dim(model.depth),
        "image_size_px": source.image_size_px,
        "normalisation": { "mean": decimals(mean), "std": decimals(std), "of": "RGB images in [0, 1]" },
        "trained_on": {
            "dataset": source.data.as_ref().map(|data| data.dataset),
            "data": source.data.as_ref().map(|data| data.roots().collect::<Vec<_>>()),
            "images": images,
        },
        "objective": source.objective,
        "epochs": source.epochs_done,
        "batch_size": source.batch_size,
        "checkpoint": checkpoint,
        "python": recipe(Path::new(ENCODER_WEIGHTS), ExportFormat::Safetensors, model, source.image_size_px),
    })
}
