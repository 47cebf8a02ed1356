//! How a linear classifier is trained on features. The objective is
//!
//! ```text
//! L(W, b) = mean over images of -log softmax(x W^T + b)[label]  +  lambda / 2 * |W|^2
//! ```
//!
//! on the trunk's features as they are, without standardisation, as upstream
//! does. scikit-learn's `LogisticRegression(C)` has the same minimum at
//! lambda = 1 / (C N). SGD, LARS and Adam take an epoch of shuffled batches at a
//! time, LBFGS one iteration over everything.

use super::classifier::Classifier;
use super::losses::Losses;
use crate::checkpoint::SavedOptimizer;
use crate::config::{Evaluate, OptimizerName};
use crate::optim::{self, Lbfgs, Optimizer, Rate, Schedule};
use crate::rng::{Purpose, Stream};
use crate::state::Parameter;
use crate::train::features::Features;
use anyhow::{Result, bail};
use tch::{Device, Kind, Reduction, Tensor};

/// LBFGS stops where no entry of the gradient is larger.
const GRADIENT_TOLERANCE: f64 = 1e-6;
/// Rows per piece of the whole-batch objective; bounds memory.
const CHUNK_IMAGES: i64 = 1 << 14;

type Objective = Box<dyn FnMut(&Tensor) -> (f64, Tensor)>;

/// What one epoch did.
#[derive(Clone, Copy, Debug)]
pub struct Fitted {
    /// Mean of the objective over the epoch's batches; with LBFGS its value after the iteration.
    pub loss: f64,
    /// Learning rate of the last step; 1 with LBFGS, which searches its own.
    pub lr: f64,
    /// Nothing is left to gain: LBFGS only.
    pub converged: bool,
}

/// A classifier being trained.
pub struct Fit {
    pub classifier: Classifier,
    pub reg_weight: f64,
    method: Method,
}

enum Method {
    Stepped(Box<Stepped>),
    /// Created in the first epoch, over that epoch's features.
    Whole(Option<Box<Lbfgs<Objective>>>),
}

/// State of SGD, LARS or Adam.
struct Stepped {
    parameters: Vec<Parameter>,
    optimizer: Box<dyn Optimizer>,
    rate: Rate,
    schedule: Schedule,
    step: u64,
    batch: usize,
    seed: u64,
}

impl Fit {
    /// A fresh classifier for `images` training images of features of `width`.
    pub fn new(
        run: &Evaluate,
        reg_weight: f64,
        images: usize,
        width: i64,
        classes: i64,
        device: Device,
    ) -> Result<Fit> {
        let classifier = Classifier::new(width, classes, device, run.seed);
        let method = if run.optimizer.name == OptimizerName::Lbfgs {
            Method::Whole(None)
        } else {
            let batch = batch_size(run, images);
            let steps_per_epoch = images.div_ceil(batch) as u64;
            Method::Stepped(Box::new(Stepped {
                parameters: classifier.parameters(),
                optimizer: optim::build(&run.optimizer, classifier.parameters())?,
                rate: Rate::on(device),
                schedule: Schedule::new(run.schedule, peak_lr(run, images), steps_per_epoch, u64::from(run.epochs)),
                step: 0,
                batch,
                seed: run.seed,
            }))
        };
        Ok(Fit { classifier, reg_weight, method })
    }

    /// The same for LBFGS under a penalty, whoever asks for it: every epoch is an iteration on the way to the minimum, which
    /// is the same from wherever it begins.
    pub fn to_the_minimum(reg_weight: f64, width: i64, classes: i64, device: Device) -> Fit {
        Fit { classifier: Classifier::new(width, classes, device, 0), reg_weight, method: Method::Whole(None) }
    }

    /// Trains for one epoch, counted from 0.
    ///
    /// Errors: a loss that is not finite, with its step and learning rate.
    pub fn epoch(&mut self, features: &Features, epoch: u64) -> Result<Fitted> {
        match &mut self.method {
            Method::Stepped(stepped) => stepped.epoch(&self.classifier, features, epoch, self.reg_weight),
            Method::Whole(solver) => {
                let solver = solver.get_or_insert_with(|| {
                    let objective = whole_objective(features.share(), self.reg_weight);
                    Box::new(Lbfgs::new(&self.classifier.flat(), objective))
                });
                let converged = !solver.step(GRADIENT_TOLERANCE);
                self.classifier.set_flat(solver.x());
                if !solver.value().is_finite() {
                    bail!("the loss is {} in iteration {epoch} of LBFGS: the features are too large", solver.value());
                }
                Ok(Fitted { loss: solver.value(), lr: 1.0, converged })
            }
        }
    }

    /// The optimiser's state and the steps done; `None` with LBFGS, which is not continued but repeated.
    pub fn saved(&self) -> Option<(SavedOptimizer, u64)> {
        let Method::Stepped(stepped) = &self.method else { return None };
        let lr = stepped.schedule.lr(stepped.step);
        Some((SavedOptimizer::of(stepped.optimizer.state(), stepped.parameters.len(), lr), stepped.step))
    }

    /// Takes up saved state. The reverse of [`Fit::saved`].
    ///
    /// Errors: state of another shape.
    pub fn restore(&mut self, optimizer: &SavedOptimizer, step: u64) -> Result<()> {
        if let Method::Stepped(stepped) = &mut self.method {
            stepped.optimizer.load(&|index, name| optimizer.get(index, name))?;
            stepped.step = step;
        }
        Ok(())
    }
}

impl Stepped {
    fn epoch(&mut self, classifier: &Classifier, data: &Features, epoch: u64, reg_weight: f64) -> Result<Fitted> {
        let images = data.len();
        let mut order: Vec<i64> = (0..images as i64).collect();
        Stream::new(self.seed, Purpose::Shuffle, epoch, 1, 0).shuffle(&mut order);
        let (mut losses, mut lr) = (Losses::from_step(self.step), 0.0);
        // The order goes to the device once; a batch of it is a view.
        let order = Tensor::from_slice(&order).to_device(data.values.device());
        for first in (0..images as i64).step_by(self.batch) {
            let batch = data.select(&order.narrow(0, first, (self.batch as i64).min(images as i64 - first)));
            let loss = classifier.logits(&batch.values).cross_entropy_loss::<Tensor>(
                &batch.labels,
                None,
                Reduction::Mean,
                -100,
                0.0,
            );
            let loss = match reg_weight {
                0.0 => loss,
                lambda => loss + self.parameters[0].tensor.square().sum(Kind::Float) * (0.5 * lambda),
            };
            optim::clear_gradients(&self.parameters);
            loss.backward();
            lr = self.schedule.lr(self.step);
            self.rate.set(lr);
            self.optimizer.step(&self.rate, None);
            self.step += 1;
            losses.push(&loss, None, lr)?;
        }
        Ok(Fitted { loss: losses.mean()?, lr, converged: false })
    }
}

/// `--fc-batch-size`, or all images where there are fewer.
pub fn batch_size(run: &Evaluate, images: usize) -> usize {
    (run.batch_size as usize).clamp(1, images.max(1))
}

/// `--fc-lr`; where that is the default and all images are fewer than a batch, as much smaller as the batch is.
pub fn peak_lr(run: &Evaluate, images: usize) -> f64 {
    let part = if run.rate_follows_batch { batch_size(run, images) as f64 / f64::from(run.batch_size) } else { 1.0 };
    run.optimizer.lr * part
}

/// L and its gradient over all of `data`, at weight and bias in one vector `[C * D + C]`.
fn whole_objective(data: Features, reg_weight: f64) -> Objective {
    let (images, width) = (data.len() as i64, data.width());
    Box::new(move |point: &Tensor| {
        let classes = point.size()[0] / (width + 1);
        let weight = point.narrow(0, 0, classes * width).view([classes, width]);
        let bias = point.narrow(0, classes * width, classes);
        let mut value = 0.5 * reg_weight * weight.square().sum(Kind::Double).double_value(&[]);
        let mut weight_gradient = &weight * reg_weight;
        let mut bias_gradient = bias.zeros_like();
        for first in (0..images).step_by(CHUNK_IMAGES as usize) {
            let x = data.values.slice(0, first, first + CHUNK_IMAGES, 1); // [m, D]
            let labels = data.labels.slice(0, first, first + CHUNK_IMAGES, 1).unsqueeze(1); // [m, 1]
            let log_odds = x.linear(&weight, Some(&bias)).log_softmax(1, Kind::Float); // [m, C]
            value -= log_odds.gather(1, &labels, false).sum(Kind::Double).double_value(&[]) / images as f64;
            let minus_one = labels.full_like(-1.0).to_kind(Kind::Float);
            let error = log_odds.exp().scatter_add(1, &labels, &minus_one) / images as f64; // [m, C]
            weight_gradient += error.tr().matmul(&x);
            bias_gradient += error.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
        }
        (value, Tensor::cat(&[weight_gradient.view(-1), bias_gradient], 0))
    })
}
