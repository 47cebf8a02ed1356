//! Where the features lie: together, apart, or all in one place.
//!
//! Alignment and uniformity are those of Wang and Isola (arXiv 2005.10242), the
//! effective rank is RankMe (Garrido et al., arXiv 2210.02885), the spread is
//! the standard deviation that SimSiam watches (Chen and He, arXiv 2011.10566).

use tch::{Device, Kind, Tensor};

/// Rows that the effective rank looks at, at most: more would cost more than they tell.
const RANK_ROWS: i64 = 1024;

/// Rows whose pairs uniformity is the mean over, at most.
const PAIR_ROWS: i64 = 512;

/// Mean squared distance of the two views of an image, `[]`; 0 when they agree. `unit` is `[2B, P]`, rows of length 1,
/// view-major.
pub fn alignment(unit: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    let images = unit.size()[0] / 2;
    let difference = unit.narrow(0, 0, images) - unit.narrow(0, images, images);
    difference.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Float).mean(Kind::Float)
}

/// log of the mean of exp(-2 |a - b|^2) over pairs of different images, `[]`: 0 when all features are one, -4 at best
/// when they are spread evenly over a sphere of many dimensions. `unit` as for [`alignment`]; first views only.
pub fn uniformity(unit: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    let rows = (unit.size()[0] / 2).min(PAIR_ROWS);
    let z = unit.narrow(0, 0, rows).to_kind(Kind::Float);
    // |a - b|^2 = 2 - 2 a.b
    let kernel = (z.matmul(&z.tr()).g_mul_scalar_(4.0) - 4.0).exp_(); // [rows, rows]
    let pairs = (rows * (rows - 1)).max(1) as f64;
    ((kernel.sum(Kind::Float) - kernel.diagonal(0, 0, 1).sum(Kind::Float)) / pairs).log()
}

/// Standard deviation of each dimension, averaged, times the square root of the number of dimensions, `[]`: about 1 for
/// unit rows spread evenly, 0 for collapsed ones. `unit` is `[M, P]`.
pub fn spread(unit: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    let (_, dimensions) = unit.size2().expect("features are a matrix [M, P]");
    let deviation = unit.to_kind(Kind::Float).std_dim([0i64].as_slice(), false, false);
    deviation.mean(Kind::Float) * (dimensions as f64).sqrt()
}

/// Effective rank of features `[M, D]`: exp of the entropy of their singular values, taken as shares of their sum.
/// Between 1 and min(M, D, 1024). NaN where a feature is not finite.
pub fn effective_rank(features: &Tensor) -> f64 {
    let _guard = tch::no_grad_guard();
    let rows = features.size()[0].min(RANK_ROWS);
    let x = features.narrow(0, 0, rows).to_device(Device::Cpu).to_kind(Kind::Double);
    if x.isfinite().all().int64_value(&[]) == 0 {
        return f64::NAN;
    }
    // The smaller of the two products has the same eigenvalues: the squares of the singular values.
    let gram = if rows < x.size()[1] { x.matmul(&x.tr()) } else { x.tr().matmul(&x) };
    let values = Vec::<f64>::try_from(gram.linalg_eigvalsh("L").clamp_min(0.0).sqrt()).expect("a vector of doubles");
    let sum: f64 = values.iter().sum();
    if sum <= 0.0 {
        return 1.0;
    }
    let shares = values.iter().map(|value| value / sum).filter(|&share| share > 0.0);
    (-shares.map(|share| share * share.ln()).sum::<f64>()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(rows: i64, columns: i64) -> Tensor {
        tch::manual_seed(5);
        let x = Tensor::randn([rows, columns], (Kind::Float, Device::Cpu));
        let length = x.norm_scalaropt_dim(2, [1], true);
        x / length
    }

    fn number(tensor: Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn alignment_and_uniformity_are_the_means_over_pairs() {
        let z = unit(12, 5);
        let rows: Vec<Vec<f64>> = Vec::<Vec<f64>>::try_from(z.to_kind(Kind::Double)).unwrap();
        let squared = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
        let aligned = (0..6).map(|i| squared(&rows[i], &rows[i + 6])).sum::<f64>() / 6.0;
        assert!((number(alignment(&z)) - aligned).abs() < 1e-6);
        let (mut kernel, mut pairs) = (0.0, 0);
        for i in 0..6 {
            for j in (0..6).filter(|&j| j != i) {
                kernel += (-2.0 * squared(&rows[i], &rows[j])).exp();
                pairs += 1;
            }
        }
        assert!((number(uniformity(&z)) - (kernel / f64::from(pairs)).ln()).abs() < 1e-5);
    }

    #[test]
    fn collapse_is_told_from_an_even_spread() {
        let even = unit(2000, 64);
        assert!((number(spread(&even)) - 1.0).abs() < 0.02);
        assert!(number(uniformity(&even)) < -3.5);
        let collapsed = even.narrow(0, 0, 1).repeat([200, 1]);
        assert!(number(spread(&collapsed)).abs() < 1e-3);
        assert!(number(uniformity(&collapsed)).abs() < 1e-4);
        assert!(number(alignment(&collapsed)).abs() < 1e-6);
    }

    #[test]
    fn the_effective_rank_counts_equal_directions() {
        let axes = Tensor::eye(10, (Kind::Float, Device::Cpu));
        // Ten equal singular values; then three; then one.
        assert!((effective_rank(&axes.repeat([4, 1])) - 10.0).abs() < 1e-6);
        assert!((effective_rank(&axes.narrow(0, 0, 3)) - 3.0).abs() < 1e-6);
        assert!((effective_rank(&axes.narrow(0, 0, 1).repeat([7, 1])) - 1.0).abs() < 1e-6);
        assert_eq!(effective_rank(&axes.zeros_like()), 1.0);
        assert!(effective_rank(&(axes.shallow_clone() / 0.0)).is_nan());
        // Against the singular values themselves.
        let x = unit(30, 8);
        let (_, s, _) = x.svd(true, false);
        let s = Vec::<f64>::try_from(s.to_kind(Kind::Double)).unwrap();
        let sum: f64 = s.iter().sum();
        let entropy: f64 = -s.iter().map(|v| v / sum * (v / sum).ln()).sum::<f64>();
        assert!((effective_rank(&x) - entropy.exp()).abs() < 1e-4);
    }
}
