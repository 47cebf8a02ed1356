//! How much memory and nesting a file may ask for, whatever it claims.

use super::error::Error;

/// Memory that any file may cost, however small it is.
const FREE_BYTES: u64 = 1 << 20;
/// Bytes of values that one byte of pickle may become: a two-byte small integer costs about 80.
const PICKLE_GROWTH: u64 = 64;

/// Bounds on what a file may ask for. The default reads any checkpoint met in practice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of lists, tuples, dictionaries and objects.
    pub depth: usize,
    /// Objects that a pickle may remember for later use.
    pub memo_entries: usize,
    /// Length of the pickled structure, in bytes; tensors are stored outside it.
    pub pickle_bytes: u64,
    /// Length of the file. A file with holes claims more than it has.
    pub file_bytes: u64,
    /// Inflated records plus tensors copied to make them contiguous, as a multiple of the file size.
    pub growth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth: 64, memo_entries: 4 << 20, pickle_bytes: 64 << 20, file_bytes: 4 << 30, growth: 16 }
    }
}

/// The bytes that may still be allocated for one file.
pub(super) struct Budget {
    total: u64,
    left: u64,
}

impl Budget {
    pub(super) fn new(limits: &Limits, file_bytes: u64) -> Budget {
        let total = file_bytes.saturating_mul(limits.growth).min(limits.file_bytes).saturating_add(FREE_BYTES);
        Budget { total, left: total }
    }

    /// Exactly `bytes`, which the caller has found acceptable.
    pub(super) fn of(bytes: u64) -> Budget {
        Budget { total: bytes, left: bytes }
    }

    /// A pickle of `bytes` bytes brings its own allowance for the values that it becomes.
    pub(super) fn allow_pickle(&mut self, bytes: u64) {
        let extra = bytes.saturating_mul(PICKLE_GROWTH);
        self.total = self.total.saturating_add(extra);
        self.left = self.left.saturating_add(extra);
    }

    /// Takes `bytes` before they are allocated.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Error> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::limit(
                format!("its contents need {} bytes or more", (self.total - self.left).saturating_add(bytes)),
                self.total,
                "Save contiguous copies of expanded tensors (`tensor.clone()`) and do not compress the archive",
            )),
        }
    }
}
