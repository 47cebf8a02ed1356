//! libtorch's tensors to tensors as bytes, and back.

use crate::torch_file::{DType, TensorData};
use anyhow::{Context, Result, anyhow};
use tch::{Device, Kind, Tensor};

/// libtorch's and PyTorch's names of the same types.
const TYPES: [(Kind, DType); 10] = [
    (Kind::Float, DType::F32),
    (Kind::Double, DType::F64),
    (Kind::Half, DType::F16),
    (Kind::BFloat16, DType::BF16),
    (Kind::Uint8, DType::U8),
    (Kind::Int8, DType::I8),
    (Kind::Int16, DType::I16),
    (Kind::Int, DType::I32),
    (Kind::Int64, DType::I64),
    (Kind::Bool, DType::Bool),
];

/// A tensor's values as bytes, row-major whatever its layout in memory.
pub fn from_tensor(tensor: &Tensor) -> Result<TensorData> {
    let _guard = tch::no_grad_guard();
    let kind = tensor.f_kind()?;
    let (_, dtype) =
        TYPES.iter().find(|(k, _)| *k == kind).ok_or_else(|| anyhow!("{kind:?} tensors cannot be saved"))?;
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0u8; tensor.numel() * dtype.size_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
    Ok(TensorData::new(*dtype, shape, bytes))
}

/// A CPU tensor with a copy of the bytes.
pub fn to_tensor(data: &TensorData) -> Result<Tensor> {
    let (kind, _) = TYPES
        .iter()
        .find(|(_, dtype)| *dtype == data.dtype())
        .ok_or_else(|| anyhow!("{} tensors are not supported", data.dtype().name()))?;
    let shape: Vec<i64> = data.shape().iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(data.bytes(), &shape, *kind).context("libtorch refuses the tensor")
}
