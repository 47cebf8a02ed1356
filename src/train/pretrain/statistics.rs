//! What a step says about itself, as one row of numbers on the device.

use super::numbers::{How, Look, TABLE};
use super::step::{StepFeatures, StepOutput};
use crate::config::Precision;
use crate::loss::Contrast;
use crate::state::Parameter;
use tch::{Device, Tensor};

/// How a number is made of a step, `[]` on the device.
type Measure = fn(&Look) -> Tensor;

/// Makes a step's row of statistics: part of the step, so that a recorded one makes it too.
#[derive(Debug)]
pub struct Statistics {
    precision: Precision,
    /// What a step says of loss scaling without any, `[2]`: no overflow, no scale.
    unscaled: Tensor,
}

impl Statistics {
    pub fn new(precision: Precision, device: Device) -> Statistics {
        Statistics { precision, unscaled: Tensor::from_slice(&[0.0, f32::NAN]).to_device(device) }
    }

    /// What a step leaves, with the numbers of each step in the table's order. Waits for nothing.
    ///
    /// `hidden` `[2B, D]` and `unit` `[2B, P]` are its features; `scaling` is what [`Update::finish`] gave.
    ///
    /// [`Update::finish`]: crate::optim::Update::finish
    pub fn measure(
        &self,
        contrast: Contrast,
        hidden: Tensor,
        unit: Tensor,
        scaling: Option<Tensor>,
        parameters: &[Parameter],
    ) -> StepOutput {
        let (features, scaling) =
            (StepFeatures { hidden, unit }, scaling.unwrap_or_else(|| self.unscaled.shallow_clone()));
        let of = |how| if let How::EachStep(measure, _) = how { Some(measure) } else { None };
        let row = self.stacked(&contrast, &features, &scaling, parameters, of);
        StepOutput { row, contrast, features, scaling }
    }

    /// The numbers of a closer look at the step just taken, whose gradients are still there, `[columns]` float32.
    pub fn closer_look(&self, step: &StepOutput, parameters: &[Parameter]) -> Tensor {
        let of = |how| if let How::CloserLook(measure) = how { Some(measure) } else { None };
        self.stacked(&step.contrast, &step.features, &step.scaling, parameters, of)
    }

    fn stacked(
        &self,
        contrast: &Contrast,
        features: &StepFeatures,
        scaling: &Tensor,
        parameters: &[Parameter],
        of: fn(How) -> Option<Measure>,
    ) -> Tensor {
        let _guard = tch::no_grad_guard();
        let look = Look { contrast, features, parameters, scaling, precision: self.precision };
        let numbers = TABLE.iter().filter_map(|row| of(row.how));
        let numbers = numbers.map(|measure| measure(&look).to_device(self.unscaled.device()));
        Tensor::stack(&numbers.collect::<Vec<_>>(), 0)
    }
}
