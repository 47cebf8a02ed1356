//! InfoNCE (van den Oord et al., arXiv 1807.03748; NT-Xent of SimCLR, arXiv
//! 2002.05709): `mean log(1 + exp v)`.

use tch::Tensor;

/// The factor of each anchor's gradient: q = sigmoid(v). It vanishes as the positive wins, and in low precision it
/// becomes 0 altogether: that is the paper's numerical argument.
pub(super) fn pull(log_xi: &Tensor) -> Tensor {
    log_xi.sigmoid()
}
