//! Values to a pickle that `torch.load(weights_only=True)` reads: protocol 2, the opcodes that `torch.save` uses.

use super::super::error::Error;
use super::super::limits::Limits;
use super::super::tensor::{Storage, TensorData};
use super::super::value::{Dict, Value};
use super::opcode;
use crate::torch_file::DType;
use std::collections::HashMap;

/// Python writes entries of dictionaries and lists in batches of this many.
const BATCH: usize = 1000;

/// A pickle and the storages that it refers to by their place in this list.
#[derive(Default)]
pub(in super::super) struct Encoded<'a> {
    pub pickle: Vec<u8>,
    /// Contents of each storage: whole elements of its type.
    pub storages: Vec<&'a [u8]>,
    memo: HashMap<Memo<'a>, u32>,
    keys: HashMap<(usize, DType), usize>,
}

/// What is written once and referred to afterwards.
#[derive(PartialEq, Eq, Hash)]
enum Memo<'a> {
    Text(&'a str),
    Key(usize),
    Global(&'static str, &'static str),
}

/// Pickles `value`. The same value gives the same bytes.
pub(in super::super) fn encode(value: &Value) -> Result<Encoded<'_>, Error> {
    let mut encoded = Encoded::default();
    encoded.pickle.extend([opcode::PROTO, 2]);
    encoded.value(value, 0)?;
    encoded.op(opcode::STOP);
    Ok(encoded)
}

impl<'a> Encoded<'a> {
    fn value(&mut self, value: &'a Value, depth: usize) -> Result<(), Error> {
        if depth > Limits::default().depth {
            return Err(Error::unwritable("a structure nested this deeply"));
        }
        match value {
            Value::None => self.op(opcode::NONE),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::BigInt(bytes) => {
                let length = u8::try_from(bytes.len());
                let length = length.map_err(|_| Error::unwritable("an integer of more than 255 bytes"))?;
                self.pickle.extend([opcode::LONG1, length]);
                self.pickle.extend(bytes);
            }
            Value::Float(value) => {
                self.op(opcode::BINFLOAT);
                self.pickle.extend(value.to_be_bytes());
            }
            Value::Str(text) => self.text(text)?,
            Value::Bytes(bytes) => {
                // Protocol 2 has no bytes; this is how Python itself writes them.
                self.global("_codecs", "encode");
                let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
                self.binunicode(&text)?;
                self.text("latin1")?;
                self.pickle.extend([opcode::TUPLE2, opcode::REDUCE]);
            }
            Value::List(items) => self.list(items, depth)?,
            Value::Tuple(items) => self.tuple(items, depth)?,
            Value::Set(items) => {
                self.global("__builtin__", "set");
                self.list(items, depth)?;
                self.pickle.extend([opcode::TUPLE1, opcode::REDUCE]);
            }
            Value::Dict(dict) => self.dict(dict, depth)?,
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Inert(object) => return Err(Error::unwritable(format!("an object of {}", object.class))),
        }
        Ok(())
    }

    fn list(&mut self, items: &'a [Value], depth: usize) -> Result<(), Error> {
        self.op(opcode::EMPTY_LIST);
        for batch in items.chunks(BATCH) {
            self.op(opcode::MARK);
            for item in batch {
                self.value(item, depth + 1)?;
            }
            self.op(opcode::APPENDS);
        }
        Ok(())
    }

    fn tuple(&mut self, items: &'a [Value], depth: usize) -> Result<(), Error> {
        if items.len() > 3 {
            self.op(opcode::MARK);
        }
        for item in items {
            self.value(item, depth + 1)?;
        }
        self.op(match items.len() {
            0 => opcode::EMPTY_TUPLE,
            1 => opcode::TUPLE1,
            2 => opcode::TUPLE2,
            3 => opcode::TUPLE3,
            _ => opcode::TUPLE,
        });
        Ok(())
    }

    fn dict(&mut self, dict: &'a Dict, depth: usize) -> Result<(), Error> {
        if dict.ordered {
            self.empty_ordered_dict();
        } else {
            self.op(opcode::EMPTY_DICT);
        }
        let entries: Vec<_> = dict.iter().collect();
        for batch in entries.chunks(BATCH) {
            self.op(opcode::MARK);
            for (key, value) in batch {
                if matches!(key, Value::List(_) | Value::Dict(_) | Value::Set(_)) {
                    return Err(Error::unwritable(format!("a dictionary with {} as key", key.kind())));
                }
                self.value(key, depth + 1)?;
                self.value(value, depth + 1)?;
            }
            self.op(opcode::SETITEMS);
        }
        match &dict.attributes {
            Some(_) if !dict.ordered => Err(Error::unwritable("a plain dictionary with attributes")),
            Some(attributes) => {
                self.value(attributes, depth + 1)?;
                self.op(opcode::BUILD);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&mut self, tensor: &'a TensorData) -> Result<(), Error> {
        let element = tensor.dtype().size_bytes();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.op(opcode::MARK);
        self.storage(tensor.storage(), tensor.dtype())?;
        self.int((tensor.first_byte() / element) as i64);
        let mut stride = 1i64;
        let mut strides: Vec<i64> = Vec::new();
        for &size in tensor.shape().iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(size.max(1) as i64);
        }
        strides.reverse();
        self.ints(tensor.shape().iter().map(|&size| size as i64));
        self.ints(strides.into_iter());
        self.bool(false);
        self.empty_ordered_dict();
        self.pickle.extend([opcode::TUPLE, opcode::REDUCE]);
        Ok(())
    }

    /// The persistent identifier ("storage", class, key, "cpu", elements). A storage is written once for each
    /// element type that it is used with: PyTorch gives every storage one type.
    fn storage(&mut self, storage: &'a Storage, dtype: DType) -> Result<(), Error> {
        let elements = storage.bytes().len() / dtype.size_bytes();
        let next = self.storages.len();
        let key = *self.keys.entry((storage.identity(), dtype)).or_insert(next);
        if key == next {
            self.storages.push(&storage.bytes()[..elements * dtype.size_bytes()]);
        }
        self.op(opcode::MARK);
        self.text("storage")?;
        self.global("torch", dtype.storage_class());
        if !self.recall(&Memo::Key(key)) {
            self.binunicode(&key.to_string())?;
            self.remember(Memo::Key(key));
        }
        self.text("cpu")?;
        self.int(elements as i64);
        self.pickle.extend([opcode::TUPLE, opcode::BINPERSID]);
        Ok(())
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.pickle.extend([opcode::EMPTY_TUPLE, opcode::REDUCE]);
    }

    fn op(&mut self, code: u8) {
        self.pickle.push(code);
    }

    fn bool(&mut self, value: bool) {
        self.op(if value { opcode::NEWTRUE } else { opcode::NEWFALSE });
    }

    fn int(&mut self, value: i64) {
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

    fn ints(&mut self, values: impl ExactSizeIterator<Item = i64>) {
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

    fn text(&mut self, text: &'a str) -> Result<(), Error> {
        if !self.recall(&Memo::Text(text)) {
            self.binunicode(text)?;
            self.remember(Memo::Text(text));
        }
        Ok(())
    }

    fn binunicode(&mut self, text: &str) -> Result<(), Error> {
        let length = u32::try_from(text.len()).map_err(|_| Error::unwritable("a string of 4 GiB or more"))?;
        self.op(opcode::BINUNICODE);
        self.pickle.extend(length.to_le_bytes());
        self.pickle.extend(text.as_bytes());
        Ok(())
    }

    fn global(&mut self, module: &'static str, name: &'static str) {
        if !self.recall(&Memo::Global(module, name)) {
            self.op(opcode::GLOBAL);
            self.pickle.extend(format!("{module}\n{name}\n").as_bytes());
            self.remember(Memo::Global(module, name));
        }
    }

    /// Refers to what was written before; false where it was not.
    fn recall(&mut self, what: &Memo<'a>) -> bool {
        let Some(&index) = self.memo.get(what) else { return false };
        self.memo_op(opcode::BINGET, opcode::LONG_BINGET, index);
        true
    }

    fn remember(&mut self, what: Memo<'a>) {
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
