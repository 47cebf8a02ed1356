//! The two contrastive objectives and what they say about a batch
//! (arXiv 2107.01152; upstream: `flatclr.py`, `simclr.py`).
//!
//! For anchor i of the M = 2N views, `s_pos` is the cosine similarity with the
//! other view of its image, `s_j` those with the K = M - 2 views of other
//! images, t the temperature:
//!
//! ```text
//! d_j = (s_j - s_pos) / t      v = logsumexp_j d_j      w = softmax(d)
//! InfoNCE: mean log(1 + exp v)             FlatNCE: mean exp(v - stop_grad(v))
//! ```
//!
//! Both have the gradient `q * (sum_j w_j grad s_j - grad s_pos) / t` per
//! anchor; only the pull q differs: sigmoid(v) for InfoNCE, 1 for FlatNCE. So
//! the similarities are computed once, in float32, the gradient is written down
//! directly instead of being recorded, and rows are handled in chunks: memory
//! grows with M times the chunk, not with M squared.

mod flat_nce;
mod info_nce;
mod rows;

pub use rows::{Anchors, anchors};

use crate::config::Objective;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Similarities held at once, at most: 16 million numbers, 64 MiB.
const CHUNK_ELEMENTS: i64 = 1 << 24;

/// Gradient and statistics of one batch.
#[derive(Debug)]
pub struct Contrast {
    /// d loss / d features, `[M, D]` float32, for the loss averaged over the M anchors.
    pub gradient: Tensor,
    /// Per-anchor statistics, each `[M]` float32.
    pub anchors: Anchors,
}

impl Contrast {
    /// The reported loss of either objective, InfoNCE's value: mean log(1 + xi). `[]` float32, on the device.
    pub fn value(&self) -> Tensor {
        self.anchors.log_xi.softplus().mean(Kind::Float)
    }

    /// A bound below the mutual information of the two views, in nats: log(M - 1) minus the value.
    pub fn mutual_information_ceiling(&self) -> f64 {
        ((self.anchors.log_xi.numel() - 1) as f64).ln()
    }
}

/// Rows scaled to unit length, as `torch.nn.functional.normalize(dim=1)`; float32 whatever the input's precision.
pub fn normalise(projected: &Tensor) -> Tensor {
    let x = projected.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2, [1], true).clamp_min(1e-12);
    x / norm
}

/// Gradient and statistics of `objective` on unit-length features `[M, D]` float32, view-major: row i and row
/// i + M/2 are the two views of one image.
///
/// Nothing is recorded for autograd; [`backward`] hands the gradient on.
///
/// Panics if the batch has fewer than two images: without negatives there is no contrast.
pub fn contrast(features: &Tensor, temperature: f64, objective: Objective) -> Contrast {
    contrast_in_chunks(features, temperature, objective, CHUNK_ELEMENTS)
}

/// [`contrast`] with at most `chunk_elements` similarities in memory at once (but at least one row).
pub fn contrast_in_chunks(features: &Tensor, temperature: f64, objective: Objective, chunk_elements: i64) -> Contrast {
    let images = features.size()[0] / 2;
    of_anchors(features, 0..images, temperature, objective, chunk_elements)
}

/// The part of [`contrast`] that the anchors of the images `anchors` make, out of M/2: the gradient `[M, D]` is theirs
/// with respect to all features, and the parts of all images add up to the whole; the statistics are of their
/// 2 * `anchors.len()` views alone, view-major.
pub fn contrast_of(features: &Tensor, anchors: Range<i64>, temperature: f64, objective: Objective) -> Contrast {
    of_anchors(features, anchors, temperature, objective, CHUNK_ELEMENTS)
}

fn of_anchors(
    features: &Tensor,
    anchors: Range<i64>,
    temperature: f64,
    objective: Objective,
    chunk_elements: i64,
) -> Contrast {
    let _guard = tch::no_grad_guard();
    let z = features.detach();
    let (views, _) = z.size2().expect("features are a matrix [M, D]");
    let images = views / 2;
    assert!(images >= 2 && views % 2 == 0, "{views} views are no batch of two views of at least two images");
    let rows_at_once = (chunk_elements / views).clamp(1, images);

    let mut gradient = z.zeros_like();
    let sum = z.sum_dim_intlist([0i64].as_slice(), false, Kind::Float); // [D]
    let mut parts = Vec::new();
    // A chunk never crosses from the first views to the second, so its positives lie on one diagonal.
    for half in [0, images] {
        for offset in anchors.clone().step_by(rows_at_once as usize) {
            let first = half + offset;
            let rows = rows_at_once.min(anchors.end - offset);
            let own = z.narrow(0, first, rows);
            let logits = own.matmul(&z.tr()).g_div_scalar_(temperature); // [rows, M]
            let positive_column = if half == 0 { first + images } else { first - images };
            let positive = logits.diagonal(positive_column, 0, 1).copy(); // [rows]
            let _ = logits.diagonal(first, 0, 1).fill_(f64::NEG_INFINITY);
            let _ = logits.diagonal(positive_column, 0, 1).fill_(f64::NEG_INFINITY);

            // The mean over negatives from the sum of all views: no pass over the matrix.
            let negative = (own.mv(&sum)
                - (&own * &own).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
                - &positive * temperature)
                / (views - 2) as f64;
            let (statistics, mut weights) = rows::read(logits, &positive, negative, temperature, views - 2);
            let scale = match objective {
                Objective::SimClr => info_nce::pull(&statistics.log_xi),
                Objective::FlatClr => flat_nce::pull(&statistics.log_xi),
            } / (temperature * views as f64); // [rows]
            weights *= scale.unsqueeze(1);
            weights.diagonal(positive_column, 0, 1).copy_(&scale.neg());
            // s_ij = z_i . z_j: the anchor's own gradient, and that of the rows it was compared with.
            let mut mine = gradient.narrow(0, first, rows);
            let _ = mine.addmm_(&weights, &z);
            let _ = gradient.addmm_(&weights.tr(), &own);
            parts.push(statistics);
        }
    }
    Contrast { gradient, anchors: Anchors::concatenate(&parts) }
}

/// Runs autograd from features `[M, D]` to parameters with the gradient `[M, D]` of [`contrast`], or a multiple of it.
pub fn backward(features: &Tensor, gradient: &Tensor) {
    // The product's derivative with respect to `features` is the gradient itself.
    (features * gradient).sum(Kind::Float).backward();
}
