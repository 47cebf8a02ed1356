//! Too little memory: told before the run as far as it can be foreseen, and in
//! one sentence with the next step where it happens.

use crate::config::{Config, Pretrain};
use crate::device;
use crate::model::footprint::{self, StepSize};
use crate::native::NativeError;
use crate::state::Parameter;
use crate::train::facts::Facts;
use crate::train::ranks::Ranks;
use crate::train::shortage::{Memory, gib};
use anyhow::{Error, Result, anyhow, bail};
use tch::Device;

/// What a step needs and what there was before the first.
#[derive(Debug)]
pub struct MemoryCheck {
    /// Images of two views.
    batch: u64,
    /// Parts that it goes through the encoder in.
    parts: u64,
    /// Processes that share the batch, and those of them that share this device's memory.
    processes: u64,
    sharing: u64,
    /// Of one process.
    size: StepSize,
    memory: Memory,
}

impl MemoryCheck {
    /// Looks at the device as it is now: before the model is on it, and again nothing is asked.
    pub fn before(config: &Config, run: &Pretrain, device: Device, ranks: &Ranks) -> MemoryCheck {
        let (batch, parts) = (u64::from(run.batch_size), u64::from(run.grad_cache));
        let processes = u64::from(config.nproc.unwrap_or(1)).max(ranks.count() as u64);
        // A GPU is one process's own.
        let sharing = if device == Device::Cpu { ranks.on_this_machine(processes) } else { 1 };
        let size = StepSize {
            device,
            stem: run.model.stem,
            image_size_px: run.data.image_size_px,
            views: 2 * batch.div_ceil(processes).div_ceil(parts),
            precision: run.precision,
            optimizer: run.optimizer.name,
        };
        let memory = Memory { device, needed: 0, free: device::free_memory(device) };
        MemoryCheck { batch, parts, processes, sharing, size, memory }
    }

    /// Says what is needed and what there is.
    pub fn tell(&self, facts: &mut Facts, parameters: &[Parameter]) {
        let place = Memory::place(self.memory.device);
        facts.memory(footprint::estimate(parameters, self.size), self.memory.free, &place);
    }

    /// What a process needs, by the estimate: `0.9 GiB in main memory`.
    pub fn describe(&self, parameters: &[Parameter]) -> String {
        let total = footprint::estimate(parameters, self.size).total();
        format!("{} {}", gib(total), Memory::place(self.memory.device))
    }

    /// Images of a batch that fits in its parts, as many as the run's at most; `None` where not even 2 images do.
    pub fn fitting(&self, parameters: &[Parameter]) -> Option<u64> {
        match self.memory.free {
            Some(free) if free < self.memory.needed => Some(self.parts * self.largest(parameters, free, true)?),
            _ => Some(self.batch),
        }
    }

    /// Reckons with the model's parameters; the sentence is a warning, if one is due. Of several ranks all come here.
    ///
    /// Errors: the batch cannot fit, and `--memory-check` asks for that to be seen.
    pub fn foresee(&mut self, parameters: &[Parameter], check: bool, ranks: &Ranks) -> Result<Option<String>> {
        self.memory.needed = self.sharing * footprint::estimate(parameters, self.size).needed();
        let foreseen = self.memory.foresee(check, || self.advice(parameters, false));
        // Each has looked for itself, and none may wait for one that has gone.
        if ranks.any(foreseen.is_err())? && foreseen.is_ok() {
            bail!("another rank has too little memory for its part of the batch");
        }
        foreseen
    }

    /// The error of a run that libtorch stopped at `step`, counted from 1.
    pub fn explain(&self, error: NativeError, parameters: &[Parameter], step: u64) -> Error {
        if !error.is_out_of_memory() {
            let text = format!("libtorch failed in step {step}");
            return anyhow!(error).context(text);
        }
        let free = self.memory.free.map_or(String::new(), |free| format!(", {} were free", gib(free)));
        let parts = if self.parts > 1 { format!(" in {} parts", self.parts) } else { String::new() };
        let text = format!(
            "out of memory {} in step {step}: --batch-size {}{parts} in {} needs about {}{free}; {}",
            Memory::place(self.memory.device),
            self.batch,
            self.size.precision,
            gib(self.memory.needed),
            self.advice(parameters, true)
        );
        anyhow!(error).context(text)
    }

    /// What would fit; `short` says that what was asked for does not.
    fn advice(&self, parameters: &[Parameter], short: bool) -> String {
        match self.memory.free.and_then(|free| self.largest(parameters, free, short)) {
            // The parts of a batch belong to one process.
            Some(fits) if self.processes > 1 => format!("--batch-size {} should fit", self.processes * fits),
            Some(fits) => format!(
                "--batch-size {fits} should fit, or gradient accumulation: --grad-cache {} keeps the contrast of {} \
                 images",
                self.batch.div_ceil(fits),
                self.batch
            ),
            None if self.memory.free.is_none() => {
                "try a smaller --batch-size, or gradient accumulation: --grad-cache 2".to_owned()
            }
            None => "no batch size fits: free some memory, or take a smaller --model or --image-size".to_owned(),
        }
    }

    /// Images of a process that go through the encoder at once.
    fn largest(&self, parameters: &[Parameter], free: u64, short: bool) -> Option<u64> {
        footprint::largest_batch(parameters, self.size, free / self.sharing, short)
    }
}
