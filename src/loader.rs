//! Where a data set meets an augmentation: ordered batches, prefetched by
//! worker threads.
//!
//! A batch is cut into small tasks that the workers share, so that the first
//! batch is there soon and no worker idles at its end. Every view is drawn from
//! a stream keyed by (seed, epoch, sample, view): which thread renders it, and
//! how many there are, changes nothing. At most [`PREFETCH`] batches exist at
//! once.

use crate::augment::{EvalTransform, Renderer, draw};
use crate::config::Augmentation;
use crate::data::Split;
use crate::pixels::RgbImage;
use crate::rng::{Purpose, Stream};
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Batches being made or waiting, at most, besides the one in use.
pub const PREFETCH: usize = 3;

/// Samples per task, at most.
const TASK_SAMPLES: usize = 16;

/// What becomes of an image.
#[derive(Clone, Debug)]
pub enum Rendering {
    /// Two random views for contrastive training.
    Views { recipe: Augmentation, size_px: usize },
    /// One image for a classifier.
    Single(EvalTransform),
}

impl Rendering {
    fn size_px(&self) -> usize {
        match self {
            Rendering::Views { size_px, .. } => *size_px,
            Rendering::Single(transform) => transform.size_px(),
        }
    }

    fn views(&self) -> usize {
        match self {
            Rendering::Views { .. } => 2,
            Rendering::Single(_) => 1,
        }
    }
}

/// In which order an epoch visits the samples, and what happens to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A new permutation every epoch; a last batch that is not full is left out.
    Shuffled,
    /// A new permutation every epoch; the last batch may be smaller.
    ShuffledWhole,
    /// As stored; the last batch may be smaller.
    Sequential,
}

/// Which part of the work is this process's, of `ranks` that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Whole,
    /// Of every batch an equal run of rows: rank r has rows r B/W .. (r + 1) B/W. B is a multiple of W.
    Rows {
        rank: usize,
        ranks: usize,
    },
    /// Every W-th batch, from the r-th on.
    Batches {
        rank: usize,
        ranks: usize,
    },
}

/// A batch of B samples.
#[derive(Debug)]
pub struct Batch {
    /// u8 `[V * B, S, S, 3]`, view-major: first views, then second views in the same order.
    pub images: Tensor,
    /// Index of each sample in its split, `[B]`.
    pub samples: Vec<usize>,
    /// i64 `[B]`, when the split has labels.
    pub labels: Option<Tensor>,
}

/// Makes the batches of every epoch of a run.
#[derive(Clone, Debug)]
pub struct Loader {
    split: Arc<Split>,
    rendering: Arc<Rendering>,
    order: Order,
    batch_size: usize,
    seed: u64,
    workers: usize,
    share: Share,
}

impl Loader {
    /// Errors: no whole batch is in the split although only whole ones are asked for.
    pub fn new(
        split: Arc<Split>,
        rendering: Rendering,
        order: Order,
        batch_size: usize,
        seed: u64,
        workers: usize,
    ) -> Result<Loader> {
        let loader = Loader {
            split,
            rendering: Arc::new(rendering),
            order,
            batch_size: batch_size.max(1),
            seed,
            workers: workers.max(1),
            share: Share::Whole,
        };
        if loader.batches() == 0 {
            bail!(
                "{} has {} images, fewer than one batch of {batch_size}; choose a smaller --batch-size",
                loader.split.name,
                loader.split.len()
            );
        }
        Ok(loader)
    }

    /// The same loader for one of several processes: order and draws are those of one process, a part of the work
    /// is done.
    pub fn shared(self, share: Share) -> Loader {
        Loader { share, ..self }
    }

    /// Batches in an epoch, of all processes together.
    pub fn batches(&self) -> usize {
        match self.order {
            Order::Shuffled => self.split.len() / self.batch_size,
            Order::ShuffledWhole | Order::Sequential => self.split.len().div_ceil(self.batch_size),
        }
    }

    /// Batches in an epoch that this process sees a part of.
    fn own_batches(&self) -> usize {
        match self.share {
            Share::Whole | Share::Rows { .. } => self.batches(),
            Share::Batches { rank, ranks } => (self.batches() + ranks - 1 - rank) / ranks,
        }
    }

    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The samples of an epoch in their order.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.split.len()).collect();
        if self.order != Order::Sequential {
            Stream::new(self.seed, Purpose::Shuffle, epoch, 0, 0).shuffle(&mut order);
        }
        order
    }

    /// The batches of an epoch from `first_batch` on.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch {
        let order = Arc::new(self.order(epoch));
        let (task_sender, task_receiver) = unbounded();
        let (piece_sender, piece_receiver) = unbounded();
        for number in 0..self.workers {
            let worker = Worker {
                split: Arc::clone(&self.split),
                rendering: Arc::clone(&self.rendering),
                order: Arc::clone(&order),
                seed: self.seed,
                epoch,
            };
            let (tasks, pieces) = (task_receiver.clone(), piece_sender.clone());
            std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run(&tasks, &pieces))
                .expect("the system grants a thread");
        }
        let mut epoch = Epoch {
            order,
            split: Arc::clone(&self.split),
            batch_size: self.batch_size,
            batches: self.own_batches(),
            share: self.share,
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
}

/// Samples `first..last` of the epoch's order: part `part` of batch `batch`.
struct Task {
    batch: usize,
    part: usize,
    first: usize,
    last: usize,
}

/// The rendered samples of a task: one tensor `[n, S, S, 3]` per view.
struct Piece {
    batch: usize,
    part: usize,
    views: Result<Vec<Tensor>>,
}

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
    /// Time spent waiting for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    fn range(&self, batch: usize) -> std::ops::Range<usize> {
        let whole = |batch: usize| batch * self.batch_size..((batch + 1) * self.batch_size).min(self.order.len());
        match self.share {
            Share::Whole => whole(batch),
            Share::Rows { rank, ranks } => {
                let rows = self.batch_size / ranks;
                let first = batch * self.batch_size + rank * rows;
                first..first + rows
            }
            Share::Batches { rank, ranks } => whole(batch * ranks + rank),
        }
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
        let view_major: Vec<&Tensor> =
            (0..pieces[0].len()).flat_map(|view| pieces.iter().map(move |piece| &piece[view])).collect();
        let samples = self.order[self.range(done.batch)].to_vec();
        let labels = self
            .split
            .labels
            .as_ref()
            .map(|labels| Tensor::from_slice(&samples.iter().map(|&sample| labels[sample]).collect::<Vec<i64>>()));
        Ok(Some(Batch { images: Tensor::cat(&view_major, 0), samples, labels }))
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

/// One thread's share of the work.
struct Worker {
    split: Arc<Split>,
    rendering: Arc<Rendering>,
    order: Arc<Vec<usize>>,
    seed: u64,
    epoch: u64,
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>, pieces: &Sender<Piece>) {
        let mut renderer = Renderer::new();
        let mut scratch = RgbImage::default();
        for Task { batch, part, first, last } in tasks {
            // A panic here would leave the trainer waiting for this piece for ever.
            let attempt = AssertUnwindSafe(|| self.render(&mut renderer, &mut scratch, &self.order[first..last]));
            let views = catch_unwind(attempt).unwrap_or_else(|_| Err(anyhow!("a loader thread panicked (see above)")));
            if pieces.send(Piece { batch, part, views }).is_err() {
                return;
            }
        }
    }

    fn render(&self, renderer: &mut Renderer, scratch: &mut RgbImage, samples: &[usize]) -> Result<Vec<Tensor>> {
        let size = self.rendering.size_px();
        let stride = size * size * 3;
        let mut buffers = vec![vec![0u8; samples.len() * stride]; self.rendering.views()];
        for (i, &sample) in samples.iter().enumerate() {
            let image = self.split.image(sample, scratch)?;
            for (view, buffer) in buffers.iter_mut().enumerate() {
                let out = &mut buffer[i * stride..(i + 1) * stride];
                let stream = |purpose| Stream::new(self.seed, purpose, self.epoch, sample as u64, view as u32);
                match &*self.rendering {
                    Rendering::Views { recipe, size_px } => {
                        let parameters = draw(recipe, &mut stream(Purpose::View), image.width, image.height);
                        renderer.view(image, &parameters, recipe.blur_kernel_px, *size_px, out);
                    }
                    Rendering::Single(transform) => {
                        transform.apply(renderer, image, &mut stream(Purpose::Evaluation), out);
                    }
                }
            }
        }
        let shape = [samples.len() as i64, size as i64, size as i64, 3];
        buffers
            .iter()
            .map(|bytes| Tensor::f_from_data_size(bytes, &shape, tch::Kind::Uint8).context("no memory for a batch"))
            .collect()
    }
}
