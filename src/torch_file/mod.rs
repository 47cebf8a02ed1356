//! PyTorch's checkpoint files as data: what `torch.save` writes, without PyTorch and without running anything.
//!
//! A file becomes a tree of [`Value`]s and a tree becomes a file; neither direction knows models, optimisers or
//! libtorch. Reading verifies every checksum before it hands anything out, refuses classes and functions outside a
//! short list by name, and allocates no more than a fixed multiple of the file's length (see [`Limits`]). Two
//! formats are read: zip archives (PyTorch 1.6 and later) and the pickles with raw storages before them. Archives
//! are written.
//!
//! ```no_run
//! use flatnce::torch_file::{self, TensorData, Value};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let checkpoint = torch_file::read("checkpoint_0026.pth.tar".as_ref())?;
//! let epoch = checkpoint.get("epoch").and_then(Value::as_int);
//! let weight = checkpoint.get("model_state_dict").and_then(|model| model.get("conv1.weight"));
//! println!("{epoch:?} {:?}", weight.and_then(Value::as_tensor).map(TensorData::shape));
//! # Ok(()) }
//! ```

mod archive;
mod dtype;
mod error;
mod legacy;
mod limits;
mod pickle;
mod strided;
mod tensor;
mod value;
mod write;
mod zip;

pub use dtype::DType;
pub use error::Error;
pub use limits::Limits;
pub use tensor::{Storage, TensorData};
pub use value::{Dict, Inert, Value};
pub use write::write;

use crate::files;
use limits::Budget;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Enough of a file to tell its format: a tar header.
const HEAD_BYTES: u64 = 512;

/// Reads a checkpoint with the default [`Limits`].
///
/// # Errors
/// Whatever is wrong with the file, with its name, the record, the byte, and what to do next.
pub fn read(path: &Path) -> Result<Value, Error> {
    read_within(path, &Limits::default())
}

/// [`read`] with other limits.
///
/// # Errors
/// As [`read`].
pub fn read_within(path: &Path, limits: &Limits) -> Result<Value, Error> {
    let opened = files::open(path).map_err(|source| Error::io("open", source));
    opened.and_then(|mut file| read_from(&mut file, limits)).map_err(|error| error.in_file(path))
}

/// Checks every record of a file against its checksum, whatever it holds, in little memory.
///
/// # Errors
/// A record that is damaged, by name; a file of another kind; a legacy file, which has no checksums.
pub fn verify(path: &Path) -> Result<(), Error> {
    let verified = files::open(path).map_err(|source| Error::io("open", source)).and_then(|mut file| {
        let length = file.metadata().map_err(|source| Error::io("read", source))?.len();
        archive::verify_archive(&mut file, length)
    });
    verified.map_err(|error| error.in_file(path))
}

/// Reads a checkpoint from memory or an open file. See [`read`].
pub fn read_from<R: Read + Seek>(source: &mut R, limits: &Limits) -> Result<Value, Error> {
    let head_of = |source: &mut R| {
        let length = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        let mut head = Vec::new();
        source.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        Ok((length, head))
    };
    let (length, head) = head_of(source).map_err(|error| Error::io("read", error))?;
    if length > limits.file_bytes {
        let advice = "No checkpoint of a network that this program knows is so large: it is damaged or another file";
        return Err(Error::limit(format!("it has {length} bytes"), limits.file_bytes, advice));
    }
    let mut budget = Budget::new(limits, length);
    if zip::starts_like_zip(&head) {
        archive::read_archive(source, length, limits, &mut budget)
    } else if legacy::starts_like_legacy(&head) {
        budget.take(length)?;
        let mut file = head;
        source.read_to_end(&mut file).map_err(|error| Error::io("read", error))?;
        legacy::read_legacy(&file, limits, &mut budget)
    } else {
        Err(foreign(&head))
    }
}

/// Reads a pickle of plain data (no tensors), of any protocol up to 5, as data sets of Python's come in. Bytes after its
/// end are left alone.
///
/// # Errors
/// As [`read`]; the memory that it may cost is a multiple of its length.
pub fn read_pickle(pickle: &[u8]) -> Result<Value, Error> {
    let limits = Limits { growth: 4, ..Limits::default() };
    let mut budget = Budget::new(&limits, pickle.len() as u64);
    pickle::plain(pickle, &limits, &mut budget).map(|(value, _)| value)
}

/// Reads the records of a zip archive whose names `wanted` has, of at most `most` bytes together; NumPy's `.npz` files are
/// such archives. Nothing is allocated before all sizes are known, and every checksum is verified.
///
/// # Errors
/// As [`read`]; records that take more.
pub fn read_records(path: &Path, wanted: &[&str], most: u64) -> Result<Vec<(String, Vec<u8>)>, Error> {
    with_records(path, |file, entries| {
        let entries: Vec<_> = entries.iter().filter(|entry| wanted.contains(&entry.name.as_str())).collect();
        let needed = entries.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.size));
        if needed > most {
            return Err(Error::limit(format!("{} take {needed} bytes", wanted.join(", ")), most, ""));
        }
        let mut budget = Budget::of(needed);
        entries.iter().map(|entry| Ok((entry.name.clone(), zip::read_record(file, entry, &mut budget)?))).collect()
    })
}

/// The names of an archive's records, in the order of the file.
///
/// # Errors
/// As [`read`].
pub fn record_names(path: &Path) -> Result<Vec<String>, Error> {
    with_records(path, |_, entries| Ok(entries.iter().map(|entry| entry.name.clone()).collect()))
}

/// The first `bytes` bytes of a record, or all of a shorter one; no checksum is verified.
///
/// # Errors
/// As [`read`]; there is no such record.
pub fn record_beginning(path: &Path, name: &str, bytes: usize) -> Result<Vec<u8>, Error> {
    with_records(path, |file, entries| {
        let entry = entries.iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| Error::damaged("the record is missing").in_record(name))?;
        zip::read_beginning(file, entry, bytes)
    })
}

fn with_records<T>(path: &Path, read: impl FnOnce(&mut File, &[zip::Entry]) -> Result<T, Error>) -> Result<T, Error> {
    let opened = files::open(path).map_err(|source| Error::io("open", source));
    let read = opened.and_then(|mut file| {
        let length = file.metadata().map_err(|source| Error::io("read", source))?.len();
        let entries = zip::read_directory(&mut file, length)?;
        read(&mut file, &entries)
    });
    read.map_err(|error| error.in_file(path))
}

/// Names the kinds of file that are met in place of a checkpoint.
fn foreign(head: &[u8]) -> Error {
    let again = "Download it again and compare its length with the original's";
    let (found, advice) = match head {
        [] => ("an empty file", "Take an older checkpoint, or copy or download it again"),
        _ if head.get(257..262) == Some(b"ustar") => (
            "a tar archive",
            "If it holds checkpoints, unpack it (`tar xf`); if it is one, from PyTorch before 0.1.10, load it with a \
             PyTorch of that time and save it again",
        ),
        [0x1f, 0x8b, ..] => ("a gzip file", "Unpack it (`gunzip`)"),
        [_, _, _, _, _, _, _, _, b'{', b'"', ..] => {
            ("a safetensors file", "It holds tensors alone: give a file from `torch.save`")
        }
        [0x80, _, ..] => ("a plain pickle", "Save it with `torch.save`"),
        [b'<', ..] => ("a web page", again),
        _ if head.starts_with(b"version https://git-lfs") => {
            ("a Git LFS pointer", "Fetch the file itself (`git lfs pull`)")
        }
        _ => ("a file of an unknown kind", again),
    };
    Error::foreign(found, advice)
}
