//! The machine's nodes, together with the bytes of the storages, to a tree of values.

use super::super::error::Error;
use super::super::limits::{Budget, Limits};
use super::super::tensor::{Storage, TensorData};
use super::super::value::{Dict, Inert, Value};
use super::machine::Unpickled;
use super::nodes::{Item, Kind, Node};
use std::collections::{HashMap, HashSet};

/// The value of a pickle. `storages` answers, in order, to [`Unpickled::storages`].
pub(in super::super) fn unfold(
    unpickled: &Unpickled,
    storages: &[Storage],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Value, Error> {
    Unfold { unpickled, storages, limits, budget, tensors: HashMap::new() }.value(unpickled.root, 0)
}

struct Unfold<'a, 'b> {
    unpickled: &'a Unpickled<'a>,
    storages: &'b [Storage],
    limits: &'b Limits,
    budget: &'b mut Budget,
    /// Tensors that were made already: one that is mentioned twice shares its memory.
    tensors: HashMap<u32, TensorData>,
}

/// Keys that a dictionary must not have twice.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(&'a str),
    Int(i64),
}

impl<'a> Unfold<'a, '_> {
    fn value(&mut self, item: Item, depth: usize) -> Result<Value, Error> {
        if depth > self.limits.depth {
            let advice = "Save a flatter structure; a checkpoint needs some six levels";
            return Err(Error::limit(
                "its values are nested too deeply or contain themselves",
                self.limits.depth as u64,
                advice,
            ));
        }
        self.budget.take(size_of::<Value>() as u64)?;
        let index = match item {
            Item::None => return Ok(Value::None),
            Item::Bool(value) => return Ok(Value::Bool(value)),
            Item::Int(value) => return Ok(Value::Int(value)),
            Item::Float(value) => return Ok(Value::Float(value)),
            Item::Node(index) => index,
        };
        Ok(match &self.unpickled.nodes[index as usize] {
            Node::Text(text) => {
                self.budget.take(text.len() as u64)?;
                Value::Str(text.clone().into_owned())
            }
            Node::Bytes(bytes) => {
                self.budget.take(bytes.len() as u64)?;
                Value::Bytes(bytes.to_vec())
            }
            Node::Long(bytes) => {
                self.budget.take(bytes.len() as u64)?;
                Value::BigInt(bytes.to_vec())
            }
            Node::Items(kind, items) => {
                let items = self.values(items, depth)?;
                match kind {
                    Kind::List => Value::List(items),
                    Kind::Tuple => Value::Tuple(items),
                    Kind::Set => Value::Set(items),
                }
            }
            Node::Dict(node) => {
                let mut dict = Dict::from_unique(self.entries(&node.entries, depth)?);
                dict.ordered = node.ordered;
                if let Some(attributes) = node.attributes {
                    dict.attributes = Some(Box::new(self.value(attributes, depth + 1)?));
                }
                Value::Dict(dict)
            }
            Node::Tensor(storage, view) => {
                if let Some(tensor) = self.tensors.get(&index) {
                    // The shape is copied each time.
                    self.budget.take(8 * tensor.shape().len() as u64)?;
                    return Ok(Value::Tensor(tensor.clone()));
                }
                let tensor = view.over(&self.storages[*storage], self.budget)?;
                self.tensors.insert(index, tensor.clone());
                Value::Tensor(tensor)
            }
            Node::Global { .. } => {
                Value::Inert(Box::new(Inert { class: self.name(index)?, arguments: Vec::new(), state: Value::None }))
            }
            Node::Object { class, arguments, state } => {
                let Node::Items(Kind::Tuple, items) = &self.unpickled.nodes[*arguments as usize] else {
                    return Err(Error::damaged("an object without arguments"));
                };
                let class = self.name(*class)?;
                let arguments = self.values(items, depth)?;
                let state = self.value(*state, depth + 1)?;
                Value::Inert(Box::new(Inert { class, arguments, state }))
            }
            Node::Storage { index, .. } => {
                let key = &self.unpickled.storages[*index].key;
                let advice = "Save tensors instead of their storages";
                return Err(Error::unsupported(format!("storage {key} outside a tensor"), advice));
            }
        })
    }

    fn values(&mut self, items: &[Item], depth: usize) -> Result<Vec<Value>, Error> {
        items.iter().map(|&item| self.value(item, depth + 1)).collect()
    }

    fn entries(&mut self, items: &'a [(Item, Item)], depth: usize) -> Result<Vec<(Value, Value)>, Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for &(key, value) in items {
            self.budget.take(size_of::<(Key, Value)>() as u64)?;
            let name = match key {
                Item::Int(value) => Some(Key::Int(value)),
                Item::Node(index) => match &self.unpickled.nodes[index as usize] {
                    Node::Text(text) => Some(Key::Text(text)),
                    _ => None,
                },
                _ => None,
            };
            if name.is_some_and(|name| !seen.insert(name)) {
                return Err(Error::damaged(format!(
                    "a dictionary has the key {:?} twice",
                    self.value(key, depth + 1)?
                )));
            }
            entries.push((self.value(key, depth + 1)?, self.value(value, depth + 1)?));
        }
        Ok(entries)
    }

    /// Full name of a class, with the module names of Python 3.
    fn name(&mut self, index: u32) -> Result<String, Error> {
        let Node::Global { module, name, .. } = &self.unpickled.nodes[index as usize] else {
            return Err(Error::damaged("an object without class"));
        };
        let module = if *module == "__builtin__" { "builtins" } else { module };
        self.budget.take((module.len() + name.len() + 1 + size_of::<Inert>()) as u64)?;
        Ok(format!("{module}.{name}"))
    }
}
