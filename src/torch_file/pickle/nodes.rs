//! What the machine holds while it runs: small values inline, everything shared in one arena.

use super::super::dtype::DType;
use super::super::error::Error;
use super::super::strided::View;
use super::globals::Global;
use std::borrow::Cow;

/// A value on the stack, in the memo or in a container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Index in the arena.
    Node(u32),
}

/// A value that others may refer to.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// Beyond 64 bits.
    Long(Cow<'a, [u8]>),
    Items(Kind, Vec<Item>),
    Dict(DictNode),
    Global {
        global: Global,
        module: &'a str,
        name: &'a str,
    },
    /// Which storage, and the part of it that a tensor may use, in elements.
    Storage {
        index: usize,
        dtype: DType,
        first: u64,
        end: u64,
    },
    /// Which storage, and which of its elements.
    Tensor(usize, Box<View>),
    /// Of an inert class: the class, a tuple of arguments, and what was set afterwards.
    Object {
        class: u32,
        arguments: u32,
        state: Item,
    },
}

/// What holds items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    Set,
}

#[derive(Debug, Default)]
pub(super) struct DictNode {
    pub entries: Vec<(Item, Item)>,
    pub ordered: bool,
    pub attributes: Option<Item>,
}

/// A storage as the pickle describes it; its bytes are elsewhere in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct StorageClaim {
    /// Name of its record, or its key in an old file.
    pub key: String,
    pub dtype: DType,
    /// Number of elements.
    pub elements: u64,
}

impl StorageClaim {
    /// Length in bytes.
    pub(in super::super) fn bytes(&self) -> Result<u64, Error> {
        let what = || Error::damaged(format!("storage {} claims {} elements", self.key, self.elements));
        self.elements.checked_mul(self.dtype.size_bytes() as u64).ok_or_else(what)
    }
}
