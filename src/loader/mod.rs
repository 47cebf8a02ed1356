//! Where a data set meets an augmentation: ordered batches, prefetched.
//!
//! Three ways lead to a batch, with the same order and (blur aside) the same
//! pixels: worker threads render its views; they crop and resize, and the device
//! colours; or the device does all of it, from the data set in its memory.
//!
//! A batch is cut into small tasks that the workers share, so that the first
//! batch is there soon and no worker idles at its end. Every view is drawn from
//! a stream keyed by (seed, epoch, sample, view): which thread renders it, and
//! how many there are, changes nothing. At most [`PREFETCH`] batches exist at
//! once.

mod epoch;
mod pieces;
mod placement;
mod resident;
mod share;
mod worker;

pub use epoch::Epoch;
pub use placement::packed;
pub use share::Share;

use crate::augment::EvalTransform;
use crate::config::Augmentation;
use crate::data::{Split, counted};
use crate::rng::{Purpose, Stream};
use anyhow::{Result, bail};
use placement::Pipeline;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Batches being made or waiting, at most, besides the one in use.
pub const PREFETCH: usize = 3;

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

/// A batch of B samples, or a process's share of one.
#[derive(Debug)]
pub struct Batch {
    /// u8 `[V * B, S, S, 3]` where the loader delivers, view-major: first views, then second views in the same order.
    pub images: Tensor,
    /// Index of each sample in its split, `[B]`.
    pub samples: Vec<usize>,
    /// i64 `[B]`, when the split has labels: beside the images, but those of views stay on the CPU.
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
    pipeline: Pipeline,
}

/// The batch to take of so many images, 2 or more, where the one that was asked for is larger than all of them: a power
/// of two, so that several processes can share it, of which an epoch has a few.
fn batch_that_fits(images: usize) -> usize {
    1 << (images / BATCHES_AN_EPOCH).max(2).ilog2()
}

/// Batches that an epoch has at least, where there are images enough.
const BATCHES_AN_EPOCH: usize = 4;

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
            pipeline: Pipeline::Workers(Device::Cpu),
        };
        if loader.batches() == 0 {
            let (name, images) = (&loader.split.name, counted(loader.split.len(), "image"));
            let fits = match loader.split.len() {
                count @ 2.. => {
                    let fits = batch_that_fits(count);
                    format!("--batch-size {fits} makes {} an epoch", counted(count / fits, "batch"))
                }
                _ => "training needs two images at least".to_owned(),
            };
            bail!("{name} has {images}, fewer than one batch of --batch-size {batch_size}: {fits}");
        }
        Ok(loader)
    }

    /// The same loader, making this part of an epoch only.
    pub fn with_share(self, share: Share) -> Loader {
        Loader { share, ..self }
    }

    /// The same loader with batches of another size.
    pub fn in_batches_of(&self, batch_size: usize) -> Loader {
        Loader { batch_size, ..self.clone() }
    }

    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Batches in an epoch, of all processes together.
    pub fn batches(&self) -> usize {
        match self.order {
            Order::Shuffled => self.split.len() / self.batch_size,
            Order::ShuffledWhole | Order::Sequential => self.split.len().div_ceil(self.batch_size),
        }
    }

    /// Batches in an epoch that have something for this process.
    fn own_batches(&self) -> usize {
        self.share.batches(self.batches())
    }

    /// Where this process's `number`-th batch, or its part of it, lies in an epoch's order.
    fn own_range(&self, number: usize) -> Range<usize> {
        self.share.of(number, self.batch_size, self.split.len())
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
        Epoch::start(self, epoch, first_batch)
    }
}
