//! A sign of life: every rank counts in the store, once a second, from a thread
//! with a connection of its own. Who no longer counts has gone, whatever the
//! reason: that names the rank when a collective fails.
//!
//! The thread also hears what another rank has found out. A rank that waits for
//! rank 0 alone learns of a third one's end only as rank 0 leaves, and the store
//! with it.

use super::engine::Store;
use anyhow::Result;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two signs of life.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Keys of the store.
pub struct Keys {
    /// Where this rank counts.
    pub count: String,
    /// Where a rank writes whose fault it was.
    pub verdict: String,
    /// Where this rank says that it needs the store no longer.
    pub surveyed: String,
}

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    verdict: Arc<OnceLock<String>>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    pub fn start(store: Store, keys: Keys) -> Result<Pulse> {
        let (end, ended) = bounded::<()>(0);
        let verdict = Arc::new(OnceLock::new());
        let heard = Arc::clone(&verdict);
        store.add(&keys.count, 1)?;
        let beat = move || -> Result<()> {
            store.add(&keys.count, 1)?;
            if heard.get().is_none() && store.has(&keys.verdict)? {
                let said = store.get(&keys.verdict, INTERVAL)?;
                // A store that goes in between may answer with nothing.
                if !said.is_empty() {
                    let _ = heard.set(String::from_utf8_lossy(&said).into_owned());
                    store.set(&keys.surveyed, b"")?;
                }
            }
            Ok(())
        };
        let count = move || {
            while matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
                if beat().is_err() {
                    // The store has gone. The next collective says so to somebody who can act on it.
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pulse".to_owned()).spawn(count)?;
        Ok(Pulse { verdict, end: Some(end), thread: Some(thread) })
    }

    /// Whose fault it was, in another rank's words.
    pub fn verdict(&self) -> Option<&str> {
        self.verdict.get().map(String::as_str)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
