//! MedMNIST's `.npz` files, and others laid out like them: NumPy arrays `train_images`, `train_labels`, `val_images`,
//! `val_labels`, `test_images`, `test_labels` in a zip archive.
//!
//! Images are `uint8 [N, H, W]` (grey, repeated to RGB) or `[N, H, W, 3]`, labels whole numbers `[N, 1]` or `[N]`, whose
//! names are the numbers themselves: the files name no classes. A part without labels is unlabelled. Several labels an
//! image (ChestMNIST's) and volumes (`[N, D, H, W]`, MedMNIST's 3D sets) are refused. Everything lies in memory.

use super::npy::{Array, header};
use super::protocol::{Protocol, SMALL};
use super::{Images, NoPart, Packed, Part, Source, Split, counted};
use crate::config::DatasetName;
use crate::memory;
use crate::torch_file::{read_records, record_beginning, record_names};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

pub static NPZ: Source = Source {
    name: DatasetName::Npz,
    // Most of MedMNIST's files have 28 pixels a side, and others 64, 128 or 224.
    protocol: Protocol { size_px: 28, fixed_size: false, ..SMALL },
    classes: None,
    homes: &[""],
    several_roots: false,
    how_to_get: "give the file with `--data FILE.npz`; MedMNIST's are at https://zenodo.org/records/10519652",
    load: |source, data, part| load(source, &data.root, part),
};

/// Labels from 0 on; more classes than any set has are no classes.
const MOST_CLASSES: i64 = 100_000;
/// Bytes that hold the header of an array.
const HEADER_BYTES: usize = 4096;
/// Of the memory that is free, so much may be taken.
const SHARE_OF_MEMORY: f64 = 0.8;

fn load(source: &Source, root: &Path, part: Part) -> Result<Split> {
    let path = archive(source, root)?;
    let names = record_names(&path)?;
    let has = |name: &str| names.iter().any(|record| record == name);
    let stems: &[&str] = if part == Part::Test { &["test", "val"] } else { &["train"] };
    let Some(stem) = stems.iter().find(|stem| has(&images_of(stem))) else {
        let wanted = stems.iter().map(|stem| images_of(stem)).collect::<Vec<_>>().join(" and no ");
        let what = format!("{} has no {wanted}; its arrays are {}", path.display(), names.join(", "));
        return Err(NoPart(what).into());
    };
    let images = images_of(stem);
    let about = shape_of(&path, &images)?;
    check_memory(&path, &images, &about)?;
    let packed = pixels(&path, &images).with_context(|| format!("{}, {images}", path.display()))?;
    let name = source.part_name(stem);
    let labels = labels_of(stem);
    if !has(&labels) {
        return Ok(Split::unlabelled(packed, name));
    }
    // The classes of all parts, so that they agree.
    let (mut own, mut most) = (Vec::new(), 0);
    for stem in ["train", "val", "test"].iter().filter(|stem| has(&labels_of(stem))) {
        let record = labels_of(stem);
        let read = read_labels(&path, &record).with_context(|| format!("{}, {record}", path.display()))?;
        most = read.iter().copied().fold(most, i64::max);
        if record == labels {
            own = read;
        }
    }
    let count = packed.count();
    if own.len() != count {
        let (own, count) = (counted(own.len(), "label"), counted(count, "image"));
        bail!("{}: {labels} has {own} for {count}", path.display());
    }
    let mut split = Split::labelled(packed, own, (0..=most).map(|class| class.to_string()), name);
    if part == Part::Test && *stem == "val" {
        split.notes.push(format!("{} has no test_images: val_images are the test images", path.display()));
    }
    Ok(split)
}

fn images_of(stem: &str) -> String {
    format!("{stem}_images.npy")
}

fn labels_of(stem: &str) -> String {
    format!("{stem}_labels.npy")
}

/// The side of the square images in a file, for the size that they are given to the encoder at; `None` where it cannot
/// be known.
pub fn side(root: &Path) -> Option<u32> {
    let path = archive(&NPZ, root).ok()?;
    let array = shape_of(&path, &images_of("train")).ok()?;
    let side = (*array.shape.get(1)?).max(*array.shape.get(2)?);
    u32::try_from(side).ok().filter(|side| (8..=1024).contains(side))
}

/// The file itself, or the only one of its kind in a directory.
fn archive(source: &Source, root: &Path) -> Result<PathBuf> {
    if !root.is_dir() {
        return Ok(root.to_owned());
    }
    let entries = std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "npz")).collect();
    found.sort();
    match &mut found[..] {
        [] => bail!("{} holds no .npz file; {}", root.display(), source.how_to_get),
        [path] => Ok(std::mem::take(path)),
        several => {
            let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("{} holds several .npz files; give one with --data: {}", root.display(), names.join(", "))
        }
    }
}

/// Shape and type of an array, from its header alone.
fn shape_of(path: &Path, record: &str) -> Result<Array> {
    let beginning = record_beginning(path, record, HEADER_BYTES)?;
    Ok(header(&beginning).map_err(|what| anyhow!("{}, {record}: {what}", path.display()))?.0)
}

/// Refuses images that are none, and more of them than there is memory for.
fn check_memory(path: &Path, record: &str, array: &Array) -> Result<()> {
    let words = |what: String| anyhow!("{}, {record}: {what}", path.display());
    let (width, height, channels) = sides(array).map_err(words)?;
    let stored = array.shape[0].saturating_mul(width * height * channels);
    // Grey ones lie beside the colours that they become.
    let needed = stored.saturating_mul(if channels == 1 { 4 } else { 1 }) as f64;
    if let Some(free) = memory::bounds().free().map(|free| free as f64 * SHARE_OF_MEMORY).filter(|free| needed > *free)
    {
        let gib = f64::from(1 << 30);
        bail!(
            "{} needs {:.1} GiB of memory for {record}, and {:.1} GiB may be used; take the file with smaller images, or \
             a machine with more memory",
            path.display(),
            needed / gib,
            free / gib
        );
    }
    Ok(())
}

/// Width, height and channels of images.
fn sides(array: &Array) -> Result<(usize, usize, usize), String> {
    let shape = &array.shape[..];
    let (height, width, channels) = match *shape {
        [_, height, width] | [_, height, width, 1] => (height, width, 1),
        [_, height, width, 3] => (height, width, 3),
        [_, _, _, _] | [_, _, _, _, _] => {
            return Err(format!("its shape {shape:?} is one of volumes (3-D); images are [N, H, W] or [N, H, W, 3]"));
        }
        _ => return Err(format!("its shape is {shape:?}; images are [N, H, W] or [N, H, W, 3]")),
    };
    if array.dtype != "|u1" {
        return Err(format!("its type is {}; images are uint8 ('|u1')", array.dtype));
    }
    if shape[0] == 0 {
        return Err("it has no image".to_owned());
    }
    let side = 1..=16_384;
    if !side.contains(&height) || !side.contains(&width) {
        return Err(format!("its images of {width}x{height} pixels are not read: a side has 1 to 16384"));
    }
    Ok((width, height, channels))
}

fn pixels(path: &Path, record: &str) -> Result<Packed> {
    let (array, bytes) = read_array(path, record)?;
    let (width, height, channels) = sides(&array).map_err(anyhow::Error::msg)?;
    if channels == 3 {
        return Ok(Packed::new(bytes, width, height));
    }
    let mut rgb = vec![0; bytes.len() * 3];
    rgb.chunks_exact_mut(3).zip(bytes).for_each(|(pixel, level)| pixel.fill(level));
    Ok(Packed::new(rgb, width, height))
}

/// One whole number an image, from 0 on.
fn read_labels(path: &Path, record: &str) -> Result<Vec<i64>> {
    let (array, bytes) = read_array(path, record)?;
    match array.shape[..] {
        [_] | [_, 1] => {}
        [_, columns] => bail!("{columns} labels an image (several classes at once) are not read; give a set with one"),
        _ => bail!("its shape is {:?}; labels are [N] or [N, 1]", array.shape),
    }
    let labels = array.whole_numbers(&bytes).map_err(anyhow::Error::msg)?;
    match labels.iter().find(|label| !(0..MOST_CLASSES).contains(*label)) {
        Some(label) => bail!("it has the label {label}; classes are numbered from 0 on, up to {}", MOST_CLASSES - 1),
        None => Ok(labels),
    }
}

/// An array and its elements in row-major order.
fn read_array(path: &Path, record: &str) -> Result<(Array, Vec<u8>)> {
    let free = memory::bounds().free().unwrap_or(u64::MAX);
    let (_, mut bytes) = read_records(path, &[record], free)?.pop().context("the archive has lost it")?;
    let (array, begins) = header(&bytes).map_err(anyhow::Error::msg)?;
    array.check_length(bytes.len() - begins).map_err(anyhow::Error::msg)?;
    bytes.drain(..begins);
    Ok((array, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dtype: &str, shape: &[usize]) -> Array {
        Array { dtype: dtype.to_owned(), shape: shape.to_vec() }
    }

    #[test]
    fn images_are_grey_or_rgb_bytes() {
        assert_eq!(sides(&array("|u1", &[5, 28, 30])), Ok((30, 28, 1)));
        assert_eq!(sides(&array("|u1", &[5, 28, 28, 3])), Ok((28, 28, 3)));
        for (dtype, shape, expected) in [
            ("|u1", &[5, 28, 28, 28][..], "volumes"),
            ("|u1", &[5, 28, 28, 28, 3], "volumes"),
            ("|u1", &[5, 784], "[N, H, W]"),
            ("<f4", &[5, 28, 28], "uint8"),
            ("|u1", &[0, 28, 28], "no image"),
            ("|u1", &[5, 28, 1 << 40], "a side has"),
        ] {
            let error = sides(&array(dtype, shape)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
