//! What makes a result doubtful, told beside it with the next step.

use super::outcome::{Outcome, Protocol};
use crate::report::short;

/// A loss so many times that of a guess has no minimum near it: with a penalty too, the minimum is below a guess.
const DIVERGED: f64 = 10.0;

/// Looks at a finished evaluation: its numbers, the labels of the test images, and the loss of the last epoch.
pub fn doubts(outcome: &Outcome, test_labels: &[i64], last_loss: Option<f64>) -> Vec<String> {
    let linear = outcome.protocol == Protocol::LinearEval;
    let lr = short(outcome.lr);
    let guess = (outcome.classes.max(2) as f64).ln();
    if let Some(loss) = last_loss.filter(|&loss| loss > DIVERGED * guess) {
        let scale = if linear { ", or bring the features to one scale with --fc-standardize true" } else { "" };
        return vec![format!(
            "the loss is {loss:.3e} after the last epoch, where guessing has {guess:.2}: the training has diverged, and the \
             accuracy says nothing; lower --fc-lr (it was {lr}){scale}"
        )];
    }
    if outcome.classes < 2 {
        return Vec::new();
    }
    let chance = chance(test_labels);
    if outcome.epochs_trained == 0 || outcome.test_top1_last_epoch > at_chance(chance, outcome.test_images) {
        return Vec::new();
    }
    let said = format!(
        "test top-1 {:.1}% is no more than guessing gives ({chance:.1}% of the test images are of the most frequent class)",
        outcome.test_top1_last_epoch
    );
    vec![if outcome.train_top1 > at_chance(chance, outcome.train_images) {
        format!(
            "{said}, though {:.1}% of the training images are right: look whether both parts have the same classes, and \
             train on more images, or for fewer --fc-epochs",
            outcome.train_top1
        )
    } else {
        format!(
            "{said}: nothing was learned; try another --fc-lr (it was {lr}), a tenth of it first, or more --fc-epochs"
        )
    }]
}

/// Percent of the images that are of the most frequent class: what an answer that never changes gets right.
fn chance(labels: &[i64]) -> f64 {
    let mut sorted = labels.to_vec();
    sorted.sort_unstable();
    let most = sorted.chunk_by(|a, b| a == b).map(<[i64]>::len).max().unwrap_or(0);
    100.0 * most as f64 / labels.len().max(1) as f64
}

/// The chance and one standard deviation of a guesser's luck on so many images, percent.
fn at_chance(chance: f64, images: usize) -> f64 {
    let share = chance / 100.0;
    chance + 100.0 * (share * (1.0 - share) / images.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(train_top1: f64, test_top1: f64) -> Outcome {
        Outcome {
            classes: 12,
            train_images: 216,
            test_images: 120,
            epochs_trained: 3,
            lr: 1.6,
            train_top1,
            test_top1_last_epoch: test_top1,
            ..Outcome::default()
        }
    }

    #[test]
    fn a_result_that_says_nothing_is_told_with_the_next_step() {
        let labels: Vec<i64> = (0..120).map(|image| image % 12).collect();
        let doubts = |train, test, loss| doubts(&outcome(train, test), &labels, Some(loss));
        assert_eq!(doubts(60.0, 40.0, 1.2), [""; 0]);
        assert_eq!(doubts(8.0, 12.5, 2.4), [""; 0], "more than luck");
        let text = doubts(8.3, 8.3, 2.5).remove(0);
        assert!(
            text.contains("8.3% is no more than guessing gives") && text.contains("--fc-lr (it was 1.6)"),
            "{text}"
        );
        let text = doubts(100.0, 8.3, 0.1).remove(0);
        assert!(text.contains("100.0% of the training images are right"), "{text}");
        let text = doubts(30.0, 30.0, 6e19).remove(0);
        assert!(text.contains("6.000e19") && text.contains("diverged") && text.contains("--fc-standardize"), "{text}");
    }

    #[test]
    fn the_most_frequent_class_is_the_chance() {
        assert_eq!(chance(&[0, 1, 1, 1]), 75.0);
        assert_eq!(chance(&[]), 0.0);
    }
}
