//! The heads of `.npy` and safetensors files whose contents follow in pieces:
//! the number of rows is known before the first one.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::io::Write;

/// A matrix, or a vector where `columns` is none.
pub struct Array {
    pub name: &'static str,
    pub rows: usize,
    pub columns: Option<usize>,
}

impl Array {
    fn shape(&self) -> Vec<usize> {
        std::iter::once(self.rows).chain(self.columns).collect()
    }

    fn elements(&self) -> usize {
        self.rows * self.columns.unwrap_or(1)
    }
}

/// NumPy's format 1.0 (`numpy.lib.format`): `kind` is its name of the type, such as `<f4`.
///
/// Errors: the file cannot be written.
pub fn npy_header(out: &mut dyn Write, kind: &str, array: &Array) -> Result<()> {
    let shape: Vec<String> = array.shape().iter().map(ToString::to_string).collect();
    // A tuple of one element keeps its comma.
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}{comma}), }}", shape.join(", "));
    const FIXED_BYTES: usize = 10;
    // The numbers begin at a multiple of 64; the line break ends the header.
    let padded = (FIXED_BYTES + text.len() + 1).next_multiple_of(64) - FIXED_BYTES;
    text.push_str(&" ".repeat(padded - text.len() - 1));
    text.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&u16::try_from(text.len()).context("the header is too long")?.to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// The header of a safetensors file with `features` in float32, then `labels` in int64; `about` becomes its notes.
///
/// Errors: the file cannot be written.
pub fn safetensors_header(out: &mut dyn Write, features: &Array, labels: Option<usize>, about: &Value) -> Result<()> {
    let notes: Map<String, Value> = about
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned))))
        .collect();
    let end = features.elements() * 4;
    let mut header = Map::new();
    header.insert("__metadata__".into(), Value::Object(notes));
    header.insert(features.name.into(), json!({"dtype": "F32", "shape": features.shape(), "data_offsets": [0, end]}));
    if let Some(rows) = labels {
        let offsets = [end, end + rows * 8];
        header.insert("labels".into(), json!({"dtype": "I64", "shape": [rows], "data_offsets": offsets}));
    }
    let mut text = Value::Object(header).to_string();
    // The numbers begin at a multiple of 8, after the 8 bytes of the length.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_aligned_and_say_the_shape() {
        for (rows, columns, shape) in [(7, Some(512), "(7, 512)"), (1_281_167, None, "(1281167,)")] {
            let mut bytes = Vec::new();
            npy_header(&mut bytes, "<f4", &Array { name: "x", rows, columns }).unwrap();
            assert_eq!((bytes.len() % 64, bytes.last()), (0, Some(&b'\n')));
            assert_eq!(usize::from(u16::from_le_bytes([bytes[8], bytes[9]])) + 10, bytes.len());
            assert!(String::from_utf8_lossy(&bytes[10..]).contains(&format!("'shape': {shape}, }}")));
        }
    }

    #[test]
    fn a_file_in_pieces_is_what_the_library_reads() {
        let mut bytes = Vec::new();
        let about = json!({"dataset": "cifar10", "images": 3, "classes": ["a", "b"]});
        safetensors_header(&mut bytes, &Array { name: "features", rows: 3, columns: Some(2) }, Some(3), &about)
            .unwrap();
        bytes.extend((0..6).flat_map(|n| (n as f32).to_le_bytes()));
        bytes.extend([4i64, 5, 6].iter().flat_map(|n| n.to_le_bytes()));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("features").unwrap().shape(), [3, 2]);
        assert_eq!(file.tensor("labels").unwrap().data()[8..16], 5i64.to_le_bytes());
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let notes = header.metadata().as_ref().unwrap();
        assert_eq!((notes["images"].as_str(), notes["classes"].as_str()), ("3", "[\"a\",\"b\"]"));
    }
}
