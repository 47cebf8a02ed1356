//! The losses of an epoch: summed without waiting for the device in every step,
//! and looked at often enough that a loss that is not finite stops the run soon.

use crate::train::diverged::{Fault, STEPS_BETWEEN_LOOKS};
use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

/// Losses of consecutive steps.
#[derive(Debug)]
pub struct Losses {
    /// The step of the first unread loss, counted from 0 since the start of training.
    step: u64,
    /// Loss, what the scaler gave, learning rate.
    unread: Vec<(Tensor, Option<Tensor>, f64)>,
    sum: f64,
    read: u64,
}

impl Losses {
    pub fn from_step(step: u64) -> Losses {
        Losses { step, unread: Vec::with_capacity(STEPS_BETWEEN_LOOKS as usize), sum: 0.0, read: 0 }
    }

    /// Goes on at `step` from the sum of `read` losses.
    pub fn continued(step: u64, sum: f64, read: u64) -> Losses {
        Losses { sum, read, ..Losses::from_step(step) }
    }

    /// The sum of all losses, and their number.
    ///
    /// Errors: as [`Losses::push`].
    pub fn sum(&mut self) -> Result<(f64, u64)> {
        self.look()?;
        Ok((self.sum, self.read))
    }

    /// Adds the loss `[]` of the next step, which was taken with `lr`. `scaling` is what
    /// [`Scaler::step`](crate::optim::Scaler::step) gave where gradients are scaled; a step that was left out counts
    /// where its loss is finite.
    ///
    /// Errors: a step since the last look shows a [`Fault`]: it is named with its learning rate.
    pub fn push(&mut self, loss: &Tensor, scaling: Option<&Tensor>, lr: f64) -> Result<()> {
        self.unread.push((loss.detach(), scaling.map(Tensor::shallow_clone), lr));
        if self.unread.len() < STEPS_BETWEEN_LOOKS as usize { Ok(()) } else { self.look() }
    }

    fn look(&mut self) -> Result<()> {
        let losses = read(self.unread.iter().map(|(loss, ..)| loss.view(1)).collect())?;
        let scalings =
            read(self.unread.iter().filter_map(|(_, scaling, _)| Some(scaling.as_ref()?.shallow_clone())).collect())?;
        let mut scalings = scalings.chunks_exact(2);
        for (loss, (_, scaling, lr)) in losses.into_iter().zip(self.unread.drain(..)) {
            let scaling = scaling.and_then(|_| scalings.next()).unwrap_or(&[0.0, f64::NAN]);
            if let Some(fault) = Fault::of(loss, scaling[0] > 0.0, scaling[1]) {
                let told = fault.told(&format!("in step {}", self.step));
                match fault {
                    Fault::Scale(_) => bail!("{told}; use --precision bf16 or fp32"),
                    Fault::Loss(_) => bail!(
                        "{told} (learning rate {lr:.3e}); nothing was saved since; use a smaller --fc-lr or --precision \
                         fp32"
                    ),
                }
            }
            self.step += 1;
            if loss.is_finite() {
                self.sum += loss;
                self.read += 1;
            }
        }
        Ok(())
    }

    /// The mean of all losses; 0 of none.
    ///
    /// Errors: as [`Losses::push`].
    pub fn mean(&mut self) -> Result<f64> {
        let (sum, read) = self.sum()?;
        Ok(sum / read.max(1) as f64)
    }
}

/// One after the other, in one transfer.
fn read(parts: Vec<Tensor>) -> Result<Vec<f64>> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    Ok(Vec::try_from(Tensor::cat(&parts, 0).to_kind(Kind::Double).to_device(Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_all_looks_and_the_first_bad_step_is_named() {
        let mut losses = Losses::from_step(7);
        for step in 0..120 {
            losses.push(&Tensor::from(step as f32), None, 0.1).unwrap();
        }
        assert_eq!(losses.mean().unwrap(), 59.5);
        let mut losses = Losses::from_step(1000);
        for step in 0..60 {
            let loss = if step == 53 { f32::NAN } else { 1.0 };
            losses.push(&Tensor::from(loss), None, 0.25).unwrap();
        }
        let error = losses.mean().unwrap_err().to_string();
        assert!(error.contains("step 1053") && error.contains("2.500e-1"), "{error}");
        // Of a scaled step that was left out an infinite loss is no fault, until the scale has fallen too far.
        let mut losses = Losses::from_step(0);
        for (loss, left_out) in [(2.0f32, 0.0f32), (f32::INFINITY, 1.0), (4.0, 1.0)] {
            losses.push(&Tensor::from(loss), Some(&Tensor::from_slice(&[left_out, 64.0])), 0.1).unwrap();
        }
        assert_eq!(losses.mean().unwrap(), 3.0);
        let mut losses = Losses::from_step(5);
        losses.push(&Tensor::from(f32::NAN), Some(&Tensor::from_slice(&[1.0f32, 1e-4])), 0.1).unwrap();
        let error = losses.mean().unwrap_err().to_string();
        assert!(error.contains("in step 5") && error.contains("bf16"), "{error}");
    }
}
