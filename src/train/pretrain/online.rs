//! How good the trunk is while pre-training goes on: its nearest neighbours (`--knn-every`) and a linear classifier on
//! top of it (`--probe-every`), on the same labelled images.
//!
//! The trunk runs in evaluation mode and draws nothing at random, so the
//! training has the same bits with and without them.

use crate::augment::EvalTransform;
use crate::config::{DataConfig, OnlineKnn, OnlineProbe, Pretrain};
use crate::data::{Split, counted, some_of};
use crate::model::Encoder;
use crate::monitor::knn::{Bank, PLAIN_NEIGHBOURS, Vote};
use crate::report::{Console, Record};
use crate::train::evaluate::probe;
use crate::train::features::Extractor;
use crate::train::labelled::Labelled;
use crate::train::ranks::Ranks;
use crate::train::shortage::{single_class, voters};
use anyhow::Result;
use std::sync::Arc;
use std::time::Instant;
use tch::Kind;

/// Labelled images at most: of larger sets a part, always the same one.
const BANK_IMAGES: usize = 10_000;
const TEST_IMAGES: usize = 2_000;

/// What is asked for, each every so many epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    knn: Option<OnlineKnn>,
    probe: Option<OnlineProbe>,
}

impl Asked {
    /// `None` where the run ends before anything is due: it needs no labels.
    pub fn of(run: &Pretrain) -> Option<Asked> {
        let knn = run.online_knn.filter(|knn| knn.every_epochs <= run.epochs);
        let probe = run.online_probe.filter(|probe| probe.every_epochs <= run.epochs);
        (knn.is_some() || probe.is_some()).then_some(Asked { knn, probe })
    }

    /// Why there is none of it.
    pub fn refused(&self, error: &anyhow::Error) -> String {
        let (what, advice) = match (self.knn, self.probe) {
            (Some(_), Some(_)) => ("kNN evaluation and no probe", "--knn-every 0 and --probe-every 0 ask"),
            (None, Some(_)) => ("probe", "--probe-every 0 asks"),
            _ => ("kNN evaluation", "--knn-every 0 asks"),
        };
        format!("no {what} during training: {error:#} ({advice} for none)")
    }

    /// What is due after so many epochs.
    fn due(&self, epochs_done: u64) -> Asked {
        let is_due = |every: u32| epochs_done.is_multiple_of(every.into());
        Asked {
            knn: self.knn.filter(|knn| is_due(knn.every_epochs)),
            probe: self.probe.filter(|probe| is_due(probe.every_epochs)),
        }
    }

    fn is_nothing(&self) -> bool {
        self.knn.is_none() && self.probe.is_none()
    }
}

/// The labelled images that the trunk is judged on.
pub struct OnlineEvaluator {
    asked: Asked,
    bank: Arc<Split>,
    test: Arc<Split>,
    transform: EvalTransform,
}

impl OnlineEvaluator {
    /// Loads the images.
    ///
    /// Errors: the data set has no labels, or its labelled parts are not there.
    pub fn new(asked: Asked, data: &DataConfig, console: &Console) -> Result<OnlineEvaluator> {
        let labelled = DataConfig { train_images: None, ..data.clone() };
        let at_most = |split: Split, count: usize| -> Result<Arc<Split>> {
            Ok(Arc::new(if split.len() > count { some_of(&split, count)? } else { split }))
        };
        let Labelled { train, test, .. } = Labelled::load(&labelled, console)?;
        let transform = EvalTransform::evaluation(data.dataset, data.image_size_px as usize);
        Ok(OnlineEvaluator { asked, bank: at_most(train, BANK_IMAGES)?, test: at_most(test, TEST_IMAGES)?, transform })
    }

    /// Images that pass through the trunk in the evaluations of a run of which so many epochs are done.
    pub fn images_left(&self, done: u64, epochs: u64) -> u64 {
        let evaluations = (done + 1..=epochs).filter(|&epoch| !self.asked.due(epoch).is_nothing()).count();
        (evaluations * (self.bank.len() + self.test.len())) as u64
    }

    /// Each evaluation by its name, with a line about it.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let every = |epochs: u32| match epochs {
            1 => "every epoch".to_owned(),
            epochs => format!("every {epochs} epochs"),
        };
        let (bank, test) = (counted(self.bank.len(), "labelled image"), counted(self.test.len(), "test image"));
        let knn =
            self.asked.knn.map(|knn| ("kNN", format!("{}: the votes of {bank} on {test}", every(knn.every_epochs))));
        let probe = self
            .asked
            .probe
            .map(|probe| ("probe", format!("{}: a linear classifier of {bank} on {test}", every(probe.every_epochs))));
        knn.into_iter().chain(probe).collect()
    }

    /// A warning where fewer images are there than are to vote, or nothing to tell apart.
    pub fn warning(&self) -> Option<String> {
        let voters = || self.asked.knn.and_then(|knn| voters(knn.knn.neighbours, &self.bank));
        single_class(&self.bank).or_else(voters)
    }

    /// Evaluates the trunk as it is after so many epochs, as far as that is due; the numbers go into `record`.
    ///
    /// Errors: images that cannot be read, features that are not finite.
    pub fn evaluate(&self, epochs_done: u64, judged: &Judged, record: &mut Record) -> Result<()> {
        let due = self.asked.due(epochs_done);
        if due.is_nothing() {
            return Ok(());
        }
        let mut start = Instant::now();
        let &Judged { encoder, compute, workers, console, ranks } = judged;
        let extractor = Extractor { encoder, compute, seed: 0, workers, console, ranks };
        let bank = extractor.extract(&self.bank, self.transform, 0)?;
        let test = extractor.extract(&self.test, self.transform, 0)?;
        let classes = self.bank.classes.len() as i64;
        if let Some(OnlineKnn { knn, .. }) = due.knn {
            let table = Bank::new(&bank.values, &bank.labels, classes);
            let top1 = |neighbours: i64, vote: Vote| table.top1(&test.values, &test.labels, neighbours, vote);
            let vote = Vote::Weighted { temperature: knn.temperature };
            record.set("knn_top1", top1(i64::from(knn.neighbours), vote));
            record.set("knn_plain_top1", top1(PLAIN_NEIGHBOURS, Vote::Plain));
            record.set("knn_seconds", start.elapsed().as_secs_f64());
            start = Instant::now();
        }
        if due.probe.is_some() {
            record.set("probe_top1", probe::top1(&bank, &test, classes)?);
            record.set("probe_seconds", start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// What is judged, and what does it.
pub struct Judged<'a> {
    pub encoder: &'a Encoder,
    /// Arithmetic of the trunk.
    pub compute: Kind,
    pub workers: usize,
    pub console: &'a Console,
    pub ranks: &'a Ranks,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatasetName, KnnConfig};
    use crate::data::{self, Part};

    #[test]
    fn features_are_made_once_where_both_are_due() {
        let knn = KnnConfig { neighbours: 1, temperature: 0.1 };
        let asked =
            Asked { knn: Some(OnlineKnn { every_epochs: 4, knn }), probe: Some(OnlineProbe { every_epochs: 6 }) };
        let due = |epoch: u64| (asked.due(epoch).knn.is_some(), asked.due(epoch).probe.is_some());
        assert_eq!([4, 5, 6, 12].map(due), [(true, false), (false, false), (false, true), (true, true)]);
        let images = data::load(&DataConfig::new(DatasetName::FashionMnistMini, "datasets", 32), Part::Test).unwrap();
        let split = |count: usize| Arc::new(some_of(&images, count).unwrap());
        let transform = EvalTransform::Plain { size_px: 8 };
        let evaluator = OnlineEvaluator { asked, bank: split(5), test: split(2), transform };
        // After epochs 4, 6, 8 and 12 of 12.
        assert_eq!((evaluator.images_left(0, 12), evaluator.images_left(8, 12)), (4 * 7, 7));
        let refused = |asked: Asked| asked.refused(&anyhow::anyhow!("why"));
        assert_eq!(
            refused(Asked { knn: None, ..asked }),
            "no probe during training: why (--probe-every 0 asks for none)"
        );
        let both =
            "no kNN evaluation and no probe during training: why (--knn-every 0 and --probe-every 0 ask for none)";
        assert_eq!(refused(asked), both);
    }
}
