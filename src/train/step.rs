//! One training step: forward, contrast, backward, optimiser. The one place for
//! whatever changes how gradients come about; the loop around it knows batches
//! and epochs, this knows neither.

use super::tally::StepFeatures;
use crate::config::Objective;
use crate::loss::{self, Contrast};
use crate::model::{Encoder, Pass};
use crate::optim::{self, Optimizer};
use crate::state::Parameter;
use tch::Tensor;

/// What a step works on, and how.
pub struct Step<'a> {
    pub encoder: &'a Encoder,
    /// The encoder's own.
    pub parameters: &'a [Parameter],
    pub optimizer: &'a mut dyn Optimizer,
    pub objective: Objective,
    pub temperature: f64,
    pub pass: Pass,
}

/// What a step leaves behind, on the device.
pub struct Taken {
    pub contrast: Contrast,
    pub features: StepFeatures,
}

impl Step<'_> {
    /// Takes the step on a batch of views, u8 `[2B, S, S, 3]`, view-major, with learning rate `lr`. Nothing here waits
    /// for the device.
    pub fn take(mut self, images: &Tensor, lr: f64) -> Taken {
        optim::zero_gradients(self.parameters);
        let taken = self.differentiate(images);
        self.update(lr);
        taken
    }

    /// Adds the gradients of the batch to the parameters'.
    fn differentiate(&self, images: &Tensor) -> Taken {
        let images = self.encoder.prepare(images); // [2B, 3, S, S]
        let features = self.encoder.forward(&images, self.pass);
        let unit = loss::normalise(&features.projected); // [2B, P]
        let contrast = self.compare(&unit);
        loss::backward(&unit, &contrast.gradient);
        Taken { contrast, features: StepFeatures { hidden: features.hidden.detach(), unit: unit.detach() } }
    }

    /// The contrast of unit-length features `[2B, P]`.
    fn compare(&self, unit: &Tensor) -> Contrast {
        loss::contrast(unit, self.temperature, self.objective)
    }

    /// From gradients to parameters.
    fn update(&mut self, lr: f64) {
        self.optimizer.step(lr);
    }
}
