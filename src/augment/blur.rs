//! Gaussian blur as torchvision's `gaussian_blur`: a normalised kernel sampled at
//! integer offsets, edges mirrored without repeating the edge pixel, the result
//! rounded half to even.
//!
//! torchvision convolves with the outer product of the kernel; here the two axes
//! follow one another in float32, without rounding between them.

use super::op::Op;
use crate::vectorise::truncate;

/// Gaussian blur; its number is the standard deviation in output pixels.
pub static BLUR: Op = Op {
    name: "blur sigma",
    draw: |recipe, stream| {
        stream.chance(recipe.blur_prob).then(|| stream.range(recipe.blur_sigma_min, recipe.blur_sigma_max) as f32)
    },
    cpu: |canvas, sigma| {
        for plane in canvas.levels.chunks_exact_mut(canvas.side * canvas.side) {
            canvas.blur.apply(plane, canvas.side, canvas.blur_kernel_px, sigma);
        }
    },
    numbers: |sigma, kernel_px| half_kernel(kernel_px / 2, sigma),
    most_numbers: |kernel_px| kernel_px / 2 + 1,
    tensor: |renderer, levels, kernels| renderer.blur.apply(levels, kernels),
    code: 6,
};

/// Columns that stay in registers together.
const LANES: usize = 32;

/// Reusable memory of the blur.
#[derive(Debug, Default)]
pub struct Blur {
    /// One row with its mirrored margins, the row filled up to whole blocks of `LANES`.
    padded: Vec<f32>,
    /// The plane after the horizontal pass: `[size, stride]`, `stride` a multiple of `LANES`.
    rows: Vec<f32>,
    /// Half of the symmetric kernel: the centre first.
    half_kernel: Vec<f32>,
}

impl Blur {
    /// Blurs a square plane of side `size` in place. `kernel_px` is odd.
    pub fn apply(&mut self, plane: &mut [u8], size: usize, kernel_px: usize, sigma: f32) {
        fill_kernel(&mut self.half_kernel, kernel_px / 2, f64::from(sigma));
        let radius = self.half_kernel.len() - 1;
        let stride = size.next_multiple_of(LANES);
        self.padded.clear();
        self.padded.resize(stride + 2 * radius, 0.0);
        self.rows.resize(size * stride, 0.0);
        for (levels, out) in plane.chunks_exact(size).zip(self.rows.chunks_exact_mut(stride)) {
            pad(levels, radius, &mut self.padded);
            horizontal(&self.padded, &self.half_kernel, out);
        }
        vertical(&self.rows, stride, size, &self.half_kernel, plane);
    }
}

/// The centre and one side of the kernel; offsets of no consequence are left out.
fn fill_kernel(half: &mut Vec<f32>, radius: usize, sigma: f64) {
    // Weights below this share of the centre's move no level by 1/1000.
    const NEGLIGIBLE: f64 = 1e-6;
    let weight = |offset: usize| (-0.5 * (offset as f64 / sigma).powi(2)).exp();
    let total: f64 = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
    half.clear();
    half.extend((0..=radius).map(weight).take_while(|&w| w >= NEGLIGIBLE).map(|w| (w / total) as f32));
}

/// The centre and one side of the kernel, up to `radius`; offsets of no consequence are left out.
fn half_kernel(radius: usize, sigma: f32) -> Vec<f32> {
    let mut half = Vec::new();
    fill_kernel(&mut half, radius, f64::from(sigma));
    half
}

/// Index of the pixel that stands at `index` when the edges of `0..size` are mirrors.
pub(super) fn mirrored(index: isize, size: usize) -> usize {
    if (0..size as isize).contains(&index) {
        return index as usize;
    }
    if size == 1 {
        return 0;
    }
    let period = 2 * (size - 1);
    let place = index.rem_euclid(period as isize) as usize;
    place.min(period - place)
}

fn pad(levels: &[u8], radius: usize, padded: &mut [f32]) {
    let size = levels.len();
    for (out, &level) in padded[radius..].iter_mut().zip(levels) {
        *out = f32::from(level);
    }
    for margin in 1..=radius {
        padded[radius - margin] = f32::from(levels[mirrored(-(margin as isize), size)]);
        padded[radius + size - 1 + margin] = f32::from(levels[mirrored((size - 1 + margin) as isize, size)]);
    }
}

/// The kernel over a block of columns: `level(offset)` gives the levels at that offset from it.
#[inline(always)]
fn convolve<'a>(half_kernel: &[f32], levels: impl Fn(isize) -> &'a [f32]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (sum, &level) in sums.iter_mut().zip(&levels(0)[..LANES]) {
        *sum = half_kernel[0] * level;
    }
    for (offset, &weight) in half_kernel.iter().enumerate().skip(1) {
        let (before, after) = (&levels(-(offset as isize))[..LANES], &levels(offset as isize)[..LANES]);
        for ((sum, &a), &b) in sums.iter_mut().zip(before).zip(after) {
            *sum += weight * (a + b);
        }
    }
    sums
}

vectorised! {
    fn horizontal(padded: &[f32], half_kernel: &[f32], out: &mut [f32]) {
        let radius = half_kernel.len() - 1;
        for (block, out) in out.chunks_exact_mut(LANES).enumerate() {
            let middle = block * LANES + radius;
            out.copy_from_slice(&convolve(half_kernel, |offset| &padded[middle.wrapping_add_signed(offset)..]));
        }
    }
}

vectorised! {
    fn vertical(rows: &[f32], stride: usize, size: usize, half_kernel: &[f32], out: &mut [u8]) {
        for (y, out) in out.chunks_exact_mut(size).enumerate() {
            for (block, out) in out.chunks_mut(LANES).enumerate() {
                let row = |offset| &rows[mirrored(y as isize + offset, size) * stride + block * LANES..];
                let levels = convolve(half_kernel, row).map(round);
                out.copy_from_slice(&levels[..out.len()]);
            }
        }
    }
}

/// Nearest integer, half to even, of a number in 0..=255.
#[inline(always)]
fn round(level: f32) -> u8 {
    // At 1.5 * 2^23 float32 holds integers only, so the addition rounds.
    const SHIFT: f32 = 12_582_912.0;
    truncate((level + SHIFT) - SHIFT)
}
