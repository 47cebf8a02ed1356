//! The losses of an epoch: summed without waiting for the device in every step,
//! and looked at often enough that a loss that is not finite stops the run soon.

use crate::optim::Scaler;
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
    /// With loss scaling, what [`Scaler::step`] gave for each of `unread`.
    scalings: Vec<Tensor>,
    sum: f64,
    read: u64,
}

impl Losses {
    pub fn from_step(step: u64) -> Losses {
        Losses { step, unread: Vec::with_capacity(STEPS_BETWEEN_LOOKS), scalings: Vec::new(), sum: 0.0, read: 0 }
    }

    /// Adds the loss `[]` of the next step, which was taken with `lr`.
    ///
    /// Errors: a loss since the last look is not finite, with its step and learning rate.
    pub fn push(&mut self, loss: &Tensor, lr: f64) -> Result<()> {
        self.unread.push((loss.detach(), lr));
        if self.unread.len() < STEPS_BETWEEN_LOOKS { Ok(()) } else { self.look() }
    }

    /// [`Losses::push`] of a step whose gradients were scaled; `scaling` is what [`Scaler::step`] gave. One that was left
    /// out counts where its loss is finite.
    ///
    /// Errors: those of [`Losses::push`]; a scale below [`Scaler::FLOOR`].
    pub fn push_scaled(&mut self, loss: &Tensor, scaling: Tensor, lr: f64) -> Result<()> {
        self.scalings.push(scaling);
        self.push(loss, lr)
    }

    fn look(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let joined = Tensor::stack(&self.unread.iter().map(|(loss, _)| loss).collect::<Vec<_>>(), 0);
        let losses = Vec::<f64>::try_from(joined.to_kind(Kind::Double).to_device(Device::Cpu))?;
        let scalings = match &self.scalings[..] {
            [] => vec![0.0; 2 * losses.len()],
            some => Vec::<f64>::try_from(Tensor::cat(some, 0).to_kind(Kind::Double).to_device(Device::Cpu))?,
        };
        for ((loss, (_, lr)), scaling) in losses.iter().zip(&self.unread).zip(scalings.chunks_exact(2)) {
            let left_out = scaling[0] > 0.0;
            if left_out && scaling[1] < Scaler::FLOOR {
                bail!(
                    "the loss scale has fallen to {:.1e} in step {}: whatever the scale, numbers overflow in fp16; use \
                     --precision bf16 or fp32",
                    scaling[1],
                    self.step
                );
            }
            if !loss.is_finite() && left_out {
                self.step += 1;
                continue;
            }
            if !loss.is_finite() {
                bail!(
                    "the loss is {loss} in step {} (learning rate {lr:.3e}); nothing was saved since; use a smaller \
                     --fc-lr or --precision fp32",
                    self.step
                );
            }
            self.step += 1;
            self.sum += loss;
            self.read += 1;
        }
        self.unread.clear();
        self.scalings.clear();
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
        // Of a scaled step that was left out an infinite loss is no fault, until the scale has fallen too far.
        let mut losses = Losses::from_step(0);
        for (loss, left_out) in [(2.0f32, 0.0f32), (f32::INFINITY, 1.0), (4.0, 1.0)] {
            losses.push_scaled(&Tensor::from(loss), Tensor::from_slice(&[left_out, 64.0]), 0.1).unwrap();
        }
        assert_eq!(losses.mean().unwrap(), 3.0);
        let mut losses = Losses::from_step(5);
        losses.push_scaled(&Tensor::from(f32::NAN), Tensor::from_slice(&[1.0f32, 1e-4]), 0.1).unwrap();
        let error = losses.mean().unwrap_err().to_string();
        assert!(error.contains("in step 5") && error.contains("bf16"), "{error}");
    }
}
