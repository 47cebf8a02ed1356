//! What calling one of the known names gives: always a value, never an effect.

use super::super::error::Error;
use super::super::strided::{MAX_DIMENSIONS, View};
use super::super::value::Value;
use super::globals::Global;
use super::machine::Machine;
use super::nodes::{DictNode, Item, Kind, Node};
use super::number::numpy_number;
use std::borrow::Cow;

/// No function on the list takes more arguments.
const MAX_ARGUMENTS: usize = 16;

impl<'a> Machine<'a, '_> {
    /// The result of `function(*arguments)`.
    pub(super) fn call(&mut self, function: Item, arguments: Item) -> Result<Item, Error> {
        let (global, name) = self.callable(function)?;
        let args = self.arguments(arguments)?;
        match (global, args.as_slice()) {
            (Global::RebuildTensor, [storage, offset, size, stride, rest @ ..]) => {
                if let Some(&flags) = rest.get(2) {
                    self.check_no_flags(flags)?;
                }
                self.tensor([*storage, *offset, *size, *stride])
            }
            // The tensor is the first argument; whether it wants a gradient is the model's affair.
            (Global::RebuildParameter, [tensor, ..]) if matches!(self.node(*tensor), Some(Node::Tensor(..))) => {
                Ok(*tensor)
            }
            (Global::RebuildFromType, [inner, class, inner_arguments, ..]) => {
                let is_tensor = matches!(self.callable(*class)?.0, Global::TensorClass);
                let rebuilds = matches!(self.callable(*inner)?.0, Global::RebuildTensor | Global::RebuildParameter);
                if !is_tensor || !rebuilds {
                    return Err(Error::damaged("a tensor is built from something that is none"));
                }
                self.call(*inner, *inner_arguments)
            }
            (Global::OrderedDict, []) => self.add(Node::Dict(DictNode { ordered: true, ..DictNode::default() })),
            (Global::OrderedDict, [pairs]) => {
                let mut entries = Vec::new();
                for pair in self.items(*pairs)? {
                    match self.items(pair)?.as_slice() {
                        [key, value] => entries.push((*key, *value)),
                        _ => return Err(Error::damaged("a dictionary is made from something that is no pair")),
                    }
                }
                self.add(Node::Dict(DictNode { entries, ordered: true, attributes: None }))
            }
            (Global::Dict, []) | (Global::DefaultDict, [] | [_]) => self.add(Node::Dict(DictNode::default())),
            (Global::Dict, [other]) => {
                let Some(Node::Dict(DictNode { entries, .. })) = self.node(*other) else {
                    return Err(Error::damaged("a dictionary is made from something that is none"));
                };
                let entries = entries.clone();
                self.budget.take(entries.len() as u64 * size_of::<(Item, Item)>() as u64)?;
                self.add(Node::Dict(DictNode { entries, ..DictNode::default() }))
            }
            // A deque has its maximal length as second argument.
            (Global::Set | Global::List | Global::Tuple, [] | [_]) | (Global::List, [_, _]) => {
                let items = args.first().map_or(Ok(Vec::new()), |&items| self.items(items))?;
                let kind = match global {
                    Global::Set => Kind::Set,
                    Global::List => Kind::List,
                    _ => Kind::Tuple,
                };
                self.add(Node::Items(kind, items))
            }
            (Global::Bytes, []) => self.add(Node::Bytes(Cow::Borrowed(&[]))),
            (Global::Bytes, [bytes]) if matches!(self.node(*bytes), Some(Node::Bytes(_))) => Ok(*bytes),
            (Global::Encode | Global::Bytes, [text, encoding])
                if matches!(self.text(*encoding), Some("latin1" | "latin-1")) =>
            {
                let length = if let Some(Node::Text(text)) = self.node(*text) { text.len() } else { 0 };
                // No more bytes than the text has.
                self.budget.take(length as u64)?;
                let Some(Node::Text(text)) = self.node(*text) else {
                    return Err(Error::damaged("bytes are made from something that is no text"));
                };
                let bytes = text.chars().map(|letter| u8::try_from(u32::from(letter))).collect::<Result<Vec<u8>, _>>();
                let bytes = bytes.map_err(|_| Error::damaged("bytes are made from letters beyond Latin-1"))?;
                self.add(Node::Bytes(Cow::Owned(bytes)))
            }
            (Global::NumpyScalar, [dtype, bytes]) => match self.numpy_scalar(*dtype, *bytes) {
                Some(Value::Int(value)) => Ok(Item::Int(value)),
                Some(Value::Bool(value)) => Ok(Item::Bool(value)),
                Some(Value::Float(value)) => Ok(Item::Float(value)),
                Some(Value::BigInt(bytes)) => self.add(Node::Long(Cow::Owned(bytes))),
                _ => self.object(function, arguments),
            },
            (Global::Reconstructor, [class, _base, state]) => {
                let none = self.add(Node::Items(Kind::Tuple, Vec::new()))?;
                let object = self.new_object(*class, none)?;
                if let (Item::Node(index), false) = (object, matches!(state, Item::None))
                    && let Some(Node::Object { state: old, .. }) = self.nodes.get_mut(index as usize)
                {
                    *old = *state;
                }
                Ok(object)
            }
            (Global::Inert, _) => self.object(function, arguments),
            _ => Err(Error::damaged(format!("{name} is called with arguments that it does not take"))),
        }
    }

    /// A new object of `class`.
    pub(super) fn new_object(&mut self, class: Item, arguments: Item) -> Result<Item, Error> {
        match self.callable(class)? {
            (Global::Inert, _) => {
                self.arguments(arguments)?;
                self.object(class, arguments)
            }
            (
                Global::OrderedDict | Global::Dict | Global::DefaultDict | Global::Set | Global::List | Global::Tuple,
                _,
            ) => self.call(class, arguments),
            (_, name) => {
                let advice = "Load the file in Python and save `state_dict()` with a current PyTorch";
                Err(Error::unsupported(format!("an object of {name} made without its function"), advice))
            }
        }
    }

    /// A tensor from storage, offset, size and stride, all in elements.
    fn tensor(&mut self, [storage, offset, size, stride]: [Item; 4]) -> Result<Item, Error> {
        let Some(&Node::Storage { index, dtype, first: base, end }) = self.node(storage) else {
            return Err(Error::damaged("a tensor is built from something that is no storage"));
        };
        let first = count(offset)?.checked_add(base);
        let first = first.ok_or_else(|| Error::damaged("a tensor starts beyond any storage"))?;
        let view = View { dtype, first, end, shape: self.counts(size)?, strides: self.counts(stride)? };
        view.check()?;
        self.budget.take((size_of::<View>() + 16 * view.shape.len()) as u64)?;
        self.add(Node::Tensor(index, Box::new(view)))
    }

    /// Conjugated and negated views are stored without that operation: as they stand they would be wrong.
    fn check_no_flags(&self, flags: Item) -> Result<(), Error> {
        match self.node(flags) {
            Some(Node::Dict(dict)) if dict.entries.iter().all(|(_, on)| matches!(on, Item::Bool(false))) => Ok(()),
            None if matches!(flags, Item::None) => Ok(()),
            _ => Err(Error::unsupported(
                "a conjugated or negated view",
                "Save `tensor.resolve_conj().resolve_neg()` instead",
            )),
        }
    }

    fn numpy_scalar(&self, dtype: Item, bytes: Item) -> Option<Value> {
        let (Node::Object { class, arguments, state }, Node::Bytes(bytes)) = (self.node(dtype)?, self.node(bytes)?)
        else {
            return None;
        };
        let Some(Node::Global { name: "dtype", .. }) = self.nodes.get(*class as usize) else { return None };
        let Some(Node::Items(Kind::Tuple, arguments)) = self.nodes.get(*arguments as usize) else { return None };
        let code = self.text(*arguments.first()?)?;
        // State: (version, byte order, ...).
        let order = match self.node(*state) {
            Some(Node::Items(Kind::Tuple, state)) => self.text(*state.get(1)?)?,
            _ => "=",
        };
        numpy_number(code, order, bytes)
    }

    fn object(&mut self, class: Item, arguments: Item) -> Result<Item, Error> {
        match (class, arguments) {
            (Item::Node(class), Item::Node(arguments)) => {
                self.add(Node::Object { class, arguments, state: Item::None })
            }
            _ => Err(Error::damaged("an object without class")),
        }
    }

    pub(super) fn callable(&self, item: Item) -> Result<(Global, String), Error> {
        match self.node(item) {
            Some(Node::Global { global, module, name }) => Ok((*global, format!("{module}.{name}"))),
            _ => Err(Error::damaged("something is called that is no class or function")),
        }
    }

    /// The members of a tuple of arguments.
    pub(super) fn arguments(&self, item: Item) -> Result<Vec<Item>, Error> {
        match self.node(item) {
            Some(Node::Items(Kind::Tuple, items)) if items.len() <= MAX_ARGUMENTS => Ok(items.clone()),
            _ => Err(Error::damaged("a call without a list of arguments, or with too many")),
        }
    }

    /// A copy of the members of a list, tuple or set.
    fn items(&mut self, item: Item) -> Result<Vec<Item>, Error> {
        let items = match self.node(item) {
            Some(Node::Items(_, items)) => items,
            _ => return Err(Error::damaged("a collection is made from something that is none")),
        };
        let bytes = items.len() as u64 * size_of::<Item>() as u64;
        let copy = items.clone();
        self.budget.take(bytes)?;
        Ok(copy)
    }

    /// Sizes or strides.
    fn counts(&self, item: Item) -> Result<Vec<u64>, Error> {
        match self.node(item) {
            Some(Node::Items(Kind::Tuple, items)) if items.len() <= MAX_DIMENSIONS => {
                items.iter().map(|&item| count(item)).collect()
            }
            _ => Err(Error::damaged("a tensor without sizes or strides")),
        }
    }
}

/// An integer that is not negative.
pub(super) fn count(item: Item) -> Result<u64, Error> {
    match item {
        Item::Int(value) => u64::try_from(value).map_err(|_| Error::damaged(format!("{value} is no size"))),
        _ => Err(Error::damaged("a size is no integer")),
    }
}
