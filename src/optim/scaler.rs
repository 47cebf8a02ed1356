//! Loss scaling for float16 (Micikevicius et al., arXiv 1710.03740), by the
//! rules of `torch.amp.GradScaler`.
//!
//! float16 has no numbers below 6e-8: small gradients would become 0 on their
//! way back. The loss is multiplied by a scale that keeps them in range, and the
//! gradients are divided by it before the optimiser sees them. A step whose
//! gradients are not all finite is left out and halves the scale; 2000 steps in a
//! row without one double it. All of it stays on the device: nothing waits.
//!
//! Beyond PyTorch's rules, a step that is left out leaves BatchNorm's running
//! statistics as they were. An activation that overflows would make them NaN,
//! and the network of no use for ever.

use super::{Optimizer, Rate};
use crate::native::lists;
use crate::state::{Parameter, ScalerState};
use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

/// PyTorch's defaults.
const FRESH: ScalerState =
    ScalerState { scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, growth_tracker: 0 };

/// A scale that moves with the gradients.
#[derive(Debug)]
pub struct Scaler {
    /// `[]` float32.
    scale: Tensor,
    /// `[]` int32.
    growth_tracker: Tensor,
    /// Factors and interval; scale and tracker are the tensors'.
    rules: ScalerState,
    device: Device,
    /// What a step changes besides the parameters (running statistics, an objective's state), live, and what each was when
    /// it began.
    statistics: Vec<(Tensor, Option<Tensor>)>,
}

impl Scaler {
    /// Below this the overflow is in the features, not in the scaled gradients: 26 steps after another were left out.
    pub const FLOOR: f64 = 1.0 / 1024.0;

    /// A fresh one; `statistics` are what a step changes besides the parameters, on `device`.
    pub fn new(device: Device, statistics: Vec<Tensor>) -> Scaler {
        Scaler::of(FRESH, device, statistics.into_iter().map(|live| (live, None)).collect())
    }

    fn of(state: ScalerState, device: Device, statistics: Vec<(Tensor, Option<Tensor>)>) -> Scaler {
        Scaler {
            scale: Tensor::from(state.scale as f32).to_device(device),
            growth_tracker: Tensor::from(state.growth_tracker as i32).to_device(device),
            rules: state,
            device,
            statistics,
        }
    }

    /// What the gradient is to be multiplied by before it runs backward, `[]` float32 on the device.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// Notes the running statistics, for the case that the step that begins now is left out.
    pub fn remember_statistics(&mut self) {
        let _guard = tch::no_grad_guard();
        for (live, before) in &mut self.statistics {
            before.get_or_insert_with(|| live.empty_like()).copy_(live);
        }
    }

    /// Unscales the parameters' gradients, lets the optimiser step if all of them are finite, and moves the scale. Gives
    /// `[2]` float32 on the device: 1 if the step was left out, else 0; the scale of the next step.
    pub fn step(&mut self, optimizer: &mut dyn Optimizer, parameters: &[Parameter], rate: &Rate) -> Tensor {
        let _guard = tch::no_grad_guard();
        let overflowed = self.unscale(parameters);
        if self.device == Device::Cpu {
            // Reading waits for nothing here, and the fused step of the CPU knows no conditions.
            match overflowed.double_value(&[]) == 0.0 {
                true => optimizer.step(rate, None),
                false => self.recall_statistics(None),
            }
        } else {
            optimizer.step(rate, Some(&overflowed));
            self.recall_statistics(Some(&overflowed.eq(0.0)));
        }
        self.move_scale(&overflowed);
        Tensor::stack(&[&overflowed, &self.scale], 0)
    }

    /// Divides the gradients by the scale; `[]` float32 is 1 if one of them is not finite, else 0.
    fn unscale(&self, parameters: &[Parameter]) -> Tensor {
        let overflowed = Tensor::zeros([], (Kind::Float, self.device));
        // As PyTorch inverts it, so that the gradients have its bits.
        let inverse = self.scale.to_kind(Kind::Double).reciprocal().to_kind(Kind::Float);
        let gradients: Vec<Tensor> = parameters.iter().map(|p| p.tensor.grad()).filter(Tensor::defined).collect();
        lists::unscale(&gradients, &overflowed, &inverse).unwrap();
        overflowed
    }

    /// Makes the running statistics what they were when the step began, unless `[]` bool says that they are good.
    fn recall_statistics(&mut self, good: Option<&Tensor>) {
        for (live, before) in &mut self.statistics {
            if let Some(before) = before {
                match good {
                    // Chosen, not multiplied: what is left out may not be finite.
                    Some(good) => live.copy_(&live.where_self(good, before)),
                    None => live.copy_(before),
                }
            }
        }
    }

    fn move_scale(&mut self, overflowed: &Tensor) {
        let ScalerState { growth_factor, backoff_factor, growth_interval, .. } = self.rules;
        let _ = self.scale.internal_amp_update_scale_(
            &self.growth_tracker,
            overflowed,
            growth_factor,
            backoff_factor,
            growth_interval,
        );
    }

    /// What a checkpoint keeps. Waits for the device.
    pub fn state(&self) -> ScalerState {
        ScalerState {
            scale: self.scale.double_value(&[]),
            growth_tracker: self.growth_tracker.int64_value(&[]),
            ..self.rules
        }
    }

    /// Goes on from what [`Scaler::state`] gave.
    ///
    /// Errors: numbers that no scaler has.
    pub fn restore(&mut self, state: ScalerState) -> Result<()> {
        let ScalerState { scale, growth_factor, backoff_factor, growth_interval, growth_tracker } = state;
        let sound = scale.is_finite()
            && scale > 0.0
            && growth_factor > 1.0
            && (0.0..1.0).contains(&backoff_factor)
            && growth_interval > 0
            && (0..growth_interval).contains(&growth_tracker);
        if !sound {
            bail!("the state of its gradient scaler makes no sense: {state:?}");
        }
        *self = Scaler::of(state, self.device, std::mem::take(&mut self.statistics));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OptimizerConfig, OptimizerName};
    use crate::optim;
    use crate::state::Role;

    fn parameters() -> Vec<Parameter> {
        let values = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu)).sin();
        [("w", values(12).view([3, 4]), Role::Weight), ("b", values(5), Role::Bias)]
            .into_iter()
            .map(|(name, tensor, role)| Parameter { name: name.into(), tensor: tensor.set_requires_grad(true), role })
            .collect()
    }

    /// Gradients of `step`, times `scale`; those of one parameter infinite when asked for.
    fn set_gradients(parameters: &[Parameter], step: i64, scale: f64, infinite: bool) {
        optim::clear_gradients(parameters);
        for p in parameters {
            let wanted = (p.tensor.detach() + step as f64).cos() * scale;
            let wanted = if infinite && p.name == "b" { wanted / 0.0 } else { wanted };
            (&p.tensor * wanted).sum(Kind::Float).backward();
        }
    }

    fn config(name: OptimizerName, momentum: f64) -> OptimizerConfig {
        OptimizerConfig { name, lr: 0.1, weight_decay: 0.01, momentum, lars_exclude_bn: true, lars_exclude_bias: true }
    }

    fn values(parameters: &[Parameter]) -> Vec<f32> {
        parameters.iter().flat_map(|p| Vec::<f32>::try_from(p.tensor.detach().view(-1)).unwrap()).collect()
    }

    /// What the device decides is what the host would have decided.
    #[test]
    fn a_step_left_out_on_the_device_changes_nothing() {
        let kinds = [
            (OptimizerName::Lars, 0.9),
            (OptimizerName::Sgd, 0.9),
            (OptimizerName::Sgd, 0.0),
            (OptimizerName::Adam, 0.9),
        ];
        for (name, momentum) in kinds {
            let (on_device, on_host) = (parameters(), parameters());
            let mut first = optim::build(&config(name, momentum), on_device.clone()).unwrap();
            let mut second = optim::build(&config(name, momentum), on_host.clone()).unwrap();
            for step in 0..8 {
                let left_out = [0, 3, 4].contains(&step);
                set_gradients(&on_device, step, 1.0, left_out);
                let flag = Tensor::from(f32::from(u8::from(left_out)));
                first.step(&Rate::as_tensor(0.1, Device::Cpu), Some(&flag));
                if !left_out {
                    set_gradients(&on_host, step, 1.0, false);
                    second.step(&Rate::from(0.1), None);
                }
                for (a, b) in values(&on_device).iter().zip(values(&on_host)) {
                    assert!((a - b).abs() < 1e-6, "{name} {momentum}, step {step}: {a} and {b}");
                }
            }
            let states = [first.state(), second.state()];
            assert_eq!(states[0].len(), states[1].len());
            for ((i, entry, a), (_, _, b)) in states[0].iter().zip(&states[1]) {
                assert!(a.allclose(b, 1e-5, 1e-6, false), "{name}: {entry} of {i}");
            }
        }
    }

    #[test]
    fn the_scale_follows_pytorchs_rules_and_its_state_goes_on() {
        let parameters = parameters();
        let mut optimizer = optim::build(&config(OptimizerName::Sgd, 0.9), parameters.clone()).unwrap();
        let mut scaler = Scaler::new(Device::Cpu, Vec::new());
        scaler.restore(ScalerState { growth_interval: 3, ..FRESH }).unwrap();
        // (overflow, scale after, tracker after); GradScaler(growth_interval=3) says the same.
        let course = [
            (true, 32768.0, 0),
            (false, 32768.0, 1),
            (false, 32768.0, 2),
            (false, 65536.0, 0),
            (false, 65536.0, 1),
            (true, 32768.0, 0),
        ];
        for (step, (overflow, scale, tracker)) in course.into_iter().enumerate() {
            let before = values(&parameters);
            set_gradients(&parameters, step as i64, scaler.state().scale, overflow);
            let seen = Vec::<f32>::try_from(scaler.step(optimizer.as_mut(), &parameters, &Rate::from(0.1))).unwrap();
            assert_eq!(seen, [f32::from(u8::from(overflow)), scale as f32]);
            assert_eq!((scaler.state().scale, scaler.state().growth_tracker), (scale, tracker), "step {step}");
            assert_eq!(values(&parameters) == before, overflow, "step {step}");
            let mut other = Scaler::new(Device::Cpu, Vec::new());
            other.restore(scaler.state()).unwrap();
            scaler = other;
        }
        let error = scaler.restore(ScalerState { scale: f64::NAN, ..FRESH }).unwrap_err().to_string();
        assert!(error.contains("NaN"), "{error}");
    }

    #[test]
    fn statistics_come_back_where_the_device_says_that_they_are_not_good() {
        let live = Tensor::from_slice(&[1.0f32, 2.0]);
        let mut scaler = Scaler::new(Device::Cpu, vec![live.shallow_clone()]);
        for (good, wanted) in [(false, [1.0, 2.0]), (true, [5.0, 6.0])] {
            scaler.remember_statistics();
            live.shallow_clone().copy_(&Tensor::from_slice(&[5.0f32, if good { 6.0 } else { f32::NAN }]));
            scaler.recall_statistics(Some(&Tensor::from(good)));
            assert_eq!(Vec::<f32>::try_from(&live).unwrap(), wanted);
        }
    }

    #[test]
    fn the_optimiser_sees_unscaled_gradients() {
        let (scaled, plain) = (parameters(), parameters());
        let mut scaler = Scaler::new(Device::Cpu, Vec::new());
        let mut first = optim::build(&config(OptimizerName::Adam, 0.9), scaled.clone()).unwrap();
        let mut second = optim::build(&config(OptimizerName::Adam, 0.9), plain.clone()).unwrap();
        set_gradients(&scaled, 1, 65536.0, false);
        set_gradients(&plain, 1, 1.0, false);
        let _ = scaler.step(first.as_mut(), &scaled, &Rate::from(0.1));
        second.step(&Rate::from(0.1), None);
        // A power of two: exact.
        assert_eq!(values(&scaled), values(&plain));
    }
}
