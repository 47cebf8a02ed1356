//! Element types of tensors and their names in PyTorch.

/// Element type of a tensor. Complex, quantised and 8-bit float types are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    U8,
    I8,
    I16,
    I32,
    I64,
    Bool,
}

/// Type, name of the storage class in `torch`, and name of the dtype in `torch`.
const NAMES: [(DType, &str, &str); 10] = [
    (DType::F32, "FloatStorage", "float32"),
    (DType::F64, "DoubleStorage", "float64"),
    (DType::F16, "HalfStorage", "float16"),
    (DType::BF16, "BFloat16Storage", "bfloat16"),
    (DType::U8, "ByteStorage", "uint8"),
    (DType::I8, "CharStorage", "int8"),
    (DType::I16, "ShortStorage", "int16"),
    (DType::I32, "IntStorage", "int32"),
    (DType::I64, "LongStorage", "int64"),
    (DType::Bool, "BoolStorage", "bool"),
];

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            DType::U8 | DType::I8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// The name of the dtype in Python without `torch.`, such as `float32`.
    pub fn name(self) -> &'static str {
        self.names().2
    }

    /// The storage class that `torch.save` names, such as `FloatStorage`.
    pub(super) fn storage_class(self) -> &'static str {
        self.names().1
    }

    pub(super) fn from_storage_class(class: &str) -> Option<DType> {
        NAMES.iter().find(|row| row.1 == class).map(|row| row.0)
    }

    pub(super) fn from_name(name: &str) -> Option<DType> {
        NAMES.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    fn names(self) -> &'static (DType, &'static str, &'static str) {
        NAMES.iter().find(|row| row.0 == self).expect("every element type has its row")
    }
}
