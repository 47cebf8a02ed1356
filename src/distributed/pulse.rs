//! A sign of life: every rank counts in the store, once a second, from a thread
//! with a connection of its own. Who no longer counts has gone, whatever the
//! reason: that names the rank when a collective fails.

use super::engine::Store;
use anyhow::Result;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two signs of life.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Counts until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pulse {
    pub fn start(store: Store, key: String) -> Result<Pulse> {
        let (end, ended) = bounded::<()>(0);
        store.add(&key, 1)?;
        let count = move || {
            while matches!(ended.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
                if store.add(&key, 1).is_err() {
                    // The store has gone. The next collective says so to somebody who can act on it.
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("pulse".to_owned()).spawn(count)?;
        Ok(Pulse { end: Some(end), thread: Some(thread) })
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
