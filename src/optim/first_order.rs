//! One step of SGD, LARS or Adam (see [`Algorithm`]) over all parameters: float32 in main memory is walked over, each
//! parameter read and written once; everything else, a GPU's parameters above all, goes to libtorch as lists.

use super::fused::{Rule, Walk, Work};
use super::{Optimizer, Rate, StateEntry};
use crate::config::{OptimizerConfig, OptimizerName};
use crate::native::lists::{self, Algorithm, Stepped};
use crate::state::{Parameter, Role};
use anyhow::{Result, bail};
use tch::{Kind, Tensor};

/// Parameters with what the algorithm of each remembers.
#[derive(Debug)]
pub(super) struct FirstOrder {
    parameters: Vec<Parameter>,
    algorithms: Vec<Algorithm>,
    /// In the order of [`Algorithm::state`]; empty before a parameter's first step.
    states: Vec<Vec<Tensor>>,
    walk: Walk,
}

impl FirstOrder {
    /// Errors: LBFGS, which needs the whole data in one step and so serves the linear evaluation only.
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Result<FirstOrder> {
        if config.name == OptimizerName::Lbfgs {
            bail!("LBFGS works for linear evaluation only; use lars, sgd or adam here");
        }
        let algorithms = parameters.iter().map(|parameter| algorithm(config, parameter.role)).collect();
        Ok(FirstOrder::of(parameters, algorithms))
    }

    fn of(parameters: Vec<Parameter>, algorithms: Vec<Algorithm>) -> FirstOrder {
        let states = parameters.iter().map(|_| Vec::new()).collect();
        FirstOrder { parameters, algorithms, states, walk: Walk::default() }
    }
}

/// How the parameters of a role are stepped. LARS leaves those that are excluded (BatchNorm and biases by default)
/// without decay and adaptation. (upstream: `optimizer/lars.py`, whose exclusion list has no effect)
fn algorithm(config: &OptimizerConfig, role: Role) -> Algorithm {
    let &OptimizerConfig { weight_decay: decay, momentum, lars_exclude_bias, lars_exclude_bn, .. } = config;
    match config.name {
        OptimizerName::Sgd => Algorithm::Sgd { decay, momentum },
        OptimizerName::Adam => {
            Algorithm::Adam { decay, betas: OptimizerConfig::BETAS, epsilon: OptimizerConfig::EPSILON }
        }
        OptimizerName::Lars | OptimizerName::Lbfgs => match role {
            Role::Bias if lars_exclude_bias => Algorithm::Lars { decay: 0.0, momentum, eeta: None },
            Role::BatchNorm if lars_exclude_bn => Algorithm::Lars { decay: 0.0, momentum, eeta: None },
            _ => Algorithm::Lars { decay, momentum, eeta: Some(OptimizerConfig::EETA) },
        },
    }
}

/// Whether anything of a step is kept for the next: plain SGD keeps nothing.
pub fn keeps_state(config: &OptimizerConfig) -> bool {
    !algorithm(config, Role::Weight).state().is_empty()
}

/// What a parameter's first step finds. In the parameter's own layout, so that updates walk all in the same order; zeros
/// make the first momentum the first gradient.
fn fresh(value: &Tensor, algorithm: Algorithm) -> Vec<Tensor> {
    let _guard = tch::no_grad_guard();
    let of = |name: &&str| match *name {
        Algorithm::STEP => Tensor::zeros([], (Kind::Float, value.device())),
        _ => value.detach().zeros_like(),
    };
    algorithm.state().iter().map(of).collect()
}

impl Optimizer for FirstOrder {
    fn step(&mut self, rate: &Rate, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let on_host = rate.there().is_none() && left_out.is_none();
        let mut values: Vec<Tensor> = self.parameters.iter().map(|parameter| parameter.tensor.detach()).collect();
        let (mut walked, mut listed) = (Vec::with_capacity(values.len()), Vec::<(Algorithm, Vec<Stepped>)>::new());
        for ((value, state), (parameter, &algorithm)) in
            values.iter_mut().zip(&mut self.states).zip(self.parameters.iter().zip(&self.algorithms))
        {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            if state.is_empty() {
                *state = fresh(value, algorithm);
            }
            let walks = on_host && matches!(state.as_slice(), [buffer] if Work::fits(value, &gradient, buffer));
            match Rule::of(algorithm, rate.number()).filter(|_| walks) {
                Some(rule) => walked.push(Work::of(value, gradient, &mut state[0], rule)),
                None => {
                    let stepped = Stepped { value, gradient, state };
                    match listed.iter_mut().find(|(other, _)| *other == algorithm) {
                        Some((_, list)) => list.push(stepped),
                        None => listed.push((algorithm, vec![stepped])),
                    }
                }
            }
        }
        self.walk.run(walked);
        for (algorithm, list) in listed {
            let lr = rate.tensor(list[0].value.device());
            lists::step(algorithm, &list, &lr, left_out).unwrap();
        }
    }

    fn state(&self) -> Vec<StateEntry> {
        let all = self.states.iter().zip(&self.algorithms).enumerate();
        all.flat_map(|(index, (state, algorithm))| {
            algorithm.state().iter().zip(state).map(move |(&name, tensor)| (index, name, tensor.shallow_clone()))
        })
        .collect()
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        let mut loaded = Vec::with_capacity(self.states.len());
        for (index, (parameter, &algorithm)) in self.parameters.iter().zip(&self.algorithms).enumerate() {
            let names = algorithm.state();
            let saved: Vec<Option<Tensor>> = names.iter().map(|name| get(index, name)).collect();
            if saved.iter().all(Option::is_none) {
                loaded.push(Vec::new());
                continue;
            }
            let mut state = fresh(&parameter.tensor, algorithm);
            for ((own, saved), &name) in state.iter_mut().zip(saved).zip(names) {
                let Some(saved) = saved else { bail!("the optimiser's {name} of {} is missing", parameter.name) };
                if saved.size() != own.size() {
                    let (file, model) = (saved.size(), own.size());
                    bail!(
                        "the optimiser's {name} of {} is {file:?} in the file, {model:?} in the model",
                        parameter.name
                    );
                }
                if name == Algorithm::STEP {
                    let count = saved.double_value(&[]);
                    if !(count >= 0.0 && count.fract() == 0.0) {
                        bail!("Adam's step of {} is {count}, which is no count", parameter.name);
                    }
                }
                own.copy_(&saved);
            }
            loaded.push(state);
        }
        self.states = loaded;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Of no generator: other tests share libtorch's.
    fn wave(shape: &[i64], salt: f64) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * (0.37 + salt)).sin().view(shape)
    }

    const SHAPES: [&[i64]; 6] = [&[40, 30], &[7], &[8, 3, 3, 3], &[5], &[64, 64], &[6, 4, 1, 1]];

    const STEPS: i32 = 3;

    /// Which algorithm the parameter of an index has.
    type Chosen = fn(usize) -> Algorithm;

    const SGD: Chosen =
        |index| Algorithm::Sgd { decay: if SHAPES[index].len() > 1 { 0.1 } else { 0.0 }, momentum: 0.9 };
    const LARS: Chosen = |index| Algorithm::Lars {
        decay: if SHAPES[index].len() > 1 { 0.1 } else { 0.0 },
        momentum: 0.9,
        eeta: (SHAPES[index].len() > 1 || index == 3).then_some(0.02),
    };
    const PLAIN_SGD: Chosen = |_| Algorithm::Sgd { decay: 0.1, momentum: 0.0 };
    const ADAM: Chosen = |_| Algorithm::Adam { decay: 0.1, betas: (0.9, 0.999), epsilon: 1e-8 };

    fn parameters(kind: Kind) -> Vec<Parameter> {
        let parameter = |(i, shape): (usize, &&[i64])| Parameter {
            name: format!("p{i}"),
            tensor: wave(shape, i as f64).to_kind(kind).set_requires_grad(true),
            role: Role::Weight,
        };
        let parameters: Vec<Parameter> = SHAPES.iter().enumerate().map(parameter).collect();
        // A parameter of zeros has no trust ratio.
        let _ = tch::no_grad(|| parameters[3].tensor.detach().zero_());
        parameters
    }

    fn gradient(index: usize, step: i32) -> Tensor {
        wave(SHAPES[index], 2.0 + f64::from(step) + index as f64)
    }

    /// Values and state after three steps over parameters of a kind.
    fn trained(kind: Kind, rate: Rate, left_out: Option<f32>, chosen: Chosen) -> Vec<Tensor> {
        let parameters = parameters(kind);
        let mut optimizer = FirstOrder::of(parameters.clone(), (0..SHAPES.len()).map(chosen).collect());
        for step in 0..STEPS {
            super::super::clear_gradients(&parameters);
            for (i, p) in parameters.iter().enumerate() {
                (&p.tensor * gradient(i, step).to_kind(kind)).sum(kind).backward();
            }
            if left_out == Some(1.0) {
                let _ = tch::no_grad(|| parameters[0].tensor.grad().fill_(f64::INFINITY));
            }
            optimizer.step(&rate, left_out.map(Tensor::from).as_ref());
        }
        let state = optimizer.state().into_iter().map(|(_, _, buffer)| buffer);
        parameters.iter().map(|p| p.tensor.detach()).chain(state).map(|t| t.to_kind(Kind::Double)).collect()
    }

    /// The formulas of [`Algorithm`], one operation after the other, in float64.
    fn written_out(lr: f64, chosen: Chosen) -> Vec<Tensor> {
        let _guard = tch::no_grad_guard();
        let norm = |tensor: &Tensor| tensor.norm().double_value(&[]);
        let mut values: Vec<Tensor> = parameters(Kind::Double).into_iter().map(|p| p.tensor.detach()).collect();
        let mut states: Vec<Vec<Tensor>> = Vec::new();
        for (i, p) in values.iter_mut().enumerate() {
            let (mut m, mut u) = (p.zeros_like(), p.zeros_like());
            for step in 0..STEPS {
                let g = gradient(i, step);
                match chosen(i) {
                    Algorithm::Sgd { decay, momentum } => {
                        m = &m * momentum + (g + &*p * decay);
                        *p -= &m * lr;
                    }
                    Algorithm::Lars { decay, momentum, eeta } => {
                        let g = g + &*p * decay;
                        let usable = norm(p) > 0.0 && norm(&g) > 0.0;
                        let trust = eeta.filter(|_| usable).map_or(1.0, |eeta| eeta * norm(p) / norm(&g));
                        m = &m * momentum + g * (lr * trust);
                        *p -= &m;
                    }
                    Algorithm::Adam { decay, betas: (b1, b2), epsilon } => {
                        let g = g + &*p * decay;
                        m = &m * b1 + &g * (1.0 - b1);
                        u = &u * b2 + &g * &g * (1.0 - b2);
                        let [first, second] = [b1, b2].map(|beta| 1.0 - beta.powi(step + 1));
                        *p -= (&m / first) / ((&u / second).sqrt() + epsilon) * lr;
                    }
                }
            }
            states.push(match chosen(i) {
                Algorithm::Sgd { momentum: 0.0, .. } => Vec::new(),
                Algorithm::Adam { .. } => vec![Tensor::from(f64::from(STEPS)), m, u],
                _ => vec![m],
            });
        }
        values.into_iter().chain(states.into_iter().flatten()).collect()
    }

    /// float32 in main memory is walked over; float64 goes through the lists that a GPU's parameters go through, with and
    /// without a step's being left out.
    #[test]
    fn every_way_of_stepping_is_the_same_step() {
        for (chosen, entries) in [(SGD, 1), (LARS, 1), (PLAIN_SGD, 0), (ADAM, 3)] {
            // Exact in float32, as the tensor has it.
            let there = || Rate::as_tensor(0.25, Device::Cpu);
            let walked = trained(Kind::Float, Rate::from(0.25), None, chosen);
            let listed = trained(Kind::Double, there(), None, chosen);
            assert_eq!(listed.len(), 6 * (1 + entries));
            let others = [
                trained(Kind::Double, Rate::from(0.25), None, chosen),
                trained(Kind::Double, there(), Some(0.0), chosen),
                written_out(0.25, chosen),
            ];
            for other in others {
                for (place, (a, b)) in listed.iter().zip(&other).enumerate() {
                    assert!(a.allclose(b, 1e-12, 1e-13, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
                }
            }
            for (place, (a, b)) in listed.iter().zip(&walked).enumerate() {
                assert!(a.allclose(b, 1e-5, 1e-6, false), "{place}: {:e}", (a - b).abs().max().double_value(&[]));
            }
            let still = trained(Kind::Double, there(), Some(1.0), chosen);
            assert!(still[6..].iter().all(|buffer| buffer.count_nonzero(None).int64_value(&[]) == 0));
            assert_eq!(still[0], wave(&[40, 30], 0.0), "a step left out changes nothing");
            assert_ne!(still[0], listed[0]);
        }
    }
}
