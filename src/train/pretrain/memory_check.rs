//! Too little memory: told before the run as far as it can be foreseen, and in
//! one sentence with the next step where it happens.

use crate::config::Pretrain;
use crate::device;
use crate::model::footprint::{self, StepSize};
use crate::native::NativeError;
use crate::state::Parameter;
use crate::train::facts::Facts;
use anyhow::{Error, anyhow};
use tch::Device;

/// What a step needs and what there was before the first.
#[derive(Debug)]
pub struct MemoryCheck {
    /// Images of two views.
    batch: u64,
    /// Parts that it goes through the encoder in.
    parts: u64,
    size: StepSize,
    needed: u64,
    /// `None` where the system does not tell.
    free: Option<u64>,
    place: String,
}

impl MemoryCheck {
    /// Looks at the device as it is now: before the model is on it, and again nothing is asked.
    pub fn before(run: &Pretrain, device: Device) -> MemoryCheck {
        let (batch, parts) = (u64::from(run.batch_size), u64::from(run.grad_cache));
        let size = StepSize {
            stem: run.model.stem,
            image_size_px: run.data.image_size_px,
            views: 2 * batch.div_ceil(parts),
            precision: run.precision,
            optimizer: run.optimizer.name,
        };
        let place = if let Device::Cuda(index) = device { format!("on cuda:{index}") } else { "in main memory".into() };
        MemoryCheck { batch, parts, size, needed: 0, free: device::free_memory(device), place }
    }

    /// Says what is needed and what there is.
    pub fn tell(&self, facts: &mut Facts, parameters: &[Parameter]) {
        facts.memory(footprint::estimate(parameters, self.size), self.free, &self.place);
    }

    /// Images of a batch that fits in its parts, as many as the run's at most; `None` where not even 2 images do.
    pub fn fitting(&self, parameters: &[Parameter]) -> Option<u64> {
        match self.free {
            Some(free) if free < self.needed => {
                Some(self.parts * footprint::largest_batch(parameters, self.size, free, true)?)
            }
            _ => Some(self.batch),
        }
    }

    /// Reckons with the model's parameters; the sentence is a warning, if one is due.
    pub fn foresee(&mut self, parameters: &[Parameter]) -> Option<String> {
        self.needed = footprint::estimate(parameters, self.size).needed();
        let free = self.free.filter(|&free| free < self.needed)?;
        Some(format!(
            "a step will need about {}, and {} are free {}: it may run out of memory; {}",
            gib(self.needed),
            gib(free),
            self.place,
            self.advice(parameters, false)
        ))
    }

    /// The error of a run that libtorch stopped at `step`, counted from 1.
    pub fn explain(&self, error: NativeError, parameters: &[Parameter], step: u64) -> Error {
        if !error.is_out_of_memory() {
            let text = format!("libtorch failed in step {step}");
            return anyhow!(error).context(text);
        }
        let free = self.free.map_or(String::new(), |free| format!(", {} were free", gib(free)));
        let parts = if self.parts > 1 { format!(" in {} parts", self.parts) } else { String::new() };
        let text = format!(
            "out of memory {} in step {step}: --batch-size {}{parts} in {} needs about {}{free}; {}",
            self.place,
            self.batch,
            self.size.precision,
            gib(self.needed),
            self.advice(parameters, true)
        );
        anyhow!(error).context(text)
    }

    /// What would fit; `short` says that what was asked for does not.
    fn advice(&self, parameters: &[Parameter], short: bool) -> String {
        let fits = self.free.and_then(|free| footprint::largest_batch(parameters, self.size, free, short));
        match fits {
            Some(fits) => format!(
                "--batch-size {fits} should fit, or --grad-cache {} with the contrast of {} images",
                self.batch.div_ceil(fits),
                self.batch
            ),
            None if self.free.is_none() => "try a smaller --batch-size, or --grad-cache 2".to_owned(),
            None => "no batch size fits: free some memory, or take a smaller --model or --image-size".to_owned(),
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}
