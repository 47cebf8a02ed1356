//! `flatnce embed`: the features of a data set, image by image, for other
//! programs: `.npy` or safetensors, with labels and names.
//!
//! The numbers are those that the linear evaluation trains on: the trunk in
//! evaluation mode under the transform of the test images. They go to the disk
//! as they are made, so memory does not grow with the data.

mod array_file;

use crate::augment::EvalTransform;
use crate::config::{
    CheckpointChoice, DataConfig, DeviceChoice, EmbedFormat, EncoderSource, Numerics, Part, Precision,
};
use crate::data::{NoPart, Split, counted};
use crate::device;
use crate::durable::Together;
use crate::model::{Encoder, HEAD_PREFIX, HeadKind, Pass, feature_dim};
use crate::report::Console;
use crate::train::encoder_source::{self, Reading, Source};
use crate::train::features::{Extractor, trunk_hash};
use crate::train::ranks::Ranks;
use crate::train::readable::{self, Readable};
use crate::train::shortage::single_class;
use crate::values::one_of;
use anyhow::{Context, Result, bail};
use array_file::Array;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind};

/// Which features are written, and as what.
#[derive(Clone, Debug, clap::Args)]
pub struct FeatureFiles {
    /// Which images [default: test, or all where there are no test images]
    #[arg(long, value_name = "PART", value_parser = one_of!(Part), help_heading = "Features")]
    pub part: Option<Part>,
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
}

/// Write an encoder's features of a data set.
#[derive(Clone, Debug)]
pub struct Embed {
    pub source: EncoderSource,
    /// Where in another program's file the network stands.
    pub checkpoint_key: Option<String>,
    /// Why these images, where the command does not name them.
    pub images_from: Option<String>,
    pub data: DataConfig,
    pub files: FeatureFiles,
    pub device: DeviceChoice,
    /// `None`: the fastest that is safe.
    pub precision: Option<Precision>,
    pub numerics: Numerics,
    pub workers: u32,
    /// Processes to start on this machine, where this program is to start them itself.
    pub nproc: Option<u32>,
    pub distributed_timeout_seconds: u32,
}

/// Writes the files into a directory.
///
/// Errors: a checkpoint or data that cannot be read, a head that is not there, files that are there already or cannot
/// be written, features that are not finite. The files come together, or those that were there stay as they were.
pub fn run(embed: &Embed, console: &Console, ranks: &Ranks) -> Result<()> {
    let (device, device_note) = device::resolve(embed.device)?;
    let (precision, precision_note) = device::resolve_precision(embed.precision, device);
    device::configure(embed.numerics)?;
    console.note(&format!("device: {device_note}; precision: {precision_note}"));
    if ranks.writes() {
        refuse_to_overwrite(embed)?;
    }
    if let EncoderSource::Directory { which: CheckpointChoice::All, .. } = embed.source {
        bail!("features are written of one checkpoint: give --transfer-from-epoch N or last");
    }
    let origin = encoder_source::origins(&embed.source)?.remove(0);
    let reading = Reading { key: embed.checkpoint_key.as_deref(), images: Some(embed.data.dataset) };
    let source = origin.open(reading, &mut |text| console.warn(&text))?;
    let taken = source.taken.as_ref().map_or(String::new(), |taken| format!(", {taken}"));
    console.note(&format!("encoder: {}{taken}", source.name()));
    embed.images_from.iter().for_each(|text| console.note(text));
    let (size, size_from) = source.image_size(&embed.data);
    let data = DataConfig { image_size_px: size, ..embed.data.clone() };
    console.note(&format!("images: {size}x{size} pixels to the encoder, {size_from}"));
    for text in source.assumed.iter().cloned().chain(source.mismatches(&data)) {
        console.warn(&text);
    }
    let (encoder, width) = encoder(embed, &source, device)?;
    let (part, readable) = images(&data, embed.files.part, console)?;
    let split = Arc::new(readable.split);
    console.note(&split.describe());
    if let Some(warning) = single_class(&split) {
        console.warn(&warning);
    }

    let transform = EvalTransform::evaluation(data.dataset, size as usize);
    let compute = device::compute_kind(precision);
    let extractor = Extractor { encoder: &encoder, compute, seed: 0, workers: embed.workers as usize, console, ranks };
    if !ranks.writes() {
        return extractor.each_batch(&split, transform, 0, |_| Ok(()));
    }
    let mut files = Together::begin(&embed.files.out)?;
    // Another process may have been faster.
    refuse_to_overwrite(embed)?;

    let about = json!({
        "program": format!("flatnce {}", env!("CARGO_PKG_VERSION")),
        "checkpoint": source.name(),
        "checkpoint_epoch": source.epoch,
        "trunk_hash": trunk_hash(&encoder)?,
        "features": if embed.files.projected { "projection head" } else { "trunk" },
        "model": source.model.depth.name(),
        "stem": source.model.stem.name(),
        "normalize_mean": source.model.normalisation.mean,
        "normalize_std": source.model.normalisation.std,
        "dataset": embed.data.dataset.name(),
        "part": part.name(),
        "images": split.len(),
        "dimensions": width,
        "classes": split.classes,
        "bad_images_left_out": readable.left_out.len(),
        "transform": transform,
        "precision": precision.name(),
    });
    let features = Array { name: "features", rows: split.len(), columns: Some(width) };
    let rows = |out: &mut dyn Write| write_features(embed, &extractor, &split, transform, out);
    let labels = split.labels.as_ref();
    let mut written = vec!["names.txt", "embed.json"];
    match embed.files.format {
        EmbedFormat::Npy => {
            files.write("features.npy", |out| {
                array_file::npy_header(out, "<f4", &features)?;
                rows(out)
            })?;
            written.insert(0, "features.npy");
            if let Some(labels) = labels {
                let array = Array { name: "labels", rows: labels.len(), columns: None };
                files.write("labels.npy", |out| {
                    array_file::npy_header(out, "<i8", &array)?;
                    write_labels(labels, out)
                })?;
                written.insert(1, "labels.npy");
            }
        }
        EmbedFormat::Safetensors => {
            files.write("embed.safetensors", |out| {
                array_file::safetensors_header(out, &features, labels.map(Vec::len), &about)?;
                rows(out)?;
                labels.map_or(Ok(()), |labels| write_labels(labels, out))
            })?;
            written.insert(0, "embed.safetensors");
        }
    }
    files.write("names.txt", |out| write_names(&split, out))?;
    // Last: where it is, everything is.
    let text = serde_json::to_string_pretty(&about)?;
    files.write("embed.json", |out| Ok(writeln!(out, "{text}")?))?;
    files.finish(&FILES)?;
    console.result(&format!(
        "{} of {width} numbers: {} in {}",
        counted(split.len(), "feature vector"),
        written.join(", "),
        embed.files.out.display()
    ));
    Ok(())
}

/// The part that was asked for; else the test images, or all images where there is no such part.
fn images(data: &DataConfig, asked: Option<Part>, console: &Console) -> Result<(Part, Readable)> {
    if let Some(part) = asked {
        return Ok((part, readable::load(data, part, console)?));
    }
    match readable::load(data, Part::Test, console) {
        Err(error) if error.downcast_ref::<NoPart>().is_some() => {
            console.note("no test images: the features are those of all images");
            Ok((Part::Train, readable::load(data, Part::Train, console)?))
        }
        test => Ok((Part::Test, test?)),
    }
}

/// All that an embedding can consist of.
const FILES: [&str; 5] = ["embed.json", "features.npy", "embed.safetensors", "labels.npy", "names.txt"];

fn refuse_to_overwrite(embed: &Embed) -> Result<()> {
    match FILES.map(|name| embed.files.out.join(name)).into_iter().find(|path| path.exists()) {
        Some(path) if !embed.files.force => {
            bail!("{} is there already; choose another --out, or --force to replace it", path.display())
        }
        _ => Ok(()),
    }
}

/// The network, and the width of what it gives.
fn encoder(embed: &Embed, source: &Source, device: Device) -> Result<(Encoder, usize)> {
    if !embed.files.projected {
        // The head is not used; the smallest will do.
        let encoder = source.build(HeadKind::Classifier(1), device, 0)?;
        return Ok((encoder, feature_dim(source.model.depth) as usize));
    }
    let state = source.state.as_ref().filter(|s| s.iter().any(|(name, _)| name.starts_with(HEAD_PREFIX)));
    let Some(state) = state else {
        bail!("{} has no projection head; leave --projected out", source.name());
    };
    let encoder = Encoder::new(&source.model, HeadKind::Projection, device, 0);
    encoder.load(state).with_context(|| format!("the projection head of {}", source.name()))?;
    let width = encoder.projected_width() as usize;
    Ok((encoder, width))
}

fn write_features(
    embed: &Embed,
    extractor: &Extractor,
    split: &Arc<Split>,
    transform: EvalTransform,
    out: &mut dyn Write,
) -> Result<()> {
    let mut bytes = Vec::new();
    extractor.each_batch(split, transform, 0, |hidden| {
        let features = if embed.files.projected {
            extractor.encoder.head(hidden, Pass::eval(extractor.compute))
        } else {
            hidden.shallow_clone()
        };
        let features = features.to_kind(Kind::Float).to_device(Device::Cpu).contiguous();
        bytes.resize(features.numel() * 4, 0);
        features.f_copy_data_u8(&mut bytes, features.numel())?;
        out.write_all(&bytes)?;
        Ok(())
    })
}

fn write_labels(labels: &[i64], out: &mut dyn Write) -> Result<()> {
    labels.iter().try_for_each(|label| Ok(out.write_all(&label.to_le_bytes())?))
}

/// A line an image: its file below the data set's directory, or its number where images have no files. A line break in
/// a name is written as `\n`, a backslash as `\\`.
fn write_names(split: &Split, out: &mut dyn Write) -> Result<()> {
    for index in 0..split.len() {
        match split.file_name(index) {
            Some(path) => writeln!(out, "{}", escaped(path))?,
            None => writeln!(out, "{index}")?,
        }
    }
    Ok(())
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}
