//! The Python version of CIFAR: pickled dictionaries whose `data` is a numpy array
//! of bytes `[N, 3072]` (three planes an image) and whose `labels` (CIFAR-100:
//! `fine_labels`) is a list. They are read as data; nothing in them is executed.

use super::Source;
use super::cifar::IMAGE_BYTES;
use crate::torch_file::{self, Value};
use anyhow::{Result, anyhow};
use std::path::Path;

/// Appends the images (planar, `[N, 3, 32, 32]`) and labels of one file with these bytes, whose labels are at `key`.
pub fn read_batch(
    source: &Source,
    key: &str,
    path: &Path,
    bytes: &[u8],
    pixels: &mut Vec<u8>,
    labels: &mut Vec<i64>,
) -> Result<()> {
    let batch = torch_file::read_pickle(bytes).map_err(|error| {
        let place = error.byte.map_or(String::new(), |byte| format!(" (byte {byte})"));
        format!("it is no pickle of the expected kind: {}{place}", error.problem)
    });
    batch
        .and_then(|batch| append(key, &batch, pixels, labels))
        .map_err(|what| anyhow!("{}: {what}; {}", path.display(), source.how_to_get))
}

fn append(key: &str, batch: &Value, pixels: &mut Vec<u8>, labels: &mut Vec<i64>) -> Result<(), String> {
    let entry = |key: &str| {
        let entries = batch.as_dict().and_then(|entries| entries.iter().find(|(k, _)| raw(k) == Some(key.as_bytes())));
        entries.map(|(_, value)| value).ok_or_else(|| format!("it is no dictionary with the key {key:?}"))
    };
    let data = byte_array(entry("data")?)?;
    let found: Option<Vec<i64>> = entry(key)?.as_list().and_then(|list| list.iter().map(Value::as_int).collect());
    let found = found.ok_or_else(|| format!("its `{key}` is no list of whole numbers"))?;
    let expected = [found.len(), IMAGE_BYTES];
    if found.is_empty() || data.shape != expected || data.bytes.len() != found.len() * IMAGE_BYTES {
        let (shape, bytes) = (data.shape, data.bytes.len());
        return Err(format!("its `data` has the shape {shape:?} and {bytes} bytes; its labels ask for {expected:?}"));
    }
    if data.column_major {
        for row in 0..found.len() {
            pixels.extend((0..IMAGE_BYTES).map(|column| data.bytes[column * found.len() + row]));
        }
    } else {
        pixels.extend_from_slice(data.bytes);
    }
    labels.extend(found);
    Ok(())
}

/// A numpy array of bytes.
struct Array<'a> {
    shape: Vec<usize>,
    /// Fortran's order.
    column_major: bool,
    bytes: &'a [u8],
}

/// What numpy's `_reconstruct` would make of its state: version, shape, type, order, contents.
fn byte_array(value: &Value) -> Result<Array<'_>, String> {
    let state = match value {
        Value::Inert(object) if object.class.ends_with(".multiarray._reconstruct") => object.state.as_list(),
        _ => None,
    };
    let Some([_, shape, kind, column_major, contents]) = state else { return Err("its `data` is no array".into()) };
    let kind = if let Value::Inert(kind) = kind { kind.arguments.first().and_then(raw) } else { None };
    if !matches!(kind, Some(b"u1" | b"|u1")) {
        return Err("its `data` is an array of something other than bytes".into());
    }
    let side = |side: &Value| side.as_int().and_then(|side| usize::try_from(side).ok());
    let shape = shape.as_list().and_then(|sides| sides.iter().map(side).collect());
    Ok(Array {
        shape: shape.ok_or("its `data` is an array without a shape")?,
        column_major: column_major.as_int() == Some(1),
        bytes: raw(contents).ok_or("its `data` is an array without contents")?,
    })
}

/// A byte string: Python 2's are text where they are UTF-8.
fn raw(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Str(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}
