//! What LARS and SGD share: parameters with a momentum buffer each, and a step
//! that is taken in the way that is fastest where they lie.

use super::fused::{Rule, Walk, Work};
use super::{StateEntry, become_unless, load_slots, slot_entries};
use crate::native::lists;
use crate::state::Parameter;
use anyhow::Result;
use tch::Tensor;

/// PyTorch's name of the buffer.
const NAME: &str = "momentum_buffer";

/// Parameters and their momentum.
#[derive(Debug)]
pub(super) struct Buffered {
    parameters: Vec<Parameter>,
    /// `None` before a parameter's first step.
    buffers: Vec<Option<Tensor>>,
    walk: Walk,
}

/// Parameters of one rule that are stepped as lists.
#[derive(Default)]
struct Lists {
    values: Vec<Tensor>,
    gradients: Vec<Tensor>,
    buffers: Vec<Tensor>,
}

impl Buffered {
    pub fn new(parameters: Vec<Parameter>) -> Buffered {
        let buffers = parameters.iter().map(|_| None).collect();
        Buffered { parameters, buffers, walk: Walk::default() }
    }

    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Takes the step of every parameter that has a gradient, by the rule of its index; where `left_out`, `[]` bool on
    /// their device, is true, nothing changes. Waits for nothing.
    pub fn step(&mut self, rule: impl Fn(usize) -> Rule, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let mut values: Vec<Tensor> = self.parameters.iter().map(|parameter| parameter.tensor.detach()).collect();
        let (mut work, mut others) = (Vec::with_capacity(values.len()), Vec::<(Rule, Lists)>::new());
        for (index, ((value, buffer), parameter)) in
            values.iter_mut().zip(&mut self.buffers).zip(&self.parameters).enumerate()
        {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let rule = rule(index);
            // Zeros at first make m the first update.
            let buffer = buffer.get_or_insert_with(|| value.zeros_like());
            if let Some(left_out) = left_out {
                step_unless(left_out, value, gradient, buffer, rule);
            } else if Work::fits(value, &gradient, buffer) {
                work.push(Work::of(value, gradient, buffer, rule));
            } else {
                let place = others.iter().position(|(other, _)| *other == rule).unwrap_or_else(|| {
                    others.push((rule, Lists::default()));
                    others.len() - 1
                });
                let lists = &mut others[place].1;
                lists.values.push(value.shallow_clone());
                lists.gradients.push(gradient);
                lists.buffers.push(buffer.shallow_clone());
            }
        }
        self.walk.run(work);
        for (rule, Lists { values, gradients, buffers }) in others {
            lists::momentum_step(&values, &gradients, &buffers, rule).unwrap();
        }
    }

    /// [`super::Optimizer::state`].
    pub fn state(&self) -> Vec<StateEntry> {
        slot_entries(&self.buffers, NAME)
    }

    /// [`super::Optimizer::load`].
    pub fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        load_slots(&mut self.buffers, &self.parameters, NAME, get)
    }
}

/// The step of one parameter; no operation waits for a norm.
fn step_unless(left_out: &Tensor, value: &mut Tensor, gradient: Tensor, buffer: &mut Tensor, rule: Rule) {
    let decayed = if rule.decay == 0.0 { gradient } else { gradient + &*value * rule.decay };
    let update = match rule.eeta {
        Some(eeta) => {
            let (p_norm, g_norm) = (value.norm(), decayed.norm());
            // 0/0 and x/0 never win over the 1.
            let usable = p_norm.gt(0.0).logical_and(&g_norm.gt(0.0));
            let one = value.new_ones([], (value.kind(), value.device()));
            let trust = (p_norm / g_norm * eeta).where_self(&usable, &one);
            decayed * (trust * rule.rate)
        }
        None => decayed * rule.rate,
    };
    let m = &*buffer * rule.momentum + update;
    let next = &*value - &m * rule.step;
    become_unless(Some(left_out), buffer, &m);
    become_unless(Some(left_out), value, &next);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Role;
    use tch::{Device, Kind};

    /// Of no generator: other tests share libtorch's.
    fn wave(shape: &[i64], salt: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * (0.37 + salt)).sin().view(shape)
    }

    /// Three steps over parameters of a kind, by one rule for weights and one for the rest.
    fn trained(kind: Kind, left_out: Option<bool>) -> Vec<Tensor> {
        let shapes: [&[i64]; 5] = [&[40, 30], &[7], &[8, 3, 3, 3], &[5], &[64, 64]];
        let parameters: Vec<Parameter> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| Parameter {
                name: format!("p{i}"),
                tensor: wave(shape, i as f64).to_kind(kind).set_requires_grad(true),
                role: Role::Weight,
            })
            .collect();
        // A parameter of zeros has no trust ratio.
        let _ = tch::no_grad(|| parameters[3].tensor.detach().zero_());
        let mut buffered = Buffered::new(parameters.clone());
        let rule = |index: usize| Rule {
            decay: if shapes[index].len() > 1 { 0.1 } else { 0.0 },
            momentum: 0.9,
            rate: 0.3,
            step: 0.5,
            eeta: (shapes[index].len() > 1 || index == 3).then_some(0.02),
        };
        for step in 0..3 {
            super::super::zero_gradients(&parameters);
            for (i, p) in parameters.iter().enumerate() {
                let gradient = wave(shapes[i], 2.0 + f64::from(step) + i as f64).to_kind(kind);
                (&p.tensor * gradient).sum(kind).backward();
            }
            buffered.step(rule, left_out.map(Tensor::from).as_ref());
        }
        let state = buffered.state().into_iter().map(|(_, _, buffer)| buffer);
        parameters.iter().map(|p| p.tensor.detach()).chain(state).map(|t| t.to_kind(Kind::Double)).collect()
    }

    /// float32 in main memory is walked over, float64 goes through the lists that a GPU's parameters go through, and a
    /// step that may be left out through tensors one by one.
    #[test]
    fn every_way_of_stepping_is_the_same_step() {
        let [walked, listed, one_by_one] =
            [(Kind::Float, None), (Kind::Double, None), (Kind::Double, Some(false))].map(|(k, l)| trained(k, l));
        assert_eq!(listed.len(), 10);
        for (place, (a, b)) in listed.iter().zip(&one_by_one).enumerate() {
            assert!(a.allclose(b, 1e-12, 1e-13, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
        }
        for (place, (a, b)) in listed.iter().zip(&walked).enumerate() {
            assert!(a.allclose(b, 1e-5, 1e-6, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
        }
        let still = trained(Kind::Double, Some(true));
        assert!(still[5..].iter().all(|buffer| buffer.count_nonzero(None).int64_value(&[]) == 0));
        assert_ne!(still[0], listed[0]);
    }
}
