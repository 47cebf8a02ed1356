//! The trunk's features of a whole split, and the proof that making them leaves
//! the trunk as it was.
//!
//! The trunk runs in evaluation mode: BatchNorm uses its running statistics,
//! so an image's feature depends on that image alone. (Upstream leaves BatchNorm
//! in training mode, where the statistics move with every batch.)

use super::ranks::Ranks;
use crate::augment::EvalTransform;
use crate::checkpoint::from_tensor;
use crate::data::Split;
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, HEAD_PREFIX, Pass};
use crate::report::Console;
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Images in one forward pass. Fixed, so that features do not depend on a flag through rounding.
pub const BATCH_IMAGES: usize = 256;

/// A labelled split as the trunk sees it.
#[derive(Debug)]
pub struct Features {
    /// `[N, D]` float32 on the encoder's device, in the split's order.
    pub values: Tensor,
    /// i64 `[N]` on the same device.
    pub labels: Tensor,
}

impl Features {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.values.size()[0] as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// D.
    pub fn width(&self) -> i64 {
        self.values.size()[1]
    }

    /// The images at `rows`, i64 on the same device, in that order.
    pub fn select(&self, rows: &Tensor) -> Features {
        Features { values: self.values.index_select(0, rows), labels: self.labels.index_select(0, rows) }
    }

    /// The same tensors, not copies of them.
    pub fn share(&self) -> Features {
        Features { values: self.values.shallow_clone(), labels: self.labels.shallow_clone() }
    }
}

/// Runs an encoder's trunk over splits.
pub struct Extractor<'a> {
    pub encoder: &'a Encoder,
    /// Arithmetic of the trunk; features come out in float32.
    pub compute: Kind,
    pub seed: u64,
    pub workers: usize,
    pub console: &'a Console,
    /// The processes that share the work; each of them gets all features.
    pub ranks: &'a Ranks,
}

impl Extractor<'_> {
    /// The features of every image. `epoch` keys the draws of a random transform and means nothing to others.
    ///
    /// Errors: an unlabelled or empty split, an image that cannot be read, features that are not finite.
    pub fn extract(&self, split: &Arc<Split>, transform: EvalTransform, epoch: u64) -> Result<Features> {
        self.extract_while(split, transform, epoch, &|| Ok(()))
    }

    /// As [`Extractor::extract`], for as long as `go_on`, which is asked after every batch, has no error.
    ///
    /// Errors: as there, and that of `go_on`.
    pub fn extract_while(
        &self,
        split: &Arc<Split>,
        transform: EvalTransform,
        epoch: u64,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Features> {
        let labels = split.labels.as_ref().with_context(|| {
            format!("{} has no labels: there is nothing to evaluate on; choose a labelled data set", split.name)
        })?;
        let mut parts = Vec::with_capacity(split.len().div_ceil(BATCH_IMAGES));
        self.each_batch(split, transform, epoch, |hidden| {
            parts.push(hidden.shallow_clone());
            go_on()
        })?;
        let values = Tensor::cat(&parts, 0); // [N, D]
        let labels = Tensor::from_slice(labels).to_device(values.device());
        Ok(Features { values, labels })
    }

    /// Hands the features `[B, D]` of one batch after the other to `consume`, in the split's order.
    ///
    /// Errors: those of `consume`; an empty split, an image that cannot be read, features that are not finite.
    pub fn each_batch(
        &self,
        split: &Arc<Split>,
        transform: EvalTransform,
        epoch: u64,
        mut consume: impl FnMut(&Tensor) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let loader = Loader::new(
            Arc::clone(split),
            Rendering::Single(transform),
            Order::Sequential,
            BATCH_IMAGES,
            self.seed,
            self.workers,
        )?
        .with_share(self.ranks.share_of_batches())
        .deliver_to(self.encoder.device());
        let mut bar = self.console.progress(&format!("features of {}", split.name), split.len() as u64, "images");
        let sizes = (0..split.len()).step_by(BATCH_IMAGES).map(|first| BATCH_IMAGES.min(split.len() - first) as i64);
        let sizes: Vec<i64> = sizes.collect();
        let (width, device) = (self.encoder.trunk_width(), self.encoder.device());
        let mut hand_on = |round: Vec<Tensor>| -> Result<()> {
            for hidden in round {
                self.check(&hidden, &split.name)?;
                consume(&hidden)?;
                bar.advance(hidden.size()[0] as u64);
            }
            Ok(())
        };
        let mut batches = loader.epoch(epoch, 0);
        // One round is looked at while the device works on the next: looking waits for it.
        let mut before = Vec::new();
        // Each process makes the features of one batch of a round, and all get those of all. The batches are those of one
        // process, and so are the numbers.
        for round in sizes.chunks(self.ranks.count()) {
            let hidden = |images: &Tensor| self.encoder.hidden(&self.encoder.prepare(images), Pass::eval(self.compute));
            let own = batches.next().transpose()?.map(|batch| hidden(&batch.images));
            let made = self.ranks.gather_round(own.as_ref(), round[0], width, round, device)?;
            hand_on(std::mem::replace(&mut before, made))?;
        }
        hand_on(before)?;
        bar.finish();
        Ok(())
    }

    /// Waits for the device.
    fn check(&self, hidden: &Tensor, images: &str) -> Result<()> {
        if hidden.isfinite().all().int64_value(&[]) == 0 {
            bail!("the encoder's features of {images} are not finite; use --precision fp32 or another checkpoint");
        }
        Ok(())
    }
}

/// CRC-32 over the names, shapes and bytes of every parameter and buffer of the normalisation and the trunk, as 8
/// hexadecimal digits. The head is left out.
pub fn trunk_hash(encoder: &Encoder) -> Result<String> {
    let mut hash = crc32fast::Hasher::new();
    for (name, tensor) in encoder.state_dict().iter().filter(|(name, _)| !name.starts_with(HEAD_PREFIX)) {
        hash.update(format!("{name} {:?}", tensor.size()).as_bytes());
        hash.update(from_tensor(tensor)?.bytes());
    }
    Ok(format!("{:08x}", hash.finalize()))
}
