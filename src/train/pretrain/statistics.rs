//! What a step says about itself, as one row of numbers on the device.

use super::numbers::{How, Look, TABLE};
use super::step::Taken;
use crate::config::Precision;
use crate::state::Parameter;
use tch::{Device, Tensor};

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

    /// The numbers of each step, in the table's order, `[columns]` float32 on the device, without waiting for it.
    pub fn row(&self, taken: &Taken, parameters: &[Parameter]) -> Tensor {
        self.stacked(taken, parameters, |how| if let How::EachStep(measure, _) = how { Some(measure) } else { None })
    }

    /// The numbers of a closer look, likewise; of the step just taken, whose gradients are still there.
    pub fn closer(&self, taken: &Taken, parameters: &[Parameter]) -> Tensor {
        self.stacked(taken, parameters, |how| if let How::CloserLook(measure) = how { Some(measure) } else { None })
    }

    fn stacked(&self, taken: &Taken, parameters: &[Parameter], of: fn(How) -> Option<fn(&Look) -> Tensor>) -> Tensor {
        let _guard = tch::no_grad_guard();
        let look = Look {
            contrast: &taken.contrast,
            features: &taken.features,
            parameters,
            scaling: taken.scaling.as_ref().unwrap_or(&self.unscaled),
            precision: self.precision,
        };
        let numbers = TABLE.iter().filter_map(|row| of(row.how));
        let numbers = numbers.map(|measure| measure(&look).to_device(self.unscaled.device()));
        Tensor::stack(&numbers.collect::<Vec<_>>(), 0)
    }
}
