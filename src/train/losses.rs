//! The losses of an epoch: summed without waiting for the device in every step,
//! and looked at often enough that a loss that is not finite stops the run soon.

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

/// Looking waits for the device; once in so many steps it costs nothing.
const STEPS_BETWEEN_LOOKS: usize = 50;

/// Losses of consecutive steps.
#[derive(Debug)]
pub struct Losses {
    /// The step of the first unread loss, counted from 0 since the start of training.
    step: u64,
    unread: Vec<(Tensor, f64)>,
    sum: f64,
    read: u64,
}

impl Losses {
    pub fn from_step(step: u64) -> Losses {
        Losses { step, unread: Vec::with_capacity(STEPS_BETWEEN_LOOKS), sum: 0.0, read: 0 }
    }

    /// Adds the loss `[]` of the next step, which was taken with `lr`.
    ///
    /// Errors: a loss since the last look is not finite, with its step and learning rate.
    pub fn push(&mut self, loss: &Tensor, lr: f64) -> Result<()> {
        self.unread.push((loss.detach(), lr));
        if self.unread.len() < STEPS_BETWEEN_LOOKS { Ok(()) } else { self.look() }
    }

    fn look(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let joined = Tensor::stack(&self.unread.iter().map(|(loss, _)| loss).collect::<Vec<_>>(), 0);
        let losses = Vec::<f64>::try_from(joined.to_kind(Kind::Double).to_device(Device::Cpu))?;
        for (loss, (_, lr)) in losses.iter().zip(&self.unread) {
            if !loss.is_finite() {
                bail!(
                    "the loss is {loss} in step {} (learning rate {lr:.3e}); nothing was saved since; use a smaller \
                     --fc-lr or --precision fp32",
                    self.step
                );
            }
            self.step += 1;
            self.sum += loss;
        }
        self.read += losses.len() as u64;
        self.unread.clear();
        Ok(())
    }

    /// The mean of all losses; 0 of none.
    ///
    /// Errors: as [`Losses::push`].
    pub fn mean(mut self) -> Result<f64> {
        self.look()?;
        Ok(self.sum / self.read.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_all_looks_and_the_first_bad_step_is_named() {
        let mut losses = Losses::from_step(7);
        for step in 0..120 {
            losses.push(&Tensor::from(step as f32), 0.1).unwrap();
        }
        assert_eq!(losses.mean().unwrap(), 59.5);
        let mut losses = Losses::from_step(1000);
        for step in 0..60 {
            let loss = if step == 53 { f32::NAN } else { 1.0 };
            losses.push(&Tensor::from(loss), 0.25).unwrap();
        }
        let error = losses.mean().unwrap_err().to_string();
        assert!(error.contains("step 1053") && error.contains("2.500e-1"), "{error}");
    }
}
