//! A request to stop, which long work looks at between two of its pieces.

use super::ranks::Ranks;
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why work ended before its end, where no fault ended it: an error that whoever can save something catches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopRequested;

impl std::fmt::Display for StopRequested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped on request")
    }
}

impl std::error::Error for StopRequested {}

/// The request, as the ranks that work together see it.
#[derive(Clone, Copy)]
pub struct Stop<'a> {
    pub flag: &'a AtomicBool,
    pub ranks: &'a Ranks,
}

impl Stop<'_> {
    /// Whether any rank was asked to stop. Of several ranks all come here.
    ///
    /// Errors: a rank has gone.
    pub fn requested(self) -> Result<bool> {
        self.ranks.any(self.flag.load(Ordering::Relaxed))
    }

    /// [`Stop::requested`] as an error.
    pub fn check(self) -> Result<()> {
        if self.requested()? { bail!(StopRequested) } else { Ok(()) }
    }
}
