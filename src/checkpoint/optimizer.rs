//! The optimiser's and the schedule's entries of a checkpoint, in the words of
//! `torch.optim`: state by parameter index, `param_groups`, `LambdaLR`.

use super::tensors::{from_tensor, to_tensor};
use crate::config::{OptimizerConfig, OptimizerName};
use crate::torch_file::{Dict, Value};
use anyhow::{Result, anyhow, bail};
use tch::Tensor;

/// One state tensor: index of its parameter, name of the entry, tensor.
pub type OptimizerState = Vec<(usize, String, Tensor)>;

/// An optimiser as saved.
#[derive(Debug, Default)]
pub struct SavedOptimizer {
    pub state: OptimizerState,
    /// Parameters that the optimiser trains.
    pub parameters: usize,
    /// Learning rate of the next step.
    pub lr: f64,
}

impl SavedOptimizer {
    /// Of an optimiser's live state, which is not copied.
    pub fn of(state: Vec<(usize, &'static str, Tensor)>, parameters: usize, lr: f64) -> SavedOptimizer {
        let state = state.into_iter().map(|(index, name, tensor)| (index, name.to_owned(), tensor)).collect();
        SavedOptimizer { state, parameters, lr }
    }

    /// The saved entry `name` of parameter `index`.
    pub fn get(&self, index: usize, name: &str) -> Option<Tensor> {
        self.state.iter().find(|(i, n, _)| *i == index && n == name).map(|(_, _, tensor)| tensor.shallow_clone())
    }

    /// `torch.optim.Optimizer.state_dict()`.
    pub(super) fn to_value(&self, config: &OptimizerConfig) -> Result<Value> {
        let mut state = Dict::new();
        let mut rest = self.state.as_slice();
        // Entries of one parameter stand together.
        while let Some((index, _, _)) = rest.first() {
            let end = rest.iter().position(|(i, _, _)| i != index).unwrap_or(rest.len());
            let mut entries = Dict::new();
            for (_, name, tensor) in &rest[..end] {
                entries.insert(name.as_str(), from_tensor(tensor)?);
            }
            state.insert(i64::try_from(*index)?, Value::Dict(entries));
            rest = &rest[end..];
        }
        let mut root = Dict::new();
        root.insert("state", Value::Dict(state));
        root.insert("param_groups", Value::List(vec![self.group(config)]));
        Ok(Value::Dict(root))
    }

    /// The one parameter group, with every key that PyTorch's class of that name expects.
    fn group(&self, config: &OptimizerConfig) -> Value {
        let mut group = Dict::new();
        group.insert("lr", self.lr);
        match config.name {
            OptimizerName::Adam => {
                group.insert("betas", Value::Tuple(vec![Value::Float(0.9), Value::Float(0.999)]));
                group.insert("eps", 1e-8);
                group.insert("weight_decay", config.weight_decay);
                group.insert("amsgrad", false);
            }
            OptimizerName::Sgd => {
                group.insert("momentum", config.momentum);
                group.insert("dampening", 0i64);
                group.insert("weight_decay", config.weight_decay);
                group.insert("nesterov", false);
            }
            OptimizerName::Lars | OptimizerName::Lbfgs => {
                group.insert("momentum", config.momentum);
                group.insert("use_nesterov", false);
                group.insert("weight_decay", config.weight_decay);
                let mut excluded = Vec::new();
                if config.lars_exclude_bn {
                    excluded.push(Value::Str("bn".into()));
                }
                if config.lars_exclude_bias {
                    excluded.push(Value::Str("bias".into()));
                }
                group.insert("exclude_from_weight_decay", Value::List(excluded));
                group.insert("exclude_from_layer_adaptation", Value::None);
                group.insert("classic_momentum", true);
                group.insert("eeta", 0.001);
            }
        }
        if matches!(config.name, OptimizerName::Adam | OptimizerName::Sgd) {
            group.insert("maximize", false);
            group.insert("foreach", Value::None);
            if config.name == OptimizerName::Adam {
                group.insert("capturable", false);
            }
            group.insert("differentiable", false);
            group.insert("fused", Value::None);
            if config.name == OptimizerName::Adam {
                group.insert("decoupled_weight_decay", false);
            }
        }
        group.insert("initial_lr", config.lr);
        group.insert("params", Value::List((0..self.parameters as i64).map(Value::Int).collect()));
        Value::Dict(group)
    }

    /// `torch.optim.lr_scheduler.LambdaLR.state_dict()` after `step` steps.
    pub(super) fn scheduler_value(&self, config: &OptimizerConfig, step: u64) -> Result<Value> {
        let step = i64::try_from(step)?;
        let mut scheduler = Dict::new();
        scheduler.insert("base_lrs", Value::List(vec![Value::Float(config.lr)]));
        scheduler.insert("last_epoch", step);
        scheduler.insert("_step_count", step + 1);
        scheduler.insert("_is_initial", false);
        scheduler.insert("_get_lr_called_within_step", false);
        scheduler.insert("_last_lr", Value::List(vec![Value::Float(self.lr)]));
        scheduler.insert("lr_lambdas", Value::List(vec![Value::None]));
        Ok(Value::Dict(scheduler))
    }

    /// Reads `optimizer`; absent or empty state is an optimiser that has not stepped.
    pub(super) fn from_value(value: Option<&Value>) -> Result<SavedOptimizer> {
        let Some(value) = value else { return Ok(SavedOptimizer::default()) };
        let groups = value.get("param_groups").and_then(Value::as_list).unwrap_or_default();
        let mut saved = SavedOptimizer::default();
        let mut order = Vec::new();
        for group in groups {
            let indices = group.get("params").and_then(Value::as_list).unwrap_or_default();
            order.extend(indices.iter().filter_map(Value::as_int));
            saved.lr = group.get("lr").and_then(Value::as_f64).unwrap_or(saved.lr);
        }
        saved.parameters = order.len();
        let Some(state) = value.get("state").and_then(Value::as_dict) else {
            bail!("optimizer has no entry state");
        };
        for (key, entries) in state.iter() {
            let key = key.as_int().ok_or_else(|| anyhow!("optimizer.state has a key that is {}", key.kind()))?;
            let index = order
                .iter()
                .position(|&i| i == key)
                .ok_or_else(|| anyhow!("optimizer.state has an entry {key} that no parameter group lists"))?;
            let entries = entries.as_dict().ok_or_else(|| anyhow!("optimizer.state[{key}] is {}", entries.kind()))?;
            for (name, value) in entries.iter() {
                let name = name.as_str().unwrap_or_default();
                let tensor = match value {
                    Value::Tensor(tensor) => to_tensor(tensor)?,
                    // Old versions of PyTorch keep Adam's step as a plain number.
                    Value::Int(number) => Tensor::from(*number as f32),
                    Value::Float(number) => Tensor::from(*number as f32),
                    Value::None => continue,
                    other => bail!("optimizer.state[{key}].{name} is {}", other.kind()),
                };
                saved.state.push((index, name.to_owned(), tensor));
            }
        }
        Ok(saved)
    }
}
