//! When the training of a whole network ends before its last epoch, and which
//! epoch is then the one to quote.
//!
//! A tenth of every class of the training images is kept from training and
//! judges every epoch; the test images have no part in it. Upstream stops by the
//! test images (`main_transfer_ft`), which `--early-stop-on test` repeats.

use super::accuracy::Accuracy;
use crate::checkpoint::Chosen;
use crate::config::{EarlyStopOn, Evaluate, TransferMode};
use crate::data::{Split, counted, grouped};
use crate::train::labelled;
use std::sync::Arc;

/// One image in so many of a class is held out.
const HELD_OUT: usize = 10;

/// The images to train on, and those held out: a tenth of every class, drawn from `seed`, and one at least of every
/// class that has two. `None` where no class has two.
pub fn hold_out(split: &Split, seed: u64) -> Option<(Split, Split)> {
    let labels = split.labels.as_ref()?;
    let count = |members: usize| (members / HELD_OUT).max(usize::from(members > 1));
    let (kept, held_out) = labelled::hold_out(labels, seed, 4, count);
    if held_out.is_empty() {
        return None;
    }
    Some((split.part(&kept, "without the held-out images"), split.part(&held_out, "held out")))
}

/// Whether held-out images decide when training ends.
pub fn holds_out(run: &Evaluate) -> bool {
    run.mode == TransferMode::Finetune && run.patience_epochs > 0 && run.early_stop_on == EarlyStopOn::HeldOut
}

/// The images that a run trains on, and those that it stops by, if it stops by held-out ones.
pub fn parts(run: &Evaluate, train: &Arc<Split>) -> (Arc<Split>, Option<Arc<Split>>) {
    match holds_out(run).then(|| hold_out(train, run.seed)).flatten() {
        Some((kept, held_out)) => (Arc::new(kept), Some(Arc::new(held_out))),
        None => (Arc::clone(train), None),
    }
}

/// When training ends before its last epoch, in words; `held_out` of [`parts`].
pub fn describe(run: &Evaluate, train: &Split, held_out: Option<&Split>) -> Option<String> {
    if run.mode != TransferMode::Finetune || run.patience_epochs == 0 {
        return None;
    }
    let after = format!("after {} without a better top-1 on", counted(run.patience_epochs as usize, "epoch"));
    match (held_out, run.early_stop_on) {
        (Some(held_out), _) => {
            let (few, all) = (grouped(held_out.len()), grouped(train.len()));
            Some(format!("{few} of the {all} training images are held out; {after} them, training ends"))
        }
        (None, EarlyStopOn::Test) => Some(format!("{after} the test images, which flatters the result")),
        (None, EarlyStopOn::HeldOut) => None,
    }
}

/// Keeps the epoch that the held-out images like best; of equals the first.
pub fn better(chosen: Option<Chosen>, held_out: Accuracy, test: Accuracy, epoch: u32) -> Chosen {
    match chosen {
        Some(chosen) if chosen.held_out_top1 >= held_out.top1 => chosen,
        _ => Chosen {
            chosen_epoch: epoch,
            held_out_top1: held_out.top1,
            test_top1_chosen_epoch: test.top1,
            test_top5_chosen_epoch: test.top5,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Packed;

    fn split(labels: &[i64], classes: usize) -> Split {
        let pixels = (0..labels.len()).flat_map(|image| [image as u8; 3]).collect();
        let names = (0..classes).map(|class| class.to_string()).collect();
        let images = Packed::new(pixels, 1, 1);
        Split { labels: Some(labels.to_vec()), classes: names, ..Split::unlabelled(images, "some".into()) }
    }

    /// The pixels of a split of [`split`] say which images it holds.
    fn images(split: &Split) -> Vec<u8> {
        split.packed().unwrap().pixels().iter().copied().step_by(3).collect()
    }

    #[test]
    fn a_tenth_of_every_class_is_held_out_and_nothing_is_lost() {
        let labels: Vec<i64> = (0..73).map(|image| i64::from(image >= 40) + i64::from(image >= 70)).collect();
        let whole = split(&labels, 4);
        let (kept, held_out) = hold_out(&whole, 1).unwrap();
        let counts = |of: &Split| -> Vec<usize> {
            (0..4).map(|class| of.labels.as_ref().unwrap().iter().filter(|&&label| label == class).count()).collect()
        };
        // 40, 30, 3 and no images.
        assert_eq!(counts(&held_out), [4, 3, 1, 0]);
        assert_eq!(counts(&kept), [36, 27, 2, 0]);
        let mut all = [images(&kept), images(&held_out)].concat();
        all.sort_unstable();
        assert_eq!(all, (0..73).collect::<Vec<u8>>());
        assert_eq!(images(&hold_out(&whole, 1).unwrap().1), images(&held_out), "the same again");
        assert_ne!(images(&hold_out(&whole, 2).unwrap().1), images(&held_out));
    }

    #[test]
    fn one_image_a_class_is_too_few() {
        assert!(hold_out(&split(&[0, 1, 2], 3), 1).is_none());
        let (kept, held_out) = hold_out(&split(&[0, 1, 1], 2), 1).unwrap();
        assert_eq!((kept.len(), held_out.len()), (2, 1));
    }

    #[test]
    fn the_test_images_do_not_choose() {
        let accuracy = |top1: f64| Accuracy { top1, top5: 100.0 };
        let first = better(None, accuracy(50.0), accuracy(40.0), 0);
        let second = better(Some(first), accuracy(50.0), accuracy(90.0), 1);
        assert_eq!((second.chosen_epoch, second.test_top1_chosen_epoch), (0, 40.0), "of equals the first");
        let third = better(Some(second), accuracy(51.0), accuracy(30.0), 2);
        assert_eq!((third.chosen_epoch, third.test_top1_chosen_epoch), (2, 30.0));
    }
}
