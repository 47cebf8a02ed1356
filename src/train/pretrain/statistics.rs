//! What a step says about itself, as one row of numbers on the device.

use crate::config::Precision;
use crate::loss::Contrast;
use tch::{Device, Kind, Tensor};

/// Statistics of one step as columns of a row, in this order.
pub const LOSS: usize = 0;
pub const TOP1: usize = 1;
pub const TOP5: usize = 2;
pub const NESS: usize = 3;
pub const POSITIVE: usize = 4;
pub const NEGATIVE: usize = 5;
pub const VANISHED: usize = 6;
pub const OVERFLOW: usize = 7;
pub const LOSS_SCALE: usize = 8;
pub const COLUMNS: usize = 9;

/// Makes a step's row of statistics: part of the step, so that a recorded one makes it too.
#[derive(Debug)]
pub struct Statistics {
    /// The log of the largest xi that is lost beside 1 in the run's precision.
    vanishing_log_xi: f64,
    /// What stands in a row without loss scaling, `[2]`.
    unscaled: Tensor,
}

impl Statistics {
    pub fn new(precision: Precision, device: Device) -> Statistics {
        Statistics { vanishing_log_xi: vanishing_log_xi(precision), unscaled: unscaled().to_device(device) }
    }

    /// `[COLUMNS]` float32 on the device, without waiting for it; `scaling` is [`Taken`](super::step::Taken)'s.
    pub fn row(&self, contrast: &Contrast, scaling: Option<&Tensor>) -> Tensor {
        let _guard = tch::no_grad_guard();
        let a = &contrast.anchors;
        let mean = |t: &Tensor| t.mean(Kind::Float);
        let vanished = a.log_xi.le(self.vanishing_log_xi).to_kind(Kind::Float);
        let row: [Tensor; COLUMNS - 2] = [
            contrast.value(),
            a.top(1) * 100.0,
            a.top(5) * 100.0,
            mean(&a.ness),
            mean(&a.positive),
            mean(&a.negative),
            mean(&vanished),
        ];
        let row = Tensor::stack(&row, 0);
        Tensor::cat(&[&row, scaling.unwrap_or(&self.unscaled)], 0)
    }
}

/// What stands in a row without loss scaling: no overflow, no scale.
pub fn unscaled() -> Tensor {
    Tensor::from_slice(&[0.0, f32::NAN])
}

/// In a precision with so many bits behind the point, 1 + xi rounds to 1 for xi of half its last bit and below.
fn vanishing_log_xi(precision: Precision) -> f64 {
    let bits = match precision {
        Precision::Fp32 => 24.0,
        Precision::Fp16 => 11.0,
        Precision::Bf16 => 8.0,
    };
    -bits * std::f64::consts::LN_2
}
