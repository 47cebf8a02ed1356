//! A linear probe: multinomial logistic regression on standardised features, at its minimum. Nothing is asked for and
//! nothing drawn at random, so that it can be repeated while an encoder is trained, and compares.

use super::accuracy::accuracy_of;
use super::fit::Fit;
use super::standardise::Standardiser;
use crate::train::features::Features;
use anyhow::Result;

/// lambda of the penalty lambda / 2 |W|^2 beside the mean cross-entropy.
const REG_WEIGHT: f64 = 1e-3;
/// LBFGS is close to the minimum long before, and ends by itself where it is there.
const MOST_ITERATIONS: u64 = 100;

/// Percent of the `test` images that a classifier of the `training` images puts into their class; features `[N, D]` and
/// `[M, D]`, labels in `0..classes`.
///
/// Errors: a loss that is not finite.
pub fn top1(training: &Features, test: &Features, classes: i64) -> Result<f64> {
    let standardiser = Standardiser::fit(training);
    let (training, test) = (standardiser.apply(training), standardiser.apply(test));
    let mut fit = Fit::to_the_minimum(REG_WEIGHT, training.width(), classes, training.values.device());
    for iteration in 0..MOST_ITERATIONS {
        if fit.epoch(&training, iteration)?.converged {
            break;
        }
    }
    Ok(accuracy_of(|x| fit.classifier.logits(x), &test.values, &test.labels).top1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use tch::Tensor;

    /// Three classes around the corners of a triangle, in the first 2 of 6 numbers; the others say nothing, loudly.
    fn clouds(images: usize, apart: f64, salt: u64) -> Features {
        let mut stream = Stream::new(salt, Purpose::Evaluation, 0, 0, 0);
        let mut values = Vec::new();
        for image in 0..images {
            let angle = std::f64::consts::TAU * (image % 3) as f64 / 3.0;
            let mut noise = || stream.below(2001) as f64 / 1000.0 - 1.0;
            values.extend([apart * angle.cos() + noise(), apart * angle.sin() + noise()].map(|x| 1e-3 * x));
            values.extend([(); 4].map(|()| 1e3 * noise()));
        }
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        let labels: Vec<i64> = (0..images as i64).map(|image| image % 3).collect();
        Features { values: Tensor::from_slice(&values).view([images as i64, 6]), labels: Tensor::from_slice(&labels) }
    }

    #[test]
    fn what_can_be_separated_is_whatever_its_scale_and_what_cannot_is_not() {
        let (training, test) = (clouds(600, 3.0, 1), clouds(300, 3.0, 2));
        let found = top1(&training, &test, 3).unwrap();
        assert!(found > 98.0, "{found}");
        assert_eq!(found, top1(&training, &test, 3).unwrap(), "the same again");
        let blind = top1(&clouds(600, 0.0, 3), &clouds(300, 0.0, 4), 3).unwrap();
        assert!((20.0..47.0).contains(&blind), "{blind}");
    }
}
