//! An encoder as a directory of Hugging Face's transformers: `ResNetModel.from_pretrained` reads the weights under its
//! own names, `AutoImageProcessor.from_pretrained` what has to happen to the images.
//!
//! Their ResNet (`models/resnet/modeling_resnet.py`) always begins with a 7x7 convolution and max-pooling, and strides
//! the 3x3 convolution of a bottleneck, as ours does. It does not normalise: that is their image processor's part.

use super::{Source, decimals, notes};
use crate::checkpoint::safetensors_bytes;
use crate::config::{DatasetName, Depth, EvalTransform, Filter, ModelConfig, Normalisation, Stem};
use crate::durable::Together;
use crate::model::{LayerPlan, TrunkPlan, feature_dim, stage_width, stages};
use crate::state::StateDict;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// The files of such a directory. The first one is that without which transformers reads none of it: it comes last.
pub const FILES: [&str; 3] = [CONFIG, WEIGHTS, PREPROCESSOR];
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const PREPROCESSOR: &str = "preprocessor_config.json";

/// Writes the directory and returns the size of the weights' file in bytes. `trunk` has the tensors of the source's
/// network.
///
/// # Errors
/// A stem that transformers does not have; no space, no permission.
pub fn write(directory: &Path, trunk: &StateDict, source: &Source) -> Result<u64> {
    let model = &source.model;
    if model.stem == Stem::Small {
        bail!(
            "the encoder has the small stem (3x3, no pooling), and transformers' ResNet knows only the imagenet stem (7x7, \
             stride 2, pooling): no config.json says it; --format onnx, safetensors, torchvision or timm writes it"
        );
    }
    let weights = safetensors_bytes(&renamed(trunk, model)?, &notes(source))?;
    let mut files = Together::begin(directory)?;
    let text = |value: Value| serde_json::to_string_pretty(&value);
    files.write(WEIGHTS, |file| Ok(file.write_all(&weights)?))?;
    let (preprocessor, config) = (text(preprocessor(source))?, text(config(model))?);
    files.write(PREPROCESSOR, |file| Ok(writeln!(file, "{preprocessor}")?))?;
    files.write(CONFIG, |file| Ok(writeln!(file, "{config}")?))?;
    files.finish(&FILES)?;
    Ok(weights.len() as u64)
}

/// Python that loads the directory at `path`, a literal, and gives it images of so many pixels; a statement each.
pub fn recipe(path: &str, depth: Depth, size_px: u32) -> Vec<String> {
    vec![
        "import numpy".to_owned(),
        "import transformers".to_owned(),
        format!("model = transformers.ResNetModel.from_pretrained({path})"),
        format!("processor = transformers.AutoImageProcessor.from_pretrained({path})"),
        format!("images = [numpy.zeros(({size_px}, {size_px}, 3), numpy.uint8)]  # RGB from 0 to 255, or PIL's images"),
        "inputs = processor(images, return_tensors=\"pt\")  # resizes, crops and normalises: the model does not"
            .to_owned(),
        format!("features = model(**inputs).pooler_output.flatten(1).detach()  # [1, {}]", feature_dim(depth)),
    ]
}

/// What `ResNetConfig` has to know.
fn config(model: &ModelConfig) -> Value {
    let (blocks, bottleneck) = stages(model.depth);
    let widths = [0, 1, 2, 3].map(|stage| stage_width(stage, bottleneck));
    json!({
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": TrunkPlan::of(model.depth, model.stem).stem.output,
        "hidden_sizes": widths,
        "depths": blocks,
        "layer_type": if bottleneck { "bottleneck" } else { "basic" },
        "hidden_act": "relu",
        "downsample_in_first_stage": false,
        "downsample_in_bottleneck": false,
    })
}

/// What makes of an image what the encoder sees in an evaluation: on the data set of its training, or where that is not
/// known, on one's own images. Of transformers' processors that of BiT (Big Transfer, ResNets too) has just these steps:
/// the shorter side to a length, the central square, mean and standard deviation.
fn preprocessor(source: &Source) -> Value {
    let dataset = source.data.as_ref().map_or(DatasetName::Folder, |data| data.dataset);
    let size = super::image_size_px(&source.model, source.image_size_px);
    let (shortest_edge, crop, filter) = match EvalTransform::evaluation(dataset, size as usize) {
        EvalTransform::Plain { size_px } => (size_px, size_px, Filter::Bilinear),
        EvalTransform::RandomCropFlip { size_px, filter } => (size_px, size_px, filter),
        EvalTransform::ResizeCenterCrop { resize_px, crop_px, filter }
        | EvalTransform::RandomShiftFlip { resize_px, crop_px, filter, .. } => (resize_px, crop_px, filter),
    };
    let Normalisation { mean, std } = source.model.normalisation;
    json!({
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": { "shortest_edge": shortest_edge },
        // Pillow's numbers.
        "resample": match filter { Filter::Bilinear => 2, Filter::Bicubic => 3 },
        "do_center_crop": true,
        "crop_size": { "height": crop, "width": crop },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": decimals(mean),
        "image_std": decimals(std),
    })
}

/// The tensors under transformers' names.
fn renamed(trunk: &StateDict, model: &ModelConfig) -> Result<StateDict> {
    let names = modules(model);
    let mut renamed = StateDict::new();
    for (name, tensor) in trunk.iter() {
        let (module, part) = name.rsplit_once('.').with_context(|| format!("{name} belongs to no layer"))?;
        let (_, theirs) =
            names.iter().find(|(ours, _)| ours == module).with_context(|| format!("no layer {module}"))?;
        renamed.push(format!("{theirs}.{part}"), tensor.shallow_clone());
    }
    Ok(renamed)
}

/// Every convolution and BatchNorm: torchvision's name of it, then transformers'.
fn modules(model: &ModelConfig) -> Vec<(String, String)> {
    let TrunkPlan { stem, blocks, .. } = TrunkPlan::of(model.depth, model.stem);
    let mut layers = vec![(stem, "embedder.embedder".to_owned())];
    let (counts, _) = stages(model.depth);
    let numbers = (0..).zip(counts).flat_map(|(stage, count)| (0..count).map(move |number| (stage, number)));
    for ((stage, number), block) in numbers.zip(blocks) {
        let theirs = format!("encoder.stages.{stage}.layers.{number}");
        let way = (0..).zip(block.way).map(|(i, layer)| (layer, format!("{theirs}.layer.{i}")));
        layers.extend(way.chain(block.shortcut.map(|layer| (layer, format!("{theirs}.shortcut")))));
    }
    let both = |(layer, theirs): (LayerPlan, String)| {
        let (conv, norm) = (format!("{theirs}.convolution"), format!("{theirs}.normalization"));
        [(layer.conv, conv), (layer.norm, norm)]
    };
    layers.into_iter().flat_map(both).collect()
}
