//! The contrastive objectives and what they say about a batch
//! (arXiv 2107.01152; upstream: `flatclr.py`, `simclr.py`).
//!
//! For anchor i of the M = 2N views, `s_pos` is the cosine similarity with the
//! other view of its image, `s_j` those with the K = M - 2 views of other
//! images, t the temperature:
//!
//! ```text
//! d_j = (s_j - s_pos) / t      v = log xi = logsumexp_j d_j      w = softmax(d)
//! ```
//!
//! A loss that is a function of v alone, as both of ours are, has the gradient
//! `q * (sum_j w_j grad s_j - grad s_pos) / t` per anchor with its own pull
//! q = d loss / d v; [`Pairs::contrast`] makes it from the pull. So the
//! similarities are computed once, in float32, the gradient is written down
//! directly instead of being recorded, and rows are handled in chunks: memory
//! grows with M times the chunk, not with M squared.
//!
//! A new objective is a file like `info_nce.rs`; here it gets its `mod` line, its
//! row in [`Objective`] and its line in `Objective::about`.

mod flat_nce;
mod info_nce;
mod pairs;

pub use pairs::{Anchors, Contrast, Pairs};

use crate::state::StateDict;
use tch::{Device, Kind, Tensor};

choice! {
    /// The contrastive objective.
    Objective {
        /// InfoNCE (NT-Xent), as SimCLR trains.
        SimClr = "simclr",
        /// FlatNCE, the self-normalised objective.
        FlatClr = "flatclr",
    }
}

/// What the file of an objective says of it.
struct About {
    /// Its name in the literature.
    title: &'static str,
    /// The part of a results directory's name: `512_FlatCLR`, `512_SimCLR`.
    directory_suffix: &'static str,
    /// A fresh one for features of so many columns on a device.
    new: fn(i64, Device) -> Box<dyn Loss>,
}

impl Objective {
    fn about(self) -> About {
        match self {
            Objective::SimClr => info_nce::ABOUT,
            Objective::FlatClr => flat_nce::ABOUT,
        }
    }

    /// Its name in the literature: InfoNCE, FlatNCE.
    pub fn title(self) -> &'static str {
        self.about().title
    }

    /// The part of a results directory's name: `512_FlatCLR`, `512_SimCLR`.
    pub fn directory_suffix(self) -> &'static str {
        self.about().directory_suffix
    }

    /// A fresh loss for features `[M, width]` on `device`.
    pub fn loss(self, width: i64, device: Device) -> Box<dyn Loss> {
        (self.about().new)(width, device)
    }
}

/// An objective at work, with what it keeps between steps, if anything.
pub trait Loss: std::fmt::Debug {
    /// Gradient and statistics of anchors. Changes nothing; of several ranks each asks for its own anchors.
    fn contrast(&self, pairs: &Pairs) -> Contrast;

    /// Takes note of a step, once: features `[M, P]` and statistics `[M]` of the whole batch, the same on all ranks. The
    /// tensors of [`Loss::state`] change in place and nothing waits for the device, so that a recorded step changes them
    /// too.
    fn update(&mut self, _features: &Tensor, _anchors: &Anchors) {}

    /// What it keeps, as live tensors: a checkpoint holds them, a step that overflowed in fp16 leaves them as they were.
    fn state(&self) -> StateDict {
        StateDict::new()
    }
}

/// [`Loss::contrast`] of a whole batch of unit-length features `[M, P]` by a fresh loss.
pub fn contrast(features: &Tensor, temperature: f64, objective: Objective) -> Contrast {
    objective.loss(features.size()[1], features.device()).contrast(&Pairs::new(features, temperature))
}

/// What the mutual information of two views, as InfoNCE estimates it, cannot exceed, in nats: log(M - 1) for M `views` in a
/// batch. It is also the loss of collapsed features.
pub fn mutual_information_ceiling(views: f64) -> f64 {
    (views - 1.0).ln()
}

/// Rows scaled to unit length, as `torch.nn.functional.normalize(dim=1)`; float32 whatever the input's precision.
pub fn normalise(projected: &Tensor) -> Tensor {
    let x = projected.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2, [1], true).clamp_min(1e-12);
    x / norm
}

/// Runs autograd from features `[M, P]` to parameters with the gradient `[M, P]` of [`Contrast`], or a multiple of it.
pub fn backward(features: &Tensor, gradient: &Tensor) {
    // The product's derivative with respect to `features` is the gradient itself.
    (features * gradient).sum(Kind::Float).backward();
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn to_vec(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
    }

    /// The largest difference over the largest magnitude.
    pub(super) fn relative_error(got: &Tensor, wanted: &Tensor) -> f64 {
        let (got, wanted) = (got.to_kind(Kind::Double), wanted.to_kind(Kind::Double));
        (&got - &wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[])
    }

    /// Numbers in `offset` ± `scale` that look random, `[rows, columns]`.
    pub(super) fn noise(rows: i64, columns: i64, salt: i64, scale: f64, offset: f64) -> Tensor {
        let value = |i: i64| {
            let noise = (12.9898 * i as f64 + 78.233 * salt as f64).sin() * 43758.5453;
            (offset + scale * (2.0 * (noise - noise.floor()) - 1.0)) as f32
        };
        Tensor::from_slice(&(0..rows * columns).map(value).collect::<Vec<f32>>()).view([rows, columns])
    }

    /// d loss / d features by its definition, row by row: `pull` is that of an anchor with this xi.
    pub(super) fn gradient_by_definition(z: &Tensor, t: f64, pull: impl Fn(f64) -> f64) -> Tensor {
        let views = z.size()[0];
        let (s, gradient) = (z.matmul(&z.tr()), z.zeros_like());
        for i in 0..views {
            let p = (i + views / 2) % views;
            let negatives: Vec<i64> = (0..views).filter(|&j| j != i && j != p).collect();
            let d = negatives.iter().map(|&j| (s.double_value(&[i, j]) - s.double_value(&[i, p])) / t);
            let d: Vec<f64> = d.collect();
            let xi: f64 = d.iter().map(|x| x.exp()).sum();
            let add = |other: i64, amount: f64| {
                let amount = pull(xi) * amount / t / views as f64;
                let _ = gradient.get(i).g_add_(&(z.get(other) * amount));
                let _ = gradient.get(other).g_add_(&(z.get(i) * amount));
            };
            add(p, -1.0);
            negatives.iter().zip(&d).for_each(|(&j, x)| add(j, x.exp() / xi));
        }
        gradient
    }

    #[test]
    fn collapsed_features_give_the_ceiling_full_ness_and_no_accuracy() {
        for (images, ceiling) in [(128, 5.5413), (256, 6.2364), (512, 6.9305)] {
            let z = normalise(&Tensor::ones([2 * images, 4], (Kind::Float, Device::Cpu)));
            let c = contrast(&z, 0.1, Objective::FlatClr);
            assert!((c.value().double_value(&[]) - ceiling).abs() < 1e-4);
            assert!((mutual_information_ceiling(2.0 * images as f64) - ceiling).abs() < 1e-4);
            assert!((c.anchors.ness.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-4);
            assert_eq!(c.anchors.top(1).double_value(&[]), 0.0);
        }
    }

    #[test]
    fn swapping_the_views_swaps_the_gradient() {
        let z = normalise(&noise(12, 5, 6, 1.0, 0.0));
        for &objective in Objective::ALL {
            let a = contrast(&z, 0.1, objective);
            let b = contrast(&z.roll([6], [0]), 0.1, objective);
            assert!(relative_error(&b.gradient.roll([6], [0]), &a.gradient) < 1e-5);
            assert!((a.value().double_value(&[]) - b.value().double_value(&[])).abs() < 1e-6);
        }
    }

    #[test]
    fn low_precision_features_are_contrasted_in_fp32() {
        let normal = normalise(&noise(8, 6, 1, 1.0, 0.0).to_kind(Kind::BFloat16));
        assert_eq!(normal.kind(), Kind::Float);
        assert_eq!(contrast(&normal, 0.1, Objective::FlatClr).gradient.kind(), Kind::Float);
    }

    /// Pulls only at anchors whose v is above the mean of the step before.
    #[derive(Debug)]
    struct AboveMean(Tensor);

    impl Loss for AboveMean {
        fn contrast(&self, pairs: &Pairs) -> Contrast {
            pairs.contrast(|anchors| anchors.log_xi.gt_tensor(&self.0).to_kind(Kind::Float))
        }

        fn update(&mut self, _: &Tensor, anchors: &Anchors) {
            self.0.copy_(&anchors.log_xi.mean(Kind::Float));
        }

        fn state(&self) -> StateDict {
            let mut state = StateDict::new();
            state.push("mean", self.0.shallow_clone());
            state
        }
    }

    #[test]
    fn an_objective_with_state_goes_on_from_what_was_saved() {
        let fresh = || AboveMean(Tensor::zeros([], (Kind::Float, Device::Cpu)));
        let step = |loss: &mut AboveMean, number: i64| {
            let z = normalise(&noise(12, 5, number, 1.0, 0.1));
            let contrast = loss.contrast(&Pairs::new(&z, 0.2));
            loss.update(&z, &contrast.anchors);
            contrast.gradient
        };
        let mut whole = fresh();
        (1..3).for_each(|number| drop(step(&mut whole, number)));
        let saved = whole.state().snapshot();
        let wanted = step(&mut whole, 3);
        let (mut other, mut none) = (fresh(), fresh());
        other.state().copy_from(&saved).unwrap();
        assert!(step(&mut other, 3).equal(&wanted));
        assert!(!step(&mut none, 3).equal(&wanted), "the state matters");
        // Ours keep none, and do not take another's.
        let flat = Objective::FlatClr.loss(5, Device::Cpu);
        flat.state().copy_from(&StateDict::new()).unwrap();
        assert!(flat.state().copy_from(&saved).is_err());
    }
}
