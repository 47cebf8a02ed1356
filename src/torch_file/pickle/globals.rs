//! The names that a checkpoint may mention, and what each of them means.

use super::super::dtype::DType;
use super::super::error::Error;

/// A class or function on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch.FloatStorage` and its kin; the elements' type.
    TypedStorage(DType),
    /// `torch.float32` and its kin.
    DType(DType),
    /// (storage, offset, size, stride, ...): `_rebuild_tensor` and `_rebuild_tensor_v2`.
    RebuildTensor,
    /// (tensor, requires_grad, hooks, ...).
    RebuildParameter,
    /// (function, class, arguments, state): a tensor with attributes of its own.
    RebuildFromType,
    /// `torch.Tensor` and `torch.nn.Parameter`, named by the function above.
    TensorClass,
    OrderedDict,
    /// `dict`, `Counter`: from nothing or another dictionary.
    Dict,
    /// (factory): a dictionary here.
    DefaultDict,
    /// `set` and `frozenset`, from a list.
    Set,
    /// `list` and `deque`, from nothing or a list.
    List,
    /// `tuple` and `torch.Size`.
    Tuple,
    /// (text, "latin1"): how bytes are pickled by protocol 2.
    Encode,
    /// `bytes` and `bytearray`.
    Bytes,
    /// (dtype, bytes).
    NumpyScalar,
    /// (class, base, state): an object of protocol 1.
    Reconstructor,
    /// A class or function that holds data; objects of it are kept and never run.
    Inert,
}

/// Names kept inert, by module.
const INERT: [(&str, &[&str]); 14] = [
    ("argparse", &["Namespace"]),
    ("types", &["SimpleNamespace"]),
    ("pathlib", &["Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"]),
    ("pathlib._local", &["Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"]),
    ("datetime", &["date", "datetime", "time", "timedelta", "timezone"]),
    ("decimal", &["Decimal"]),
    ("builtins", &["object", "complex", "slice", "range", "int", "float", "str", "bool"]),
    ("torch", &["device", "strided", "contiguous_format", "channels_last", "preserve_format"]),
    ("torch.serialization", &["_get_layout"]),
    ("numpy", &["ndarray", "dtype"]),
    ("numpy.core.multiarray", &["_reconstruct"]),
    ("numpy._core.multiarray", &["_reconstruct"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
];

/// Looks a name up; names outside the list are refused.
pub(super) fn lookup(module: &str, name: &str) -> Result<Global, Error> {
    // Protocol 2 uses the module names of Python 2.
    let module = match module {
        "__builtin__" => "builtins",
        "copy_reg" => "copyreg",
        other => other,
    };
    Ok(match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
        // Sparse, quantised, meta and nested tensors; version 3 serves unsigned integers and 8-bit floats.
        ("torch._utils", other) if other.starts_with("_rebuild_") => {
            return Err(unsupported_type(&format!("torch._utils.{other}")));
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Global::TensorClass,
        ("torch", "Size") | ("builtins", "tuple") => Global::Tuple,
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("collections", "Counter") | ("builtins", "dict") => Global::Dict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("collections", "deque") | ("builtins", "list") => Global::List,
        ("builtins", "set" | "frozenset") => Global::Set,
        ("builtins", "bytes" | "bytearray") => Global::Bytes,
        ("_codecs", "encode") => Global::Encode,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("copyreg", "_reconstructor") => Global::Reconstructor,
        ("torch" | "torch.cuda", class) if class.ends_with("Storage") => match DType::from_storage_class(class) {
            Some(dtype) => Global::TypedStorage(dtype),
            None => return Err(unsupported_type(&format!("torch.{class}"))),
        },
        ("torch", name) if DType::from_name(name).is_some() => {
            Global::DType(DType::from_name(name).expect("just seen"))
        }
        // Every dtype of PyTorch has a name of this form; the tensors of these types are not read.
        ("torch", name) if ["uint", "int", "float", "complex", "quint", "qint"].iter().any(|p| is_sized(name, p)) => {
            return Err(unsupported_type(&format!("torch.{name}")));
        }
        _ if INERT.iter().any(|row| row.0 == module && row.1.contains(&name)) => Global::Inert,
        _ => return Err(Error::refused(&format!("{module}.{name}"))),
    })
}

fn is_sized(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

pub(super) fn unsupported_type(name: &str) -> Error {
    let advice = "Convert such tensors in Python (`tensor.to_dense()`, `.float()`, `.long()`) and save again";
    Error::unsupported(format!("a tensor of {name}"), advice)
}
