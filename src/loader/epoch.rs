//! The batches of one epoch, in order, whoever makes them.

use super::pieces::{Gathered, Pieces};
use super::placement::Pipeline;
use super::resident::ResidentBatches;
use super::{Batch, Loader, Rendering};
use crate::augment::upload;
use anyhow::Result;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Where batches come from.
enum Source {
    Pieces(Pieces),
    Resident(ResidentBatches),
    /// Nothing makes them; the error is the first batch.
    Refused(Option<anyhow::Error>),
}

/// The batches of one epoch, in order. Dropping it ends its workers.
pub struct Epoch {
    loader: Loader,
    source: Source,
    /// Batches yet to come, a staged one among them.
    left: usize,
    /// The next batch, when its pieces were there before it was asked for: on its way to the device already.
    staged: Option<Result<Batch>>,
    /// Whether batches are staged: not on the CPU, where there is no way to go.
    stages: bool,
    waited: Duration,
    failed: bool,
}

impl Epoch {
    pub(super) fn start(loader: &Loader, epoch: u64, first_batch: usize) -> Epoch {
        let source = match &loader.pipeline {
            Pipeline::Workers(_) | Pipeline::Colors(_) => Pieces::start(loader, epoch, first_batch).map(Source::Pieces),
            Pipeline::Resident(renderer, resident) => {
                ResidentBatches::start(loader, renderer, resident, epoch, first_batch).map(Source::Resident)
            }
        };
        Epoch {
            stages: loader.pipeline.device() != Device::Cpu,
            left: loader.own_batches().saturating_sub(first_batch),
            loader: loader.clone(),
            source: source.unwrap_or_else(|error| Source::Refused(Some(error))),
            staged: None,
            waited: Duration::ZERO,
            failed: false,
        }
    }

    /// Time spent waiting for batches so far.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The next batch, waited for.
    fn make(&mut self) -> Result<Option<Batch>> {
        let start = Instant::now();
        match &mut self.source {
            Source::Resident(batches) => {
                // Rendering is the trainer's wait too, as far as it is the CPU's work.
                let made = batches.next(self.left > 0)?.map(|(images, samples)| self.batch(images, samples));
                self.waited += start.elapsed();
                Ok(made)
            }
            Source::Pieces(pieces) => {
                let gathered = pieces.next()?;
                self.waited += start.elapsed();
                Ok(gathered.map(|gathered| self.finish(gathered)))
            }
            Source::Refused(error) => error.take().map_or(Ok(None), Err),
        }
    }

    /// Sends a batch to the device, and colours it there if that is for the device to do.
    fn finish(&self, Gathered { images, drawn, samples }: Gathered) -> Batch {
        let images = upload(&images, self.loader.pipeline.device());
        let images = match &self.loader.pipeline {
            Pipeline::Colors(renderer) => renderer.colors(&images, &renderer.planner().colors(&drawn)),
            Pipeline::Workers(_) | Pipeline::Resident(..) => images,
        };
        self.batch(images, samples)
    }

    fn batch(&self, images: Tensor, samples: Vec<usize>) -> Batch {
        let of =
            |labels: &Vec<i64>| Tensor::from_slice(&samples.iter().map(|&sample| labels[sample]).collect::<Vec<i64>>());
        let labels = self.loader.split.labels.as_ref().map(of);
        let device = match &*self.loader.rendering {
            Rendering::Single(_) => self.loader.pipeline.device(),
            // No step reads the labels of views.
            Rendering::Views { .. } => Device::Cpu,
        };
        Batch { images, samples, labels: labels.map(|labels| upload(&labels, device)) }
    }

    /// Begins the next batch's way to the device if it is there: its copy is then before this step's work in the device's
    /// queue, and the host's part of it while the device works.
    fn stage(&mut self) {
        let Source::Pieces(pieces) = &self.source else { return };
        if self.stages && self.left > 0 && pieces.is_ready() {
            self.staged = self.make().transpose();
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.staged.take().or_else(|| self.make().transpose());
        self.failed = matches!(item, Some(Err(_)));
        self.left = self.left.saturating_sub(1);
        if !self.failed {
            self.stage();
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Augmentation, DataOnDevice, DatasetName};
    use crate::data::{Packed, Split};
    use crate::loader::{Order, Rendering};
    use std::sync::Arc;

    fn bytes(batch: Result<Batch>) -> (Vec<usize>, Vec<u8>) {
        let batch = batch.expect("a batch");
        (batch.samples, Vec::try_from(batch.images.contiguous().view(-1)).expect("bytes"))
    }

    /// As on a GPU: the next batch is begun before it is asked for.
    #[test]
    fn staged_batches_are_the_same_ones() {
        let pixels = (0..45 * 10 * 10 * 3).map(|place| (place * 37 % 251) as u8).collect();
        let split = Arc::new(Split::unlabelled(Packed::new(pixels, 10, 10), "made up".into()));
        let rendering = Rendering::Views { recipe: Augmentation::paper(DatasetName::Cifar10, 8, false), size_px: 8 };
        let loader = Loader::new(split, rendering, Order::Shuffled, 8, 1, 2).expect("a loader");
        let plain: Vec<_> = loader.epoch(0, 1).map(bytes).collect();
        assert_eq!(plain.len(), 4);
        let colored = loader.clone().on_device(Device::Cpu, DataOnDevice::No).expect("it streams");
        for loader in [loader, colored] {
            let mut epoch = loader.epoch(0, 1);
            epoch.stages = true;
            let (mut staged, mut was_staged) = (Vec::new(), 0);
            while let Some(batch) = epoch.next() {
                staged.push(bytes(batch));
                // Long enough for two threads to have made the next one.
                std::thread::sleep(Duration::from_millis(30));
                epoch.stage_again();
                was_staged += usize::from(epoch.staged.is_some());
            }
            assert!(staged == plain);
            assert!(was_staged > 0, "nothing was staged");
            assert!(epoch.next().is_none());
        }
    }

    impl Epoch {
        fn stage_again(&mut self) {
            if self.staged.is_none() {
                self.stage();
            }
        }
    }
}
