//! Batches from worker threads: tasks go out, pieces come back and are put together.

use super::placement::Pipeline;
use super::worker::{Rendered, Task, Worker};
use super::{Loader, PREFETCH};
use crate::augment::ViewParameters;
use crate::threads;
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Samples per task, at most.
const TASK_SAMPLES: usize = 16;

/// A batch that the workers are at: its samples in the epoch's order, and where its pieces arrive.
struct Pending {
    range: Range<usize>,
    pieces: Vec<Receiver<Result<Rendered>>>,
}

/// A batch put together, on the CPU.
pub(super) struct Gathered {
    /// u8 `[V * B, S, S, 3]`, view-major.
    pub images: Tensor,
    /// What was drawn for each of them; empty where the images are not views.
    pub drawn: Vec<ViewParameters>,
    pub samples: Vec<usize>,
}

/// What the workers make of an epoch, in order. Dropping it ends them.
pub(super) struct Pieces {
    loader: Loader,
    order: Arc<Vec<usize>>,
    /// Of batches that nobody was asked for yet.
    next: usize,
    waiting: VecDeque<Pending>,
    tasks: Sender<Task>,
}

impl Pieces {
    /// Starts the workers on the batches of `epoch` from `first_batch` on.
    ///
    /// Errors: a thread that the system does not grant.
    pub fn start(loader: &Loader, epoch: u64, first_batch: usize) -> Result<Pieces> {
        let order = Arc::new(loader.order(epoch));
        let (sender, receiver) = unbounded();
        let worker = Worker {
            split: Arc::clone(&loader.split),
            rendering: Arc::clone(&loader.rendering),
            colors: !matches!(loader.pipeline, Pipeline::Colors(_)),
            order: Arc::clone(&order),
            seed: loader.seed,
            epoch,
        };
        for number in 0..loader.workers {
            let (worker, tasks) = (worker.clone(), receiver.clone());
            std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run(&tasks))
                .with_context(|| threads::refused(&format!("loader thread {} of {}", number + 1, loader.workers)))?;
        }
        let waiting = VecDeque::new();
        let mut pieces = Pieces { loader: loader.clone(), order, next: first_batch, waiting, tasks: sender };
        for _ in 0..PREFETCH {
            pieces.ask();
        }
        Ok(pieces)
    }

    /// Puts the tasks of the next batch into the queue.
    fn ask(&mut self) {
        if self.next >= self.loader.own_batches() {
            return;
        }
        let range = self.loader.own_range(self.next);
        self.next += 1;
        let task = |first: usize| {
            let (reply, piece) = bounded(1);
            // A receiver is gone only when every worker died; `next` then reports it.
            let _ = self.tasks.send(Task { samples: first..(first + TASK_SAMPLES).min(range.end), reply });
            piece
        };
        let pieces = range.clone().step_by(TASK_SAMPLES).map(task).collect();
        self.waiting.push_back(Pending { range, pieces });
    }

    /// Whether all of the next batch is there: nothing is waited for.
    pub fn is_ready(&self) -> bool {
        self.waiting.front().is_none_or(|pending| pending.pieces.iter().all(|piece| !piece.is_empty()))
    }

    /// The next batch, waited for; `None` after the last one.
    pub fn next(&mut self) -> Result<Option<Gathered>> {
        let Some(Pending { range, pieces }) = self.waiting.pop_front() else { return Ok(None) };
        let dead = |_| anyhow!("the loader's threads have died");
        let pieces = pieces.iter().map(|piece| piece.recv().map_err(dead)?).collect::<Result<Vec<Rendered>>>()?;
        self.ask();
        let views = 0..self.loader.rendering.views();
        let view_major: Vec<&Tensor> =
            views.clone().flat_map(|view| pieces.iter().map(move |piece| &piece.images[view])).collect();
        let images = if view_major.is_empty() {
            let size = self.loader.rendering.size_px() as i64;
            Tensor::zeros([0, size, size, 3], (Kind::Uint8, Device::Cpu))
        } else {
            Tensor::cat(&view_major, 0)
        };
        let drawn = views.flat_map(|view| pieces.iter().flat_map(move |piece| &piece.drawn[view])).copied();
        Ok(Some(Gathered { images, drawn: drawn.collect(), samples: self.order[range].to_vec() }))
    }
}
