//! Every view of a batch against all others: what the rows of similarities say,
//! and the gradient of a loss of them.

use super::info_nce;
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
    /// The reported loss of every objective, InfoNCE's value: mean log(1 + xi). `[]` float32, on the device.
    pub fn value(&self) -> Tensor {
        info_nce::value(&self.anchors.log_xi)
    }
}

/// Statistics of M anchors, each `[M]` float32 on the features' device, not recorded for autograd.
#[derive(Debug)]
pub struct Anchors {
    /// v = log xi = logsumexp over negatives of (s_j - s_pos) / t.
    pub log_xi: Tensor,
    /// Normalised effective sample size 1 / (K sum_j w_j^2), in [1/K, 1].
    pub ness: Tensor,
    /// Negatives at least as similar as the positive. Ties count against the anchor, so collapsed features score 0.
    pub rank: Tensor,
    /// Cosine similarity with the positive.
    pub positive: Tensor,
    /// Mean cosine similarity with the negatives.
    pub negative: Tensor,
}

impl Anchors {
    fn concatenate(parts: &[Anchors]) -> Anchors {
        let join = |field: fn(&Anchors) -> &Tensor| Tensor::cat(&parts.iter().map(field).collect::<Vec<_>>(), 0);
        Anchors {
            log_xi: join(|a| &a.log_xi),
            ness: join(|a| &a.ness),
            rank: join(|a| &a.rank),
            positive: join(|a| &a.positive),
            negative: join(|a| &a.negative),
        }
    }

    /// The statistics as columns, `[M, 5]`, to travel between processes.
    pub fn to_rows(&self) -> Tensor {
        Tensor::stack(&[&self.log_xi, &self.ness, &self.rank, &self.positive, &self.negative], 1)
    }

    /// From what [`Anchors::to_rows`] gave.
    pub fn from_rows(rows: &Tensor) -> Anchors {
        let column = |number: i64| rows.select(1, number).contiguous();
        Anchors { log_xi: column(0), ness: column(1), rank: column(2), positive: column(3), negative: column(4) }
    }

    /// Share of anchors whose positive is among the `k` most similar, `[]` float32.
    pub fn top(&self, k: i64) -> Tensor {
        self.rank.lt(k as f64).to_kind(Kind::Float).mean(Kind::Float)
    }
}

/// The views of a batch, and those among them that are compared with all others.
#[derive(Debug)]
pub struct Pairs<'a> {
    /// Rows of unit length `[M, D]` float32, view-major: row i and row i + M/2 are the two views of one image.
    pub features: &'a Tensor,
    /// Images whose two views are anchors, out of M/2: all, or those of one rank.
    pub images: Range<i64>,
    pub temperature: f64,
    /// Similarities in memory at once, at most; but at least one row.
    pub chunk_elements: i64,
}

impl Pairs<'_> {
    /// All views of a batch as anchors.
    pub fn new(features: &Tensor, temperature: f64) -> Pairs<'_> {
        Pairs { features, images: 0..features.size()[0] / 2, temperature, chunk_elements: CHUNK_ELEMENTS }
    }

    /// Gradient and statistics of the loss with this `pull`: q = d loss / d v of each anchor, `[R]`, from the statistics
    /// of R anchors. The gradient `[M, D]` is the anchors' with respect to all features, and the parts of all images add
    /// up to the whole; the statistics are those of the anchors alone, view-major.
    ///
    /// Nothing is recorded for autograd; [`backward`](super::backward) hands the gradient on.
    ///
    /// Panics if the batch has fewer than two images: without negatives there is no contrast.
    pub fn contrast(&self, pull: impl Fn(&Anchors) -> Tensor) -> Contrast {
        let _guard = tch::no_grad_guard();
        let (z, temperature) = (self.features.detach(), self.temperature);
        let (views, _) = z.size2().expect("features are a matrix [M, D]");
        let images = views / 2;
        assert!(images >= 2 && views % 2 == 0, "{views} views are no batch of two views of at least two images");
        let rows_at_once = (self.chunk_elements / views).clamp(1, images);

        let mut gradient = z.zeros_like();
        let sum = z.sum_dim_intlist([0i64].as_slice(), false, Kind::Float); // [D]
        let mut parts = Vec::new();
        // A chunk never crosses from the first views to the second, so its positives lie on one diagonal.
        for half in [0, images] {
            for offset in self.images.clone().step_by(rows_at_once as usize) {
                let first = half + offset;
                let rows = rows_at_once.min(self.images.end - offset);
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
                let (anchors, mut weights) = read_rows(logits, &positive, negative, temperature, views - 2);
                let scale = pull(&anchors) / (temperature * views as f64); // [rows]
                weights *= scale.unsqueeze(1);
                weights.diagonal(positive_column, 0, 1).copy_(&scale.neg());
                // s_ij = z_i . z_j: the anchor's own gradient, and that of the rows it was compared with.
                let mut mine = gradient.narrow(0, first, rows);
                let _ = mine.addmm_(&weights, &z);
                let _ = gradient.addmm_(&weights.tr(), &own);
                parts.push(anchors);
            }
        }
        Contrast { gradient, anchors: Anchors::concatenate(&parts) }
    }
}

/// Statistics and importance weights w = softmax(d) of rows of logits.
///
/// `logits` `[R, C]` are similarities over the temperature with -inf where a column is no negative; they are
/// overwritten and become the weights. `positive` `[R]` likewise over the temperature. `negative` `[R]` is the mean
/// cosine similarity with the K = `count` negatives.
fn read_rows(
    mut logits: Tensor,
    positive: &Tensor,
    negative: Tensor,
    temperature: f64,
    count: i64,
) -> (Anchors, Tensor) {
    let rank = logits.ge_tensor(&positive.unsqueeze(1)).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    let log_sum = logits.logsumexp([1], false);
    let _ = logits.g_sub_(&log_sum.unsqueeze(1));
    let weights = logits.exp_();
    let squares = weights.norm_scalaropt_dim(2, [1], false).square();
    let ness = (squares * count as f64).reciprocal();
    let anchors = Anchors { log_xi: log_sum - positive, ness, rank, positive: positive * temperature, negative };
    (anchors, weights)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{noise, relative_error, to_vec};
    use super::*;

    /// Of explicit similarities: `positive` `[R, 1]`, `negatives` `[R, K]`. The weights are `[R, K]`.
    fn anchors(positive: &Tensor, negatives: &Tensor, temperature: f64) -> (Anchors, Tensor) {
        let count = negatives.size()[1];
        let mean = negatives.mean_dim([1i64].as_slice(), false, Kind::Float);
        read_rows(negatives / temperature, &(positive.squeeze_dim(1) / temperature), mean, temperature, count)
    }

    /// The worked example of the reference.
    #[test]
    fn one_anchor_by_hand() {
        let positive = Tensor::from_slice(&[0.8f32]).view([1, 1]);
        let negatives = Tensor::from_slice(&[0.5f32, 0.1, -0.2, 0.3]).view([1, 4]);
        let (a, w) = anchors(&positive, &negatives, 0.1);
        let v = a.log_xi.double_value(&[0]);
        assert!((v + 2.8562783).abs() < 1e-5);
        assert!((v.exp() - 0.0574823).abs() < 1e-6);
        assert!((v.exp().ln_1p() - 0.0558909).abs() < 1e-6);
        assert!((5f64.ln() - v.exp().ln_1p() - 1.5535470).abs() < 1e-6);
        assert!((a.ness.double_value(&[0]) - 0.3271518).abs() < 1e-6);
        assert!((a.log_xi.sigmoid().double_value(&[0]) - 0.0543577).abs() < 1e-6);
        let weights = Tensor::from_slice(&[0.8661287, 0.0158637, 0.0007898, 0.1172178]);
        assert!(relative_error(&w.view(-1), &weights) < 1e-6);
        assert!((a.negative.double_value(&[0]) - 0.175).abs() < 1e-6);
        assert_eq!(a.rank.double_value(&[0]), 0.0);
    }

    #[test]
    fn weights_and_ness_ignore_the_positive_shifts_and_order() {
        let (p, n) = (noise(6, 1, 3, 0.4, 0.3), noise(6, 9, 8, 0.6, 0.0));
        let (base, w) = anchors(&p, &n, 0.2);
        let (moved, w_moved) = anchors(&(&p - 0.35), &n, 0.2);
        assert!(relative_error(&w_moved, &w) < 1e-5);
        assert!(relative_error(&moved.ness, &base.ness) < 1e-5);
        let (shifted, _) = anchors(&(&p + 0.5), &(&n + 0.5), 0.2);
        assert!(relative_error(&shifted.log_xi, &base.log_xi) < 1e-5);
        let (permuted, w_flipped) = anchors(&p, &n.flip([1]), 0.2);
        assert!(relative_error(&permuted.log_xi, &base.log_xi) < 1e-6);
        assert!(relative_error(&w_flipped.flip([1]), &w) < 1e-6);
        assert!(to_vec(&base.ness).iter().all(|&ness| (1.0 / 9.0 - 1e-6..=1.0 + 1e-6).contains(&ness)));
    }
}
