//! Nearest neighbours while pre-training goes on (`--knn-every`): labels judge
//! the trunk without being trained on.
//!
//! The trunk runs in evaluation mode and draws nothing at random, so the
//! training has the same bits with and without it.

use crate::augment::EvalTransform;
use crate::config::{DataConfig, OnlineKnn};
use crate::data::{Split, counted, some_of};
use crate::model::Encoder;
use crate::monitor::knn::{Bank, PLAIN_NEIGHBOURS, Vote};
use crate::report::Console;
use crate::train::features::Extractor;
use crate::train::labelled::Labelled;
use crate::train::ranks::Ranks;
use crate::train::shortage::{single_class, voters};
use anyhow::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Kind;

/// Labelled images at most: of larger sets a part, always the same one.
const BANK_IMAGES: usize = 10_000;
const TEST_IMAGES: usize = 2_000;

/// Percent of the test images whose neighbours name their class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnnAccuracy {
    pub weighted_top1: f64,
    pub plain_top1: f64,
    pub took: Duration,
}

/// The labelled images that the trunk is judged on.
pub struct KnnEvaluator {
    settings: OnlineKnn,
    bank: Arc<Split>,
    test: Arc<Split>,
    transform: EvalTransform,
}

impl KnnEvaluator {
    /// Loads the images.
    ///
    /// Errors: the data set has no labels, or its labelled parts are not there.
    pub fn new(settings: OnlineKnn, data: &DataConfig, console: &Console) -> Result<KnnEvaluator> {
        let labelled = DataConfig { train_images: None, ..data.clone() };
        let at_most = |split: Split, count: usize| -> Result<Arc<Split>> {
            Ok(Arc::new(if split.len() > count { some_of(&split, count)? } else { split }))
        };
        let Labelled { train, test, .. } = Labelled::load(&labelled, console)?;
        let transform = EvalTransform::evaluation(data.dataset, data.image_size_px as usize);
        Ok(KnnEvaluator { settings, bank: at_most(train, BANK_IMAGES)?, test: at_most(test, TEST_IMAGES)?, transform })
    }

    /// Images that pass through the trunk in the evaluations of a run of which so many epochs are done.
    pub fn images_left(&self, done: u64, epochs: u64) -> u64 {
        let every = u64::from(self.settings.every_epochs);
        (epochs / every).saturating_sub(done / every) * (self.bank.len() + self.test.len()) as u64
    }

    /// One line about the images.
    pub fn describe(&self) -> String {
        let every = match self.settings.every_epochs {
            1 => "every epoch".to_owned(),
            epochs => format!("every {epochs} epochs"),
        };
        let (bank, test) = (counted(self.bank.len(), "labelled image"), counted(self.test.len(), "test image"));
        format!("kNN {every}: the votes of {bank} on {test}")
    }

    /// A warning where fewer images are there than are to vote, or nothing to vote on.
    pub fn warning(&self) -> Option<String> {
        single_class(&self.bank).or_else(|| voters(self.settings.knn.neighbours, &self.bank))
    }

    /// Evaluates the trunk as it is now.
    ///
    /// Errors: images that cannot be read, features that are not finite.
    pub fn evaluate(
        &self,
        encoder: &Encoder,
        compute: Kind,
        workers: usize,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<KnnAccuracy> {
        let start = Instant::now();
        let extractor = Extractor { encoder, compute, seed: 0, workers, console, ranks };
        let bank = extractor.extract(&self.bank, self.transform, 0)?;
        let test = extractor.extract(&self.test, self.transform, 0)?;
        let table = Bank::new(&bank.values, &bank.labels, self.bank.classes.len() as i64);
        let top1 = |neighbours: i64, vote: Vote| table.top1(&test.values, &test.labels, neighbours, vote);
        let knn = self.settings.knn;
        Ok(KnnAccuracy {
            weighted_top1: top1(i64::from(knn.neighbours), Vote::Weighted { temperature: knn.temperature }),
            plain_top1: top1(PLAIN_NEIGHBOURS, Vote::Plain),
            took: start.elapsed(),
        })
    }
}
