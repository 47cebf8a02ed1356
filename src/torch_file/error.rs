//! What can go wrong with a checkpoint, where, and what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A checkpoint that could not be read or written. The text says what to do next.
#[derive(Debug, Default)]
pub struct Error {
    /// Empty where it is not known.
    pub file: PathBuf,
    /// Name of the record inside the zip archive, or the part of a file without records; empty where it is not known.
    pub record: String,
    /// Byte offset: inside `record` for pickles, from the start of the file otherwise.
    pub byte: Option<u64>,
    /// What is wrong, without a full stop.
    pub problem: String,
    /// What to do next; empty where the operating system refused.
    pub advice: &'static str,
    /// The operating system's refusal, which `problem` quotes.
    pub source: Option<io::Error>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.file.as_os_str().is_empty() { Path::new("checkpoint") } else { &self.file };
        write!(f, "{}", name.display())?;
        if !self.record.is_empty() {
            write!(f, ", record {}", self.record)?;
        }
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        write!(f, ": {}", self.problem)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, ". {}", self.advice) }
    }
}

/// Without a cause: the text quotes it.
impl std::error::Error for Error {}

impl Error {
    fn new(problem: impl Into<String>, advice: &'static str) -> Error {
        Error { problem: problem.into(), advice, ..Error::default() }
    }

    /// The operating system refused.
    pub(super) fn io(doing: &str, source: io::Error) -> Error {
        Error { problem: format!("cannot {doing}: {source}"), source: Some(source), ..Error::default() }
    }

    /// Some other kind of file.
    pub(super) fn foreign(found: &str, advice: &'static str) -> Error {
        Error::new(format!("this is {found}, not a PyTorch checkpoint"), advice)
    }

    /// Bytes that contradict each other or their checksum.
    pub(super) fn damaged(problem: impl Into<String>) -> Error {
        Error::new(problem, "The file is damaged: take an older checkpoint, or copy or download it again")
    }

    /// A checkpoint that PyTorch might read, with something in it that has no meaning here.
    pub(super) fn unsupported(what: impl fmt::Display, advice: &'static str) -> Error {
        Error::new(format!("{what} is not supported"), advice)
    }

    /// A Python class or function outside the list of harmless ones. It was not run.
    pub(super) fn refused(global: &str) -> Error {
        let advice = "If you trust the file, load it in Python and save its tensors, numbers and strings alone \
                      (`model.state_dict()`)";
        Error::new(
            format!("it refers to {global}, which is not on the list of known data types and was not run"),
            advice,
        )
    }

    /// More than [`super::Limits`] allows.
    pub(super) fn limit(what: impl fmt::Display, allowed: u64, advice: &'static str) -> Error {
        Error::new(format!("{what}, the limit is {allowed}"), advice)
    }

    /// A value that `torch.load(weights_only=True)` would refuse.
    pub(super) fn unwritable(what: impl fmt::Display) -> Error {
        let advice = "Convert it to tensors, numbers, strings and lists";
        Error::new(format!("{what} cannot be written to a checkpoint"), advice)
    }

    /// Adds the byte offset, unless a deeper caller knew it better.
    pub(super) fn at(mut self, byte: u64) -> Error {
        self.byte.get_or_insert(byte);
        self
    }

    /// Adds the record's name, unless a deeper caller knew it better.
    pub(super) fn in_record(mut self, record: &str) -> Error {
        if self.record.is_empty() {
            self.record = record.to_owned();
        }
        self
    }

    /// Adds the file's name: for callers that wrote through [`super::write()`], which sees no path.
    pub fn in_file(mut self, file: &Path) -> Error {
        if self.file.as_os_str().is_empty() {
            self.file = file.to_owned();
        }
        self
    }
}
