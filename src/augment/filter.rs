//! Weights of Pillow's antialiased resampling, along one axis.
//!
//! Output pixel `o` is centred on `(o + 1/2) scale`; the filter's support grows
//! with `scale` when shrinking, and weights are normalised, then rounded to 22
//! fractional bits (Pillow's `Resample.c`).

use crate::config::Filter;

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for the filter's overshoot.
pub(super) const WEIGHT_BITS: u32 = 22;

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic => {
                const A: f64 = -0.5;
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// Part of a resized axis: `input` pixels become `output`, of which `count` from `first` are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub input: usize,
    pub output: usize,
    pub first: usize,
    pub count: usize,
}

impl Span {
    /// All of the resized axis.
    pub fn whole(input: usize, output: usize) -> Self {
        Span { input, output, first: 0, count: output }
    }
}

/// For each output pixel where its window of inputs starts and the window's fixed-point weights.
///
/// All windows have the same length, so that the loops over them have fixed bounds.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// Length of every window; at most the input's length.
    pub taps: usize,
    /// First input of each output's window; `start + taps` never passes the input's end.
    pub starts: Vec<usize>,
    /// `[count, taps]`, in units of 2^-22.
    pub values: Vec<i32>,
    exact: Vec<f64>,
}

impl Weights {
    /// Fills the tables, in reverse order of the outputs if `mirrored`. Allocates only to grow.
    pub fn build(&mut self, span: Span, filter: Filter, mirrored: bool) {
        let Span { input, output, first, count } = span;
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        self.taps = ((support * 2.0).ceil() as usize).min(input);
        self.starts.clear();
        self.values.clear();
        self.values.resize(count * self.taps, 0);
        self.exact.clear();
        self.exact.resize(self.taps, 0.0);
        for place in 0..count {
            let o = first + if mirrored { count - 1 - place } else { place };
            let center = (o as f64 + 0.5) * scale;
            let begin = (center - support + 0.5).max(0.0) as usize;
            // Rounding can make Pillow's window one longer; the weight there is then 0.
            let end = ((center + support + 0.5) as usize).min(input).min(begin + self.taps);
            let exact = &mut self.exact[..end - begin];
            let mut total = 0.0;
            for (i, weight) in exact.iter_mut().enumerate() {
                *weight = filter.weight(((i + begin) as f64 - center + 0.5) * (1.0 / stretch));
                total += *weight;
            }
            // A window at the end of the input is moved left; its first weights are then 0.
            let start = begin.min(input - self.taps);
            let row = &mut self.values[place * self.taps..][..self.taps];
            for (value, weight) in row[begin - start..].iter_mut().zip(exact) {
                let scaled = *weight / total * f64::from(1 << WEIGHT_BITS);
                *value = (scaled + 0.5f64.copysign(scaled)) as i32;
            }
            self.starts.push(start);
        }
    }

    /// The inputs that any output needs.
    pub fn needed(&self) -> std::ops::Range<usize> {
        let first = self.starts.iter().copied().min().unwrap_or(0);
        let last = self.starts.iter().copied().max().unwrap_or(0);
        first..last + self.taps
    }
}
