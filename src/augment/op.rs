//! An operation on a view after its colour jitter: all that there is about it in
//! one row, for both engines.

use super::blur::Blur;
use super::{OPS, TensorRenderer};
use crate::config::Augmentation;
use crate::rng::Stream;
use tch::Tensor;

/// The row of an operation. A view has it once or not at all, and with it one number, which may mean nothing.
pub struct Op {
    /// The heading of its column, and its unit if its number means something.
    pub name: &'static str,
    /// Its number if a view has it. Each view has a stream of its own.
    pub draw: fn(&Augmentation, &mut Stream) -> Option<f32>,
    /// What the CPU engine does.
    pub cpu: fn(&mut Canvas, f32),
    /// What a device is told of a view that has it, for a blur of so many pixels.
    pub numbers: fn(f32, usize) -> Vec<f32>,
    /// How many that may be, for a blur of so many pixels.
    pub most_numbers: fn(usize) -> usize,
    /// What the tensor engine does with levels f32 `[v, S, 3, S]` of the views that have it; their numbers, f32
    /// `[v, most_numbers]`, end with zeros. Gives levels of that shape, or `[v, S, 1, S]`.
    pub tensor: fn(&TensorRenderer, &Tensor, &Tensor) -> Tensor,
    /// Its number in the kernel that renders whole views (`view_color.cuh`); those up to 4 are the colour jitter's.
    pub code: i32,
}

impl Op {
    /// Its place in [`OPS`].
    pub(super) fn place(&self) -> usize {
        OPS.iter().position(|op| op.code == self.code).expect("it is one of them")
    }
}

/// A view on the CPU, from its colour jitter to its last operation.
pub struct Canvas<'a> {
    /// `[3, side, side]`, or one plane where all channels are equal.
    pub levels: &'a mut [u8],
    /// Pixels a side.
    pub side: usize,
    pub blur_kernel_px: usize,
    pub(super) blur: &'a mut Blur,
}

impl Canvas<'_> {
    /// Planes: 3 or 1.
    pub fn channels(&self) -> usize {
        self.levels.len() / (self.side * self.side)
    }
}
