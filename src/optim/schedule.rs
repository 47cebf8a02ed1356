//! Learning rates as pure functions of the step: only the step need be saved.
//! (upstream: `optimizer/cos_anneal.py`)

use crate::config::{LearningRateScaling, ScheduleConfig, ScheduleName};

/// The smallest learning rate that the cosine reaches, from a peak above it.
const FINAL_LR: f64 = 1e-6;

/// A schedule with its lengths counted in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    name: ScheduleName,
    lr: f64,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// `lr` is the peak; `steps_per_epoch` and `epochs` give the total.
    pub fn new(config: ScheduleConfig, lr: f64, steps_per_epoch: u64, epochs: u64) -> Self {
        Schedule {
            name: config.name,
            lr,
            warmup_steps: u64::from(config.warmup_epochs) * steps_per_epoch,
            total_steps: epochs * steps_per_epoch,
        }
    }

    /// The learning rate of a step, counted from 0.
    ///
    /// Cosine: lr * step / W in the warm-up of W steps, then lr * (f + (1 - f) (1 + cos(pi (step-W)/(T-W))) / 2) with
    /// f = min(1e-6, lr) / lr.
    pub fn lr(&self, step: u64) -> f64 {
        self.lr * self.factor(step)
    }

    fn factor(&self, step: u64) -> f64 {
        match self.name {
            ScheduleName::Constant | ScheduleName::None => 1.0,
            ScheduleName::Cosine if step < self.warmup_steps => step as f64 / self.warmup_steps as f64,
            ScheduleName::Cosine => {
                let length = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
                let progress = ((step - self.warmup_steps) as f64 / length).min(1.0);
                // A peak below the floor is the floor: the cosine never rises.
                let floor = FINAL_LR.min(self.lr) / self.lr;
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// The learning rate that goes with a batch size: 0.3 B / 256, or 0.075 sqrt(B).
pub fn scaled_lr(scaling: LearningRateScaling, batch_size: u32) -> f64 {
    let batch = f64::from(batch_size);
    match scaling {
        LearningRateScaling::Linear => 0.3 * batch / 256.0,
        LearningRateScaling::Sqrt => 0.075 * batch.sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(warmup_epochs: u32) -> Schedule {
        Schedule::new(ScheduleConfig { name: ScheduleName::Cosine, warmup_epochs }, 0.6, 10, 100)
    }

    #[test]
    fn cosine_warms_up_peaks_and_ends_at_the_floor() {
        let schedule = cosine(10);
        assert_eq!(schedule.lr(0), 0.0);
        assert!((schedule.lr(50) - 0.3).abs() < 1e-12);
        assert!((schedule.lr(100) - 0.6).abs() < 1e-12);
        // Halfway down: f + (1 - f) / 2.
        assert!((schedule.lr(550) - (0.6 + 1e-6) / 2.0).abs() < 1e-12);
        assert!((schedule.lr(1000) - 1e-6).abs() < 1e-12);
        assert!((schedule.lr(5000) - 1e-6).abs() < 1e-12);
        assert!((1..1000).all(|s| s <= 100 || schedule.lr(s) < schedule.lr(s - 1)));
    }

    #[test]
    fn no_step_is_above_the_peak_however_low_it_is() {
        for lr in [1e-7, 1e-6, 5e-324, 0.1] {
            let config = ScheduleConfig { name: ScheduleName::Cosine, warmup_epochs: 3 };
            let schedule = Schedule::new(config, lr, 10, 20);
            let highest = (0..250).map(|step| schedule.lr(step)).fold(0.0, f64::max);
            assert!(highest <= lr * (1.0 + 1e-12), "{lr}: {highest}");
            assert!((31..250).all(|step| schedule.lr(step) <= schedule.lr(step - 1)), "{lr} rises");
        }
    }

    #[test]
    fn a_warm_up_longer_than_the_run_only_rises() {
        let schedule = cosine(200);
        assert!((1..1000).all(|s| schedule.lr(s) > schedule.lr(s - 1)));
    }

    #[test]
    fn constant_and_none_stay() {
        for name in [ScheduleName::Constant, ScheduleName::None] {
            let schedule = Schedule::new(ScheduleConfig { name, warmup_epochs: 10 }, 0.6, 10, 100);
            assert_eq!((schedule.lr(0), schedule.lr(999)), (0.6, 0.6));
        }
    }

    /// The table of the paper's README.
    #[test]
    fn learning_rates_follow_from_the_batch_size() {
        let table = [
            (128, 0.15, 0.85),
            (256, 0.3, 1.20),
            (512, 0.6, 1.70),
            (1024, 1.2, 2.40),
            (2048, 2.4, 3.39),
            (4096, 4.8, 4.80),
            (8192, 9.6, 6.79),
        ];
        for (batch, linear, sqrt) in table {
            assert!((scaled_lr(LearningRateScaling::Linear, batch) - linear).abs() < 1e-9);
            assert!((scaled_lr(LearningRateScaling::Sqrt, batch) - sqrt).abs() < 0.005, "batch {batch}");
        }
    }
}
