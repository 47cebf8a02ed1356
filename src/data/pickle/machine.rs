//! The stack machine: one method an instruction, named by its byte in the format's own table (Python's `pickletools`).

use super::escapes::{unescape, unescape_text};
use super::{Id, Pickle, Value};
use std::collections::HashMap;
use std::ops::Range;

/// CIFAR-100 needs 150,000; ten times the largest set that is read.
const MAX_VALUES: usize = 2_000_000;

/// The state while a pickle is read.
pub struct Machine<'a> {
    pub(super) pickle: Pickle<'a>,
    at: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    /// Bytes that were copied out of the file. References could repeat one string without end.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub fn new(file: &'a [u8]) -> Self {
        Machine {
            pickle: Pickle { file, values: Vec::new(), root: 0 },
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// Where the next instruction lies.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What was read; to be called after the last instruction.
    pub fn finish(self) -> Pickle<'a> {
        self.pickle
    }

    /// Executes one instruction; true at the end.
    pub fn step(&mut self) -> Result<bool, String> {
        match self.byte()? {
            b'.' => {
                self.pickle.root = self.pop()?;
                return Ok(true);
            }
            // Protocol and frame: nothing to do.
            0x80 => _ = self.byte()?,
            0x95 => _ = self.take(8)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop()?,
            // None, float as text, float.
            b'N' => self.push(Value::Other)?,
            b'F' => {
                self.line()?;
                self.push(Value::Other)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Other)?;
            }
            // Numbers.
            0x88 => self.push(Value::Integer(1))?,
            0x89 => self.push(Value::Integer(0))?,
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => {
                let number = self.size(4)? as u32 as i32;
                self.push(Value::Integer(number.into()))?;
            }
            0x8a => {
                let bytes = self.size(1)?;
                if bytes > 8 {
                    return Err("a number of more than 64 bits".into());
                }
                let range = self.take(bytes)?;
                let mut wide =
                    [if self.pickle.file[range.clone()].last().is_some_and(|b| b & 0x80 != 0) { 255 } else { 0 }; 8];
                wide[..bytes].copy_from_slice(&self.pickle.file[range]);
                self.push(Value::Integer(i64::from_le_bytes(wide)))?;
            }
            b'I' | b'L' => {
                let range = self.line()?;
                let text = std::str::from_utf8(&self.pickle.file[range]).unwrap_or_default();
                let number = text.trim_end_matches('L').parse().map_err(|_| "an unreadable number")?;
                self.push(Value::Integer(number))?;
            }
            // Byte strings and text, by the width of their length.
            b'U' | b'C' | 0x8c => self.raw(1)?,
            b'T' | b'X' | b'B' => self.raw(4)?,
            0x8d | 0x8e => self.raw(8)?,
            b'S' => {
                let range = self.line()?;
                let bytes = unescape(&self.pickle.file[range])?;
                self.push(Value::Bytes(bytes))?;
            }
            b'V' => {
                let range = self.line()?;
                let text = unescape_text(&self.pickle.file[range])?;
                self.push(Value::Bytes(text.into_bytes()))?;
            }
            // Lists and tuples.
            b']' | b')' => self.push(Value::List(Vec::new()))?,
            b'l' | b't' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            code @ 0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(count).ok_or("an empty stack")?;
                let items = self.stack.split_off(from);
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            // Dictionaries.
            b'}' => self.push(Value::Dictionary(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dictionary(Vec::new()))?;
                self.extend_dictionary(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dictionary(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dictionary(&items)?;
            }
            // The memo.
            b'q' => self.store(1)?,
            b'r' => self.store(4)?,
            b'p' => {
                let key = self.decimal()?;
                self.memo.insert(key, self.top()?);
            }
            0x94 => _ = self.memo.insert(self.memo.len(), self.top()?),
            b'h' => self.fetch(1)?,
            b'j' => self.fetch(4)?,
            b'g' => {
                let key = self.decimal()?;
                self.push_known(key)?;
            }
            // numpy's arrays.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Raw(module), Value::Raw(name)) = (&self.pickle.values[module], &self.pickle.values[name])
                else {
                    return Err("a function without a name".into());
                };
                self.global(module.clone(), name.clone())?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            other => return Err(format!("the instruction {other:#04x}")),
        }
        Ok(false)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), String> {
        let target = self.top()?;
        let Value::List(list) = &mut self.pickle.values[target] else { return Err("items for no list".into()) };
        list.extend(items);
        Ok(())
    }

    fn extend_dictionary(&mut self, items: &[Id]) -> Result<(), String> {
        let target = self.top()?;
        let Value::Dictionary(entries) = &mut self.pickle.values[target] else {
            return Err("entries for no dictionary".into());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), String> {
        if self.pickle.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        if let Value::Bytes(copy) = &value {
            self.copied += copy.len();
            // Protocol 0 copies a text and, once more, the bytes that it stands for; UTF-8 may double it.
            if self.copied > 4 * self.pickle.file.len() {
                return Err("more text than the file has".into());
            }
        }
        self.stack.push(self.pickle.values.len());
        self.pickle.values.push(value);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Id, String> {
        Ok(self.stack.pop().ok_or("an empty stack")?)
    }

    pub(super) fn top(&self) -> Result<Id, String> {
        Ok(*self.stack.last().ok_or("an empty stack")?)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn store(&mut self, width: usize) -> Result<(), String> {
        let key = self.size(width)?;
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn fetch(&mut self, width: usize) -> Result<(), String> {
        let key = self.size(width)?;
        self.push_known(key)
    }

    fn push_known(&mut self, key: usize) -> Result<(), String> {
        self.stack.push(*self.memo.get(&key).ok_or("a reference to nothing")?);
        Ok(())
    }

    fn number(&mut self, width: usize) -> Result<(), String> {
        let number = self.size(width)?;
        self.push(Value::Integer(number as i64))
    }

    fn raw(&mut self, width: usize) -> Result<(), String> {
        let length = self.size(width)?;
        let range = self.take(length)?;
        self.push(Value::Raw(range))
    }

    fn byte(&mut self) -> Result<u8, String> {
        let range = self.take(1)?;
        Ok(self.pickle.file[range.start])
    }

    /// An unsigned number of `width` bytes, little-endian.
    fn size(&mut self, width: usize) -> Result<usize, String> {
        let range = self.take(width)?;
        Ok(self.pickle.file[range].iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
    }

    fn take(&mut self, length: usize) -> Result<Range<usize>, String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.pickle.file.len()).ok_or("truncated")?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    /// Up to the end of the line, without it.
    fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = &self.pickle.file[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("truncated")?;
        let range = self.take(length)?;
        self.at += 1;
        Ok(range)
    }

    fn decimal(&mut self) -> Result<usize, String> {
        let range = self.line()?;
        let text = std::str::from_utf8(&self.pickle.file[range]).unwrap_or_default();
        Ok(text.parse().map_err(|_| "an unreadable number")?)
    }
}
