//! The stack machine: runs one instruction after another over plain data, with bounds on everything.

use super::super::error::Error;
use super::super::limits::{Budget, Limits};
use super::globals;
use super::input::Input;
use super::nodes::{DictNode, Item, Kind, Node, StorageClaim};
use super::number::long_to_i64;
use super::opcode;
use std::borrow::Cow;
use std::collections::HashMap;

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
    let mut machine = Machine {
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        memo_limit: limits.memo_entries,
        nodes: Vec::new(),
        storages: Vec::new(),
        storage_index: HashMap::new(),
        budget,
    };
    let mut input = Input::new(bytes);
    loop {
        let at = input.at as u64;
        if let Some(root) = machine.step(&mut input).map_err(|error| error.at(at))? {
            let Machine { nodes, storages, .. } = machine;
            return Ok(Unpickled { nodes, root, storages, length: input.at });
        }
    }
}

pub(super) struct Machine<'a, 'b> {
    stack: Vec<Item>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    memo_limit: usize,
    /// The arena of values that others may refer to.
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) storages: Vec<StorageClaim>,
    pub(super) storage_index: HashMap<String, usize>,
    pub(super) budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    /// Runs one instruction; the last one gives the value of the pickle.
    fn step(&mut self, input: &mut Input<'a>) -> Result<Option<Item>, Error> {
        let [code] = input.fixed()?;
        match code {
            opcode::STOP => {
                let root = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(Error::damaged("the structure ends before it is complete"));
                }
                return Ok(Some(root));
            }
            opcode::PROTO => {
                let protocol = input.number::<1>()?;
                if protocol > 5 {
                    let advice = "Save it again with `torch.save(..., pickle_protocol=2)`";
                    return Err(Error::unsupported(format!("pickle protocol {protocol}"), advice));
                }
            }
            opcode::FRAME => _ = input.number::<8>()?,

            opcode::MARK => self.marks.push(self.stack.len()),
            // Python drops a mark where that is what lies on top.
            opcode::POP if self.marks.last() == Some(&self.stack.len()) => _ = self.marks.pop(),
            opcode::POP => _ = self.pop()?,
            opcode::POP_MARK => _ = self.pop_to_mark()?,
            opcode::DUP => self.put(self.top()?)?,
            opcode::PUT => self.remember(number(input.word()?)?)?,
            opcode::BINPUT => self.remember(input.number::<1>()? as u32)?,
            opcode::LONG_BINPUT => self.remember(input.number::<4>()? as u32)?,
            opcode::MEMOIZE => self.remember(self.memo.len() as u32)?,
            opcode::GET => self.recall(number(input.word()?)?)?,
            opcode::BINGET => self.recall(input.number::<1>()? as u32)?,
            opcode::LONG_BINGET => self.recall(input.number::<4>()? as u32)?,

            opcode::NONE => self.put(Item::None)?,
            opcode::NEWTRUE => self.put(Item::Bool(true))?,
            opcode::NEWFALSE => self.put(Item::Bool(false))?,
            opcode::INT => self.put(match input.word()? {
                "00" => Item::Bool(false),
                "01" => Item::Bool(true),
                word => Item::Int(number(word)?),
            })?,
            opcode::LONG => self.put(Item::Int(number(input.word()?.trim_end_matches('L'))?))?,
            opcode::BININT => self.put(Item::Int(i32::from_le_bytes(input.fixed()?).into()))?,
            opcode::BININT1 => self.put(Item::Int(input.number::<1>()? as i64))?,
            opcode::BININT2 => self.put(Item::Int(input.number::<2>()? as i64))?,
            opcode::LONG1 => self.long(input.sized::<1>()?)?,
            opcode::LONG4 => self.long(input.sized::<4>()?)?,
            opcode::FLOAT => self.put(Item::Float(number(input.word()?)?))?,
            opcode::BINFLOAT => self.put(Item::Float(f64::from_be_bytes(input.fixed()?)))?,

            opcode::UNICODE => self.push(Node::Text(input.escaped()?))?,
            opcode::SHORT_BINUNICODE => self.push(Node::Text(input.text::<1>()?.into()))?,
            opcode::BINUNICODE => self.push(Node::Text(input.text::<4>()?.into()))?,
            opcode::BINUNICODE8 => self.push(Node::Text(input.text::<8>()?.into()))?,
            opcode::STRING => self.old_text(input.literal()?)?,
            opcode::SHORT_BINSTRING => self.old_text(input.sized::<1>()?.into())?,
            opcode::BINSTRING => self.old_text(input.sized::<4>()?.into())?,
            opcode::SHORT_BINBYTES => self.push(Node::Bytes(input.sized::<1>()?.into()))?,
            opcode::BINBYTES => self.push(Node::Bytes(input.sized::<4>()?.into()))?,
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => self.push(Node::Bytes(input.sized::<8>()?.into()))?,

            opcode::EMPTY_LIST => self.push(Node::Items(Kind::List, Vec::new()))?,
            opcode::EMPTY_SET => self.push(Node::Items(Kind::Set, Vec::new()))?,
            opcode::EMPTY_DICT => self.push(Node::Dict(DictNode::default()))?,
            opcode::LIST => self.collect(Kind::List, code)?,
            opcode::FROZENSET => self.collect(Kind::Set, code)?,
            opcode::EMPTY_TUPLE | opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 | opcode::TUPLE => {
                self.collect(Kind::Tuple, code)?;
            }
            opcode::DICT => {
                let entries = pairs(self.operands(code)?)?;
                self.push(Node::Dict(DictNode { entries, ..DictNode::default() }))?;
            }
            opcode::APPEND | opcode::APPENDS | opcode::ADDITEMS => {
                let items = self.operands(code)?;
                match self.top_node()? {
                    Node::Items(Kind::List, list) if code != opcode::ADDITEMS => list.extend(items),
                    Node::Items(Kind::Set, set) if code == opcode::ADDITEMS => set.extend(items),
                    _ => return Err(Error::damaged("items are added to something that does not take them")),
                }
            }
            opcode::SETITEM | opcode::SETITEMS => {
                let entries = pairs(self.operands(code)?)?;
                match self.top_node()? {
                    Node::Dict(dict) => dict.entries.extend(entries),
                    _ => return Err(Error::damaged("entries are set in something that is no dictionary")),
                }
            }

            opcode::GLOBAL => self.global(input.word()?, input.word()?)?,
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.text(module), self.text(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err(Error::damaged("the name of a class is no string")),
                }
            }
            opcode::REDUCE => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let result = self.call(function, arguments)?;
                self.put(result)?;
            }
            opcode::NEWOBJ | opcode::NEWOBJ_EX => {
                if code == opcode::NEWOBJ_EX {
                    let keywords = self.pop()?;
                    if !matches!(self.node(keywords), Some(Node::Dict(dict)) if dict.entries.is_empty()) {
                        let advice = "Save tensors, numbers and strings instead of objects";
                        return Err(Error::unsupported("an object made from keyword arguments", advice));
                    }
                }
                let (arguments, class) = (self.pop()?, self.pop()?);
                let result = self.new_object(class, arguments)?;
                self.put(result)?;
            }
            opcode::BUILD => {
                let state = self.pop()?;
                match self.top_node()? {
                    Node::Dict(dict) => dict.attributes = Some(state),
                    Node::Object { state: old, .. } => *old = state,
                    _ => return Err(Error::damaged("attributes are set on something that has none")),
                }
            }
            opcode::BINPERSID => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            other => return Err(Error::damaged(format!("opcode {other:#04x}, which torch.save does not write"))),
        }
        Ok(None)
    }

    /// The items that an instruction takes off the stack: a number of its own, or all above the last mark.
    fn operands(&mut self, code: u8) -> Result<Vec<Item>, Error> {
        let count = match code {
            opcode::EMPTY_TUPLE => 0,
            opcode::TUPLE1 | opcode::APPEND => 1,
            opcode::TUPLE2 | opcode::SETITEM => 2,
            opcode::TUPLE3 => 3,
            _ => return self.pop_to_mark(),
        };
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor()).ok_or_else(missing)?;
        Ok(self.stack.split_off(start))
    }

    fn collect(&mut self, kind: Kind, code: u8) -> Result<(), Error> {
        let items = self.operands(code)?;
        self.push(Node::Items(kind, items))
    }

    fn remember(&mut self, index: u32) -> Result<(), Error> {
        let item = self.top()?;
        self.memo.insert(index, item);
        if self.memo.len() > self.memo_limit {
            let advice = "Load it in PyTorch and save its tensors alone, without the other values";
            return Err(Error::limit("it remembers too many values", self.memo_limit as u64, advice));
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Error> {
        let item = self.memo.get(&index).copied();
        self.put(item.ok_or_else(|| Error::damaged(format!("nothing was remembered as {index}")))?)
    }

    /// An integer in two's complement, little-endian.
    fn long(&mut self, bytes: &'a [u8]) -> Result<(), Error> {
        match long_to_i64(bytes) {
            Some(value) => self.put(Item::Int(value)),
            None => self.push(Node::Long(bytes.into())),
        }
    }

    /// `str` of Python 2: text if it is UTF-8.
    fn old_text(&mut self, bytes: Cow<'a, [u8]>) -> Result<(), Error> {
        self.push(match bytes {
            Cow::Borrowed(bytes) => {
                std::str::from_utf8(bytes).map_or(Node::Bytes(bytes.into()), |s| Node::Text(s.into()))
            }
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Node::Text(text.into()),
                Err(error) => Node::Bytes(error.into_bytes().into()),
            },
        })
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Error> {
        let global = globals::lookup(module, name)?;
        self.push(Node::Global { global, module, name })
    }

    /// Adds `node` to the arena.
    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Item, Error> {
        self.budget.take(size_of::<Node>() as u64)?;
        let index = u32::try_from(self.nodes.len());
        let index = index.map_err(|_| Error::limit("it has too many values", u32::MAX.into(), "Save fewer values"))?;
        self.nodes.push(node);
        Ok(Item::Node(index))
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), Error> {
        let item = self.add(node)?;
        self.put(item)
    }

    fn put(&mut self, item: Item) -> Result<(), Error> {
        self.budget.take(size_of::<Item>() as u64)?;
        self.stack.push(item);
        Ok(())
    }

    pub(super) fn node(&self, item: Item) -> Option<&Node<'a>> {
        if let Item::Node(index) = item { self.nodes.get(index as usize) } else { None }
    }

    /// A name as it lies in the file; nothing is named by text that had to be decoded.
    pub(super) fn text(&self, item: Item) -> Option<&'a str> {
        if let Some(Node::Text(Cow::Borrowed(text))) = self.node(item) { Some(text) } else { None }
    }

    /// Height below which the current level must not pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Item, Error> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Item, Error> {
        self.stack[self.floor()..].last().copied().ok_or_else(missing)
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>, Error> {
        match self.top()? {
            Item::Node(index) => self.nodes.get_mut(index as usize).ok_or_else(missing),
            _ => Err(Error::damaged("a container is expected here")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Item>, Error> {
        let start = self.marks.pop().ok_or_else(missing)?;
        Ok(self.stack.split_off(start))
    }
}

fn missing() -> Error {
    Error::damaged("a value is missing from the structure")
}

/// A number in digits, as protocol 0 has them.
fn number<T: std::str::FromStr>(word: &str) -> Result<T, Error> {
    word.parse().map_err(|_| Error::damaged(format!("{word:?} is no number, or one out of range")))
}

fn pairs(items: Vec<Item>) -> Result<Vec<(Item, Item)>, Error> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(Error::damaged("a dictionary has a key without a value")),
    }
}
