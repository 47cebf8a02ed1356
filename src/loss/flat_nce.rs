//! FlatNCE (arXiv 2107.01152): `mean exp(v - stop_grad(v))`. Its value is 1
//! always; its gradient is that of v, the contrast that excludes the positive
//! from the sum, as the decoupled contrastive loss (arXiv 2110.06848) does.

use tch::Tensor;

/// The factor of each anchor's gradient: 1, however well the positive does.
pub(super) fn pull(log_xi: &Tensor) -> Tensor {
    log_xi.ones_like()
}
