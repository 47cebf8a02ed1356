//! Writes what `torch.save` writes: an archive that `torch.load(path, weights_only=True)` reads.
//!
//! The records, their order and their layout are PyTorch's. Equal values give equal files: no dates, no
//! addresses, and an identifier made of names and checksums.

use super::error::Error;
use super::pickle::encode;
use super::value::Value;
use super::zip::{Record, write_records};
use crate::digest::fnv1a;
use std::io::Write;

/// Records are named `ARCHIVE/...`; PyTorch takes the name of the file without its last extension.
const LONGEST_NAME: usize = 255;

/// Writes `value` to `out` and returns the length of the archive in bytes.
///
/// `archive_name` is the folder inside the archive: PyTorch uses `Path::file_stem` of the file. Tensors are
/// written from where they are; those of one storage (see [`super::Storage`]) share it in the file too. `out` is
/// flushed; making the file durable is the caller's part.
///
/// # Errors
/// A value that PyTorch would refuse, before anything is written; a failed write with the record and the byte reached.
pub fn write(out: &mut impl Write, archive_name: &str, value: &Value) -> Result<u64, Error> {
    let encoded = encode(value)?;
    let records = records(archive_name, &encoded.pickle, &encoded.storages)?;
    write_records(out, &records, |checksums| {
        let names = records.iter().flat_map(|record| record.name.bytes());
        let checksums = checksums.iter().flat_map(|checksum| checksum.to_le_bytes());
        let identifier = format!("{:020}{:020}", fnv1a(names), fnv1a(checksums));
        (format!("{archive_name}/.data/serialization_id"), identifier.into_bytes())
    })
}

/// All records but the identifier, in PyTorch's order.
fn records<'a>(archive: &str, pickle: &'a [u8], storages: &[&'a [u8]]) -> Result<Vec<Record<'a>>, Error> {
    if archive.is_empty() || archive.len() > LONGEST_NAME || archive.contains(['/', '\\', '\0']) {
        return Err(Error::unwritable(format!("the archive name {archive:?}")));
    }
    let record = |name: &str, contents| Record { name: format!("{archive}/{name}"), contents };
    let mut records = vec![
        record("data.pkl", pickle),
        record(".format_version", b"1".as_slice()),
        record(".storage_alignment", b"64"),
        record("byteorder", b"little"),
    ];
    records.extend(storages.iter().enumerate().map(|(key, bytes)| record(&format!("data/{key}"), *bytes)));
    records.push(record("version", b"3\n"));
    Ok(records)
}
