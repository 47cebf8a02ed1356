//! Batches from worker threads: tasks go out, pieces come back and are put together.

use super::placement::Making;
use super::worker::{Piece, Rendered, Task, Worker};
use super::{Loader, PREFETCH, Share};
use crate::augment::ViewParameters;
use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Samples per task, at most.
const TASK_SAMPLES: usize = 16;

/// A batch whose pieces are arriving.
struct Pending {
    batch: usize,
    pieces: Vec<Option<Rendered>>,
    missing: usize,
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
    order: Arc<Vec<usize>>,
    size_px: usize,
    views: usize,
    batch_size: usize,
    batches: usize,
    share: Share,
    next_to_ask: usize,
    waiting: VecDeque<Pending>,
    tasks: Sender<Task>,
    pieces: Receiver<Piece>,
}

impl Pieces {
    /// Starts the workers on the batches of `epoch` from `first_batch` on.
    pub fn start(loader: &Loader, epoch: u64, first_batch: usize) -> Pieces {
        let order = Arc::new(loader.order(epoch));
        let (task_sender, task_receiver) = unbounded();
        let (piece_sender, piece_receiver) = unbounded();
        let worker = Worker {
            split: Arc::clone(&loader.split),
            rendering: Arc::clone(&loader.rendering),
            colors: !matches!(loader.making, Making::Colors(_)),
            order: Arc::clone(&order),
            seed: loader.seed,
            epoch,
        };
        for number in 0..loader.workers {
            let (worker, tasks, pieces) = (worker.clone(), task_receiver.clone(), piece_sender.clone());
            std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run(&tasks, &pieces))
                .expect("the system grants a thread");
        }
        let mut pieces = Pieces {
            order,
            size_px: loader.rendering.size_px(),
            views: loader.rendering.views(),
            batch_size: loader.batch_size,
            batches: loader.share.batches(loader.batches()),
            share: loader.share,
            next_to_ask: first_batch,
            waiting: VecDeque::new(),
            tasks: task_sender,
            pieces: piece_receiver,
        };
        for _ in 0..PREFETCH {
            pieces.ask();
        }
        pieces
    }

    /// Where this process's part of a batch lies in the epoch's order.
    fn range(&self, batch: usize) -> Range<usize> {
        self.share.of(batch, self.batch_size, self.order.len())
    }

    /// Puts the tasks of the next batch into the queue.
    fn ask(&mut self) {
        if self.next_to_ask >= self.batches {
            return;
        }
        let batch = self.next_to_ask;
        self.next_to_ask += 1;
        let range = self.range(batch);
        let mut parts = 0;
        for first in range.clone().step_by(TASK_SAMPLES) {
            let last = (first + TASK_SAMPLES).min(range.end);
            // A receiver is gone only when every worker died; `next` then reports it.
            let _ = self.tasks.send(Task { batch, part: parts, first, last });
            parts += 1;
        }
        self.waiting.push_back(Pending { batch, pieces: (0..parts).map(|_| None).collect(), missing: parts });
    }

    /// Takes in one piece.
    fn accept(&mut self, piece: Piece) -> Result<()> {
        let pending =
            self.waiting.iter_mut().find(|p| p.batch == piece.batch).expect("only asked-for batches are rendered");
        pending.pieces[piece.part] = Some(piece.rendered?);
        pending.missing -= 1;
        Ok(())
    }

    /// Whether the next batch is there, or would not come: nothing is waited for.
    pub fn is_ready(&mut self) -> Result<bool> {
        while let Ok(piece) = self.pieces.try_recv() {
            self.accept(piece)?;
        }
        Ok(self.waiting.front().is_none_or(|pending| pending.missing == 0))
    }

    /// The next batch, waited for; `None` after the last one.
    pub fn next(&mut self) -> Result<Option<Gathered>> {
        while self.waiting.front().is_some_and(|pending| pending.missing > 0) {
            let piece = self.pieces.recv().map_err(|_| anyhow!("the loader's threads have died"))?;
            self.accept(piece)?;
        }
        let Some(done) = self.waiting.pop_front() else { return Ok(None) };
        self.ask();
        let pieces: Vec<Rendered> = done.pieces.into_iter().flatten().collect();
        let view_major: Vec<&Tensor> =
            (0..self.views).flat_map(|view| pieces.iter().map(move |piece| &piece.images[view])).collect();
        let images = if view_major.is_empty() {
            let size = self.size_px as i64;
            Tensor::zeros([0, size, size, 3], (Kind::Uint8, Device::Cpu))
        } else {
            Tensor::cat(&view_major, 0)
        };
        let drawn = (0..self.views).flat_map(|view| pieces.iter().flat_map(move |piece| &piece.drawn[view])).copied();
        Ok(Some(Gathered { images, drawn: drawn.collect(), samples: self.order[self.range(done.batch)].to_vec() }))
    }
}
