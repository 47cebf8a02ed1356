//! What LARS and SGD share: parameters with a momentum buffer each, and a step
//! that is taken in the way that is fastest where they lie.

use super::fused::{Rule, Walk, Work};
use super::{Rate, StateEntry, load_slots, slot_entries};
use crate::native::lists::{self, Algorithm, Stepped};
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

/// Parameters of one algorithm that are stepped as lists.
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

    /// Takes the step of every parameter that has a gradient, by the algorithm of its index; where `left_out`, `[]`
    /// float32 on their device, is not 0, nothing changes. Waits for nothing.
    pub fn step(&mut self, algorithm: impl Fn(usize) -> Algorithm, rate: &Rate, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let on_host = rate.there().is_none() && left_out.is_none();
        let mut values: Vec<Tensor> = self.parameters.iter().map(|parameter| parameter.tensor.detach()).collect();
        let (mut work, mut others) = (Vec::with_capacity(values.len()), Vec::<(Algorithm, Lists)>::new());
        for (index, ((value, buffer), parameter)) in
            values.iter_mut().zip(&mut self.buffers).zip(&self.parameters).enumerate()
        {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let algorithm = algorithm(index);
            // Zeros at first make m the first update.
            let buffer = buffer.get_or_insert_with(|| value.zeros_like());
            if on_host && Work::fits(value, &gradient, buffer) {
                work.push(Work::of(value, gradient, buffer, rule(algorithm, rate.number())));
            } else {
                let place = others.iter().position(|(other, _)| *other == algorithm).unwrap_or_else(|| {
                    others.push((algorithm, Lists::default()));
                    others.len() - 1
                });
                let lists = &mut others[place].1;
                lists.values.push(value.shallow_clone());
                lists.gradients.push(gradient);
                lists.buffers.push(buffer.shallow_clone());
            }
        }
        self.walk.run(work);
        for (algorithm, Lists { values, gradients, buffers }) in others {
            let lr = rate.tensor(values[0].device());
            let (values, gradients, state) = (&values, &gradients, &[&buffers[..]]);
            lists::step(Stepped { values, gradients, state, lr: &lr, left_out }, algorithm).unwrap();
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

/// The same step of one parameter in main memory.
fn rule(algorithm: Algorithm, lr: f64) -> Rule {
    match algorithm {
        Algorithm::Sgd { decay, momentum } => Rule { decay, momentum, rate: 1.0, step: lr, eeta: None },
        Algorithm::Lars { decay, momentum, eeta } => Rule { decay, momentum, rate: lr, step: 1.0, eeta },
        Algorithm::Adam { .. } => unreachable!("Adam has no momentum buffer"),
    }
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

    /// Three steps over parameters of a kind, by one algorithm for weights and one for the rest.
    fn trained(kind: Kind, rate: Rate, left_out: Option<f32>, sgd: bool) -> Vec<Tensor> {
        let shapes: [&[i64]; 6] = [&[40, 30], &[7], &[8, 3, 3, 3], &[5], &[64, 64], &[6, 4, 1, 1]];
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
        let algorithm = |index: usize| {
            let (decay, momentum) = (if shapes[index].len() > 1 { 0.1 } else { 0.0 }, 0.9);
            let eeta = (shapes[index].len() > 1 || index == 3).then_some(0.02);
            if sgd { Algorithm::Sgd { decay, momentum } } else { Algorithm::Lars { decay, momentum, eeta } }
        };
        for step in 0..3 {
            super::super::clear_gradients(&parameters);
            for (i, p) in parameters.iter().enumerate() {
                let gradient = wave(shapes[i], 2.0 + f64::from(step) + i as f64).to_kind(kind);
                (&p.tensor * gradient).sum(kind).backward();
            }
            if left_out == Some(1.0) {
                let _ = tch::no_grad(|| parameters[0].tensor.grad().fill_(f64::INFINITY));
            }
            buffered.step(algorithm, &rate, left_out.map(Tensor::from).as_ref());
        }
        let state = buffered.state().into_iter().map(|(_, _, buffer)| buffer);
        parameters.iter().map(|p| p.tensor.detach()).chain(state).map(|t| t.to_kind(Kind::Double)).collect()
    }

    /// float32 in main memory is walked over; float64 goes through the lists that a GPU's parameters go through, with and
    /// without a step's being left out.
    #[test]
    fn every_way_of_stepping_is_the_same_step() {
        for sgd in [false, true] {
            // Exact in float32, as the tensor has it.
            let there = || Rate::as_tensor(0.25, Device::Cpu);
            let walked = trained(Kind::Float, Rate::from(0.25), None, sgd);
            let listed = trained(Kind::Double, there(), None, sgd);
            assert_eq!(listed.len(), 12);
            for other in
                [trained(Kind::Double, Rate::from(0.25), None, sgd), trained(Kind::Double, there(), Some(0.0), sgd)]
            {
                for (place, (a, b)) in listed.iter().zip(&other).enumerate() {
                    assert!(a.allclose(b, 1e-12, 1e-13, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
                }
            }
            for (place, (a, b)) in listed.iter().zip(&walked).enumerate() {
                assert!(a.allclose(b, 1e-5, 1e-6, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
            }
            let still = trained(Kind::Double, there(), Some(1.0), sgd);
            assert!(still[6..].iter().all(|buffer| buffer.count_nonzero(None).int64_value(&[]) == 0));
            assert_eq!(still[0], wave(&[40, 30], 0.0), "a step left out changes nothing");
            assert_ne!(still[0], listed[0]);
        }
    }
}
