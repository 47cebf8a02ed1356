//! Features at mean 0 and variance 1: the linear classifier then weighs all of
//! them alike, and its optimum is reached in few steps whatever the trunk's
//! scale.

use crate::train::features::Features;
use tch::{Kind, Tensor};

/// Mean and standard deviation of every feature over the training images, `[D]` each.
#[derive(Debug)]
pub struct Standardiser {
    mean: Tensor,
    deviation: Tensor,
}

impl Standardiser {
    /// From the training images' features. One that never varies stays as it is, less its mean.
    pub fn fit(training: &Features) -> Standardiser {
        let _guard = tch::no_grad_guard();
        let mean = training.values.mean_dim([0i64].as_slice(), false, Kind::Float);
        let deviation = (&training.values - &mean).square().mean_dim([0i64].as_slice(), false, Kind::Float).sqrt();
        let deviation = deviation.where_self(&deviation.gt(0.0), &deviation.ones_like());
        Standardiser { mean, deviation }
    }

    pub fn apply(&self, features: &Features) -> Features {
        let _guard = tch::no_grad_guard();
        Features { values: (&features.values - &self.mean) / &self.deviation, labels: features.labels.shallow_clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_training_features_get_mean_0_and_variance_1_and_others_the_same_map() {
        let of = |values: &[f32]| Features {
            values: Tensor::from_slice(values).view([-1, 2]),
            labels: Tensor::from_slice(&vec![0i64; values.len() / 2]),
        };
        let training = of(&[1.0, 5.0, 3.0, 5.0]);
        let map = Standardiser::fit(&training);
        let as_vec = |f: Features| Vec::<f32>::try_from(f.values.view(-1)).expect("numbers");
        assert_eq!(as_vec(map.apply(&training)), [-1.0, 0.0, 1.0, 0.0]);
        assert_eq!(as_vec(map.apply(&of(&[4.0, 6.0]))), [2.0, 1.0]);
    }
}
