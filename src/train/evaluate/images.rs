//! The labelled images of an evaluation.

use crate::config::{DatasetName, Evaluate};
use crate::data::{self, BadImage, Part, Split};
use crate::report::Console;
use crate::train::readable;
use anyhow::{Result, bail};
use std::sync::Arc;

/// The labelled images of an evaluation.
#[derive(Clone, Debug)]
pub struct Images {
    pub train: Arc<Split>,
    pub test: Arc<Split>,
    /// Broken images that are in neither.
    pub left_out: Arc<Vec<BadImage>>,
}

impl Images {
    /// Loads both parts; of the training part the share of labels that is asked for.
    ///
    /// Errors: data that is missing, unlabelled, or whose parts have different classes.
    pub fn load(run: &Evaluate, console: &Console) -> Result<Images> {
        let train = readable::load(&run.data, Part::Train, console)?;
        let test = readable::load(&run.data, Part::Test, console)?;
        let left_out: Vec<BadImage> = train.left_out.into_iter().chain(test.left_out).collect();
        let (mut train, test) = (train.split, test.split);
        for split in [&train, &test] {
            if split.labels.is_none() {
                bail!("{} has no labels: there is nothing to evaluate on; choose a labelled data set", split.name);
            }
        }
        if train.classes != test.classes {
            bail!(
                "{} has {} classes and {} has {}, or they differ in name: both parts need the same classes",
                train.name,
                train.classes.len(),
                test.name,
                test.classes.len()
            );
        }
        if run.label_ratio < 1.0 {
            // Only ImageNet has published lists.
            let listed =
                (run.data.dataset == DatasetName::Imagenet).then(|| data::list_for(&run.data.root, run.label_ratio));
            train = data::semi_subset(&train, run.label_ratio, run.seed, listed.flatten().as_deref())?;
        }
        Ok(Images { train: Arc::new(train), test: Arc::new(test), left_out: Arc::new(left_out) })
    }

    pub fn classes(&self) -> usize {
        self.train.classes.len()
    }
}
