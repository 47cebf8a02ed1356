//! Histograms of the similarities in a batch, for TensorBoard.

use crate::report::{Events, Histogram};
use tch::{Device, Kind, Tensor};

/// Anchors whose negatives are counted; all their positives are.
const ANCHORS: i64 = 128;

/// Bins over the cosine similarities from -1 to 1.
const BINS: usize = 80;

/// Records positives and negatives of the last batch: `unit` is `[2B, P]`, rows of length 1, view-major.
pub fn record(events: &mut Events, step: u64, unit: &Tensor) {
    let (positive, negative) = histograms(unit);
    events.histogram("similarity/positives", step, &positive);
    events.histogram("similarity/negatives", step, &negative);
}

fn histograms(unit: &Tensor) -> (Histogram, Histogram) {
    let _guard = tch::no_grad_guard();
    let unit = unit.to_device(Device::Cpu).to_kind(Kind::Float);
    let (views, images) = (unit.size()[0], unit.size()[0] / 2);
    let anchors = images.min(ANCHORS);
    let numbers =
        |tensor: Tensor| Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap_or_default();
    let mut positive = Histogram::new(-1.0, 1.0, BINS);
    let pairs = unit.narrow(0, 0, images) * unit.narrow(0, images, images);
    positive.extend(numbers(pairs.sum_dim_intlist([1i64].as_slice(), false, Kind::Float)));
    let mut negative = Histogram::new(-1.0, 1.0, BINS);
    let similarities = numbers(unit.narrow(0, 0, anchors).matmul(&unit.tr())); // [anchors, 2B]
    for (anchor, row) in similarities.chunks_exact(views as usize).enumerate() {
        let other = |column: &usize| column % images as usize != anchor;
        negative.extend((0..row.len()).filter(other).map(|column| row[column]));
    }
    (positive, negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_and_negatives_are_told_apart() {
        // Four images whose views agree and are orthogonal to all others.
        let unit = Tensor::eye(4, (Kind::Float, Device::Cpu)).repeat([2, 1]);
        let (positive, negative) = histograms(&unit);
        assert_eq!((positive.total(), negative.total()), (4, 4 * 6));
        assert_eq!(positive.counts()[BINS - 1], 4);
        assert_eq!(negative.counts()[BINS / 2], 24);
    }
}
