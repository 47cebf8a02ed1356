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

/// One row: `row` is `[input, 3]`, `out` three rows (or only the first channel's).
#[inline(always)]
fn horizontal_row<const CHANNELS: usize, const TAPS: usize>(
    row: &[u8],
    starts: &[usize],
    values: &[i32],
    out: [&mut [u8]; CHANNELS],
) {
    let taps = if TAPS == 0 { values.len() / starts.len() } else { TAPS };
    let mut out = out.map(|channel| &mut channel[..starts.len()]);
    for (x, (&start, weights)) in starts.iter().zip(values.chunks_exact(taps)).enumerate() {
        let mut sums = [HALF; CHANNELS];
        for (pixel, &weight) in row[start * 3..(start + taps) * 3].chunks_exact(3).zip(weights) {
            for (sum, &level) in sums.iter_mut().zip(pixel) {
                *sum += i32::from(level) * weight;
            }
        }
        for (channel, &sum) in out.iter_mut().zip(&sums) {
            channel[x] = clip(sum);
        }
    }
}

/// Resamples one interleaved RGB row into the rows of three planes.
pub(super) fn horizontal_rgb(row: &[u8], weights: &Weights, red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
    let (starts, values, out) = (&weights.starts, &weights.values, [red, green, blue]);
    match weights.taps {
        1 => horizontal_row::<3, 1>(row, starts, values, out),
        2 => horizontal_row::<3, 2>(row, starts, values, out),
        3 => horizontal_row::<3, 3>(row, starts, values, out),
        4 => horizontal_row::<3, 4>(row, starts, values, out),
        5 => horizontal_row::<3, 5>(row, starts, values, out),
        _ => horizontal_row::<3, 0>(row, starts, values, out),
    }
}

/// Resamples one interleaved row whose three channels are equal into the row of one plane.
pub(super) fn horizontal_grey(row: &[u8], weights: &Weights, grey: &mut [u8]) {
    let (starts, values, out) = (&weights.starts, &weights.values, [grey]);
    match weights.taps {
        1 => horizontal_row::<1, 1>(row, starts, values, out),
        2 => horizontal_row::<1, 2>(row, starts, values, out),
        3 => horizontal_row::<1, 3>(row, starts, values, out),
        4 => horizontal_row::<1, 4>(row, starts, values, out),
        5 => horizontal_row::<1, 5>(row, starts, values, out),
        _ => horizontal_row::<1, 0>(row, starts, values, out),
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
