//! Checkpoints as zip archives: what `torch.save` has written since PyTorch 1.6.
//!
//! Records: `data.pkl` (the structure), `data/KEY` (one storage each), `byteorder`, and some that hold no
//! values. Every record is verified, needed or not, before any tensor is handed out.

use super::error::Error;
use super::limits::{Budget, Limits};
use super::pickle::{Unpickled, unfold, unpickle};
use super::tensor::Storage;
use super::value::Value;
use super::zip::{Entry, read_directory, read_record, verify_record};
use std::collections::HashMap;
use std::io::{Read, Seek};

/// Longest record that is a mark rather than contents.
const MARK_BYTES: u64 = 64;

/// The value of an archive of `length` bytes.
pub(super) fn read_archive<R: Read + Seek>(
    source: &mut R,
    length: u64,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Value, Error> {
    let entries = read_directory(source, length)?;
    let structure = find_structure(&entries)?;
    let prefix = structure.name.strip_suffix("data.pkl").unwrap_or_default();
    let byteorder = format!("{prefix}byteorder");
    let byteorder = entries.iter().find(|entry| entry.name == byteorder);
    if let Some(entry) = byteorder {
        check_byteorder(source, entry, budget).map_err(|error| error.in_record(&entry.name))?;
    }
    if structure.size > limits.pickle_bytes {
        let advice = "Load it in PyTorch and save it again with arrays of numbers as tensors";
        let what = format!("its structure without tensors takes {} bytes", structure.size);
        return Err(Error::limit(what, limits.pickle_bytes, advice).in_record(&structure.name));
    }
    let pickle = read_record(source, structure, budget)?;
    budget.allow_pickle(pickle.len() as u64);
    let in_structure = |error: Error| error.in_record(&structure.name);
    let unpickled = unpickle(&pickle, limits, budget).map_err(in_structure)?;
    if unpickled.length != pickle.len() {
        return Err(in_structure(Error::damaged("something follows its end").at(unpickled.length as u64)));
    }
    let mut wanted = match_storages(&unpickled, &entries, prefix).map_err(in_structure)?;
    let mut storages = vec![None; unpickled.storages.len()];
    for entry in &entries {
        if let Some(index) = wanted.remove(entry.name.as_str()) {
            storages[index] = Some(Storage::new(read_record(source, entry, budget)?));
        } else if entry.name != structure.name && byteorder.is_none_or(|known| known.name != entry.name) {
            verify_record(source, entry)?;
        }
    }
    let storages: Vec<Storage> = storages.into_iter().flatten().collect();
    unfold(&unpickled, &storages, limits, budget).map_err(in_structure)
}

/// Checks every record of an archive of `length` bytes.
pub(super) fn verify_archive<R: Read + Seek>(source: &mut R, length: u64) -> Result<(), Error> {
    let entries = read_directory(source, length)?;
    find_structure(&entries)?;
    entries.iter().try_for_each(|entry| verify_record(source, entry))
}

/// The one record that holds the structure.
fn find_structure(entries: &[Entry]) -> Result<&Entry, Error> {
    let ends_in = |entry: &&Entry, name: &str| entry.name.rsplit('/').next() == Some(name);
    if entries.iter().any(|entry| ends_in(&entry, "constants.pkl")) {
        let advice = "Load it with `torch.jit.load` and save its `state_dict()` with `torch.save`";
        return Err(Error::foreign("a TorchScript program", advice));
    }
    let mut found = entries.iter().filter(|entry| ends_in(entry, "data.pkl"));
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => Err(Error::foreign("a zip archive without data.pkl", "Give the file that `torch.save` wrote")),
        (Some(_), Some(second)) => Err(Error::damaged("the archive has two structures").in_record(&second.name)),
    }
}

fn check_byteorder<R: Read + Seek>(source: &mut R, entry: &Entry, budget: &mut Budget) -> Result<(), Error> {
    if entry.size > MARK_BYTES {
        return Err(Error::damaged(format!("the byte order takes {} bytes", entry.size)));
    }
    match read_record(source, entry, budget)?.as_slice() {
        b"little" => Ok(()),
        b"big" => Err(Error::unsupported(
            "the byte order of a big-endian machine",
            "Load the file with `torch.load` on an x86 or ARM machine and save it again",
        )),
        _ => Err(Error::damaged("the byte order is neither little nor big")),
    }
}

/// Which record is which storage; each must be there with the length that the structure says.
fn match_storages<'e>(
    unpickled: &Unpickled,
    entries: &'e [Entry],
    prefix: &str,
) -> Result<HashMap<&'e str, usize>, Error> {
    let by_name: HashMap<&str, &Entry> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut wanted = HashMap::new();
    for (index, claim) in unpickled.storages.iter().enumerate() {
        let name = format!("{prefix}data/{}", claim.key);
        let entry = by_name.get(name.as_str());
        let entry = entry.ok_or_else(|| Error::damaged("the record is missing").in_record(&name))?;
        // A storage that ends in a part of an element keeps that part.
        if entry.size / claim.dtype.size_bytes() as u64 != claim.elements {
            let problem = format!("{} bytes instead of {}", entry.size, claim.bytes()?);
            return Err(Error::damaged(problem).in_record(&name));
        }
        wanted.insert(entry.name.as_str(), index);
    }
    Ok(wanted)
}
