//! A plan's array on the device, and parts of it as tensors.

use super::plan::{Plan, Section};
use super::upload;
use tch::{Device, Kind, Tensor};

/// The numbers of a plan, f64 `[n]` on the device.
pub(super) struct Numbers(Tensor);

impl Numbers {
    /// The one copy of a batch.
    pub fn upload(plan: &Plan, device: Device) -> Numbers {
        Numbers(upload(&Tensor::from_slice(plan.numbers()), device))
    }

    /// A section as f64 `[len / width, width]`.
    pub fn table(&self, section: Section, width: usize) -> Tensor {
        self.0.narrow(0, section.at as i64, section.len as i64).view([-1, width as i64])
    }

    /// A section of indices, i64 `[len]`.
    pub fn integers(&self, section: Section) -> Tensor {
        self.0.narrow(0, section.at as i64, section.len as i64).to_kind(Kind::Int64)
    }
}
