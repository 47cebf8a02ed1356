//! Gaussian blur on levels f32 `[v, S, 3, S]`: each pass a product with a matrix for every view, whose edges mirror.

use crate::augment::blur::mirrored;
use tch::{Device, Tensor};

#[derive(Debug)]
pub struct Blur {
    size: i64,
    /// f32 `[half, S * S]`: how often input i meets the weight at that distance in output o, at place (i, o).
    spread: Tensor,
}

impl Blur {
    pub fn new(device: Device, size_px: usize, kernel_px: usize) -> Self {
        let half = kernel_px / 2 + 1;
        let mut spread = vec![0f32; half * size_px * size_px];
        for output in 0..size_px {
            for offset in -(half as isize - 1)..half as isize {
                let input = mirrored(output as isize + offset, size_px);
                spread[(offset.unsigned_abs() * size_px + input) * size_px + output] += 1.0;
            }
        }
        let spread = Tensor::from_slice(&spread).view([half as i64, -1]).to_device(device);
        Blur { size: size_px as i64, spread }
    }

    /// Blurs views; `kernels` is f32 `[v, half]`: the centre and one side of each kernel.
    pub fn apply(&self, levels: &Tensor, kernels: &Tensor) -> Tensor {
        let (count, side) = (levels.size()[0], self.size);
        let matrices = kernels.matmul(&self.spread).view([count, side, side]); // [v, S in, S out]
        let horizontal = levels.view([count, side * 3, side]).bmm(&matrices).view([count, side, 3 * side]);
        let mut both = matrices.transpose(1, 2).bmm(&horizontal); // [v, S, 3S]
        both.round_().clamp_(0.0, 255.0).view([count, side, 3, side])
    }
}
