//! Bytes of a pickle to operations, one at a time. Strings and byte strings stay where they are.

use super::super::error::Error;
use super::opcode;

/// What one opcode asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op<'a> {
    /// Protocol and frame lengths: nothing to do.
    Skip,
    Stop,
    Mark,
    Pop,
    PopMark,
    Dup,
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian.
    Long(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// `str` of Python 2: text if it is UTF-8.
    OldText(&'a [u8]),
    EmptyList,
    EmptyDict,
    EmptySet,
    /// The last `n` items.
    TupleOf(usize),
    TupleFromMark,
    ListFromMark,
    DictFromMark,
    FrozenSetFromMark,
    Append,
    Appends,
    SetItem,
    SetItems,
    AddItems,
    Global(&'a str, &'a str),
    StackGlobal,
    Reduce,
    NewObject,
    NewObjectEx,
    Build,
    PersistentId,
    Put(u32),
    Get(u32),
    Memoize,
}

/// Reads operations from a pickle.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Decoder { bytes, at: 0 }
    }

    /// The next operation.
    pub(super) fn next(&mut self) -> Result<Op<'a>, Error> {
        let code = self.fixed::<1>()?[0];
        Ok(match code {
            opcode::PROTO => match self.fixed::<1>()?[0] {
                0..=5 => Op::Skip,
                newer => {
                    let advice = "Save it again with `torch.save(..., pickle_protocol=2)`";
                    return Err(Error::unsupported(format!("pickle protocol {newer}"), advice));
                }
            },
            opcode::FRAME => {
                self.fixed::<8>()?;
                Op::Skip
            }
            opcode::STOP => Op::Stop,
            opcode::MARK => Op::Mark,
            opcode::POP => Op::Pop,
            opcode::POP_MARK => Op::PopMark,
            opcode::DUP => Op::Dup,
            opcode::NONE => Op::None,
            opcode::NEWTRUE => Op::Bool(true),
            opcode::NEWFALSE => Op::Bool(false),
            opcode::BININT => Op::Int(i32::from_le_bytes(self.fixed()?).into()),
            opcode::BININT1 => Op::Int(self.fixed::<1>()?[0].into()),
            opcode::BININT2 => Op::Int(u16::from_le_bytes(self.fixed()?).into()),
            opcode::LONG1 => Op::Long(self.sized::<1>()?),
            opcode::LONG4 => Op::Long(self.sized::<4>()?),
            opcode::BINFLOAT => Op::Float(f64::from_be_bytes(self.fixed()?)),
            opcode::BINUNICODE => Op::Text(self.text::<4>()?),
            opcode::SHORT_BINUNICODE => Op::Text(self.text::<1>()?),
            opcode::BINUNICODE8 => Op::Text(self.text::<8>()?),
            opcode::SHORT_BINBYTES => Op::Bytes(self.sized::<1>()?),
            opcode::BINBYTES => Op::Bytes(self.sized::<4>()?),
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => Op::Bytes(self.sized::<8>()?),
            opcode::SHORT_BINSTRING => Op::OldText(self.sized::<1>()?),
            opcode::BINSTRING => Op::OldText(self.sized::<4>()?),
            opcode::EMPTY_LIST => Op::EmptyList,
            opcode::EMPTY_DICT => Op::EmptyDict,
            opcode::EMPTY_SET => Op::EmptySet,
            opcode::EMPTY_TUPLE => Op::TupleOf(0),
            opcode::TUPLE1 => Op::TupleOf(1),
            opcode::TUPLE2 => Op::TupleOf(2),
            opcode::TUPLE3 => Op::TupleOf(3),
            opcode::TUPLE => Op::TupleFromMark,
            opcode::LIST => Op::ListFromMark,
            opcode::DICT => Op::DictFromMark,
            opcode::FROZENSET => Op::FrozenSetFromMark,
            opcode::APPEND => Op::Append,
            opcode::APPENDS => Op::Appends,
            opcode::SETITEM => Op::SetItem,
            opcode::SETITEMS => Op::SetItems,
            opcode::ADDITEMS => Op::AddItems,
            opcode::GLOBAL => Op::Global(self.line()?, self.line()?),
            opcode::STACK_GLOBAL => Op::StackGlobal,
            opcode::REDUCE => Op::Reduce,
            opcode::NEWOBJ => Op::NewObject,
            opcode::NEWOBJ_EX => Op::NewObjectEx,
            opcode::BUILD => Op::Build,
            opcode::BINPERSID => Op::PersistentId,
            opcode::BINPUT => Op::Put(self.fixed::<1>()?[0].into()),
            opcode::LONG_BINPUT => Op::Put(u32::from_le_bytes(self.fixed()?)),
            opcode::BINGET => Op::Get(self.fixed::<1>()?[0].into()),
            opcode::LONG_BINGET => Op::Get(u32::from_le_bytes(self.fixed()?)),
            opcode::MEMOIZE => Op::Memoize,
            other => return Err(Error::damaged(format!("opcode {other:#04x}, which torch.save does not write"))),
        })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(Error::damaged(format!("{length} bytes are needed here and {} are left", rest.len()))),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    /// Bytes behind their length, which takes `N` bytes.
    fn sized<const N: usize>(&mut self) -> Result<&'a [u8], Error> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.fixed::<N>()?);
        self.take(u64::from_le_bytes(length))
    }

    fn text<const N: usize>(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.sized::<N>()?).map_err(|_| Error::damaged("a string is not UTF-8"))
    }

    /// Text up to the end of the line, as the opcode for globals has it.
    fn line(&mut self) -> Result<&'a str, Error> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| Error::damaged("the name of a class has no end"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| Error::damaged("the name of a class is not UTF-8"))
    }
}
