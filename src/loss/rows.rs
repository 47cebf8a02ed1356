//! What one row of similarities, one anchor against its negatives, says.

use tch::{Kind, Tensor};

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
    pub(super) fn concatenate(parts: &[Anchors]) -> Anchors {
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

/// Statistics and importance weights w = softmax(d) of rows of logits.
///
/// `logits` `[R, C]` are similarities over the temperature with -inf where a column is no negative; they are
/// overwritten and become the weights. `positive` `[R]` likewise over the temperature. `negative` `[R]` is the mean
/// cosine similarity with the K = `count` negatives.
pub(super) fn read(
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

/// Statistics and importance weights of explicit similarities: `positive` `[R, 1]`, `negatives` `[R, K]`, cosine
/// similarities in float32. Returns the weights `[R, K]` beside the statistics.
pub fn anchors(positive: &Tensor, negatives: &Tensor, temperature: f64) -> (Anchors, Tensor) {
    let _guard = tch::no_grad_guard();
    let (_, count) = negatives.size2().expect("negatives are a matrix [R, K]");
    let mean = negatives.mean_dim([1i64].as_slice(), false, Kind::Float);
    read(negatives / temperature, &(positive.squeeze_dim(1) / temperature), mean, temperature, count)
}
