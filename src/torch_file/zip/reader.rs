//! Contents of one record, verified against its checksum.

use super::super::error::Error;
use super::super::limits::Budget;
use super::directory::Entry;
use flate2::read::DeflateDecoder;
use std::io::{Read, Seek, SeekFrom};

/// Read and checksum this much at a time, so that the checksum finds it in the cache.
const CHUNK_BYTES: usize = 256 << 10;

/// The contents of `entry`, on the account of `budget`.
pub(in super::super) fn read_record<R: Read + Seek>(
    source: &mut R,
    entry: &Entry,
    budget: &mut Budget,
) -> Result<Vec<u8>, Error> {
    let read = |source: &mut R, budget: &mut Budget| {
        budget.take(entry.size)?;
        let size = usize::try_from(entry.size).map_err(|_| Error::damaged("it exceeds the address space"))?;
        let mut contents = vec![0; size];
        stream(source, entry, |stream, crc| {
            for chunk in contents.chunks_mut(CHUNK_BYTES) {
                stream.read_exact(chunk)?;
                crc.update(chunk);
            }
            Ok(())
        })?;
        Ok(contents)
    };
    read(source, budget).map_err(|error: Error| error.in_record(&entry.name).at(entry.data_at))
}

/// Checks a record that nobody needs.
pub(in super::super) fn verify_record<R: Read + Seek>(source: &mut R, entry: &Entry) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let verified = stream(source, entry, |stream, crc| {
        let mut left = entry.size;
        while left > 0 {
            let chunk = &mut buffer[..left.min(CHUNK_BYTES as u64) as usize];
            stream.read_exact(chunk)?;
            crc.update(chunk);
            left -= chunk.len() as u64;
        }
        Ok(())
    });
    verified.map_err(|error| error.in_record(&entry.name).at(entry.data_at))
}

/// Hands the contents of `entry` to `consume`, which must take exactly `entry.size` bytes, and checks them.
fn stream<R: Read + Seek>(
    source: &mut R,
    entry: &Entry,
    consume: impl FnOnce(&mut dyn Read, &mut crc32fast::Hasher) -> std::io::Result<()>,
) -> Result<(), Error> {
    let mut crc = crc32fast::Hasher::new();
    source.seek(SeekFrom::Start(entry.data_at)).map_err(|e| Error::io("read", e))?;
    let mut packed = source.take(entry.packed);
    if entry.deflated {
        let mut inflated = DeflateDecoder::new(packed);
        consume(&mut inflated, &mut crc)
            .map_err(|error| Error::damaged(format!("its compressed data do not unpack ({error})")))?;
        let mut surplus = [0];
        let ended = matches!(inflated.read(&mut surplus), Ok(0));
        if !ended || inflated.total_in() != entry.packed {
            return Err(Error::damaged(format!("its compressed data do not have the {} bytes claimed", entry.size)));
        }
    } else {
        consume(&mut packed, &mut crc).map_err(|e| Error::io("read", e))?;
    }
    let found = crc.finalize();
    if found != entry.crc {
        return Err(Error::damaged(format!("checksum {found:08x} instead of {:08x}", entry.crc)));
    }
    Ok(())
}
