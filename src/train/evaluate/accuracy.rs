//! How often a classifier is right.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Images classified at once; bounds memory with many classes.
const CHUNK_IMAGES: i64 = 1 << 14;

/// Percent of images whose class ranks first, and among the first five.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    pub top1: f64,
    pub top5: f64,
}

/// Images counted as right so far. Stays on the device until it is read.
#[derive(Debug)]
pub struct Hits {
    counts: Tensor, // i64 [2]
    images: i64,
}

impl Hits {
    pub fn none(device: tch::Device) -> Hits {
        Hits { counts: Tensor::zeros([2], (Kind::Int64, device)), images: 0 }
    }

    /// Goes on from [`Hits::counted`].
    pub fn continued([top1, top5, images]: [u64; 3], device: tch::Device) -> Hits {
        let counts = Tensor::from_slice(&[top1 as i64, top5 as i64]).to_device(device);
        Hits { counts, images: images as i64 }
    }

    /// Images whose class ranked first, those whose class was among the first five, all of them. Waits for the device.
    pub fn counted(&self) -> [u64; 3] {
        let count = |place: i64| self.counts.int64_value(&[place]) as u64;
        [count(0), count(1), self.images as u64]
    }

    /// Counts logits `[M, C]` against labels i64 `[M]`. Of equal logits the class of the lower index ranks first, so a
    /// classifier that says nothing is right by chance only; one that is not finite is never right.
    pub fn add(&mut self, logits: &Tensor, labels: &Tensor) {
        let _guard = tch::no_grad_guard();
        let labels = labels.unsqueeze(1); // [M, 1]
        let own = logits.gather(1, &labels, false); // [M, 1]
        let classes = Tensor::arange(logits.size()[1], (Kind::Int64, logits.device()));
        let equal_before = logits.eq_tensor(&own).logical_and(&classes.lt_tensor(&labels));
        let ahead = logits.gt_tensor(&own).logical_or(&equal_before); // [M, C]
        let rank = ahead.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
        let valid = logits.isfinite().all_dim(1, true);
        let within = |places: i64| rank.lt(places).logical_and(&valid).sum(Kind::Int64);
        self.counts += Tensor::stack(&[within(1), within(5)], 0);
        self.images += labels.size()[0];
    }

    /// Waits for the device.
    pub fn accuracy(&self) -> Accuracy {
        let percent = |place: i64| 100.0 * self.counts.int64_value(&[place]) as f64 / self.images.max(1) as f64;
        Accuracy { top1: percent(0), top5: percent(1) }
    }
}

/// The accuracy of `classify` (features `[M, D]` to logits `[M, C]`) on features `[N, D]` with labels `[N]`.
pub fn accuracy_of(classify: impl Fn(&Tensor) -> Tensor, values: &Tensor, labels: &Tensor) -> Accuracy {
    let _guard = tch::no_grad_guard();
    let mut hits = Hits::none(values.device());
    for first in (0..values.size()[0]).step_by(CHUNK_IMAGES as usize) {
        let last = first + CHUNK_IMAGES;
        hits.add(&classify(&values.slice(0, first, last, 1)), &labels.slice(0, first, last, 1));
    }
    hits.accuracy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_counted_and_ties_are_not_given_away() {
        let logits = Tensor::from_slice2(&[
            [6.0f32, 5.0, 4.0, 3.0, 2.0, 1.0],
            [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
            [6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [f32::NAN, 9.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0],
        ]);
        let mut hits = Hits::none(tch::Device::Cpu);
        hits.add(&logits, &Tensor::from_slice(&[0i64, 4, 5, 5, 1, 1]));
        assert_eq!(hits.accuracy(), Accuracy { top1: 100.0 / 6.0, top5: 200.0 / 6.0 });
        // Two classes: among the first five is everybody.
        let two = accuracy_of(
            Tensor::shallow_clone,
            &Tensor::eye(2, (Kind::Float, tch::Device::Cpu)),
            &Tensor::from_slice(&[1i64, 1]),
        );
        assert_eq!(two, Accuracy { top1: 50.0, top5: 100.0 });
    }
}
