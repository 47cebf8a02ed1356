//! Gaussian blur on levels f32 `[v, S, 3, S]`: each pass a product with a matrix for every view, whose edges mirror.

use super::numbers::Numbers;
use super::plan::Chunk;
use crate::augment::blur::mirrored;
use tch::{Device, Kind, Tensor};

#[derive(Debug)]
pub(super) struct Blur {
    size: i64,
    /// Numbers of half a kernel: the centre and one side.
    half: usize,
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
        Blur { size: size_px as i64, half, spread }
    }

    /// Blurs the chunk's blurred views in place.
    pub fn apply(&self, levels: &mut Tensor, chunk: &Chunk, numbers: &Numbers) {
        let (count, side) = (chunk.blurred.len as i64, self.size);
        if count == 0 {
            return;
        }
        let kernels = numbers.table(chunk.kernels, self.half).to_kind(Kind::Float); // [n, half]
        let matrices = kernels.matmul(&self.spread).view([count, side, side]); // [n, S in, S out]
        let list = numbers.integers(chunk.blurred);
        let chosen = levels.index_select(0, &list).view([count, side * 3, side]);
        let horizontal = chosen.bmm(&matrices).view([count, side, 3 * side]);
        let mut both = matrices.transpose(1, 2).bmm(&horizontal); // [n, S, 3S]
        let rounded = both.round_().clamp_(0.0, 255.0).view([count, side, 3, side]);
        let _ = levels.index_copy_(0, &list, &rounded);
    }
}
