//! What is known to go wrong in contrastive training, told from a run's settings
//! before it begins and from an epoch's numbers, with the next step. Each is said
//! once a run.

use crate::config::{Objective, Precision, Pretrain, ScheduleName};
use crate::data::{counted, grouped};
use crate::loader::Loader;
use crate::report::{Record, short};
use crate::train::ranks::Ranks;

/// A smaller share of the images left out of an epoch is not worth a word: they are others in the next.
const LEFT_OUT: f64 = 0.05;

/// What the settings alone foretell.
pub fn before(run: &Pretrain, loader: &Loader, ranks: &Ranks) -> Vec<String> {
    let images = loader.split().len();
    [warm_up(run), left_out(run.batch_size as usize, images, ranks.count())].into_iter().flatten().collect()
}

/// A warm-up that does not end before the run does.
fn warm_up(run: &Pretrain) -> Option<String> {
    let (warm_up, epochs) = (run.schedule.warmup_epochs, run.epochs);
    (run.schedule.name == ScheduleName::Cosine && epochs > 0 && warm_up >= epochs).then(|| {
        format!(
            "the warm-up of {} does not end before the run of {epochs} does: the learning rate never reaches {}; shorten \
             it, such as --warmup-epochs {}, or train for more --epochs",
            counted(warm_up as usize, "epoch"),
            short(run.optimizer.lr),
            epochs / 5
        )
    })
}

/// Images that no whole batch is left for. `ranks` share a batch.
fn left_out(batch: usize, images: usize, ranks: usize) -> Option<String> {
    let (batches, dropped) = (images / batch, images % batch);
    if batches == 0 || (dropped as f64) < LEFT_OUT * images as f64 {
        return None;
    }
    // One batch more, and so the next smaller that leaves fewer out.
    let better = images / (batches + 1) / ranks * ranks;
    (better > 1).then(|| {
        format!(
            "every epoch leaves out {} of {} images, others each time, because they fill no batch of {batch}: --batch-size \
             {better} leaves out {}",
            grouped(dropped),
            grouped(images),
            images % better
        )
    })
}

/// What has been said, and what later epochs are compared with.
#[derive(Debug, Default)]
pub struct Watch {
    /// Names of the faults that have been told.
    said: Vec<&'static str>,
    highest_rank: f64,
    last_loss: Option<f64>,
}

/// What the run is, as far as advice depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub objective: Objective,
    pub batch_size: u32,
    pub precision: Precision,
    pub warmup_epochs: u32,
}

impl Watch {
    /// Looks at a finished epoch; each text names what was seen and what to do.
    pub fn look(&mut self, record: &Record, setting: Setting) -> Vec<String> {
        let mut found = Vec::new();
        let mut warn = |fault: &'static str, text: String| {
            if !self.said.contains(&fault) {
                self.said.push(fault);
                found.push(format!("epoch {}: {text}", record.epoch + 1));
            }
        };
        if let Some(spread) = record.get("feature_std").filter(|&spread| spread < 0.1) {
            let text = format!(
                "the features are collapsing (standard deviation {spread:.3}, spread evenly it is 1): lower --lr, \
                 lengthen --warmup-epochs, and look whether the two views still differ"
            );
            warn("collapsed", text);
        }
        if let Some(rank) = record.get("effective_rank").filter(|rank| rank.is_finite()) {
            let highest = self.highest_rank;
            if rank < 0.5 * highest {
                let text = format!(
                    "the effective rank of the trunk's features has fallen from {highest:.1} to {rank:.1}: they use \
                     ever fewer dimensions; compare the kNN accuracy of earlier checkpoints, lower --lr or the weight \
                     decay"
                );
                warn("rank falling", text);
            }
            self.highest_rank = highest.max(rank);
        }
        let saturation = record.number("mi_estimate_nats") / record.number("mi_ceiling_nats");
        if setting.objective == Objective::SimClr && saturation > 0.95 {
            let text = format!(
                "InfoNCE has reached {:.0}% of what a batch of {} can tell (its ceiling is log(2N-1)), and its gradient \
                 fades with the rest: a larger --batch-size raises the ceiling, --clr flatclr has none",
                100.0 * saturation,
                setting.batch_size
            );
            warn("saturated", text);
        }
        let vanished = record.number("vanished_pull_share");
        if setting.objective == Objective::SimClr && vanished > 0.25 {
            let text = format!(
                "for {:.0}% of the anchors 1 + xi is 1 in {}, so InfoNCE computed in it would pull at them no more \
                 (here it is computed in fp32): --clr flatclr, or harder views",
                100.0 * vanished,
                setting.precision
            );
            warn("pull vanished", text);
        }
        // The first epoch also reads files for the first time.
        let waited = record.number("data_wait_share");
        if record.epoch > 0 && waited > 0.25 {
            let text = format!(
                "training waited for images {:.0}% of the time: raise --workers if there are cores, or store smaller \
                 images",
                100.0 * waited
            );
            warn("starved", text);
        }
        let (loss, lr) = (record.number("loss_infonce"), record.number("lr"));
        if let Some(before) = self.last_loss.replace(loss).filter(|before| loss > before + 0.5) {
            let text = format!(
                "the loss jumped from {before:.3} to {loss:.3}: the learning rate ({lr:.3e}) is probably too high; \
                 lower --lr or lengthen --warmup-epochs (now {})",
                setting.warmup_epochs
            );
            warn("loss jumped", text);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting =
        Setting { objective: Objective::SimClr, batch_size: 32, precision: Precision::Bf16, warmup_epochs: 10 };

    fn healthy(epoch: u64) -> Record {
        let record = Record::new(epoch, 0).with("loss_infonce", 2.0).with("mi_estimate_nats", 2.1);
        let record = record.with("mi_ceiling_nats", 4.1).with("feature_std", 0.8).with("effective_rank", 40.0);
        record.with("vanished_pull_share", 0.0).with("data_wait_share", 0.01).with("lr", 0.1)
    }

    #[test]
    fn images_that_fill_no_batch_are_counted() {
        assert_eq!(left_out(512, 50_000, 1), None, "336 of them");
        assert_eq!(left_out(16, 128, 1), None);
        let text = left_out(512, 1_000, 1).unwrap();
        assert!(text.contains("488 of 1,000") && text.contains("--batch-size 500 leaves out 0"), "{text}");
        let text = left_out(60, 100, 4).unwrap();
        assert!(text.contains("40 of 100") && text.contains("--batch-size 48 leaves out 4"), "{text}");
    }

    #[test]
    fn a_healthy_run_is_left_alone() {
        let mut watch = Watch::default();
        for epoch in 0..5 {
            assert_eq!(watch.look(&healthy(epoch), SETTING), [""; 0]);
        }
    }

    #[test]
    fn each_fault_is_named_once_with_its_numbers() {
        let cases = [
            ("feature_std", 0.03, "standard deviation 0.030"),
            ("effective_rank", 12.0, "from 40.0 to 12.0"),
            ("mi_estimate_nats", 4.0, "98% of what a batch of 32"),
            ("vanished_pull_share", 0.4, "for 40% of the anchors 1 + xi is 1 in bf16"),
            ("data_wait_share", 0.5, "50% of the time"),
            ("loss_infonce", 3.1, "from 2.000 to 3.100"),
        ];
        for (key, harm, expected) in cases {
            let mut watch = Watch::default();
            watch.look(&healthy(0), SETTING);
            let mut record = healthy(1).with(key, harm);
            let said = watch.look(&record, SETTING);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with("epoch 2: ") && said[0].contains(expected), "{said:?}");
            record.epoch = 2;
            record.set("loss_infonce", record.number("loss_infonce") + 1.0);
            assert!(!watch.look(&record, SETTING).iter().any(|text| text.contains(expected)));
        }
    }

    #[test]
    fn flatnce_is_not_blamed_for_what_ails_infonce() {
        let setting = Setting { objective: Objective::FlatClr, ..SETTING };
        let record = healthy(1).with("mi_estimate_nats", 4.09).with("vanished_pull_share", 0.9);
        assert_eq!(Watch::default().look(&record, setting), [""; 0]);
    }
}
