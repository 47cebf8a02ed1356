//! The stack machine: runs operations over plain data, with bounds on everything.

use super::super::error::Error;
use super::super::limits::{Budget, Limits};
use super::decode::{Decoder, Op};
use super::globals;
use super::nodes::{DictNode, Item, Node, StorageClaim};
use super::number::long_to_i64;
use super::stack::Machine;
use std::borrow::Cow;

/// What a pickle describes, still as the machine's nodes: the storages are not there yet.
pub(in super::super) struct Unpickled<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) root: Item,
    /// The storages that its tensors need, in order of their first mention.
    pub(in super::super) storages: Vec<StorageClaim>,
    /// Length of the pickle.
    pub(in super::super) length: usize,
}

/// Runs the pickle at the start of `bytes`; what follows it is left alone.
pub(in super::super) fn unpickle<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Unpickled<'a>, Error> {
    let mut machine = Machine::new(limits, budget);
    let mut decoder = Decoder::new(bytes);
    loop {
        let at = decoder.at as u64;
        let op = decoder.next().map_err(|error| error.at(at))?;
        if op == Op::Stop {
            let root = machine.pop().map_err(|error| error.at(at))?;
            if !machine.stack.is_empty() || !machine.marks.is_empty() {
                return Err(Error::damaged("the structure ends before it is complete").at(at));
            }
            let Machine { nodes, storages, .. } = machine;
            return Ok(Unpickled { nodes, root, storages, length: decoder.at });
        }
        machine.step(op).map_err(|error| error.at(at))?;
    }
}

impl<'a> Machine<'a, '_> {
    fn step(&mut self, op: Op<'a>) -> Result<(), Error> {
        match op {
            Op::Skip | Op::Stop => {}
            Op::Mark => self.marks.push(self.stack.len()),
            Op::Pop => {
                // Python drops a mark where that is what lies on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            Op::PopMark => drop(self.pop_to_mark()?),
            Op::Dup => self.stack.push(self.top()?),
            Op::None => self.stack.push(Item::None),
            Op::Bool(value) => self.stack.push(Item::Bool(value)),
            Op::Int(value) => self.stack.push(Item::Int(value)),
            Op::Float(value) => self.stack.push(Item::Float(value)),
            Op::Long(bytes) => match long_to_i64(bytes) {
                Some(value) => self.stack.push(Item::Int(value)),
                None => self.push(Node::Long(Cow::Borrowed(bytes)))?,
            },
            Op::Text(text) => self.push(Node::Text(text))?,
            Op::Bytes(bytes) => self.push(Node::Bytes(Cow::Borrowed(bytes)))?,
            Op::OldText(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => self.push(Node::Text(text))?,
                Err(_) => self.push(Node::Bytes(Cow::Borrowed(bytes)))?,
            },
            Op::EmptyList => self.push(Node::List(Vec::new()))?,
            Op::EmptySet => self.push(Node::Set(Vec::new()))?,
            Op::EmptyDict => self.push(Node::Dict(DictNode::default()))?,
            Op::TupleOf(length) => {
                let items = self.pop_many(length)?;
                self.push(Node::Tuple(items))?;
            }
            Op::TupleFromMark => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            Op::ListFromMark => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            Op::FrozenSetFromMark => {
                let items = self.pop_to_mark()?;
                self.push(Node::Set(items))?;
            }
            Op::DictFromMark => {
                let entries = pairs(self.pop_to_mark()?)?;
                self.push(Node::Dict(DictNode { entries, ..DictNode::default() }))?;
            }
            Op::Append => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            Op::Appends => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            Op::AddItems => {
                let items = self.pop_to_mark()?;
                match self.top_node()? {
                    Node::Set(set) => set.extend(items),
                    _ => return Err(Error::damaged("members are added to something that is no set")),
                }
            }
            Op::SetItem => {
                let items = self.pop_many(2)?;
                self.set_items(items)?;
            }
            Op::SetItems => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }
            Op::Global(module, name) => self.global(module, name)?,
            Op::StackGlobal => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.text(module), self.text(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err(Error::damaged("the name of a class is no string")),
                }
            }
            Op::Reduce => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let result = self.call(function, arguments)?;
                self.stack.push(result);
            }
            Op::NewObject => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let result = self.new_object(class, arguments)?;
                self.stack.push(result);
            }
            Op::NewObjectEx => {
                let (keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                if !matches!(self.node(keywords), Some(Node::Dict(dict)) if dict.entries.is_empty()) {
                    let advice = "Save tensors, numbers and strings instead of objects";
                    return Err(Error::unsupported("an object made from keyword arguments", advice));
                }
                let result = self.new_object(class, arguments)?;
                self.stack.push(result);
            }
            Op::Build => {
                let state = self.pop()?;
                match self.top_node()? {
                    Node::Dict(dict) => dict.attributes = Some(state),
                    Node::Object { state: old, .. } => *old = state,
                    _ => return Err(Error::damaged("attributes are set on something that has none")),
                }
            }
            Op::PersistentId => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            Op::Put(index) => self.remember(index)?,
            Op::Memoize => self.remember(self.memo.len() as u32)?,
            Op::Get(index) => {
                let item = self.memo.get(&index).copied();
                self.stack.push(item.ok_or_else(|| Error::damaged(format!("nothing was remembered as {index}")))?);
            }
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Item>) -> Result<(), Error> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => return Err(Error::damaged("items are appended to something that is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Item>) -> Result<(), Error> {
        let entries = pairs(items)?;
        match self.top_node()? {
            Node::Dict(dict) => dict.entries.extend(entries),
            _ => return Err(Error::damaged("entries are set in something that is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, index: u32) -> Result<(), Error> {
        let item = self.top()?;
        self.memo.insert(index, item);
        if self.memo.len() > self.memo_limit {
            let advice = "Read it with a larger `Limits::memo_entries`";
            return Err(Error::limit("it remembers too many values", self.memo_limit as u64, advice));
        }
        Ok(())
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Error> {
        let global = globals::lookup(module, name)?;
        self.push(Node::Global { global, module, name })
    }
}

fn pairs(items: Vec<Item>) -> Result<Vec<(Item, Item)>, Error> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(Error::damaged("a dictionary has a key without a value")),
    }
}
