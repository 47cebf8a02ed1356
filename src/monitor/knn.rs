//! Nearest neighbours in the space of features: how good an encoder is, without
//! training anything on it.
//!
//! Similarity is the cosine. The neighbours of a query vote for their classes:
//!
//! ```text
//! weighted   score_c = sum over the k neighbours of class c of exp(s / t)      (Wu et al., arXiv 1805.01978)
//! plain      score_c = how many of the k neighbours are of class c
//! ```
//!
//! Everything is exact and repeats bit for bit. Ties: of images that are equally
//! similar, those that come first in the bank are the nearer ones; of classes
//! with equal scores the one of the lowest index wins.

use tch::{Kind, Tensor};

/// Numbers held at once, at most, in the table of similarities and in that of votes: 256 MiB in float32.
const CHUNK_ELEMENTS: i64 = 1 << 26;
/// Neighbours of the plain vote, as it is usually reported.
pub const PLAIN_NEIGHBOURS: i64 = 20;

/// What a neighbour's vote weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Vote {
    /// exp(similarity / temperature).
    Weighted { temperature: f64 },
    /// One.
    Plain,
}

/// Images whose classes are known.
#[derive(Debug)]
pub struct Bank {
    /// Rows of unit length, `[N, D]`.
    rows: Tensor,
    /// i64 `[N]`.
    labels: Tensor,
    classes: i64,
}

impl Bank {
    /// `features` is `[N, D]` in float32 or float64, in which everything is computed; `labels` i64 `[N]` in `0..classes`.
    ///
    /// # Panics
    /// If there is no image, or not one label an image.
    pub fn new(features: &Tensor, labels: &Tensor, classes: i64) -> Bank {
        let images = features.size()[0];
        assert!(images > 0 && labels.size() == [images], "{images} images, labels {:?}", labels.size());
        Bank { rows: unit(features), labels: labels.to_device(features.device()), classes }
    }

    /// The class of each query, `[M, D]` to i64 `[M]`. More neighbours than images in the bank are all of them.
    ///
    /// # Panics
    /// If the queries have another width or `neighbours` is 0.
    pub fn classify(&self, queries: &Tensor, neighbours: i64, vote: Vote) -> Tensor {
        assert!(neighbours > 0, "somebody has to vote");
        let _guard = tch::no_grad_guard();
        let images = self.labels.size()[0];
        let neighbours = neighbours.min(images);
        let widest = images.max(neighbours * self.classes);
        let queries_at_once = (CHUNK_ELEMENTS / widest).max(1);
        let classes: Vec<Tensor> = (0..queries.size()[0])
            .step_by(queries_at_once as usize)
            .map(|first| {
                let last = (first + queries_at_once).min(queries.size()[0]);
                let similarities = unit(&queries.slice(0, first, last, 1)).matmul(&self.rows.tr()); // [m, N]
                self.elect(&similarities, neighbours, vote)
            })
            .collect();
        if classes.is_empty() {
            return Tensor::empty([0], (Kind::Int64, queries.device()));
        }
        Tensor::cat(&classes, 0)
    }

    /// Percent of queries whose class is found.
    pub fn top1(&self, queries: &Tensor, labels: &Tensor, neighbours: i64, vote: Vote) -> f64 {
        let right = self.classify(queries, neighbours, vote).eq_tensor(&labels.to_device(queries.device()));
        100.0 * right.to_kind(Kind::Double).mean(None).double_value(&[])
    }

    /// Similarities `[m, N]` to classes `[m]`.
    fn elect(&self, similarities: &Tensor, neighbours: i64, vote: Vote) -> Tensor {
        let (nearest, places) = nearest(similarities, neighbours); // [m, k] both
        let weights = match vote {
            // Divided by exp(1 / t), which moves no winner and keeps small temperatures finite.
            Vote::Weighted { temperature } => ((nearest.to_kind(Kind::Double) - 1.0) / temperature).exp(),
            Vote::Plain => nearest.ones_like().to_kind(Kind::Double),
        };
        let voters = self.labels.index_select(0, &places.view(-1)).view_as(&places);
        // [m, k, C]; a scattered sum would add in any order on a GPU.
        let ballots = voters.one_hot(self.classes).to_kind(Kind::Double) * weights.unsqueeze(2);
        ballots.sum_dim_intlist([1i64].as_slice(), false, Kind::Double).argmax(1, false)
    }
}

/// The `count` largest values of each row in falling order, and their places: of equal values the first ones.
fn nearest(similarities: &Tensor, count: i64) -> (Tensor, Tensor) {
    let images = similarities.size()[1];
    if count == images {
        return similarities.sort_stable(true, 1, true);
    }
    // One more than wanted shows where a tie runs across the border; topk picks any of its members.
    let (values, places) = similarities.topk(count + 1, 1, true, true);
    let torn = values.select(1, count).eq_tensor(&values.select(1, count - 1)); // [m]
    let (values, places) = (values.narrow(1, 0, count).contiguous(), places.narrow(1, 0, count).contiguous());
    let rows = torn.nonzero().view(-1);
    if rows.numel() == 0 {
        return (values, places);
    }
    let (_, sorted) = similarities.index_select(0, &rows).sort_stable(true, 1, true);
    (values, places.index_copy(0, &rows, &sorted.narrow(1, 0, count).contiguous()))
}

/// Rows scaled to length 1; a row of zeros stays.
fn unit(rows: &Tensor) -> Tensor {
    let length = rows.square().sum_dim_intlist([1i64].as_slice(), true, rows.kind()).sqrt();
    rows / length.clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use tch::Device;

    /// Whole-numbered features in few dimensions: many exact ties.
    fn features(rows: usize, width: usize, salt: u64) -> Tensor {
        let mut stream = Stream::new(salt, Purpose::Evaluation, 0, 0, 0);
        let values: Vec<f64> = (0..rows * width).map(|_| stream.below(3) as f64).collect();
        Tensor::from_slice(&values).view([rows as i64, width as i64])
    }

    fn labels(rows: usize, classes: u64, salt: u64) -> Tensor {
        let mut stream = Stream::new(salt, Purpose::Evaluation, 1, 0, 0);
        Tensor::from_slice(&(0..rows).map(|_| stream.below(classes) as i64).collect::<Vec<_>>())
    }

    /// Sorts all images for every query, counts votes one by one.
    fn oracle(bank: &Bank, queries: &Tensor, neighbours: usize, vote: Vote) -> Vec<i64> {
        let similarities = unit(queries).matmul(&bank.rows.tr());
        let classes = Vec::<i64>::try_from(&bank.labels).unwrap();
        (0..queries.size()[0])
            .map(|query| {
                let row = Vec::<f64>::try_from(similarities.get(query)).unwrap();
                let mut order: Vec<usize> = (0..row.len()).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
                let mut scores = vec![0.0f64; bank.classes as usize];
                for &image in order.iter().take(neighbours) {
                    scores[classes[image] as usize] += match vote {
                        Vote::Weighted { temperature } => ((row[image] - 1.0) / temperature).exp(),
                        Vote::Plain => 1.0,
                    };
                }
                let best = scores.iter().copied().fold(f64::MIN, f64::max);
                scores.iter().position(|&score| score == best).unwrap() as i64
            })
            .collect()
    }

    #[test]
    fn votes_are_those_of_a_naive_count_ties_included() {
        let (train, test) = (features(300, 3, 1), features(80, 3, 2));
        let bank = Bank::new(&train, &labels(300, 4, 3), 4);
        for neighbours in [1, 2, 5, 20, 299, 300, 1000] {
            let got = Vec::<i64>::try_from(bank.classify(&test, neighbours, Vote::Plain)).unwrap();
            assert_eq!(got, oracle(&bank, &test, neighbours as usize, Vote::Plain), "{neighbours} neighbours");
        }
        // Without exact ties between classes: sums in another order differ in the last bit.
        let train = features(300, 8, 4) + Tensor::arange(300, (Kind::Double, Device::Cpu)).unsqueeze(1) * 1e-3;
        let bank = Bank::new(&train, &labels(300, 4, 5), 4);
        let (test, vote) = (features(80, 8, 6) + 0.01, Vote::Weighted { temperature: 0.1 });
        for neighbours in [1, 7, 200, 300] {
            let got = Vec::<i64>::try_from(bank.classify(&test, neighbours, vote)).unwrap();
            assert_eq!(got, oracle(&bank, &test, neighbours as usize, vote), "{neighbours} neighbours");
        }
    }

    #[test]
    fn the_length_of_a_feature_and_the_size_of_a_chunk_do_not_matter() {
        // No two images alike: products of other shapes round differently, which would settle exact ties differently.
        let train = features(200, 6, 7) + Tensor::arange(1200, (Kind::Double, Device::Cpu)).sin().view([200, 6]);
        let (test, names) = (features(50, 6, 8) + 0.1, labels(200, 5, 9));
        let vote = Vote::Weighted { temperature: 0.07 };
        let bank = Bank::new(&train, &names, 5);
        let whole = bank.classify(&test, 11, vote);
        assert_eq!(whole, Bank::new(&(train * 4.0), &names, 5).classify(&(&test * 0.25), 11, vote));
        let single: Vec<Tensor> = (0..50).map(|i| bank.classify(&test.narrow(0, i, 1), 11, vote)).collect();
        assert_eq!(whole, Tensor::cat(&single, 0));
    }

    #[test]
    fn a_bank_knows_its_own_images_and_small_temperatures_stay_finite() {
        let (train, names) = (Tensor::eye(12, (Kind::Float, Device::Cpu)), labels(12, 3, 1));
        let bank = Bank::new(&train, &names, 3);
        assert_eq!(bank.top1(&train, &names, 1, Vote::Plain), 100.0);
        assert_eq!(bank.top1(&train, &names, 12, Vote::Weighted { temperature: 1e-3 }), 100.0);
    }
}
