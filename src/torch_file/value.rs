//! What a checkpoint holds, as a tree of plain values.

use super::tensor::TensorData;

/// A Python value that is data. Anything else is [`Value::Inert`] or refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little-endian, as pickled.
    BigInt(Vec<u8>),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Set(Vec<Value>),
    Dict(Dict),
    Tensor(TensorData),
    Inert(Box<Inert>),
}

/// A dictionary in the order of its file. Keys are unique.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict {
    entries: Vec<(Value, Value)>,
    /// `collections.OrderedDict`, as `state_dict()` returns, rather than `dict`.
    pub ordered: bool,
    /// Attributes set on the dictionary itself: a state dict carries `_metadata`, the versions of its modules.
    pub attributes: Option<Box<Value>>,
}

/// An object of a class that is known to be harmless, such as `argparse.Namespace`. Nothing of it was run.
#[derive(Clone, Debug, PartialEq)]
pub struct Inert {
    /// Full name, such as `argparse.Namespace`.
    pub class: String,
    /// What its constructor would have been given.
    pub arguments: Vec<Value>,
    /// Its attributes, mostly a dictionary; `Value::None` without.
    pub state: Value,
}

impl Value {
    /// The entry `key` of a dictionary, or the attribute `key` of an inert object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Dict(dict) => dict.get(key),
            Value::Inert(object) => object.state.get(key),
            _ => None,
        }
    }

    /// An integer; a boolean counts as one, as in Python.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// A float or an integer.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::Str(value) = self { Some(value) } else { None }
    }

    /// The items of a list or a tuple.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(items) | Value::Tuple(items) = self { Some(items) } else { None }
    }

    pub fn as_dict(&self) -> Option<&Dict> {
        if let Value::Dict(dict) = self { Some(dict) } else { None }
    }

    pub fn as_tensor(&self) -> Option<&TensorData> {
        if let Value::Tensor(tensor) = self { Some(tensor) } else { None }
    }

    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// What it is, for messages: "a list", "a tensor".
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::BigInt(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Set(_) => "a set",
            Value::Dict(_) => "a dictionary",
            Value::Tensor(_) => "a tensor",
            Value::Inert(_) => "an object",
        }
    }
}

impl Dict {
    /// An empty `dict`.
    pub fn new() -> Dict {
        Dict::default()
    }

    /// An empty `collections.OrderedDict`.
    pub fn ordered() -> Dict {
        Dict { ordered: true, ..Dict::default() }
    }

    /// Sets `key`, which keeps its place where it exists already. Returns what stood there.
    pub fn insert(&mut self, key: impl Into<Value>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => Some(std::mem::replace(&mut entry.1, value)),
            None => {
                self.entries.push((key, value));
                None
            }
        }
    }

    /// From entries whose keys the caller knows to be different.
    pub(super) fn from_unique(entries: Vec<(Value, Value)>) -> Dict {
        Dict { entries, ..Dict::default() }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.0.as_str() == Some(key)).map(|entry| &entry.1)
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Value, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: Into<Value>, V: Into<Value>> FromIterator<(K, V)> for Dict {
    /// Later values replace earlier ones of the same key, as in Python.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Dict {
        let mut dict = Dict::new();
        for (key, value) in pairs {
            dict.insert(key, value);
        }
        dict
    }
}

/// One `From` a line: what a Rust value is in Python.
macro_rules! value_from {
    ($($from:ty => $variant:expr;)*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Value {
                $variant(value)
            }
        })*
    };
}

value_from! {
    bool => Value::Bool;
    i64 => Value::Int;
    f64 => Value::Float;
    String => Value::Str;
    &str => |text: &str| Value::Str(text.to_owned());
    Vec<Value> => Value::List;
    Dict => Value::Dict;
    TensorData => Value::Tensor;
}
