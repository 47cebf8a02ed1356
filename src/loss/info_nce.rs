//! InfoNCE (van den Oord et al., arXiv 1807.03748; NT-Xent of SimCLR, arXiv
//! 2002.05709):
//!
//! ```text
//! mean log(1 + xi) = mean softplus(v)          q = sigmoid(v) = xi / (1 + xi)
//! ```
//!
//! The positive stays in the denominator. So the pull vanishes as the positive
//! wins, and in low precision, where 1 + xi rounds to 1, it is 0 altogether:
//! that is the paper's numerical argument. The value says how much the views
//! tell of each other, log(M - 1) nats at most, which is why it is what every
//! objective reports.

use super::{About, Contrast, Loss, Pairs};
use tch::{Kind, Tensor};

pub(super) const ABOUT: About = About { title: "InfoNCE", directory_suffix: "SimCLR", new: |_, _| Box::new(InfoNce) };

#[derive(Debug)]
struct InfoNce;

impl Loss for InfoNce {
    fn contrast(&self, pairs: &Pairs) -> Contrast {
        pairs.contrast(|anchors| pull(&anchors.log_xi))
    }
}

/// The value, `[]`, of anchors with `log_xi` `[M]`.
pub(super) fn value(log_xi: &Tensor) -> Tensor {
    log_xi.softplus().mean(Kind::Float)
}

/// q of each anchor.
fn pull(log_xi: &Tensor) -> Tensor {
    log_xi.sigmoid()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradient_by_definition, noise, relative_error};
    use super::super::{Objective, contrast, normalise};
    use super::*;
    use tch::Device;

    #[test]
    fn every_anchor_pulls_as_hard_as_its_positive_is_in_doubt() {
        let z = normalise(&noise(8, 8, 2, 1.0, 0.1));
        let info = contrast(&z, 0.3, Objective::SimClr);
        let expected = gradient_by_definition(&z, 0.3, |xi| xi / (1.0 + xi));
        assert!(relative_error(&info.gradient, &expected) < 1e-5);
        // The pulls differ between anchors, so the gradient of the batch is no multiple of FlatNCE's.
        let q = pull(&info.anchors.log_xi);
        assert!((q.max() - q.min()).double_value(&[]) > 0.01);
        let ratio = &info.gradient / contrast(&z, 0.3, Objective::FlatClr).gradient;
        assert!(ratio.std(true).double_value(&[]) > 1e-3);
    }

    /// The paper's numerical argument. Computed naively in a low precision, log(1 + xi) has no gradient once 1 + xi rounds
    /// to 1; the program's InfoNCE pulls with sigmoid(log xi) there as everywhere, its FlatNCE with 1.
    #[test]
    fn in_low_precision_it_vanishes() {
        for (kind, edge) in [(Kind::Float, 24), (Kind::Half, 11), (Kind::BFloat16, 8)] {
            for (exponent, vanishes) in [(edge + 1, true), (edge - 1, false)] {
                let xi = 2f64.powi(-exponent);
                let value = (Tensor::from_slice(&[xi]).to_kind(kind) + 1.0).log();
                assert_eq!(value.double_value(&[0]) == 0.0, vanishes, "{kind:?} xi = 2^-{exponent}");
                // Two images whose views agree and that have nothing in common: xi = 2 exp(-1/t) for every anchor.
                let z = Tensor::eye(2, (Kind::Float, Device::Cpu)).repeat([2, 1]);
                let t = 1.0 / (f64::from(exponent + 1) * 2f64.ln());
                let [info, flat] = [Objective::SimClr, Objective::FlatClr].map(|objective| contrast(&z, t, objective));
                assert!((info.anchors.log_xi.double_value(&[0]) - xi.ln()).abs() < 1e-4);
                let error = relative_error(&info.gradient, &(&flat.gradient * (xi / (1.0 + xi))));
                assert!(error < 1e-4, "{kind:?} xi = 2^-{exponent}: {error:e}");
                // Towards the positive with 1/t, from the anchor's side and from the positive's.
                assert!((flat.gradient.double_value(&[0, 0]) * t * 2.0 + 1.0).abs() < 1e-5, "xi = 2^-{exponent}");
            }
        }
    }
}
