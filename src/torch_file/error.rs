//! What can go wrong with a checkpoint, where, and what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where in a file something was found; what is not known stays empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    /// Name of the record inside the zip archive, or the part of a file without records.
    pub record: String,
    /// Byte offset: inside `record` for pickles, from the start of the file otherwise.
    pub byte: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.file.as_os_str().is_empty() { Path::new("checkpoint") } else { &self.file };
        write!(f, "{}", name.display())?;
        if !self.record.is_empty() {
            write!(f, ", record {}", self.record)?;
        }
        match self.byte {
            Some(byte) => write!(f, ", byte {byte}"),
            None => Ok(()),
        }
    }
}

/// A checkpoint that could not be read or written. The text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused; `source` says why.
    #[error("{place}: cannot {doing}: {source}")]
    Io { place: Box<Place>, doing: &'static str, source: io::Error },
    /// Some other kind of file.
    #[error("{place}: this is {found}, not a PyTorch checkpoint. {advice}")]
    Foreign { place: Box<Place>, found: String, advice: String },
    /// Bytes that contradict each other or their checksum.
    #[error("{place}: {problem}. The file is damaged: take an older checkpoint, or copy or download it again")]
    Damaged { place: Box<Place>, problem: String },
    /// A checkpoint that PyTorch might read, with something in it that has no meaning here.
    #[error("{place}: {what} is not supported. {advice}")]
    Unsupported { place: Box<Place>, what: String, advice: String },
    /// A Python class or function outside the list of harmless ones. It was not run.
    #[error(
        "{place}: it refers to {global}, which is not on the list of known data types and was not run. If you trust the \
         file, load it in Python and save its tensors, numbers and strings alone (`model.state_dict()`)"
    )]
    Refused { place: Box<Place>, global: String },
    /// More than [`super::Limits`] allows.
    #[error("{place}: {what}, the limit is {allowed}. {advice}")]
    Limit { place: Box<Place>, what: String, allowed: u64, advice: String },
    /// A value that `torch.load(weights_only=True)` would refuse.
    #[error("{place}: {what} cannot be written to a checkpoint. Convert it to tensors, numbers, strings and lists")]
    Unwritable { place: Box<Place>, what: String },
}

impl Error {
    pub(super) fn io(doing: &'static str, source: io::Error) -> Error {
        Error::Io { place: Box::default(), doing, source }
    }

    pub(super) fn damaged(problem: impl Into<String>) -> Error {
        Error::Damaged { place: Box::default(), problem: problem.into() }
    }

    pub(super) fn unsupported(what: impl Into<String>, advice: impl Into<String>) -> Error {
        Error::Unsupported { place: Box::default(), what: what.into(), advice: advice.into() }
    }

    pub(super) fn foreign(found: impl Into<String>, advice: impl Into<String>) -> Error {
        Error::Foreign { place: Box::default(), found: found.into(), advice: advice.into() }
    }

    pub(super) fn refused(global: String) -> Error {
        Error::Refused { place: Box::default(), global }
    }

    pub(super) fn limit(what: impl Into<String>, allowed: u64, advice: impl Into<String>) -> Error {
        Error::Limit { place: Box::default(), what: what.into(), allowed, advice: advice.into() }
    }

    pub(super) fn unwritable(what: impl Into<String>) -> Error {
        Error::Unwritable { place: Box::default(), what: what.into() }
    }

    /// Where it happened.
    pub fn place(&self) -> &Place {
        match self {
            Error::Io { place, .. }
            | Error::Foreign { place, .. }
            | Error::Damaged { place, .. }
            | Error::Unsupported { place, .. }
            | Error::Refused { place, .. }
            | Error::Limit { place, .. }
            | Error::Unwritable { place, .. } => place,
        }
    }

    fn place_mut(&mut self) -> &mut Place {
        match self {
            Error::Io { place, .. }
            | Error::Foreign { place, .. }
            | Error::Damaged { place, .. }
            | Error::Unsupported { place, .. }
            | Error::Refused { place, .. }
            | Error::Limit { place, .. }
            | Error::Unwritable { place, .. } => place,
        }
    }

    /// Adds the byte offset, unless a deeper caller knew it better.
    pub(super) fn at(mut self, byte: u64) -> Error {
        self.place_mut().byte.get_or_insert(byte);
        self
    }

    /// Adds the record's name, unless a deeper caller knew it better.
    pub(super) fn in_record(mut self, record: &str) -> Error {
        if self.place().record.is_empty() {
            self.place_mut().record = record.to_owned();
        }
        self
    }

    /// Adds the file's name: for callers that wrote through [`super::write()`], which sees no path.
    pub fn in_file(mut self, file: &Path) -> Error {
        if self.place().file.as_os_str().is_empty() {
            self.place_mut().file = file.to_owned();
        }
        self
    }
}
