//! A histogram over equal bins, and its form in TensorBoard's `HistogramProto`.

use crate::protobuf::Message;

/// Counts over equal bins of [low, high]; values outside fall into the outer bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    low: f64,
    high: f64,
    counts: Vec<u64>,
    min: f64,
    max: f64,
    sum: f64,
    sum_squares: f64,
}

impl Histogram {
    /// An empty histogram: [-1, 1] for cosine similarities, say.
    ///
    /// # Panics
    /// `low >= high` or no bins: a bug.
    pub fn new(low: f64, high: f64, bins: usize) -> Self {
        assert!(low < high && bins > 0, "a histogram needs a range and bins");
        Histogram {
            low,
            high,
            counts: vec![0; bins],
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            sum_squares: 0.0,
        }
    }

    /// Counts a value; one that is not finite is passed over.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bins = self.counts.len();
        let place = (value - self.low) / (self.high - self.low) * bins as f64;
        self.counts[(place.max(0.0) as usize).min(bins - 1)] += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.sum += value;
        self.sum_squares += value * value;
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Counts per bin, lowest first.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    pub(super) fn write(&self, message: &mut Message) {
        let (bins, total) = (self.counts.len(), self.total());
        if total > 0 {
            message.double(1, self.min);
            message.double(2, self.max);
        }
        message.double(3, total as f64);
        message.double(4, self.sum);
        message.double(5, self.sum_squares);
        let limit = |bin: usize| self.low + (self.high - self.low) * (bin + 1) as f64 / bins as f64;
        message.doubles(6, &(0..bins).map(limit).collect::<Vec<_>>());
        message.doubles(7, &self.counts.iter().map(|&count| count as f64).collect::<Vec<_>>());
    }
}

impl Extend<f64> for Histogram {
    fn extend<T: IntoIterator<Item = f64>>(&mut self, values: T) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_their_bins() {
        let mut histogram = Histogram::new(-1.0, 1.0, 4);
        histogram.extend([-2.0, -1.0, -0.51, -0.5, 0.0, 0.49, 0.5, 1.0, 7.0, f64::NAN]);
        assert_eq!(histogram.counts(), [3, 1, 2, 3]);
        assert_eq!(histogram.total(), 9);
        assert_eq!((histogram.min, histogram.max), (-2.0, 7.0));
    }
}
