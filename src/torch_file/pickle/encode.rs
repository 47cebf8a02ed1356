//! Values to a pickle that `torch.load(weights_only=True)` reads: protocol 2, the opcodes that `torch.save` uses.

use super::super::dtype::DType;
use super::super::error::Error;
use super::super::limits::Limits;
use super::super::tensor::{Storage, TensorData};
use super::super::value::{Dict, Value};
use super::opcode;
use std::collections::HashMap;

/// Python writes entries of dictionaries and lists in batches of this many.
const BATCH: usize = 1000;

/// A pickle and the storages that it refers to by their place in this list.
#[derive(Default)]
pub(in super::super) struct Encoded<'a> {
    pub pickle: Vec<u8>,
    /// Contents of each storage: whole elements of its type.
    pub storages: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Encoder<'a> {
    out: Encoded<'a>,
    keys: HashMap<(usize, DType), usize>,
    memo: HashMap<Memo<'a>, u32>,
}

/// What is written once and referred to afterwards.
#[derive(PartialEq, Eq, Hash)]
enum Memo<'a> {
    Text(&'a str),
    /// The key of a storage.
    Key(usize),
    Global(&'static str, &'static str),
}

/// Pickles `value`. The same value gives the same bytes.
pub(in super::super) fn encode(value: &Value) -> Result<Encoded<'_>, Error> {
    let mut encoder = Encoder::default();
    encoder.put(&[opcode::PROTO, 2]);
    encoder.value(value, 0)?;
    encoder.put(&[opcode::STOP]);
    Ok(encoder.out)
}

impl<'a> Encoder<'a> {
    fn value(&mut self, value: &'a Value, depth: usize) -> Result<(), Error> {
        if depth > Limits::default().depth {
            return Err(Error::unwritable("a structure nested this deeply"));
        }
        match value {
            Value::None => self.put(&[opcode::NONE]),
            Value::Bool(value) => self.bool(*value),
            Value::Int(value) => self.int(*value),
            Value::BigInt(bytes) => {
                let length = u8::try_from(bytes.len());
                let length = length.map_err(|_| Error::unwritable("an integer of more than 255 bytes"))?;
                self.put(&[opcode::LONG1, length]);
                self.put(bytes);
            }
            Value::Float(value) => {
                self.put(&[opcode::BINFLOAT]);
                self.put(&value.to_be_bytes());
            }
            Value::Str(text) => self.once(Memo::Text(text))?,
            Value::Bytes(bytes) => {
                // Protocol 2 has no bytes; this is how Python itself writes them.
                self.once(Memo::Global("_codecs", "encode"))?;
                let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
                self.text(&text)?;
                self.once(Memo::Text("latin1"))?;
                self.put(&[opcode::TUPLE2, opcode::REDUCE]);
            }
            Value::List(items) => self.list(items, depth)?,
            Value::Tuple(items) => {
                self.tuple(items.len(), items, |encoder, item| encoder.value(item, depth + 1))?;
            }
            Value::Set(items) => {
                self.once(Memo::Global("__builtin__", "set"))?;
                self.list(items, depth)?;
                self.put(&[opcode::TUPLE1, opcode::REDUCE]);
            }
            Value::Dict(dict) => self.dict(dict, depth)?,
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Inert(object) => return Err(Error::unwritable(format!("an object of {}", object.class))),
        }
        Ok(())
    }

    fn list(&mut self, items: &'a [Value], depth: usize) -> Result<(), Error> {
        self.put(&[opcode::EMPTY_LIST]);
        for batch in items.chunks(BATCH) {
            self.put(&[opcode::MARK]);
            batch.iter().try_for_each(|item| self.value(item, depth + 1))?;
            self.put(&[opcode::APPENDS]);
        }
        Ok(())
    }

    /// A tuple of `length` items, each written by `item`.
    fn tuple<T>(
        &mut self,
        length: usize,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ends = [opcode::EMPTY_TUPLE, opcode::TUPLE1, opcode::TUPLE2, opcode::TUPLE3];
        if length >= ends.len() {
            self.put(&[opcode::MARK]);
        }
        items.into_iter().try_for_each(|one| item(self, one))?;
        self.put(&[*ends.get(length).unwrap_or(&opcode::TUPLE)]);
        Ok(())
    }

    fn dict(&mut self, dict: &'a Dict, depth: usize) -> Result<(), Error> {
        if dict.ordered {
            self.empty_ordered_dict()?;
        } else {
            self.put(&[opcode::EMPTY_DICT]);
        }
        let entries: Vec<_> = dict.iter().collect();
        for batch in entries.chunks(BATCH) {
            self.put(&[opcode::MARK]);
            for (key, value) in batch {
                if matches!(key, Value::List(_) | Value::Dict(_) | Value::Set(_)) {
                    return Err(Error::unwritable(format!("a dictionary with {} as key", key.kind())));
                }
                self.value(key, depth + 1)?;
                self.value(value, depth + 1)?;
            }
            self.put(&[opcode::SETITEMS]);
        }
        match &dict.attributes {
            Some(_) if !dict.ordered => Err(Error::unwritable("a plain dictionary with attributes")),
            Some(attributes) => {
                self.value(attributes, depth + 1)?;
                self.put(&[opcode::BUILD]);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&mut self, tensor: &'a TensorData) -> Result<(), Error> {
        let shape = tensor.shape();
        self.once(Memo::Global("torch._utils", "_rebuild_tensor_v2"))?;
        self.put(&[opcode::MARK]);
        self.storage(tensor.storage(), tensor.dtype())?;
        self.int((tensor.first_byte() / tensor.dtype().size_bytes()) as i64);
        let mut stride = 1i64;
        let mut strides: Vec<i64> = Vec::new();
        for &size in shape.iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(size.max(1) as i64);
        }
        let mut int = |encoder: &mut Self, number: i64| {
            encoder.int(number);
            Ok(())
        };
        self.tuple(shape.len(), shape.iter().map(|&size| size as i64), &mut int)?;
        self.tuple(shape.len(), strides.into_iter().rev(), int)?;
        self.bool(false);
        self.empty_ordered_dict()?;
        self.put(&[opcode::TUPLE, opcode::REDUCE]);
        Ok(())
    }

    /// The persistent identifier ("storage", class, key, "cpu", elements). A storage is written once for each
    /// element type that it is used with: PyTorch gives every storage one type.
    fn storage(&mut self, storage: &'a Storage, dtype: DType) -> Result<(), Error> {
        let elements = storage.bytes().len() / dtype.size_bytes();
        let next = self.out.storages.len();
        let key = *self.keys.entry((storage.identity(), dtype)).or_insert(next);
        if key == next {
            self.out.storages.push(&storage.bytes()[..elements * dtype.size_bytes()]);
        }
        self.put(&[opcode::MARK]);
        self.once(Memo::Text("storage"))?;
        self.once(Memo::Global("torch", dtype.storage_class()))?;
        self.once(Memo::Key(key))?;
        self.once(Memo::Text("cpu"))?;
        self.int(elements as i64);
        self.put(&[opcode::TUPLE, opcode::BINPERSID]);
        Ok(())
    }

    fn empty_ordered_dict(&mut self) -> Result<(), Error> {
        self.once(Memo::Global("collections", "OrderedDict"))?;
        self.put(&[opcode::EMPTY_TUPLE, opcode::REDUCE]);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.pickle.extend(bytes);
    }

    fn bool(&mut self, value: bool) {
        self.put(&[if value { opcode::NEWTRUE } else { opcode::NEWFALSE }]);
    }

    fn int(&mut self, value: i64) {
        if let Ok(value) = u8::try_from(value) {
            self.put(&[opcode::BININT1, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.put(&[opcode::BININT2]);
            self.put(&value.to_le_bytes());
        } else if let Ok(value) = i32::try_from(value) {
            self.put(&[opcode::BININT]);
            self.put(&value.to_le_bytes());
        } else {
            self.put(&[opcode::LONG1, 8]);
            self.put(&value.to_le_bytes());
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        let length = u32::try_from(text.len()).map_err(|_| Error::unwritable("a string of 4 GiB or more"))?;
        self.put(&[opcode::BINUNICODE]);
        self.put(&length.to_le_bytes());
        self.put(text.as_bytes());
        Ok(())
    }

    /// Writes a string or a name where it comes first, and refers to it afterwards.
    fn once(&mut self, what: Memo<'a>) -> Result<(), Error> {
        let known = self.memo.get(&what).copied();
        let index = known.unwrap_or(self.memo.len() as u32);
        if known.is_none() {
            match &what {
                Memo::Text(text) => self.text(text)?,
                Memo::Key(key) => self.text(&key.to_string())?,
                Memo::Global(module, name) => {
                    self.put(&[opcode::GLOBAL]);
                    self.put(format!("{module}\n{name}\n").as_bytes());
                }
            }
            self.memo.insert(what, index);
        }
        let [short, long] = match known {
            Some(_) => [opcode::BINGET, opcode::LONG_BINGET],
            None => [opcode::BINPUT, opcode::LONG_BINPUT],
        };
        match u8::try_from(index) {
            Ok(index) => self.put(&[short, index]),
            Err(_) => {
                self.put(&[long]);
                self.put(&index.to_le_bytes());
            }
        }
        Ok(())
    }
}
