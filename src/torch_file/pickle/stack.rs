//! What the machine works on: its stack with marks, its memo, and the arena of shared values.

use super::super::error::Error;
use super::super::limits::{Budget, Limits};
use super::nodes::{Item, Node, StorageClaim};
use std::collections::HashMap;

pub(super) struct Machine<'a, 'b> {
    pub(super) stack: Vec<Item>,
    /// Heights of the stack at the marks.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u32, Item>,
    pub(super) memo_limit: usize,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) storages: Vec<StorageClaim>,
    pub(super) storage_index: HashMap<String, usize>,
    pub(super) budget: &'b mut Budget,
}

impl<'a, 'b> Machine<'a, 'b> {
    pub(super) fn new(limits: &Limits, budget: &'b mut Budget) -> Self {
        Machine {
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            memo_limit: limits.memo_entries,
            nodes: Vec::new(),
            storages: Vec::new(),
            storage_index: HashMap::new(),
            budget,
        }
    }

    /// Adds `node` to the arena.
    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Item, Error> {
        self.budget.take(size_of::<Node>() as u64)?;
        let index = u32::try_from(self.nodes.len());
        let index = index.map_err(|_| Error::limit("it has too many values", u32::MAX.into(), "Save fewer values"))?;
        self.nodes.push(node);
        Ok(Item::Node(index))
    }

    pub(super) fn push(&mut self, node: Node<'a>) -> Result<(), Error> {
        let item = self.add(node)?;
        self.stack.push(item);
        Ok(())
    }

    pub(super) fn node(&self, item: Item) -> Option<&Node<'a>> {
        if let Item::Node(index) = item { self.nodes.get(index as usize) } else { None }
    }

    pub(super) fn text(&self, item: Item) -> Option<&'a str> {
        if let Some(Node::Text(text)) = self.node(item) { Some(text) } else { None }
    }

    /// Height below which the current level must not pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Result<Item, Error> {
        if self.stack.len() > self.floor() { self.stack.pop() } else { None }.ok_or_else(missing)
    }

    pub(super) fn top(&self) -> Result<Item, Error> {
        if self.stack.len() > self.floor() { self.stack.last().copied() } else { None }.ok_or_else(missing)
    }

    pub(super) fn top_node(&mut self) -> Result<&mut Node<'a>, Error> {
        match self.top()? {
            Item::Node(index) => self.nodes.get_mut(index as usize).ok_or_else(missing),
            _ => Err(Error::damaged("a container is expected here")),
        }
    }

    pub(super) fn pop_many(&mut self, count: usize) -> Result<Vec<Item>, Error> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor()).ok_or_else(missing)?;
        Ok(self.stack.split_off(start))
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<Item>, Error> {
        let start = self.marks.pop().ok_or_else(missing)?;
        Ok(self.stack.split_off(start))
    }
}

fn missing() -> Error {
    Error::damaged("a value is missing from the structure")
}
