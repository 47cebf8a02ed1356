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

    /// Computed naively in a low precision, log(1 + xi) has no gradient once 1 + xi rounds to 1.
    #[test]
    fn in_low_precision_it_vanishes() {
        for (kind, edge) in [(Kind::Float, 24), (Kind::Half, 11), (Kind::BFloat16, 8)] {
            for (exponent, vanishes) in [(edge + 1, true), (edge - 1, false)] {
                let xi = Tensor::from_slice(&[2f64.powi(-exponent)]).to_kind(kind);
                let value = (&xi + 1.0).log();
                assert_eq!(value.double_value(&[0]) == 0.0, vanishes, "{kind:?} xi = 2^-{exponent}");
            }
        }
    }
}
