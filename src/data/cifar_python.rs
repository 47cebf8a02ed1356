//! The Python version of CIFAR: pickled dictionaries whose `data` is a numpy array
//! of bytes `[N, 3072]` (three planes an image) and whose `labels` (CIFAR-100:
//! `fine_labels`) is a list. They are read as data; nothing in them is executed.

use super::Source;
use super::cifar::IMAGE_BYTES;
use super::pickle::{Array, Pickle};
use anyhow::{Result, anyhow};
use std::path::Path;

/// Appends the images (planar, `[N, 3, 32, 32]`) and labels of one file, whose labels are at `key`.
pub fn read_batch(source: &Source, key: &str, path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<i64>) -> Result<()> {
    let bytes = source.read(path)?;
    append(key, &bytes, pixels, labels).map_err(|what| anyhow!("{}: {what}; {}", path.display(), source.how_to_get))
}

fn append(key: &str, bytes: &[u8], pixels: &mut Vec<u8>, labels: &mut Vec<i64>) -> Result<(), String> {
    let pickle = Pickle::parse(bytes)?;
    let entry = |key: &str| pickle.entry(key).ok_or_else(|| format!("it is no dictionary with the key {key:?}"));
    let data = pickle.array(entry("data")?).ok_or("its `data` is no array of bytes")?;
    let found = pickle.integers(entry(key)?).ok_or_else(|| format!("its `{key}` is no list of whole numbers"))?;
    let expected = [found.len(), IMAGE_BYTES];
    if found.is_empty() || data.shape != expected || data.bytes.len() != found.len() * IMAGE_BYTES {
        let (shape, bytes) = (data.shape, data.bytes.len());
        return Err(format!("its `data` has the shape {shape:?} and {bytes} bytes; its labels ask for {expected:?}"));
    }
    append_rows(&data, pixels);
    labels.extend(found);
    Ok(())
}

/// Appends the rows of an array `[N, IMAGE_BYTES]` in either memory order.
fn append_rows(data: &Array<'_>, pixels: &mut Vec<u8>) {
    if !data.column_major {
        return pixels.extend_from_slice(data.bytes);
    }
    let rows = data.shape[0];
    for row in 0..rows {
        pixels.extend((0..IMAGE_BYTES).map(|column| data.bytes[column * rows + row]));
    }
}
