//! The batches of one epoch, in order: tasks go out to the workers, pieces come back and are put together.

use super::worker::{Piece, Task, Worker};
use super::{Batch, Loader, PREFETCH, Share};
use crate::data::Split;
use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Samples per task, at most.
const TASK_SAMPLES: usize = 16;

/// A batch whose pieces are arriving.
struct Pending {
    batch: usize,
    pieces: Vec<Option<Vec<Tensor>>>,
    missing: usize,
}

/// The batches of one epoch, in order. Dropping it ends its workers.
pub struct Epoch {
    order: Arc<Vec<usize>>,
    split: Arc<Split>,
    size_px: usize,
    batch_size: usize,
    batches: usize,
    share: Share,
    next_to_ask: usize,
    waiting: VecDeque<Pending>,
    tasks: Sender<Task>,
    pieces: Receiver<Piece>,
    waited: Duration,
    failed: bool,
}

impl Epoch {
    /// Starts the workers on the batches of `epoch` from `first_batch` on.
    pub(super) fn start(loader: &Loader, epoch: u64, first_batch: usize) -> Epoch {
        let order = Arc::new(loader.order(epoch));
        let (task_sender, task_receiver) = unbounded();
        let (piece_sender, piece_receiver) = unbounded();
        let worker = Worker {
            split: Arc::clone(&loader.split),
            rendering: Arc::clone(&loader.rendering),
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
        let mut epoch = Epoch {
            order,
            split: Arc::clone(&loader.split),
            size_px: loader.rendering.size_px(),
            batch_size: loader.batch_size,
            batches: loader.batches(),
            share: loader.share,
            next_to_ask: first_batch,
            waiting: VecDeque::new(),
            tasks: task_sender,
            pieces: piece_receiver,
            waited: Duration::ZERO,
            failed: false,
        };
        for _ in 0..PREFETCH {
            epoch.ask();
        }
        epoch
    }

    /// Time spent waiting for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Where this process's part of a batch lies in the epoch's order.
    fn range(&self, batch: usize) -> Range<usize> {
        self.share.of(batch * self.batch_size..((batch + 1) * self.batch_size).min(self.order.len()))
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

    fn receive(&mut self) -> Result<()> {
        let piece = self.pieces.recv().map_err(|_| anyhow!("the loader's threads have died"))?;
        let pending =
            self.waiting.iter_mut().find(|p| p.batch == piece.batch).expect("only asked-for batches are rendered");
        pending.pieces[piece.part] = Some(piece.views?);
        pending.missing -= 1;
        Ok(())
    }

    fn assemble(&mut self) -> Result<Option<Batch>> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        let start = Instant::now();
        while self.waiting[0].missing > 0 {
            self.receive()?;
        }
        self.waited += start.elapsed();
        let done = self.waiting.pop_front().expect("checked above");
        self.ask();
        let pieces: Vec<Vec<Tensor>> = done.pieces.into_iter().flatten().collect();
        let views = pieces.first().map_or(0, Vec::len);
        let view_major: Vec<&Tensor> =
            (0..views).flat_map(|view| pieces.iter().map(move |piece| &piece[view])).collect();
        let images = if view_major.is_empty() {
            let size = self.size_px as i64;
            Tensor::zeros([0, size, size, 3], (Kind::Uint8, Device::Cpu))
        } else {
            Tensor::cat(&view_major, 0)
        };
        let samples = self.order[self.range(done.batch)].to_vec();
        let labels = self
            .split
            .labels
            .as_ref()
            .map(|labels| Tensor::from_slice(&samples.iter().map(|&sample| labels[sample]).collect::<Vec<i64>>()));
        Ok(Some(Batch { images, samples, labels }))
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.assemble().transpose();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}
