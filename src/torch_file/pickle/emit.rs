//! Opcodes of single values, and the memo: strings and names are written once.

use super::super::error::Error;
use super::opcode;
use std::collections::HashMap;

/// A pickle being written.
#[derive(Default)]
pub(super) struct Emitter<'a> {
    pub pickle: Vec<u8>,
    memo: HashMap<Memo<'a>, u32>,
}

/// What is written once and referred to afterwards.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Memo<'a> {
    Text(&'a str),
    Key(usize),
    Global(&'static str, &'static str),
}

impl<'a> Emitter<'a> {
    pub(super) fn ops(&mut self, bytes: &[u8]) {
        self.pickle.extend(bytes);
    }

    pub(super) fn op(&mut self, code: u8) {
        self.pickle.push(code);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.op(if value { opcode::NEWTRUE } else { opcode::NEWFALSE });
    }

    pub(super) fn int(&mut self, value: i64) {
        if let Ok(value) = u8::try_from(value) {
            self.pickle.extend([opcode::BININT1, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.op(opcode::BININT2);
            self.pickle.extend(value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.op(opcode::BININT);
            self.pickle.extend(value.to_le_bytes());
        } else {
            self.pickle.extend([opcode::LONG1, 8]);
            self.pickle.extend(value.to_le_bytes());
        }
    }

    pub(super) fn ints(&mut self, values: impl ExactSizeIterator<Item = i64>) {
        let length = values.len();
        if length > 3 {
            self.op(opcode::MARK);
        }
        values.for_each(|value| self.int(value));
        self.op(match length {
            0 => opcode::EMPTY_TUPLE,
            1 => opcode::TUPLE1,
            2 => opcode::TUPLE2,
            3 => opcode::TUPLE3,
            _ => opcode::TUPLE,
        });
    }

    pub(super) fn text(&mut self, text: &'a str) -> Result<(), Error> {
        if !self.recall(&Memo::Text(text)) {
            self.binunicode(text)?;
            self.remember(Memo::Text(text));
        }
        Ok(())
    }

    pub(super) fn binunicode(&mut self, text: &str) -> Result<(), Error> {
        let length = u32::try_from(text.len()).map_err(|_| Error::unwritable("a string of 4 GiB or more"))?;
        self.op(opcode::BINUNICODE);
        self.pickle.extend(length.to_le_bytes());
        self.pickle.extend(text.as_bytes());
        Ok(())
    }

    pub(super) fn global(&mut self, module: &'static str, name: &'static str) {
        if !self.recall(&Memo::Global(module, name)) {
            self.op(opcode::GLOBAL);
            self.pickle.extend(format!("{module}\n{name}\n").as_bytes());
            self.remember(Memo::Global(module, name));
        }
    }

    /// Refers to what was written before; false where it was not.
    pub(super) fn recall(&mut self, what: &Memo<'a>) -> bool {
        let Some(&index) = self.memo.get(what) else { return false };
        self.memo_op(opcode::BINGET, opcode::LONG_BINGET, index);
        true
    }

    pub(super) fn remember(&mut self, what: Memo<'a>) {
        let index = self.memo.len() as u32;
        self.memo_op(opcode::BINPUT, opcode::LONG_BINPUT, index);
        self.memo.insert(what, index);
    }

    fn memo_op(&mut self, short: u8, long: u8, index: u32) {
        match u8::try_from(index) {
            Ok(index) => self.pickle.extend([short, index]),
            Err(_) => {
                self.op(long);
                self.pickle.extend(index.to_le_bytes());
            }
        }
    }
}
