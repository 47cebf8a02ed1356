//! The only functions known to the machine: those by which numpy stores an array.

use super::Value;
use super::machine::Machine;
use std::ops::Range;

/// Bytes of the name of a function and its module.
const MAX_NAME: usize = 200;

impl Machine<'_> {
    /// What the known functions would return; none is called.
    pub(super) fn reduce(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Global(name) = &self.pickle.values[function] else { return Err("a call of no function".into()) };
        let Value::List(arguments) = &self.pickle.values[arguments] else {
            return Err("a call without arguments".into());
        };
        let value = match (name.as_str(), arguments.first()) {
            ("numpy.core.multiarray _reconstruct" | "numpy._core.multiarray _reconstruct", _) => Value::EmptyArray,
            ("numpy dtype", Some(&kind)) => Value::Dtype(kind),
            // How protocols below 3 spell byte strings: text that stands for Latin-1.
            ("_codecs encode", Some(&text)) => {
                let text = self.pickle.bytes(text).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
                let bytes: Result<Vec<u8>, _> = text.chars().map(|c| u8::try_from(u32::from(c))).collect();
                Value::Bytes(bytes.map_err(|_| "text that is no Latin-1")?)
            }
            (name, _) => return Err(format!("it asks for {name:?}, and nothing is executed")),
        };
        self.push(value)
    }

    /// Sets the state of an array: (version, shape, dtype, column-major?, bytes). A dtype's own state is of no interest.
    pub(super) fn build(&mut self) -> Result<(), String> {
        let (state, target) = (self.pop()?, self.top()?);
        if !matches!(self.pickle.values[target], Value::EmptyArray) {
            let harmless = matches!(self.pickle.values[target], Value::Dtype(_));
            return if harmless { Ok(()) } else { Err("a state for something other than an array".into()) };
        }
        let Value::List(state) = &self.pickle.values[state] else { return Err("an array without a state".into()) };
        let &[_, shape, dtype, column_major, bytes] = state.as_slice() else {
            return Err("an array's state of unknown form".into());
        };
        let Value::Dtype(kind) = self.pickle.values[dtype] else { return Err("an array without a type".into()) };
        if !matches!(self.pickle.bytes(kind), Some(b"u1" | b"|u1")) {
            return Err("an array of something other than bytes".into());
        }
        let shape = self.pickle.integers(shape).ok_or("an array without a shape")?;
        let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
        let shape = shape.map_err(|_| "an array with a negative side")?;
        let column_major = self.pickle.integer(column_major) == Some(1);
        self.pickle.values[target] = Value::Array { shape, column_major, bytes };
        Ok(())
    }

    /// A function or class, by the place of its module and name in the file.
    pub(super) fn global(&mut self, module: Range<usize>, name: Range<usize>) -> Result<(), String> {
        let text = |range| String::from_utf8_lossy(&self.pickle.file[range]).into_owned();
        if module.len() + name.len() > MAX_NAME {
            return Err("a function with an endless name".into());
        }
        let name = format!("{} {}", text(module), text(name));
        self.push(Value::Global(name))
    }
}
