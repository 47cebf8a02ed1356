//! What a run's encoder makes of images: nearest neighbours, and a map of the
//! features.

use super::gather::Run;
use crate::augment::EvalTransform;
use crate::config::{CheckpointChoice, DataConfig, EncoderSource};
use crate::data::{Part, Split, counted, some_of};
use crate::device;
use crate::model::HeadKind;
use crate::pixels::{RgbImage, RgbRef};
use crate::report::plots::{PALETTE_COLOURS, Panel, Paper, Row, Series, Stroke, Tile, neighbour_sheet};
use crate::report::{Console, enlarged};
use crate::train::encoder_source::{Reading, origins};
use crate::train::features::Extractor;
use crate::train::ranks::Ranks;
use crate::train::readable;
use anyhow::{Context, Result};
use image::imageops::{self, FilterType};
use serde::Deserialize;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Images that are looked at, at most: the same ones in every run on a data set.
const IMAGES: usize = 2000;
/// Rows of the sheet, and neighbours of each query.
const QUERIES: usize = 12;
const NEIGHBOURS: i64 = 8;
/// Side of the sheet's pictures.
const TILE_PX: usize = 72;

/// Both pictures of a run.
pub struct Pictures {
    /// On white paper and on dark.
    pub neighbours: [RgbImage; 2],
    pub map: Panel,
    /// What they show: which images, of which checkpoint.
    pub about: String,
}

/// Runs the newest checkpoint's trunk over test images (training images where there are no others).
///
/// Errors: settings, data or a checkpoint that are not there or cannot be read.
pub fn pictures(run: &Run, name: &str, console: &Console) -> Result<Pictures> {
    let settings = run.settings.as_ref().and_then(|all| all.get("data")).context("config.yml names no data")?;
    let data = DataConfig::deserialize(settings).context("config.yml: data")?;
    let source = EncoderSource::Directory { directory: run.directory.clone(), which: CheckpointChoice::Last };
    let source = origins(&source)?.remove(0).open(Reading::default(), &mut |text| console.warn(&text))?;
    let encoder = source.build(HeadKind::Classifier(1), Device::Cpu, 0)?;
    let whole = match readable::load(&data, Part::Test, console) {
        Ok(readable) => readable.split,
        Err(_) => readable::load(&data, Part::Unlabelled, console)?.split,
    };
    let split = Arc::new(if whole.len() > IMAGES { some_of(&whole, IMAGES)? } else { whole });
    let precision = if device::cpu_has_bf16() { Kind::BFloat16 } else { Kind::Float };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let extractor =
        Extractor { encoder: &encoder, compute: precision, seed: 0, workers, console, ranks: &Ranks::alone() };
    let transform = EvalTransform::evaluation(data.dataset, data.image_size_px as usize);
    let mut parts = Vec::new();
    extractor.each_batch(&split, transform, 0, |hidden| {
        parts.push(hidden.to_kind(Kind::Float));
        Ok(())
    })?;
    let features = Tensor::cat(&parts, 0); // [N, D]
    let about = format!("{} of {}, {}", counted(split.len(), "image"), split.name, source.name());
    Ok(Pictures { neighbours: neighbours(&split, &features, name)?, map: map(&split, &features, name)?, about })
}

fn class(split: &Split, image: usize) -> Option<&str> {
    split.classes.get(split.label(image)? as usize).map(String::as_str)
}

/// Queries spread over the split, each with its neighbours by cosine.
fn neighbours(split: &Split, features: &Tensor, name: &str) -> Result<[RgbImage; 2]> {
    let unit = features / features.norm_scalaropt_dim(2, [1i64], true).clamp_min(1e-12);
    let count = split.len();
    let queries: Vec<usize> = spread(split);
    let rows = Tensor::from_slice(&queries.iter().map(|&query| query as i64).collect::<Vec<_>>());
    let similarities = unit.index_select(0, &rows).matmul(&unit.tr()); // [Q, N]
    let (similar, near) = similarities.topk((NEIGHBOURS + 1).min(count as i64), 1, true, true);
    let mut sheet = Vec::new();
    for (place, &query) in queries.iter().enumerate() {
        let near = Vec::<i64>::try_from(near.get(place as i64))?;
        let similar = Vec::<f32>::try_from(similar.get(place as i64))?;
        // The image itself is its own nearest, but for a twin of it.
        let others: Vec<(usize, f32)> =
            near.iter().map(|&n| n as usize).zip(similar).filter(|n| n.0 != query).collect();
        let others = &others[..others.len().min(NEIGHBOURS as usize)];
        let mut tiles = vec![Tile { picture: tile(split, query)?, agrees: None }];
        for &(other, _) in others {
            let agrees = split.label(query).zip(split.label(other)).map(|(a, b)| a == b);
            tiles.push(Tile { picture: tile(split, other)?, agrees });
        }
        let words = class(split, query).map_or_else(|| format!("image {query}"), str::to_owned);
        let farthest = others.last().map_or(f32::NAN, |last| last.1);
        sheet.push(Row { words: format!("{}  ({farthest:.2})", shortened(&words, 14)), tiles });
    }
    let frames = if split.labels.is_some() { "; blue: same class, orange: another" } else { "" };
    let title = format!("{name}: queries and their nearest by cosine (of the last one in brackets){frames}");
    Ok([Paper::White, Paper::Dark].map(|paper| neighbour_sheet(&title, &sheet, paper)))
}

/// One query a class in turn where there are labels, else evenly.
fn spread(split: &Split) -> Vec<usize> {
    let count = split.len();
    let wanted = QUERIES.min(count);
    let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
    let classes = if split.labels.is_some() { split.classes.len() } else { 0 };
    for round in 0..QUERIES {
        for class in 0..classes as i64 {
            let of_class = (0..count).filter(|&image| split.label(image) == Some(class)).nth(round);
            chosen.extend(of_class.filter(|_| chosen.len() < wanted));
        }
    }
    if classes == 0 {
        chosen = (0..wanted).map(|place| place * count / wanted).collect();
    }
    chosen
}

/// The image at most `TILE_PX` wide and high, its shape kept.
fn tile(split: &Split, image: usize) -> Result<RgbImage> {
    let mut scratch = RgbImage::default();
    let RgbRef { width, height, pixels } = split.image(image, &mut scratch)?;
    let longer = width.max(height).max(1);
    if longer <= TILE_PX {
        return Ok(enlarged(RgbRef { width, height, pixels }, TILE_PX / longer * longer));
    }
    let scaled = |length: usize| (length * TILE_PX).div_ceil(longer).max(1);
    let whole =
        image::RgbImage::from_raw(width as u32, height as u32, pixels.to_vec()).context("pixels fill the picture")?;
    let small = imageops::resize(&whole, scaled(width) as u32, scaled(height) as u32, FilterType::Triangle);
    Ok(RgbImage { width: scaled(width), height: scaled(height), pixels: small.into_raw() })
}

fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        text.to_owned()
    } else {
        text.chars().take(longest - 1).collect::<String>() + "…"
    }
}

/// The two directions in which the features, scaled to unit length, vary most.
fn map(split: &Split, features: &Tensor, name: &str) -> Result<Panel> {
    let unit = features / features.norm_scalaropt_dim(2, [1i64], true).clamp_min(1e-12);
    let (first, second, shares) = principal(&unit)?;
    let mut groups: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    let shown = split.classes.len().min(PALETTE_COLOURS);
    for class in split.classes.iter().take(shown) {
        groups.push((class.clone(), Vec::new()));
    }
    let rest = if split.labels.is_some() { "other classes" } else { "images" };
    groups.push((rest.to_owned(), Vec::new()));
    for (image, point) in first.into_iter().zip(second).enumerate() {
        let group = split.label(image).map_or(shown, |label| (label as usize).min(shown));
        groups[group].1.push(point);
    }
    let series = groups.into_iter().enumerate().filter(|(_, (_, points))| !points.is_empty());
    let series = series.map(|(colour, (name, points))| Series { name, colour, stroke: Stroke::Dots, points });
    let label = |number: usize| format!("component {number} ({:.0}% of the variance)", 100.0 * shares[number - 1]);
    Ok(Panel {
        title: format!("{name}: principal components of the features"),
        x_label: label(1),
        y_label: label(2),
        series: series.collect(),
        ..Panel::default()
    })
}

/// Coordinates of the rows along the two first principal components, and the shares of variance of these.
fn principal(rows: &Tensor) -> Result<(Vec<f64>, Vec<f64>, [f64; 2])> {
    let rows = rows.to_kind(Kind::Double);
    let centred = &rows - rows.mean_dim([0i64].as_slice(), true, Kind::Double);
    let covariance = centred.tr().matmul(&centred);
    let (values, vectors) = covariance.f_linalg_eigh("L")?; // ascending
    let width = values.size()[0];
    let total = values.sum(Kind::Double).double_value(&[]).max(f64::MIN_POSITIVE);
    let mut coordinates = Vec::new();
    let mut shares = [0.0; 2];
    for (place, share) in shares.iter_mut().enumerate() {
        let column = (width - 1 - place as i64).max(0);
        let direction = vectors.select(1, column);
        // An eigenvector's sign is chance; the largest entry decides, so that maps repeat.
        let largest = direction.abs().argmax(0, false).int64_value(&[]);
        let direction = &direction * direction.double_value(&[largest]).signum();
        coordinates.push(Vec::<f64>::try_from(centred.mv(&direction))?);
        *share = values.double_value(&[column]).max(0.0) / total;
    }
    let second = coordinates.pop().unwrap_or_default();
    Ok((coordinates.pop().unwrap_or_default(), second, shares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_those_of_greatest_variance() {
        // Points on a plane in four dimensions: 3 along (1, 1, 0, 0) / sqrt 2, 1 along (0, 0, 0, 1).
        let half = 0.5_f64.sqrt();
        let rows: Vec<[f64; 4]> = [(3.0, 1.0), (-3.0, 1.0), (3.0, -1.0), (-3.0, -1.0)]
            .map(|(a, b)| [a * half + 5.0, a * half, 2.0, b])
            .to_vec();
        let rows = Tensor::from_slice(&rows.concat()).view([4, 4]);
        let (first, second, shares) = principal(&rows).unwrap();
        let near = |a: &[f64], b: [f64; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near(&first, [3.0, -3.0, 3.0, -3.0]), "{first:?}");
        assert!(near(&second, [1.0, 1.0, -1.0, -1.0]), "{second:?}");
        assert!((shares[0] - 0.9).abs() < 1e-9 && (shares[1] - 0.1).abs() < 1e-9, "{shares:?}");
    }
}
