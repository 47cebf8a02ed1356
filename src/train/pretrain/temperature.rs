//! The temperature of the contrast: fixed, or steered so that the effective
//! sample size of the negatives stays at a target (`--ess-target`).
//!
//! An extension: the paper proposes such a schedule and publishes none. With
//! b = 1/t the normalised effective sample size never rises, so a mean above
//! the target asks for a smaller t and one below for a larger. Every
//! [`WINDOW_STEPS`] steps log t moves by a part of log(target / mean).

use crate::device::read_scalars;
use tch::Tensor;

/// Steps whose mean is compared with the target; the only time that the device is waited for.
const WINDOW_STEPS: usize = 10;

/// Part of the logarithmic distance that one move covers; and the largest move.
const GAIN: f64 = 0.1;
const LARGEST_MOVE: f64 = 0.05;

/// Similarities beyond these say nothing (too hot) or one negative decides alone (too cold).
const COLDEST: f64 = 0.01;
const HOTTEST: f64 = 5.0;

/// The temperature of the next step.
pub struct Temperature {
    value: f64,
    target: Option<f64>,
    /// Mean NESS of the steps since the last move: of those before a stop, then, on the device, of this process's.
    earlier: Vec<f64>,
    window: Vec<Tensor>,
}

impl Temperature {
    pub fn new(value: f64, target: Option<f64>) -> Temperature {
        Temperature { value, target, earlier: Vec::new(), window: Vec::new() }
    }

    pub fn value(&self) -> f64 {
        self.value
    }

    /// Takes the mean NESS of a step, `[]`, and moves when a window is full.
    pub fn observe(&mut self, ness: impl FnOnce() -> Tensor) {
        let Some(target) = self.target else { return };
        self.window.push(ness());
        if self.earlier.len() + self.window.len() >= WINDOW_STEPS {
            let seen = self.seen();
            self.earlier.clear();
            self.window.clear();
            self.value = moved(self.value, target, seen.iter().sum::<f64>() / seen.len() as f64);
        }
    }

    /// The window's numbers. Waits for the device.
    fn seen(&self) -> Vec<f64> {
        [&self.earlier[..], &read_scalars(&self.window)].concat()
    }

    /// What a checkpoint keeps: the value, then the window. `None` for a fixed temperature.
    pub fn state(&self) -> Option<Vec<f64>> {
        self.target?;
        Some([vec![self.value], self.seen()].concat())
    }

    /// Goes on from what [`Temperature::state`] gave.
    pub fn restore(&mut self, state: &[f64]) {
        if let (Some(_), Some((&value, window))) = (self.target, state.split_first()) {
            self.value = value;
            self.earlier = window.to_vec();
            self.window.clear();
        }
    }
}

/// The temperature after one move. A mean that is not finite moves nothing: the loss's own check stops the run.
fn moved(value: f64, target: f64, mean: f64) -> f64 {
    let distance = (target / mean).ln();
    if !distance.is_finite() {
        return value;
    }
    (value * (GAIN * distance).clamp(-LARGEST_MOVE, LARGEST_MOVE).exp()).clamp(COLDEST, HOTTEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss;
    use tch::{Device, Kind};

    #[test]
    fn the_target_is_reached_and_held() {
        tch::manual_seed(3);
        let features = loss::normalise(&Tensor::randn([128, 32], (Kind::Float, Device::Cpu)));
        for (start, target) in [(0.1, 0.5), (1.0, 0.2), (0.05, 0.05)] {
            let mut temperature = Temperature::new(start, Some(target));
            let mut ness = 0.0;
            for _ in 0..1500 {
                let contrast = loss::contrast(&features, temperature.value(), crate::config::Objective::FlatClr);
                let mean = contrast.anchors.ness.mean(Kind::Float);
                ness = mean.double_value(&[]);
                temperature.observe(|| mean);
            }
            assert!((ness / target - 1.0).abs() < 0.02, "{ness} instead of {target}");
        }
    }

    #[test]
    fn a_fixed_temperature_stays_and_costs_nothing() {
        let mut fixed = Temperature::new(0.1, None);
        fixed.observe(|| panic!("nobody asks"));
        assert_eq!((fixed.value(), fixed.state()), (0.1, None));
        fixed.restore(&[0.7]);
        assert_eq!(fixed.value(), 0.1);
    }

    #[test]
    fn a_stop_within_a_window_changes_nothing() {
        let ness = |step: usize| Tensor::from(0.3f32 + 0.01 * step as f32);
        let mut whole = Temperature::new(0.1, Some(0.25));
        (0..25).for_each(|step| whole.observe(|| ness(step)));
        let mut first = Temperature::new(0.1, Some(0.25));
        (0..13).for_each(|step| first.observe(|| ness(step)));
        let mut second = Temperature::new(0.1, Some(0.25));
        second.restore(&first.state().unwrap());
        (13..25).for_each(|step| second.observe(|| ness(step)));
        assert_eq!(whole.state(), second.state());
        assert!(whole.value() < 0.1, "above the target, b rises");
    }

    #[test]
    fn moves_have_bounds() {
        assert_eq!(moved(0.1, 0.5, f64::NAN), 0.1);
        assert_eq!(moved(0.1, 0.5, 0.0), 0.1);
        assert_eq!(moved(COLDEST, 0.01, 1.0), COLDEST);
        assert_eq!(moved(HOTTEST, 1.0, 0.01), HOTTEST);
        assert!((moved(0.1, 1.0, 1e-9) / 0.1).ln() <= LARGEST_MOVE + 1e-12);
    }
}
