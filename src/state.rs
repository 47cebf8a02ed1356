//! Named tensors in a fixed order: how weights, BatchNorm statistics and
//! optimiser state travel between the model, checkpoints and tests.
//!
//! The order is PyTorch's (`Module.state_dict()`), because optimiser state
//! refers to parameters by position.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::Tensor;

/// What a parameter is: optimisers treat some kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Weight,
    Bias,
    /// Weight or bias of a BatchNorm layer.
    BatchNorm,
}

/// A trained tensor, its PyTorch name and its role.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub tensor: Tensor,
    pub role: Role,
}

impl Clone for Parameter {
    /// The same tensor, not a copy of it.
    fn clone(&self) -> Self {
        Parameter { name: self.name.clone(), tensor: self.tensor.shallow_clone(), role: self.role }
    }
}

/// What tells the images that a run trains on from others: checksums (CRC-32), 0 of what they do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataMarks {
    /// How many there are.
    pub images: u64,
    /// Of the files, below the data set's own directory, in their order.
    pub names: u32,
    /// Of the files, or of some of them where there are many.
    pub sizes: u32,
    /// Where all images lie in memory.
    pub pixels: u32,
    /// And of the names of the classes.
    pub labels: u32,
}

impl DataMarks {
    /// Whether the images are the same, whatever their labels.
    pub fn same_images(self, now: DataMarks) -> bool {
        self == DataMarks { labels: self.labels, ..now }
    }

    /// In what they differ, in words; `None` where they do not. `self` are the earlier ones.
    pub fn differ(&self, now: &DataMarks) -> Option<String> {
        if self.images != now.images {
            let verb =
                if self.images == 1 { "there was 1 image" } else { &format!("there were {} images", self.images) };
            return Some(format!("{verb} and are {} now", now.images));
        }
        let parts = [
            (self.names != now.names, "the names of their files or the order of them"),
            (self.sizes != now.sizes, "the sizes of their files"),
            (self.pixels != now.pixels, "their pixels"),
            (self.labels != now.labels, "their labels"),
        ];
        let different: Vec<&str> = parts.iter().filter(|(differs, _)| *differs).map(|(_, part)| *part).collect();
        (!different.is_empty()).then(|| format!("{} have changed", different.join(", ")))
    }
}

/// A gradient scaler's state, in the words of `torch.amp.GradScaler.state_dict`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalerState {
    pub scale: f64,
    pub growth_factor: f64,
    pub backoff_factor: f64,
    /// Steps in a row without an overflow after which the scale grows.
    pub growth_interval: i64,
    /// Steps in a row without an overflow so far.
    pub growth_tracker: i64,
}

/// An ordered map from name to tensor.
#[derive(Debug, Default)]
pub struct StateDict {
    entries: Vec<(String, Tensor)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    pub fn new() -> Self {
        StateDict::default()
    }

    /// Appends an entry. Panics if the name is taken: two tensors of one name are a bug of the model's code.
    pub fn push(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        let earlier = self.index.insert(name.clone(), self.entries.len());
        assert!(earlier.is_none(), "two tensors are called {name}");
        self.entries.push((name, tensor));
    }

    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).map(|&at| &self.entries[at].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same tensors under other names; entries that `rename` answers with `None` are left out.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> StateDict {
        let mut renamed = StateDict::new();
        for (name, tensor) in self.iter() {
            if let Some(name) = rename(name) {
                renamed.push(name, tensor.shallow_clone());
            }
        }
        renamed
    }

    /// A copy of every tensor on the CPU, contiguous in the usual (row-major) order.
    pub fn snapshot(&self) -> StateDict {
        let _guard = tch::no_grad_guard();
        let mut copy = StateDict::new();
        for (name, tensor) in self.iter() {
            copy.push(name, tensor.detach().to_device(tch::Device::Cpu).contiguous().copy());
        }
        copy
    }

    /// Copies the tensors of `saved` into these.
    ///
    /// Errors: other names or shapes; nothing is changed then.
    pub fn copy_from(&self, saved: &StateDict) -> Result<()> {
        let shapes = |state: &StateDict| -> Vec<(String, Vec<i64>)> {
            state.iter().map(|(name, tensor)| (name.to_owned(), tensor.size())).collect()
        };
        let (own, others) = (shapes(self), shapes(saved));
        if own != others {
            bail!("it holds {others:?} instead of {own:?}");
        }
        let _guard = tch::no_grad_guard();
        for ((_, tensor), (_, saved)) in self.iter().zip(saved.iter()) {
            tensor.shallow_clone().f_copy_(saved)?;
        }
        Ok(())
    }
}
