//! Values to a pickle that `torch.load(weights_only=True)` reads: protocol 2, the opcodes that `torch.save` uses.

use super::super::dtype::DType;
use super::super::error::Error;
use super::super::limits::Limits;
use super::super::tensor::{Storage, TensorData};
use super::super::value::{Dict, Value};
use super::emit::{Emitter, Memo};
use super::opcode;
use std::collections::HashMap;

/// Python writes entries of dictionaries and lists in batches of this many.
const BATCH: usize = 1000;

/// A pickle and the storages that it refers to by their place in this list.
pub(in super::super) struct Encoded<'a> {
    pub pickle: Vec<u8>,
    /// Contents of each storage: whole elements of its type.
    pub storages: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Encoder<'a> {
    out: Emitter<'a>,
    storages: Vec<&'a [u8]>,
    keys: HashMap<(usize, DType), usize>,
}

/// Pickles `value`. The same value gives the same bytes.
pub(in super::super) fn encode(value: &Value) -> Result<Encoded<'_>, Error> {
    let mut encoder = Encoder::default();
    encoder.out.ops(&[opcode::PROTO, 2]);
    encoder.value(value, 0)?;
    encoder.out.op(opcode::STOP);
    Ok(Encoded { pickle: encoder.out.pickle, storages: encoder.storages })
}

impl<'a> Encoder<'a> {
    fn value(&mut self, value: &'a Value, depth: usize) -> Result<(), Error> {
        if depth > Limits::default().depth {
            return Err(Error::unwritable("a structure nested this deeply"));
        }
        match value {
            Value::None => self.out.op(opcode::NONE),
            Value::Bool(value) => self.out.bool(*value),
            Value::Int(value) => self.out.int(*value),
            Value::BigInt(bytes) => {
                let length = u8::try_from(bytes.len());
                let length = length.map_err(|_| Error::unwritable("an integer of more than 255 bytes"))?;
                self.out.ops(&[opcode::LONG1, length]);
                self.out.ops(bytes);
            }
            Value::Float(value) => {
                self.out.op(opcode::BINFLOAT);
                self.out.ops(&value.to_be_bytes());
            }
            Value::Str(text) => self.out.text(text)?,
            Value::Bytes(bytes) => {
                // Protocol 2 has no bytes; this is how Python itself writes them.
                self.out.global("_codecs", "encode");
                let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
                self.out.binunicode(&text)?;
                self.out.text("latin1")?;
                self.out.ops(&[opcode::TUPLE2, opcode::REDUCE]);
            }
            Value::List(items) => self.list(items, depth)?,
            Value::Tuple(items) => self.tuple(items, depth)?,
            Value::Set(items) => {
                self.out.global("__builtin__", "set");
                self.list(items, depth)?;
                self.out.ops(&[opcode::TUPLE1, opcode::REDUCE]);
            }
            Value::Dict(dict) => self.dict(dict, depth)?,
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Inert(object) => return Err(Error::unwritable(format!("an object of {}", object.class))),
        }
        Ok(())
    }

    fn list(&mut self, items: &'a [Value], depth: usize) -> Result<(), Error> {
        self.out.op(opcode::EMPTY_LIST);
        for batch in items.chunks(BATCH) {
            self.out.op(opcode::MARK);
            for item in batch {
                self.value(item, depth + 1)?;
            }
            self.out.op(opcode::APPENDS);
        }
        Ok(())
    }

    fn tuple(&mut self, items: &'a [Value], depth: usize) -> Result<(), Error> {
        if items.len() > 3 {
            self.out.op(opcode::MARK);
        }
        for item in items {
            self.value(item, depth + 1)?;
        }
        self.out.op(match items.len() {
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
            self.out.op(opcode::EMPTY_DICT);
        }
        let entries: Vec<_> = dict.iter().collect();
        for batch in entries.chunks(BATCH) {
            self.out.op(opcode::MARK);
            for (key, value) in batch {
                if matches!(key, Value::List(_) | Value::Dict(_) | Value::Set(_)) {
                    return Err(Error::unwritable(format!("a dictionary with {} as key", key.kind())));
                }
                self.value(key, depth + 1)?;
                self.value(value, depth + 1)?;
            }
            self.out.op(opcode::SETITEMS);
        }
        match &dict.attributes {
            Some(_) if !dict.ordered => Err(Error::unwritable("a plain dictionary with attributes")),
            Some(attributes) => {
                self.value(attributes, depth + 1)?;
                self.out.op(opcode::BUILD);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    fn tensor(&mut self, tensor: &'a TensorData) -> Result<(), Error> {
        let element = tensor.dtype().size_bytes();
        self.out.global("torch._utils", "_rebuild_tensor_v2");
        self.out.op(opcode::MARK);
        self.storage(tensor.storage(), tensor.dtype())?;
        self.out.int((tensor.first_byte() / element) as i64);
        let mut stride = 1i64;
        let mut strides: Vec<i64> = Vec::new();
        for &size in tensor.shape().iter().rev() {
            strides.push(stride);
            stride = stride.saturating_mul(size.max(1) as i64);
        }
        strides.reverse();
        self.out.ints(tensor.shape().iter().map(|&size| size as i64));
        self.out.ints(strides.into_iter());
        self.out.bool(false);
        self.empty_ordered_dict();
        self.out.ops(&[opcode::TUPLE, opcode::REDUCE]);
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
        self.out.op(opcode::MARK);
        self.out.text("storage")?;
        self.out.global("torch", dtype.storage_class());
        if !self.out.recall(&Memo::Key(key)) {
            self.out.binunicode(&key.to_string())?;
            self.out.remember(Memo::Key(key));
        }
        self.out.text("cpu")?;
        self.out.int(elements as i64);
        self.out.ops(&[opcode::TUPLE, opcode::BINPERSID]);
        Ok(())
    }

    fn empty_ordered_dict(&mut self) {
        self.out.global("collections", "OrderedDict");
        self.out.ops(&[opcode::EMPTY_TUPLE, opcode::REDUCE]);
    }
}
