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

/// Reads an IDX file of at most `most` records of the shape `record`: `[H, W]` of images, `[]` of labels.
///
/// The error says what is wrong with the bytes; the caller names the file. What the header asks for is refused before
/// anything behind it is unpacked.
pub fn parse(bytes: &[u8], record: &[usize], most: usize) -> Result<Idx, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        parse_stream(MultiGzDecoder::new(bytes), record, most)
    } else {
        parse_stream(bytes, record, most)
    }
}

fn parse_stream(mut stream: impl Read, record: &[usize], most: usize) -> Result<Idx, String> {
    let dimensions = 1 + record.len();
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
    if shape[1..] != *record {
        let expected: String = record.iter().map(|side| format!(", {side}")).collect();
        return Err(format!("its shape is {shape:?}, expected [N{expected}]"));
    }
    if !(1..=most).contains(&shape[0]) {
        return Err(format!("its header asks for {shape:?} bytes; files with 1 to {most} records are read"));
    }
    let count: usize = shape.iter().product();
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
        assert_eq!(parse(&LABELS, &[], 9).unwrap(), expected);
        assert_eq!(parse(&gzip(&LABELS), &[], 9).unwrap(), expected);
    }

    #[test]
    fn damage_is_named() {
        let gz = gzip(&LABELS);
        let mut wrong_checksum = gz.clone();
        *wrong_checksum.iter_mut().nth_back(5).unwrap() ^= 1;
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 0, 0, 0, 28, 0, 0, 0, 28];
        let wide = [0, 0, 8, 3, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255, 255, 255];
        let image: &[usize] = &[28, 28];
        for (bytes, record, word) in [
            (&LABELS[..10], [].as_slice(), "truncated: 2 of 3"),
            (&LABELS[..6], &[], "header"),
            (&[&LABELS[..], &[1]].concat(), &[], "longer"),
            (&LABELS, image, "0x00000803"),
            (&gz[..gz.len() - 9], &[], "damaged"),
            (&wrong_checksum, &[], "damaged"),
            (&huge, image, "1 to 9 records"),
            (&wide, image, "expected [N, 28, 28]"),
            (&[0, 0, 8, 1, 0, 0, 0, 0], &[], "1 to 9 records"),
            (b"<html>no such file</html>", &[], "begins with"),
        ] {
            let error = parse(bytes, record, 9).unwrap_err();
            assert!(error.contains(word), "{error} should contain {word}");
        }
    }

    /// The header alone is unpacked of a file that asks for more than there can be.
    #[test]
    fn a_bomb_is_refused_at_its_header() {
        struct Counted<'a>(&'a [u8], &'a std::cell::Cell<usize>);
        impl Read for Counted<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let count = self.0.read(out)?;
                self.1.set(self.1.get() + count);
                Ok(count)
            }
        }
        let read = std::cell::Cell::new(0);
        let bomb = [&[0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28][..], &[0; 10 * 28 * 28]].concat();
        assert!(parse_stream(Counted(&bomb, &read), &[28, 28], 9).is_err());
        assert_eq!(read.get(), 16);
    }
}
