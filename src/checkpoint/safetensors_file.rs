//! Files of the safetensors format (Hugging Face), through their own library.

use super::room;
use super::tensors::{TYPES, from_tensor, to_state, to_tensor};
use crate::durable;
use crate::files;
use crate::state::StateDict;
use crate::torch_file::{Limits, TensorData};
use anyhow::{Context, Result, bail};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

/// The names of the notes that a file may carry.
pub type Notes = BTreeMap<String, String>;

/// Whether a file begins as this format does: the length of a header, then the header, a JSON object.
///
/// Errors: the file cannot be read.
pub fn is_safetensors(path: &Path) -> Result<bool> {
    let context = || format!("cannot read {}", path.display());
    let mut head = Vec::new();
    files::open(path).with_context(context)?.take(9).read_to_end(&mut head).with_context(context)?;
    let (length, object) = match head.split_at_checked(8) {
        Some((length, [b'{'])) => (u64::from_le_bytes(length.try_into().expect("8 bytes")), true),
        _ => (0, false),
    };
    // Zip archives, tar files and pickles have other bytes there: their "length" is beyond any header's.
    Ok(object && length < 1 << 32)
}

/// Every tensor, in the order of the file, and the file's notes. Names lose the prefix `module.`.
///
/// Errors: a header that contradicts itself or the file's length, a type that PyTorch files do not have.
pub fn read(path: &Path) -> Result<(StateDict, Notes)> {
    let bytes =
        files::read(path, Limits::default().file_bytes).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes)
        .with_context(|| format!("{} is a damaged safetensors file: copy or download it again", path.display()))
}

fn parse(bytes: &[u8]) -> Result<(StateDict, Notes)> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let file = SafeTensors::deserialize(bytes)?;
    // By place in the file, which is the order of writing for equal types.
    let names = header.offset_keys();
    let tensor = |name: &'_ String| {
        let view = file.tensor(name)?;
        let Some((_, dtype, _)) = TYPES.iter().find(|row| row.2 == view.dtype()) else {
            bail!("{name} is of the type {:?}, which is not supported", view.dtype());
        };
        to_tensor(&TensorData::new(*dtype, view.shape().to_vec(), view.data().to_vec()))
    };
    let state = to_state("it", names.iter().map(|name| Ok((name.as_str(), tensor(name)?))))?;
    let notes = header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((state, notes))
}

/// Writes tensors and notes so that the file is whole or not there, and returns its size in bytes.
///
/// Errors: a type that the format does not have; no space, no permission.
pub fn write_safetensors(path: &Path, state: &StateDict, notes: &Notes) -> Result<u64> {
    write_bytes(path, &safetensors_bytes(state, notes)?)
}

/// Writes a file so that it is whole or not there, and returns its size in bytes.
///
/// Errors: no space, with the size needed; no permission.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<u64> {
    let written = durable::replace(path, |file| Ok(file.write_all(bytes)?));
    written.map_err(|error| room::explained(error, path, || Some(bytes.len() as u64)))?;
    Ok(bytes.len() as u64)
}

/// Tensors and notes as a file holds them.
///
/// Errors: a type that the format does not have.
pub fn safetensors_bytes(state: &StateDict, notes: &Notes) -> Result<Vec<u8>> {
    let tensors: Result<Vec<(String, TensorData)>> =
        state.iter().map(|(name, tensor)| Ok((name.to_owned(), from_tensor(tensor)?))).collect();
    let tensors = tensors?;
    let views: Result<Vec<(&str, TensorView)>> = tensors
        .iter()
        .map(|(name, data)| {
            let (_, _, theirs) = TYPES.iter().find(|row| row.1 == data.dtype()).expect("all types are listed");
            Ok((name.as_str(), TensorView::new(*theirs, data.shape().to_vec(), data.bytes())?))
        })
        .collect();
    let notes = notes.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    safetensors::serialize(views?, Some(notes)).context("the safetensors library refuses the tensors")
}

#[cfg(test)]
mod tests {
    use super::super::tensors::dtype_of;
    use super::*;
    use crate::rng::{Purpose, Stream};
    use tch::{Device, Kind, Tensor};

    fn sample() -> (StateDict, Notes) {
        let mut state = StateDict::new();
        state.push("conv1.weight", Tensor::randn([4, 3, 3, 3], (Kind::Float, Device::Cpu)));
        state.push("half", Tensor::ones([5], (Kind::BFloat16, Device::Cpu)));
        state.push("bn1.num_batches_tracked", Tensor::from(7i64));
        (state, Notes::from([("format".to_owned(), "pt".to_owned()), ("model".to_owned(), "res10".to_owned())]))
    }

    #[test]
    fn what_is_written_is_read() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.safetensors");
        let (state, notes) = sample();
        let bytes = write_safetensors(&path, &state, &notes).unwrap();
        assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
        assert!(is_safetensors(&path).unwrap());
        let (read, read_notes) = read(&path).unwrap();
        assert_eq!(read_notes, notes);
        assert_eq!(read.len(), state.len());
        for (name, tensor) in state.iter() {
            let found = read.get(name).unwrap();
            assert_eq!((found.kind(), found.size()), (tensor.kind(), tensor.size()), "{name}");
            assert!(found.equal(tensor), "{name}");
        }
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.safetensors");
        let (state, notes) = sample();
        write_safetensors(&path, &state, &notes).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut to {length} bytes");
        }
        let mut draw = Stream::new(11, Purpose::Subset, 0, 0, 0);
        let mut refused = 0;
        for _ in 0..5000 {
            let mut bytes = whole.clone();
            for _ in 0..1 + draw.below(3) {
                let at = draw.below(header as u64) as usize;
                bytes[at] = draw.next_u32() as u8;
            }
            // Letters of a name may change without a contradiction; whatever is accepted is whole.
            match parse(&bytes) {
                Err(_) => refused += 1,
                Ok((read, _)) => assert!(read.iter().all(|(_, tensor)| tensor.numel() <= whole.len())),
            }
        }
        assert!(refused > 2000, "{refused}");
        let mut huge = whole.clone();
        huge[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(parse(&huge).is_err());
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("a.safetensors is a damaged safetensors file"), "{error}");
    }

    #[test]
    fn every_type_of_ours_has_one_of_theirs() {
        let floats = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16];
        let whole = [Kind::Uint8, Kind::Int8, Kind::Int16, Kind::Int, Kind::Int64, Kind::Bool];
        for kind in floats.into_iter().chain(whole) {
            assert!(TYPES.iter().any(|row| row.1 == dtype_of(kind).unwrap()), "{kind:?}");
        }
    }
}
