//! IDX, the format of MNIST and its successors: a big-endian header (magic
//! number, then one length per dimension) and then bytes. Plain or
//! gzip-compressed, told apart by their first bytes and not by their name.

use flate2::read::MultiGzDecoder;
use std::io::Read;

/// An IDX file of bytes: `shape` and the data in row-major order.
#[derive(Debug, PartialEq, Eq)]
pub struct Idx {
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

/// More than any set in this format holds; a header that asks for more is broken or hostile.
const MAX_BYTES: usize = 1 << 30;

/// Reads an IDX file with `dimensions` dimensions (images 3, labels 1).
///
/// The error says what is wrong with the bytes; the caller names the file.
pub fn parse(bytes: &[u8], dimensions: usize) -> Result<Idx, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        parse_stream(MultiGzDecoder::new(bytes), dimensions)
    } else {
        parse_stream(bytes, dimensions)
    }
}

fn parse_stream(mut stream: impl Read, dimensions: usize) -> Result<Idx, String> {
    let magic = word(&mut stream)?;
    // Two zero bytes, the element type (8: unsigned byte), the number of dimensions.
    let expected = 0x0800 + dimensions as u32;
    if magic != expected {
        return Err(format!(
            "it begins with {magic:#010x} where IDX with {dimensions} dimension(s) has {expected:#010x}"
        ));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(word(&mut stream)? as usize);
    }
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_BYTES);
    let Some(count) = count else {
        return Err(format!("its header asks for {shape:?} bytes, more than any data set of this kind has"));
    };
    let mut data = Vec::new();
    stream.by_ref().take(count as u64).read_to_end(&mut data).map_err(|e| format!("it is damaged: {e}"))?;
    if data.len() < count {
        return Err(format!("it is truncated: {} of {count} bytes for the shape {shape:?}", data.len()));
    }
    // Reading on to the end also checks gzip's checksum.
    let mut rest = [0];
    match stream.read(&mut rest) {
        Ok(0) => Ok(Idx { shape, data }),
        Ok(_) => Err(format!("it is longer than the shape {shape:?} of its header")),
        Err(error) => Err(format!("it is damaged: {error}")),
    }
}

fn word(stream: &mut impl Read) -> Result<u32, String> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes).map_err(|error| format!("its header cannot be read: {error}"))?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    const LABELS: [u8; 11] = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_files_read_alike() {
        let expected = Idx { shape: vec![3], data: vec![7, 8, 9] };
        assert_eq!(parse(&LABELS, 1).unwrap(), expected);
        assert_eq!(parse(&gzip(&LABELS), 1).unwrap(), expected);
    }

    #[test]
    fn damage_is_named() {
        let gz = gzip(&LABELS);
        let mut wrong_checksum = gz.clone();
        *wrong_checksum.iter_mut().nth_back(5).unwrap() ^= 1;
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        for (bytes, dimensions, word) in [
            (&LABELS[..10], 1, "truncated: 2 of 3"),
            (&LABELS[..6], 1, "header"),
            (&[&LABELS[..], &[1]].concat(), 1, "longer"),
            (&LABELS, 3, "0x00000803"),
            (&gz[..gz.len() - 9], 1, "damaged"),
            (&wrong_checksum, 1, "damaged"),
            (&huge, 3, "asks for"),
            (b"<html>no such file</html>", 1, "begins with"),
        ] {
            let error = parse(bytes, dimensions).unwrap_err();
            assert!(error.contains(word), "{error} should contain {word}");
        }
    }
}
