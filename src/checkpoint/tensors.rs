//! libtorch's tensors to tensors as bytes, and back.

use crate::state::StateDict;
use crate::torch_file::{DType, Dict, TensorData, Value};
use anyhow::{Context, Result, anyhow, bail};
use safetensors::Dtype;
use tch::{Device, Kind, Tensor};

/// The same types in libtorch, in PyTorch's files and in safetensors files.
pub(super) const TYPES: [(Kind, DType, Dtype); 10] = [
    (Kind::Float, DType::F32, Dtype::F32),
    (Kind::Double, DType::F64, Dtype::F64),
    (Kind::Half, DType::F16, Dtype::F16),
    (Kind::BFloat16, DType::BF16, Dtype::BF16),
    (Kind::Uint8, DType::U8, Dtype::U8),
    (Kind::Int8, DType::I8, Dtype::I8),
    (Kind::Int16, DType::I16, Dtype::I16),
    (Kind::Int, DType::I32, Dtype::I32),
    (Kind::Int64, DType::I64, Dtype::I64),
    (Kind::Bool, DType::Bool, Dtype::BOOL),
];

/// PyTorch's name of a libtorch type.
///
/// Errors: PyTorch files do not have it.
pub(super) fn dtype_of(kind: Kind) -> Result<DType> {
    let found = TYPES.iter().find(|row| row.0 == kind).map(|row| row.1);
    found.ok_or_else(|| anyhow!("{kind:?} tensors cannot be saved"))
}

/// A tensor's values as bytes, row-major whatever its layout in memory.
pub fn from_tensor(tensor: &Tensor) -> Result<TensorData> {
    let _guard = tch::no_grad_guard();
    let dtype = dtype_of(tensor.f_kind()?)?;
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0u8; tensor.numel() * dtype.size_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    Ok(TensorData::new(dtype, shape, bytes))
}

/// A CPU tensor with a copy of the bytes.
pub fn to_tensor(data: &TensorData) -> Result<Tensor> {
    let (kind, ..) = TYPES.iter().find(|row| row.1 == data.dtype()).expect("every type of a file has its row");
    let shape: Vec<i64> = data.shape().iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(data.bytes(), &shape, *kind).context("libtorch refuses the tensor")
}

/// What `Module.state_dict()` returns, with `prefix` before every name.
///
/// Errors: a tensor of a type that PyTorch files do not have.
pub(super) fn from_state(state: &StateDict, prefix: &str) -> Result<Value> {
    let mut tensors = Dict::ordered();
    for (name, tensor) in state.iter() {
        tensors.insert(format!("{prefix}{name}"), from_tensor(tensor)?);
    }
    Ok(Value::Dict(tensors))
}

/// Named tensors of a file, without the prefix that `torch.nn.DataParallel` puts before every name. `whole` is what they
/// are together.
///
/// Errors: no tensor; one name twice, with and without the prefix.
pub(super) fn to_state<'a>(whole: &str, tensors: impl Iterator<Item = Result<(&'a str, Tensor)>>) -> Result<StateDict> {
    let mut state = StateDict::new();
    for tensor in tensors {
        let (name, tensor) = tensor?;
        let short = name.strip_prefix("module.").unwrap_or(name);
        if state.get(short).is_some() {
            bail!("{short} is there with and without the prefix module.");
        }
        state.push(short, tensor);
    }
    if state.is_empty() {
        bail!("{whole} is empty");
    }
    Ok(state)
}

/// The first tensor below `value`, which is called `name`, that holds an infinite or undefined number.
pub(super) fn first_not_finite(name: &str, value: &Value) -> Option<String> {
    let within = |items: &[Value]| {
        items.iter().enumerate().find_map(|(place, item)| first_not_finite(&format!("{name}[{place}]"), item))
    };
    match value {
        Value::Tensor(tensor) => (!is_finite(tensor)).then(|| name.to_owned()),
        Value::Dict(entries) => entries.iter().find_map(|(key, entry)| {
            let key = key.as_str().map_or_else(|| key.as_int().unwrap_or_default().to_string(), str::to_owned);
            first_not_finite(&format!("{name}.{key}"), entry)
        }),
        Value::List(items) | Value::Tuple(items) => within(items),
        _ => None,
    }
}

/// Whether no number has an exponent of ones, which IEEE 754 gives to infinities and NaNs alone.
fn is_finite(tensor: &TensorData) -> bool {
    fn none_has<const BYTES: usize>(bytes: &[u8], ones: impl Fn([u8; BYTES]) -> bool) -> bool {
        // Without an early end, so that the loop runs in wide registers.
        !bytes.as_chunks::<BYTES>().0.iter().fold(false, |found, &number| found | ones(number))
    }
    let masked = |mask: u16| move |bytes| u16::from_le_bytes(bytes) & mask == mask;
    match tensor.dtype() {
        DType::F32 => none_has(tensor.bytes(), |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        DType::F64 => none_has(tensor.bytes(), |b| f64::from_le_bytes(b).to_bits() << 1 >= 0x7ff << 53),
        DType::F16 => none_has(tensor.bytes(), masked(0x7c00)),
        DType::BF16 => none_has(tensor.bytes(), masked(0x7f80)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_and_undefined_numbers_are_found_in_every_float_type() {
        for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
            let largest = if kind == Kind::Half { 65504.0 } else { 3.0e38 };
            let finite = [0.0, -0.0, 1.0, -largest, largest, 6e-8];
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let at = |numbers: &[f64]| {
                    let tensor = from_tensor(&Tensor::from_slice(numbers).to_kind(kind)).unwrap();
                    let mut entries = Dict::new();
                    entries.insert(7i64, Value::List(vec![Value::None, Value::Tensor(tensor)]));
                    first_not_finite("state", &Value::Dict(entries))
                };
                assert_eq!(at(&finite), None, "{kind:?}");
                let with_bad: Vec<f64> = finite.iter().copied().chain([bad, 2.0]).collect();
                assert_eq!(at(&with_bad).as_deref(), Some("state.7[1]"), "{kind:?} {bad}");
            }
        }
        let integers = from_tensor(&Tensor::from_slice(&[-1i64, i64::MAX])).unwrap();
        assert_eq!(first_not_finite("n", &Value::Tensor(integers)), None);
    }
}
