//! A reader for the few pickles that data sets come in (protocols 0 to 4).
//!
//! A pickle is a program for a small stack machine that may call any Python
//! function. Here it is data: lists, dictionaries, numbers, byte strings and numpy
//! arrays of bytes are built; the three functions that numpy's arrays need are known
//! by name and everything else is refused. Every count is checked against the bytes
//! that are there, and values and decoded bytes are bounded, so a hostile file ends in
//! an error and not in exhausted memory.

mod escapes;
mod machine;
mod numpy;

use machine::Machine;
use std::ops::Range;

/// Place of a value in [`Pickle::values`]: values are shared and changed after they are stored.
type Id = usize;

#[derive(Debug)]
enum Value {
    /// Present, of no interest: None, floats, booleans' kin.
    Other,
    Integer(i64),
    /// A byte string or text (UTF-8) that lies in the file as it is.
    Raw(Range<usize>),
    /// One that had to be decoded.
    Bytes(Vec<u8>),
    /// A list or tuple.
    List(Vec<Id>),
    Dictionary(Vec<(Id, Id)>),
    /// A function or class, `module name`.
    Global(String),
    /// numpy's dtype, by its name.
    Dtype(Id),
    /// An array before and after its state is set.
    EmptyArray,
    Array {
        shape: Vec<usize>,
        column_major: bool,
        bytes: Id,
    },
}

/// A numpy array of bytes.
pub struct Array<'a> {
    pub shape: Vec<usize>,
    /// Fortran's order.
    pub column_major: bool,
    pub bytes: &'a [u8],
}

/// A file that has been read.
pub struct Pickle<'a> {
    file: &'a [u8],
    values: Vec<Value>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle. The error says what is wrong, in words.
    pub fn parse(file: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine::new(file);
        loop {
            let start = machine.position();
            match machine.step() {
                Ok(true) => return Ok(machine.finish()),
                Ok(false) => {}
                Err(what) => return Err(format!("it is no pickle of the expected kind ({what}, at byte {start})")),
            }
        }
    }

    /// The value at `key` of the dictionary that the file is.
    pub fn entry(&self, key: &str) -> Option<Id> {
        let Value::Dictionary(entries) = &self.values[self.root] else { return None };
        entries.iter().rev().find(|(name, _)| self.bytes(*name) == Some(key.as_bytes())).map(|(_, value)| *value)
    }

    /// A list or tuple of whole numbers.
    pub fn integers(&self, id: Id) -> Option<Vec<i64>> {
        let Value::List(items) = &self.values[id] else { return None };
        items.iter().map(|&item| self.integer(item)).collect()
    }

    /// An array of bytes (numpy's `uint8`).
    pub fn array(&self, id: Id) -> Option<Array<'_>> {
        let Value::Array { shape, column_major, bytes } = &self.values[id] else { return None };
        Some(Array { shape: shape.clone(), column_major: *column_major, bytes: self.bytes(*bytes)? })
    }

    fn integer(&self, id: Id) -> Option<i64> {
        if let Value::Integer(number) = self.values[id] { Some(number) } else { None }
    }

    fn bytes(&self, id: Id) -> Option<&[u8]> {
        match &self.values[id] {
            Value::Raw(range) => Some(&self.file[range.clone()]),
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}
