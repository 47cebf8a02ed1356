//! Adam (Kingma and Ba, arXiv 1412.6980), as `torch.optim.Adam` with its
//! default betas (0.9, 0.999) and epsilon 1e-8, decay added to the gradient.
//!
//! ```text
//! m = b1 m + (1-b1) g      u = b2 u + (1-b2) g^2
//! p -= lr m / (1 - b1^k) / (sqrt(u / (1 - b2^k)) + eps)
//! ```

use super::{Optimizer, StateEntry, become_unless, load_slots, slot_entries};
use crate::config::OptimizerConfig;
use crate::state::Parameter;
use anyhow::{Result, bail};
use tch::{Kind, Tensor};

pub const BETAS: (f64, f64) = (0.9, 0.999);
pub const EPSILON: f64 = 1e-8;

#[derive(Debug)]
pub struct Adam {
    parameters: Vec<Parameter>,
    weight_decay: f64,
    steps: Vec<i64>,
    /// Steps counted in `steps` that the device has left out, `[]` float64 on it; `None` as long as none could be.
    left_out: Option<Tensor>,
    means: Vec<Option<Tensor>>,
    squares: Vec<Option<Tensor>>,
}

impl Adam {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let none = || parameters.iter().map(|_| None).collect();
        let (means, squares, steps) = (none(), none(), vec![0; parameters.len()]);
        Adam { parameters, weight_decay: config.weight_decay, steps, left_out: None, means, squares }
    }
}

impl Adam {
    /// The step of parameter `i` where the device knows whether it is taken, and how many were before.
    fn step_on_device(&mut self, i: usize, gradient: &Tensor, left_out: &Tensor, lr: f64) {
        let (b1, b2) = BETAS;
        let mut value = self.parameters[i].tensor.detach();
        let before = self.left_out.as_ref().expect("set before");
        let exponent = before.neg() + self.steps[i] as f64; // [] float64
        let correction = |beta: f64| (&exponent * beta.ln()).expm1().neg();
        let (first, second) = (correction(b1), correction(b2));
        let mean = self.means[i].get_or_insert_with(|| value.zeros_like());
        let next_mean = mean.lerp(gradient, 1.0 - b1);
        let square = self.squares[i].get_or_insert_with(|| value.zeros_like());
        let next_square = &*square * b2 + gradient * gradient * (1.0 - b2);
        let denominator = next_square.sqrt() / second.sqrt() + EPSILON;
        let next = &value - &next_mean * (first.reciprocal() * lr) / denominator;
        become_unless(Some(left_out), mean, &next_mean);
        become_unless(Some(left_out), square, &next_square);
        become_unless(Some(left_out), &mut value, &next);
    }

    fn run(&mut self, lr: f64, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let (b1, b2) = BETAS;
        if let Some(flag) = left_out {
            self.left_out.get_or_insert_with(|| Tensor::zeros([], (Kind::Double, flag.device())));
        }
        // Once some steps may have been left out, only the device knows their number.
        let never = self.left_out.as_ref().map(|count| count.zeros_like().to_kind(Kind::Bool));
        for i in 0..self.parameters.len() {
            let gradient = self.parameters[i].tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let mut value = self.parameters[i].tensor.detach();
            let gradient = if self.weight_decay == 0.0 { gradient } else { gradient + &value * self.weight_decay };
            self.steps[i] += 1;
            if let Some(never) = &never {
                self.step_on_device(i, &gradient, left_out.unwrap_or(never), lr);
                continue;
            }
            let exponent = self.steps[i] as f64;
            let (first, second) = (1.0 - b1.powf(exponent), 1.0 - b2.powf(exponent));
            let mean = self.means[i].get_or_insert_with(|| value.zeros_like());
            let _ = mean.lerp_(&gradient, 1.0 - b1);
            let square = self.squares[i].get_or_insert_with(|| value.zeros_like());
            let mut square = square.g_mul_scalar_(b2);
            let square = square.addcmul_(&gradient, &(&gradient * (1.0 - b2)));
            let denominator = square.sqrt().g_div_scalar_(second.sqrt()).g_add_scalar_(EPSILON);
            let _ = value.addcdiv_(&(&*mean * (-lr / first)), &denominator);
        }
        if let (Some(count), Some(flag)) = (&mut self.left_out, left_out) {
            let _ = count.g_add_(&flag.to_kind(Kind::Double));
        }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, lr: f64) {
        self.run(lr, None);
    }

    fn step_unless(&mut self, left_out: &Tensor, lr: f64) {
        self.run(lr, Some(left_out));
    }

    fn state(&self) -> Vec<StateEntry> {
        let mut entries = Vec::new();
        let left_out = self.left_out.as_ref().map_or(0, |count| count.double_value(&[]) as i64);
        let (means, squares) = (slot_entries(&self.means, "exp_avg"), slot_entries(&self.squares, "exp_avg_sq"));
        for (mean, square) in means.into_iter().zip(squares) {
            entries.push((mean.0, "step", Tensor::from((self.steps[mean.0] - left_out) as f32)));
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
        (self.steps, self.left_out) = (steps, None);
        Ok(())
    }
}
