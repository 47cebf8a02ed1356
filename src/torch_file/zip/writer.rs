//! Writes records one after the other, without seeking and without a second copy of them.

use super::super::error::Error;
use super::layout;
use std::io::Write;

/// Checksum and write this much at a time, so that the second finds it in the cache.
const CHUNK_BYTES: usize = 256 << 10;

/// A record to be stored.
pub(in super::super) struct Record<'a> {
    pub name: String,
    pub contents: &'a [u8],
}

/// Writes an archive of `records` to `out`, then whatever record `last` makes of their checksums.
/// Returns the bytes written.
pub(in super::super) fn write_records(
    out: &mut impl Write,
    records: &[Record],
    last: impl FnOnce(&[u32]) -> (String, Vec<u8>),
) -> Result<u64, Error> {
    let mut archive = Archive::starting_at(out, 0);
    let mut checksums = Vec::with_capacity(records.len());
    for record in records {
        checksums.push(archive.add(&record.name, record.contents)?);
    }
    let (name, contents) = last(&checksums);
    archive.add(&name, &contents)?;
    archive.finish()
}

/// An archive being written.
struct Archive<'w, W> {
    out: &'w mut W,
    at: u64,
    count: u64,
    directory: Vec<u8>,
}

impl<'w, W: Write> Archive<'w, W> {
    /// `at` is the byte of the file where `out` stands.
    fn starting_at(out: &'w mut W, at: u64) -> Self {
        Archive { out, at, count: 0, directory: Vec::new() }
    }

    /// Writes one record and returns its checksum.
    fn add(&mut self, name: &str, contents: &[u8]) -> Result<u32, Error> {
        let (start, size) = (self.at, contents.len() as u64);
        let mut crc = crc32fast::Hasher::new();
        let written = (|| {
            self.put(&layout::local_header(name, size, start))?;
            for chunk in contents.chunks(CHUNK_BYTES) {
                crc.update(chunk);
                self.put(chunk)?;
            }
            let crc = crc.finalize();
            self.put(&layout::descriptor(crc, size, start))?;
            Ok(crc)
        })();
        let crc = written.map_err(|e| Error::io("write", e).in_record(name).at(self.at))?;
        self.directory.extend(layout::directory_entry(name, crc, size, start));
        self.count += 1;
        Ok(crc)
    }

    /// Writes the directory and returns the length of the archive.
    fn finish(mut self) -> Result<u64, Error> {
        let directory = std::mem::take(&mut self.directory);
        let ends = layout::ends(self.count, directory.len() as u64, self.at);
        let written = self.put(&directory).and_then(|()| self.put(&ends)).and_then(|()| self.out.flush());
        written.map_err(|e| Error::io("write", e).in_record("the list of records").at(self.at))?;
        Ok(self.at)
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::limits::{Budget, Limits};
    use super::super::{read_directory, read_record, starts_like_zip};
    use super::*;
    use std::fs::File;
    use std::io::{Seek, SeekFrom};

    const GIB4: u64 = 4 << 30;

    #[test]
    fn large_records_and_late_records_get_64_bit_fields() {
        // (size, at): which of size, size and offset stand in the zip64 field.
        for (size, at, wide) in [
            (5, 64, vec![]),
            (GIB4, 64, vec![GIB4, GIB4]),
            (5, GIB4 + 64, vec![GIB4 + 64]),
            (GIB4 + 1, GIB4, vec![GIB4 + 1, GIB4 + 1, GIB4]),
            (0xffff_fffe, 0xffff_fffe, vec![]),
            (0xffff_ffff, 0, vec![0xffff_ffff, 0xffff_ffff]),
        ] {
            let header = layout::local_header("a/data/0", size, at);
            assert_eq!((at + header.len() as u64) % 64, 0, "contents are aligned");
            let expected: Vec<u8> = wide.iter().flat_map(|value: &u64| value.to_le_bytes()).collect();
            let entry = layout::directory_entry("a/data/0", 7, size, at);
            assert_eq!(&entry[46 + 8..][if wide.is_empty() { 0 } else { 4 }..], expected);
            if !wide.is_empty() {
                assert_eq!(header[38..40], [1, 0]);
                assert_eq!(header[42..42 + expected.len()], expected);
            }
            let long = size >= 0xffff_ffff || at >= 0xffff_ffff;
            assert_eq!(layout::descriptor(7, size, at).len(), if long { 24 } else { 16 });
        }
    }

    #[test]
    fn records_beyond_4_gib_are_found_again() {
        // A hole of 4 GiB instead of a first record: the file is sparse and takes no space.
        let mut file: File = tempfile::tempfile().unwrap();
        file.seek(SeekFrom::Start(GIB4)).unwrap();
        let mut archive = Archive::starting_at(&mut file, GIB4);
        archive.add("a/data/0", b"0123456789").unwrap();
        archive.add("a/data/1", b"").unwrap();
        let length = archive.finish().unwrap();
        assert_eq!(length, file.metadata().unwrap().len());
        let entries = read_directory(&mut file, length).unwrap();
        assert_eq!(entries.iter().map(|entry| entry.header_at >= GIB4).collect::<Vec<_>>(), [true, true]);
        let mut budget = Budget::new(&Limits::default(), 0);
        assert_eq!(read_record(&mut file, &entries[0], &mut budget).unwrap(), b"0123456789");
        assert_eq!(read_record(&mut file, &entries[1], &mut budget).unwrap(), b"");
    }

    #[test]
    fn the_size_is_what_was_written() {
        let contents = [vec![1; 1000], vec![], vec![2; 63], vec![3; 64]];
        let names = ["a/data.pkl", "a/data/0", "a/data/1", "a/last"];
        let record = |i: usize| Record { name: names[i].to_owned(), contents: &contents[i] };
        let mut out = Vec::new();
        let written = write_records(&mut out, &[record(0), record(1), record(2)], |checksums| {
            assert_eq!(checksums.len(), 3);
            (names[3].to_owned(), contents[3].clone())
        });
        assert_eq!(written.unwrap(), out.len() as u64);
        assert!(starts_like_zip(&out));
    }
}
