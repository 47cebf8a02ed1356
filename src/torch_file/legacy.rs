//! Checkpoints from before PyTorch 1.6 (or saved with `_use_new_zipfile_serialization=False`).
//!
//! Five pickles one after the other (magic number, protocol version, machine, structure, keys of the storages),
//! then each storage as its number of elements (i64) and its bytes. There is no checksum in this format:
//! lengths are checked, a flipped bit inside a tensor cannot be seen.

use super::error::Error;
use super::limits::{Budget, Limits};
use super::pickle::{self, MAGIC_LEGACY, Unpickled, unfold, unpickle};
use super::tensor::Storage;
use super::value::Value;
use std::collections::HashMap;

const PROTOCOL_VERSION: i64 = 1001;
/// The magic number stands this near to the start, whatever the pickle protocol.
const MAGIC_WITHIN: usize = 32;

/// Whether a file starts as this format does.
pub(super) fn starts_like_legacy(head: &[u8]) -> bool {
    let head = &head[..head.len().min(MAGIC_WITHIN)];
    head.first() == Some(&0x80) && head.windows(MAGIC_LEGACY.len()).any(|window| window == MAGIC_LEGACY)
}

/// The value of a whole file.
pub(super) fn read_legacy(file: &[u8], limits: &Limits, budget: &mut Budget) -> Result<Value, Error> {
    budget.allow_pickle((file.len() as u64).min(limits.pickle_bytes));
    let mut reader = Reader { file, at: 0, limits };
    let magic = reader.plain("magic number", budget)?;
    let version = reader.plain("version", budget)?;
    if magic != Value::BigInt(MAGIC_LEGACY.to_vec()) || version != Value::Int(PROTOCOL_VERSION) {
        return Err(Error::damaged("the magic number or the version is wrong").at(0));
    }
    reader.plain("machine", budget)?;
    let in_structure = |error: Error| error.in_record("structure");
    let unpickled = unpickle(reader.pickled(), limits, budget).map_err(in_structure)?;
    reader.at += unpickled.length;
    let keys = reader.plain("list of storages", budget)?;
    let keys = keys.as_list().ok_or_else(|| Error::damaged("the list of storages is no list"))?;
    let storages = reader.storages(&unpickled, keys, budget)?;
    unfold(&unpickled, &storages, limits, budget).map_err(in_structure)
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    limits: &'a Limits,
}

impl<'a> Reader<'a> {
    /// What is left of the file, as far as a pickle may reach.
    fn pickled(&self) -> &'a [u8] {
        let rest = &self.file[self.at..];
        &rest[..usize::try_from(self.limits.pickle_bytes).unwrap_or(usize::MAX).min(rest.len())]
    }

    /// A pickle without tensors.
    fn plain(&mut self, name: &str, budget: &mut Budget) -> Result<Value, Error> {
        let plain = pickle::plain(self.pickled(), self.limits, budget);
        let (value, length) = plain.map_err(|error| error.in_record(name))?;
        self.at += length;
        Ok(value)
    }

    /// The storages that `unpickled` needs, in its order; they fill the rest of the file in the order of `keys`.
    fn storages(&mut self, unpickled: &Unpickled, keys: &[Value], budget: &mut Budget) -> Result<Vec<Storage>, Error> {
        let claims = &unpickled.storages;
        let mut wanted: HashMap<&str, usize> =
            claims.iter().enumerate().map(|(index, claim)| (claim.key.as_str(), index)).collect();
        let mut storages = vec![None; claims.len()];
        for key in keys {
            let key = match key {
                Value::Str(key) => key.clone(),
                Value::Int(key) => key.to_string(),
                other => return Err(Error::damaged(format!("{} in the list of storages", other.kind()))),
            };
            let unknown = || Error::damaged("no tensor uses this storage, or it comes twice").in_record(&key);
            let index = wanted.remove(key.as_str()).ok_or_else(unknown)?;
            let bytes = self.storage(claims[index].elements, claims[index].bytes()?);
            let bytes = bytes.map_err(|error| error.in_record(&format!("storage {key}")).at(self.at as u64))?;
            budget.take(bytes.len() as u64)?;
            storages[index] = Some(Storage::new(bytes.to_vec()));
        }
        if let Some(key) = wanted.keys().next() {
            return Err(Error::damaged("the storage is missing").in_record(key));
        }
        if self.at != self.file.len() {
            return Err(Error::damaged("something follows the last storage").at(self.at as u64));
        }
        Ok(storages.into_iter().flatten().collect())
    }

    fn storage(&mut self, elements: u64, bytes: u64) -> Result<&'a [u8], Error> {
        let rest = &self.file[self.at..];
        let cut = || Error::damaged(format!("{bytes} bytes are needed and the file ends after {}", rest.len()));
        let (count, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let found = u64::from_le_bytes(*count);
        if found != elements {
            return Err(Error::damaged(format!("{found} elements instead of {elements}")));
        }
        let contents = usize::try_from(bytes).ok().and_then(|bytes| rest.get(..bytes)).ok_or_else(cut)?;
        self.at += count.len() + contents.len();
        Ok(contents)
    }
}
