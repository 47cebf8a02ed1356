//! Adam (Kingma and Ba, arXiv 1412.6980), as `torch.optim.Adam` with its
//! default betas (0.9, 0.999) and epsilon 1e-8, decay added to the gradient.
//!
//! ```text
//! m = b1 m + (1-b1) g      u = b2 u + (1-b2) g^2
//! p -= lr m / (1 - b1^k) / (sqrt(u / (1 - b2^k)) + eps)
//! ```

use super::{Optimizer, Rate, StateEntry, load_slots, slot_entries};
use crate::config::OptimizerConfig;
use crate::native::lists::{self, Algorithm, Stepped};
use crate::state::Parameter;
use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor};

pub const BETAS: (f64, f64) = (0.9, 0.999);
pub const EPSILON: f64 = 1e-8;

#[derive(Debug)]
pub struct Adam {
    parameters: Vec<Parameter>,
    weight_decay: f64,
    steps: Steps,
    means: Vec<Option<Tensor>>,
    squares: Vec<Option<Tensor>>,
}

/// Steps taken of each parameter.
#[derive(Debug)]
enum Steps {
    Here(Vec<i64>),
    /// `[P]` float32 on the device: where it decides whether a step is taken, it alone knows their number.
    There(Tensor),
}

impl Steps {
    fn read(&self) -> Vec<i64> {
        match self {
            Steps::Here(steps) => steps.clone(),
            Steps::There(steps) => {
                let steps = steps.to_device(Device::Cpu).to_kind(Kind::Double);
                Vec::<f64>::try_from(steps).expect("a vector").into_iter().map(|count| count as i64).collect()
            }
        }
    }
}

impl Adam {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let none = || parameters.iter().map(|_| None).collect();
        let (means, squares, steps) = (none(), none(), Steps::Here(vec![0; parameters.len()]));
        Adam { parameters, weight_decay: config.weight_decay, steps, means, squares }
    }

    fn step_here(&mut self, lr: f64) {
        let (b1, b2) = BETAS;
        let mut steps = self.steps.read();
        for (i, parameter) in self.parameters.iter().enumerate() {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let mut value = parameter.tensor.detach();
            let gradient = if self.weight_decay == 0.0 { gradient } else { gradient + &value * self.weight_decay };
            steps[i] += 1;
            let exponent = steps[i] as f64;
            let (first, second) = (1.0 - b1.powf(exponent), 1.0 - b2.powf(exponent));
            let mean = self.means[i].get_or_insert_with(|| value.zeros_like());
            let _ = mean.lerp_(&gradient, 1.0 - b1);
            let square = self.squares[i].get_or_insert_with(|| value.zeros_like());
            let mut square = square.g_mul_scalar_(b2);
            let square = square.addcmul_(&gradient, &(&gradient * (1.0 - b2)));
            let denominator = square.sqrt().g_div_scalar_(second.sqrt()).g_add_scalar_(EPSILON);
            let _ = value.addcdiv_(&(&*mean * (-lr / first)), &denominator);
        }
        self.steps = Steps::Here(steps);
    }

    /// The same in a few launches, reading no number of the host's.
    fn step_there(&mut self, rate: &Rate, left_out: Option<&Tensor>) {
        let trained = |p: &Parameter| p.tensor.grad().defined();
        let chosen: Vec<usize> = (0..self.parameters.len()).filter(|&i| trained(&self.parameters[i])).collect();
        let Some(&first) = chosen.first() else { return };
        let device = self.parameters[first].tensor.device();
        if let Steps::Here(steps) = &self.steps {
            let steps: Vec<f32> = steps.iter().map(|&count| count as f32).collect();
            self.steps = Steps::There(Tensor::from_slice(&steps).to_device(device));
        }
        let Steps::There(steps) = &self.steps else { unreachable!("just put there") };
        let values: Vec<Tensor> = chosen.iter().map(|&i| self.parameters[i].tensor.detach()).collect();
        let gradients: Vec<Tensor> = chosen.iter().map(|&i| self.parameters[i].tensor.grad()).collect();
        let steps: Vec<Tensor> = chosen.iter().map(|&i| steps.get(i as i64)).collect();
        let moments = |slots: &mut [Option<Tensor>]| -> Vec<Tensor> {
            let of =
                |(&i, value): (&usize, &Tensor)| slots[i].get_or_insert_with(|| value.zeros_like()).shallow_clone();
            chosen.iter().zip(&values).map(of).collect()
        };
        let (means, squares) = (moments(&mut self.means), moments(&mut self.squares));
        let state: &[&[Tensor]] = &[&means, &squares, &steps];
        let stepped = Stepped { values: &values, gradients: &gradients, state, lr: &rate.tensor(device), left_out };
        let algorithm = Algorithm::Adam { decay: self.weight_decay, betas: BETAS, epsilon: EPSILON };
        lists::step(stepped, algorithm).unwrap();
    }
}

impl Optimizer for Adam {
    fn step(&mut self, rate: &Rate, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        match (rate.there(), left_out) {
            (None, None) => self.step_here(rate.number()),
            _ => self.step_there(rate, left_out),
        }
    }

    fn state(&self) -> Vec<StateEntry> {
        let mut entries = Vec::new();
        let steps = self.steps.read();
        let (means, squares) = (slot_entries(&self.means, "exp_avg"), slot_entries(&self.squares, "exp_avg_sq"));
        for (mean, square) in means.into_iter().zip(squares) {
            entries.push((mean.0, "step", Tensor::from(steps[mean.0] as f32)));
            entries.push(mean);
            entries.push(square);
        }
        entries
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        let mut steps = Vec::with_capacity(self.parameters.len());
        for (i, parameter) in self.parameters.iter().enumerate() {
            let step = get(i, "step").map_or(0.0, |t| t.double_value(&[]));
            if !(step >= 0.0 && step.fract() == 0.0) {
                bail!("Adam's step of {} is {step}, which is no count", parameter.name);
            }
            steps.push(step as i64);
        }
        load_slots(&mut self.means, &self.parameters, "exp_avg", get)?;
        load_slots(&mut self.squares, &self.parameters, "exp_avg_sq", get)?;
        self.steps = Steps::Here(steps);
        Ok(())
    }
}
