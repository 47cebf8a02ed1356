//! One training step: forward, contrast, backward, optimiser. The one place for
//! whatever changes how gradients come about; the loop around it knows batches
//! and epochs, this knows neither.

use super::ranks::Ranks;
use super::tally::StepFeatures;
use crate::config::Objective;
use crate::loss::{self, Contrast};
use crate::model::{Encoder, Pass};
use crate::optim::{self, Optimizer};
use crate::state::Parameter;
use anyhow::Result;
use tch::Tensor;

/// What a step works on, and how.
pub struct Step<'a> {
    pub encoder: &'a Encoder,
    /// The encoder's own.
    pub parameters: &'a [Parameter],
    pub optimizer: &'a mut dyn Optimizer,
    pub objective: Objective,
    pub temperature: f64,
    pub pass: Pass<'a>,
    pub ranks: &'a Ranks,
}

/// What a step leaves behind, on the device.
pub struct Taken {
    pub contrast: Contrast,
    pub features: StepFeatures,
}

impl Step<'_> {
    /// Takes the step on a batch of views, u8 `[2B, S, S, 3]`, view-major, with learning rate `lr`; of several ranks,
    /// on this one's rows of the batch. Nothing here waits for the device.
    ///
    /// Errors: another rank has gone; nothing is updated then.
    pub fn take(mut self, images: &Tensor, lr: f64) -> Result<Taken> {
        optim::zero_gradients(self.parameters);
        let taken = self.differentiate(images)?;
        self.ranks.sum_gradients(self.parameters)?;
        self.update(lr);
        Ok(taken)
    }

    /// Adds the gradients of the batch to the parameters'.
    fn differentiate(&self, images: &Tensor) -> Result<Taken> {
        let images = self.encoder.prepare(images); // [2B, 3, S, S]
        let features = self.encoder.forward(&images, self.pass);
        let unit = loss::normalise(&features.projected); // [2B, P]
        let (contrast, all) = self.ranks.contrast(&unit, self.temperature, self.objective)?;
        loss::backward(&unit, &contrast.gradient);
        Ok(Taken { contrast, features: StepFeatures { hidden: features.hidden.detach(), unit: all } })
    }

    /// From gradients to parameters.
    fn update(&mut self, lr: f64) {
        self.optimizer.step(lr);
    }
}
