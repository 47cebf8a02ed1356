//! What the number of images and of classes makes of the settings.

use super::plan::Plan;
use crate::config::{OptimizerName, TransferMode};
use crate::data::grouped;
use crate::report::short;
use crate::train::shortage::{single_class, voters};

impl Plan {
    /// What the user should know before anything is trained.
    pub(super) fn of_sizes(&self) -> Vec<String> {
        let (run, images, classes) = (&self.run, self.kept.len(), self.images.classes());
        let mut found = Vec::new();
        if (run.batch_size as usize) > images && !run.rate_follows_batch && run.optimizer.name != OptimizerName::Lbfgs {
            let (asked, lr) = (run.batch_size, run.optimizer.lr);
            let part = images as f64 / f64::from(asked);
            found.push(format!(
                "a batch is all {} training images instead of {}, and --fc-lr {} stays as it was given: if it was meant for \
                 the larger batch, --fc-lr {} is in proportion",
                grouped(images),
                grouped(asked as usize),
                short(lr),
                short(lr * part)
            ));
        }
        if let Some(warning) = single_class(&self.images.train) {
            found.push(warning);
        } else if classes < 6 {
            found.push(format!(
                "top-5 says nothing of {classes} classes, which are all among the first five: quote top-1"
            ));
        }
        if run.mode == TransferMode::LinearEval {
            found.extend(voters(run.knn.neighbours, &self.images.train));
        }
        found
    }
}
