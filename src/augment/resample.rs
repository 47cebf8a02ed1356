//! The two passes of resampling, in Pillow's fixed point with 8-bit pixels between
//! them. Bit-equal to `Image.resize` when run in the order of [`vertical_first`].
//!
//! The horizontal pass reads interleaved RGB and writes planes; the vertical pass
//! takes its bytes as they come. From there on every loop of a view runs over
//! contiguous bytes of one channel.

use super::filter::{Span, WEIGHT_BITS, Weights};

/// Half a unit, so that the shift rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);
/// Columns of the vertical pass that stay in registers together.
const LANES: usize = 32;

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// Whether Pillow (from 13) runs the vertical pass first: where the height shrinks, by more than twice
/// the pixels that the width loses. Found by trial; another order differs by one level at some pixels.
pub(super) fn vertical_first(columns: Span, rows: Span) -> bool {
    rows.input > rows.output && rows.input + 2 * columns.output > rows.output + 2 * columns.input
}

/// One output pixel: the window's `TAPS` pixels (any number if 0), and at least one byte more.
///
/// A pixel is four lanes of which the last is not used; LLVM makes vectors of them.
#[inline(always)]
fn pixel<const TAPS: usize>(window: &[u8], weights: &[i32]) -> [u8; 4] {
    let taps = if TAPS == 0 { weights.len() } else { TAPS };
    let (window, weights) = (&window[..taps * 3 + 1], &weights[..taps]);
    let mut sums = [HALF; 4];
    for (tap, &weight) in weights.iter().enumerate() {
        let levels = &window[tap * 3..tap * 3 + 4];
        for lane in 0..4 {
            sums[lane] += i32::from(levels[lane]) * weight;
        }
    }
    sums.map(clip)
}

/// [`pixel`] for a window that ends where memory does.
#[cold]
fn last_pixel(window: &[u8], weights: &[i32]) -> [u8; 4] {
    let mut sums = [HALF; 4];
    for (levels, &weight) in window.chunks_exact(3).zip(weights) {
        for (sum, &level) in sums.iter_mut().zip(levels) {
            *sum += i32::from(level) * weight;
        }
    }
    sums.map(clip)
}

#[inline(always)]
fn horizontal_row<const TAPS: usize>(row: &[u8], weights: &Weights, planes: &mut [u8], plane_len: usize, at: usize) {
    const BLOCK: usize = 64;
    let taps = weights.taps;
    // Whole pixels as words, which LLVM takes apart with vector shifts.
    let mut packed = [0u32; BLOCK];
    let blocks = weights.starts.chunks(BLOCK).zip(weights.values.chunks(BLOCK * taps)).enumerate();
    for (block, (starts, values)) in blocks {
        let packed = &mut packed[..starts.len()];
        for ((out, &start), values) in packed.iter_mut().zip(starts).zip(values.chunks_exact(taps)) {
            let window = &row[start * 3..];
            let enough = window.len() > taps * 3;
            let levels = if enough { pixel::<TAPS>(window, values) } else { last_pixel(window, values) };
            *out = u32::from_le_bytes(levels);
        }
        for (channel, plane) in planes.chunks_exact_mut(plane_len).enumerate() {
            let out = &mut plane[at + block * BLOCK..][..packed.len()];
            for (level, pixel) in out.iter_mut().zip(packed.iter()) {
                *level = (pixel >> (8 * channel)) as u8;
            }
        }
    }
}

vectorised! {
    /// Resamples one interleaved RGB row into planes of `plane_len` bytes each, at offset `at` of each.
    /// Of an image with equal channels one plane is enough.
    ///
    /// `row` may go on beyond the axis: one more byte spares the last windows a slower path.
    pub(super) fn horizontal(row: &[u8], weights: &Weights, planes: &mut [u8], plane_len: usize, at: usize) {
        match weights.taps {
            1 => horizontal_row::<1>(row, weights, planes, plane_len, at),
            2 => horizontal_row::<2>(row, weights, planes, plane_len, at),
            3 => horizontal_row::<3>(row, weights, planes, plane_len, at),
            4 => horizontal_row::<4>(row, weights, planes, plane_len, at),
            5 => horizontal_row::<5>(row, weights, planes, plane_len, at),
            6 => horizontal_row::<6>(row, weights, planes, plane_len, at),
            _ => horizontal_row::<0>(row, weights, planes, plane_len, at),
        }
    }
}

/// One output row from the rows that start every `stride` bytes in `rows`, one for each weight.
#[inline(always)]
fn vertical_row(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    let width = out.len();
    if width < LANES {
        for (x, level) in out.iter_mut().enumerate() {
            let sum = weights.iter().enumerate().fold(HALF, |sum, (i, &w)| sum + i32::from(rows[i * stride + x]) * w);
            *level = clip(sum);
        }
        return;
    }
    for x in (0..width).step_by(LANES) {
        // The last block overlaps the one before it.
        let x = x.min(width - LANES);
        let mut sums = [HALF; LANES];
        for (tap, &weight) in weights.iter().enumerate() {
            let levels = &rows[tap * stride + x..][..LANES];
            for (sum, &level) in sums.iter_mut().zip(levels) {
                *sum += i32::from(level) * weight;
            }
        }
        for (level, &sum) in out[x..x + LANES].iter_mut().zip(&sums) {
            *level = clip(sum);
        }
    }
}

vectorised! {
    /// Resamples rows of `width` bytes into `out`, `[count, width]`. `rows` begins at the axis' input
    /// `origin` and holds one row every `stride` bytes.
    pub(super) fn vertical(
        rows: &[u8],
        stride: usize,
        width: usize,
        origin: usize,
        weights: &Weights,
        out: &mut [u8],
    ) {
        let windows = weights.starts.iter().zip(weights.values.chunks_exact(weights.taps));
        for ((&start, weights), out) in windows.zip(out.chunks_exact_mut(width)) {
            vertical_row(&rows[(start - origin) * stride..], stride, weights, out);
        }
    }
}
