//! What is known to go wrong in contrastive training, told from an epoch's
//! numbers, with the next step. Each is said once a run.

use crate::config::{Objective, Precision};
use crate::report::EpochReport;

/// What has been said, and what later epochs are compared with.
#[derive(Debug, Default)]
pub struct Watch {
    said: Vec<Fault>,
    highest_rank: f64,
    last_loss: Option<f64>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Collapsed,
    RankFalling,
    Saturated,
    PullVanished,
    Starved,
    LossJumped,
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
    pub fn look(&mut self, report: &EpochReport, setting: Setting) -> Vec<String> {
        let mut found = Vec::new();
        let epoch = report.epoch + 1;
        if let Some(spread) = report.feature_std.filter(|&spread| spread < 0.1) {
            found.push((
                Fault::Collapsed,
                format!(
                    "epoch {epoch}: the features are collapsing (standard deviation {spread:.3}, spread evenly it is 1): \
                     lower --lr, lengthen --warmup-epochs, and look whether the two views still differ"
                ),
            ));
        }
        if let Some(rank) = report.effective_rank.filter(|rank| rank.is_finite()) {
            if rank < 0.5 * self.highest_rank {
                found.push((
                    Fault::RankFalling,
                    format!(
                        "epoch {epoch}: the effective rank of the trunk's features has fallen from {:.1} to {rank:.1}: \
                         they use ever fewer dimensions; compare the kNN accuracy of earlier checkpoints, lower --lr or \
                         the weight decay",
                        self.highest_rank
                    ),
                ));
            }
            self.highest_rank = self.highest_rank.max(rank);
        }
        let saturation = report.mi_estimate_nats / report.mi_ceiling_nats;
        if setting.objective == Objective::SimClr && saturation > 0.95 {
            found.push((
                Fault::Saturated,
                format!(
                    "epoch {epoch}: InfoNCE has reached {:.0}% of what a batch of {} can tell (its ceiling is log(2N-1)), \
                     and its gradient fades with the rest: a larger --batch-size raises the ceiling, --clr flatclr has none",
                    100.0 * saturation,
                    setting.batch_size
                ),
            ));
        }
        if let Some(share) = report.vanished_pull_share.filter(|&share| share > 0.25)
            && setting.objective == Objective::SimClr
        {
            found.push((
                Fault::PullVanished,
                format!(
                    "epoch {epoch}: for {:.0}% of the anchors 1 + xi is 1 in {}, so InfoNCE computed in it would pull at \
                     them no more (here it is computed in fp32): --clr flatclr, or harder views",
                    100.0 * share,
                    setting.precision
                ),
            ));
        }
        // The first epoch also reads files for the first time.
        if report.epoch > 0 && report.data_wait_share > 0.25 {
            found.push((
                Fault::Starved,
                format!(
                    "epoch {epoch}: training waited for images {:.0}% of the time: raise --workers if there are cores, or \
                     store smaller images",
                    100.0 * report.data_wait_share
                ),
            ));
        }
        if let Some(before) = self.last_loss.replace(report.loss_infonce)
            && report.loss_infonce > before + 0.5
        {
            found.push((
                Fault::LossJumped,
                format!(
                    "epoch {epoch}: the loss jumped from {before:.3} to {:.3}: the learning rate ({:.3e}) is probably too \
                     high; lower --lr or lengthen --warmup-epochs (now {})",
                    report.loss_infonce, report.lr, setting.warmup_epochs
                ),
            ));
        }
        let fresh: Vec<(Fault, String)> = found.into_iter().filter(|(fault, _)| !self.said.contains(fault)).collect();
        self.said.extend(fresh.iter().map(|(fault, _)| *fault));
        fresh.into_iter().map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting =
        Setting { objective: Objective::SimClr, batch_size: 32, precision: Precision::Bf16, warmup_epochs: 10 };

    fn healthy(epoch: u64) -> EpochReport {
        EpochReport {
            epoch,
            loss_infonce: 2.0,
            mi_estimate_nats: 2.1,
            mi_ceiling_nats: 4.1,
            feature_std: Some(0.8),
            effective_rank: Some(40.0),
            vanished_pull_share: Some(0.0),
            data_wait_share: 0.01,
            lr: 0.1,
            ..EpochReport::default()
        }
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
        type Harm = fn(&mut EpochReport);
        let cases: [(Harm, &str); 6] = [
            (|r| r.feature_std = Some(0.03), "standard deviation 0.030"),
            (|r| r.effective_rank = Some(12.0), "from 40.0 to 12.0"),
            (|r| r.mi_estimate_nats = 4.0, "98% of what a batch of 32"),
            (|r| r.vanished_pull_share = Some(0.4), "for 40% of the anchors 1 + xi is 1 in bf16"),
            (|r| r.data_wait_share = 0.5, "50% of the time"),
            (|r| r.loss_infonce = 3.1, "from 2.000 to 3.100"),
        ];
        for (harm, expected) in cases {
            let mut watch = Watch::default();
            watch.look(&healthy(0), SETTING);
            let mut report = healthy(1);
            harm(&mut report);
            let said = watch.look(&report, SETTING);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with("epoch 2: ") && said[0].contains(expected), "{said:?}");
            report.epoch = 2;
            report.loss_infonce += 1.0;
            assert!(!watch.look(&report, SETTING).iter().any(|text| text.contains(expected)));
        }
    }

    #[test]
    fn flatnce_is_not_blamed_for_what_ails_infonce() {
        let setting = Setting { objective: Objective::FlatClr, ..SETTING };
        let mut report = healthy(1);
        report.mi_estimate_nats = 4.09;
        report.vanished_pull_share = Some(0.9);
        assert_eq!(Watch::default().look(&report, setting), [""; 0]);
    }
}
