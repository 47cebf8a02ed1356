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
        let no = Value::Bool(false);
        let mut group: Vec<(&str, Value)> = vec![("lr", self.lr.into())];
        match config.name {
            OptimizerName::Adam => {
                let (first, second) = OptimizerConfig::BETAS;
                group.extend([
                    ("betas", Value::Tuple(vec![Value::Float(first), Value::Float(second)])),
                    ("eps", OptimizerConfig::EPSILON.into()),
                    ("weight_decay", config.weight_decay.into()),
                    ("amsgrad", no.clone()),
                    ("maximize", no.clone()),
                    ("foreach", Value::None),
                    ("capturable", no.clone()),
                    ("differentiable", no.clone()),
                    ("fused", Value::None),
                    ("decoupled_weight_decay", no),
                ]);
            }
            OptimizerName::Sgd => group.extend([
                ("momentum", config.momentum.into()),
                ("dampening", Value::Int(0)),
                ("weight_decay", config.weight_decay.into()),
                ("nesterov", no.clone()),
                ("maximize", no.clone()),
                ("foreach", Value::None),
                ("differentiable", no),
                ("fused", Value::None),
            ]),
            OptimizerName::Lars | OptimizerName::Lbfgs => {
                let excluded = [("bn", config.lars_exclude_bn), ("bias", config.lars_exclude_bias)];
                let excluded = excluded.into_iter().filter(|(_, is_excluded)| *is_excluded);
                group.extend([
                    ("momentum", config.momentum.into()),
                    ("use_nesterov", no),
                    ("weight_decay", config.weight_decay.into()),
                    ("exclude_from_weight_decay", Value::List(excluded.map(|(role, _)| role.into()).collect())),
                    ("exclude_from_layer_adaptation", Value::None),
                    ("classic_momentum", Value::Bool(true)),
                    ("eeta", OptimizerConfig::EETA.into()),
                ]);
            }
        }
        group.push(("initial_lr", config.lr.into()));
        group.push(("params", Value::List((0..self.parameters as i64).map(Value::Int).collect())));
        Dict::from_iter(group).into()
    }

    /// `torch.optim.lr_scheduler.LambdaLR.state_dict()` after `step` steps.
    pub(super) fn scheduler_value(&self, config: &OptimizerConfig, step: u64) -> Result<Value> {
        let step = i64::try_from(step)?;
        Ok(Value::from(Dict::from_iter([
            ("base_lrs", Value::List(vec![Value::Float(config.lr)])),
            ("last_epoch", step.into()),
            ("_step_count", (step + 1).into()),
            ("_is_initial", false.into()),
            ("_get_lr_called_within_step", false.into()),
            ("_last_lr", Value::List(vec![Value::Float(self.lr)])),
            ("lr_lambdas", Value::List(vec![Value::None])),
        ])))
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
