//! Work on a GPU that is recorded once and replayed (`graph.cpp`).

use super::{Part, part};
use crate::native::{NativeError, caught, outcome};
use anyhow::{Result, anyhow};
use std::ffi::{c_char, c_int, c_void};

type Own = unsafe extern "C" fn(c_int) -> *mut c_char;
type Begin = unsafe extern "C" fn(*mut *mut c_void) -> *mut c_char;
type Use = unsafe extern "C" fn(*mut c_void) -> *mut c_char;
type Free = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_char;

/// From now on the calling thread's work on the GPU, and the backward passes that it starts, go to a stream of their own.
/// To be called before the thread's first tensor there.
///
/// Errors: there is no CUDA part; the device's words.
pub fn own_stream(device: usize) -> Result<()> {
    // SAFETY: the type is that of graph.cpp.
    let own = unsafe { opened()?.function::<Own>(c"flatnce_cuda_own_stream")? };
    // SAFETY: it takes a number.
    Ok(outcome(unsafe { own(c_int::try_from(device)?) })?)
}

/// Recorded work. Its tensors keep their memory for as long as it lives.
#[derive(Debug)]
pub struct Graph {
    raw: *mut c_void,
    replay: Use,
    free: Free,
    recording: bool,
}

impl Graph {
    /// Records what `work` tells the device; none of it is done before a replay. On a stream of the thread's own
    /// ([`own_stream`]) only; `work` may not wait for the device, nor read from it.
    ///
    /// Errors: there is no CUDA part; the device refuses something of it. Nothing is recorded then, and the device can
    /// be used on.
    pub fn record<T>(work: impl FnOnce() -> T) -> Result<(Graph, T)> {
        let part = opened()?;
        // SAFETY: the types are those of graph.cpp.
        let (begin, end, replay, free) = unsafe {
            (
                part.function::<Begin>(c"flatnce_cuda_graph_begin")?,
                part.function::<Use>(c"flatnce_cuda_graph_end")?,
                part.function::<Use>(c"flatnce_cuda_graph_replay")?,
                part.function::<Free>(c"flatnce_cuda_graph_free")?,
            )
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` outlives the call, which makes it a graph or fails.
        outcome(unsafe { begin(&raw mut raw) })?;
        let mut graph = Graph { raw, replay, free, recording: true };
        // On failure the graph ends its recording as it is dropped.
        let output = caught(work)?;
        // SAFETY: a graph that is being recorded; whether this succeeds or not, it is not any more.
        let ended = outcome(unsafe { end(graph.raw) });
        graph.recording = false;
        ended?;
        Ok((graph, output))
    }

    /// Does what was recorded, after everything that the stream was told before. Waits for nothing.
    ///
    /// Errors: the device's words.
    pub fn replay(&self) -> Result<(), NativeError> {
        // SAFETY: a graph whose recording has ended well.
        outcome(unsafe { (self.replay)(self.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `record`, freed here alone. What it has to say concerns nobody any more.
        let _ = outcome(unsafe { (self.free)(self.raw, c_int::from(self.recording)) });
    }
}

fn opened() -> Result<&'static Part> {
    part().map_err(|reason| anyhow!("{reason}"))
}
