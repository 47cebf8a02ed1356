//! FlatNCE (arXiv 2107.01152):
//!
//! ```text
//! mean exp(v - stop_grad(v))          q = 1
//! ```
//!
//! Its value is 1 always; its gradient is that of v, the contrast that excludes
//! the positive from the sum, as the decoupled contrastive loss (arXiv
//! 2110.06848) does. However well the positive does, an anchor pulls at it with
//! -1/t, in every precision. What is reported is InfoNCE's value.

use super::{About, Contrast, Loss, Pairs};

pub(super) const ABOUT: About = About { title: "FlatNCE", directory_suffix: "FlatCLR", new: |_, _| Box::new(FlatNce) };

#[derive(Debug)]
struct FlatNce;

impl Loss for FlatNce {
    fn contrast(&self, pairs: &Pairs) -> Contrast {
        pairs.contrast(|anchors| anchors.log_xi.ones_like())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradient_by_definition, noise, relative_error};
    use super::super::{Objective, contrast, normalise};
    use tch::{Device, Kind, Tensor};

    #[test]
    fn the_positive_pulls_with_one_over_t_and_negatives_push_with_their_weight() {
        let z = normalise(&noise(8, 8, 2, 1.0, 0.1));
        let flat = contrast(&z, 0.3, Objective::FlatClr);
        assert!(relative_error(&flat.gradient, &gradient_by_definition(&z, 0.3, |_| 1.0)) < 1e-5);
    }

    #[test]
    fn it_has_the_gradient_of_the_decoupled_loss() {
        let z = normalise(&noise(10, 6, 4, 1.0, 0.05)).set_requires_grad(true);
        // v averaged over anchors, recorded by autograd.
        let s = z.matmul(&z.tr()) / 0.2;
        let own = Tensor::eye(10, (Kind::Bool, Device::Cpu));
        let positive = s.diagonal(5, 0, 1);
        let positive = Tensor::cat(&[&positive, &positive], 0);
        let negatives = s.masked_fill(&own.logical_or(&own.roll([5], [0])), f64::NEG_INFINITY);
        (negatives.logsumexp([1], false) - positive).mean(Kind::Float).backward();
        assert!(relative_error(&contrast(&z, 0.2, Objective::FlatClr).gradient, &z.grad()) < 1e-5);
    }

    #[test]
    fn in_low_precision_its_pull_stays() {
        for (kind, edge) in [(Kind::Float, 24), (Kind::Half, 11), (Kind::BFloat16, 8)] {
            for exponent in [edge + 1, edge - 1] {
                let s_pos = Tensor::zeros([1], (kind, Device::Cpu)).set_requires_grad(true);
                // d = s_neg - s_pos with xi = exp(d), t = 1.
                let v = Tensor::from_slice(&[-f64::from(exponent) * 2f64.ln()]).to_kind(kind) - &s_pos;
                (&v - v.detach()).exp().backward();
                assert_eq!(s_pos.grad().double_value(&[0]), -1.0, "{kind:?} xi = 2^-{exponent}");
            }
        }
    }
}
