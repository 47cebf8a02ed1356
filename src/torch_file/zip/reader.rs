//! Contents of one record, verified against its checksum.

use super::super::error::Error;
use super::super::limits::Budget;
use super::directory::Entry;
use flate2::read::DeflateDecoder;
use std::io::{self, Read, Seek, SeekFrom};

/// Read and checksum this much at a time, so that the checksum finds it in the cache.
const CHUNK_BYTES: usize = 256 << 10;

/// The contents of `entry`, on the account of `budget`.
pub(in super::super) fn read_record<R: Read + Seek>(
    source: &mut R,
    entry: &Entry,
    budget: &mut Budget,
) -> Result<Vec<u8>, Error> {
    let mut read = |budget: &mut Budget| {
        budget.take(entry.size)?;
        let size = usize::try_from(entry.size).map_err(|_| Error::damaged("it exceeds the address space"))?;
        let mut contents = vec![0; size];
        check(source, entry, &mut contents)?;
        Ok(contents)
    };
    read(budget).map_err(|error: Error| error.in_record(&entry.name).at(entry.data_at))
}

/// The first `bytes` bytes of `entry`, or all of a shorter one, unverified.
pub(in super::super) fn read_beginning<R: Read + Seek>(
    source: &mut R,
    entry: &Entry,
    bytes: usize,
) -> Result<Vec<u8>, Error> {
    let mut read = || {
        source.seek(SeekFrom::Start(entry.data_at))?;
        let (mut contents, packed, most) = (Vec::new(), source.take(entry.packed), bytes as u64);
        if entry.deflated {
            DeflateDecoder::new(packed).take(most).read_to_end(&mut contents)?;
        } else {
            packed.take(most).read_to_end(&mut contents)?;
        }
        Ok(contents)
    };
    read().map_err(|error: io::Error| Error::damaged(error.to_string()).in_record(&entry.name).at(entry.data_at))
}

/// Checks a record that nobody needs.
pub(in super::super) fn verify_record<R: Read + Seek>(source: &mut R, entry: &Entry) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK_BYTES.min(usize::try_from(entry.size).unwrap_or(usize::MAX))];
    check(source, entry, &mut buffer).map_err(|error| error.in_record(&entry.name).at(entry.data_at))
}

/// Reads the contents of `entry` and compares them with their checksum. A `buffer` that is shorter than they are is
/// filled over and over.
fn check<R: Read + Seek>(source: &mut R, entry: &Entry, buffer: &mut [u8]) -> Result<(), Error> {
    let mut crc = crc32fast::Hasher::new();
    source.seek(SeekFrom::Start(entry.data_at)).map_err(|e| Error::io("read", e))?;
    let mut consume = |packed: &mut dyn Read| {
        let mut done = 0;
        while done < entry.size {
            let at = (done % buffer.len() as u64) as usize;
            let chunk = &mut buffer[at..][..(entry.size - done).min(CHUNK_BYTES as u64) as usize];
            packed.read_exact(chunk)?;
            crc.update(chunk);
            done += chunk.len() as u64;
        }
        Ok(())
    };
    let mut packed = source.take(entry.packed);
    if entry.deflated {
        let mut inflated = DeflateDecoder::new(packed);
        consume(&mut inflated)
            .map_err(|error: io::Error| Error::damaged(format!("its compressed data do not unpack ({error})")))?;
        let mut surplus = [0];
        let ended = matches!(inflated.read(&mut surplus), Ok(0));
        if !ended || inflated.total_in() != entry.packed {
            return Err(Error::damaged(format!("its compressed data do not have the {} bytes claimed", entry.size)));
        }
    } else {
        consume(&mut packed).map_err(|e| Error::io("read", e))?;
    }
    let found = crc.finalize();
    if found != entry.crc {
        return Err(Error::damaged(format!("checksum {found:08x} instead of {:08x}", entry.crc)));
    }
    Ok(())
}
