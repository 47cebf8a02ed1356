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

/// Bytes of an element, name of the storage class in `torch`, and name of the dtype in `torch`.
const TYPES: [(DType, usize, &str, &str); 10] = [
    (DType::F32, 4, "FloatStorage", "float32"),
    (DType::F64, 8, "DoubleStorage", "float64"),
    (DType::F16, 2, "HalfStorage", "float16"),
    (DType::BF16, 2, "BFloat16Storage", "bfloat16"),
    (DType::U8, 1, "ByteStorage", "uint8"),
    (DType::I8, 1, "CharStorage", "int8"),
    (DType::I16, 2, "ShortStorage", "int16"),
    (DType::I32, 4, "IntStorage", "int32"),
    (DType::I64, 8, "LongStorage", "int64"),
    (DType::Bool, 1, "BoolStorage", "bool"),
];

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        self.row().1
    }

    /// The storage class that `torch.save` names, such as `FloatStorage`.
    pub(super) fn storage_class(self) -> &'static str {
        self.row().2
    }

    /// The name of the dtype in Python without `torch.`, such as `float32`.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    pub(super) fn from_storage_class(class: &str) -> Option<DType> {
        TYPES.iter().find(|row| row.2 == class).map(|row| row.0)
    }

    pub(super) fn from_name(name: &str) -> Option<DType> {
        TYPES.iter().find(|row| row.3 == name).map(|row| row.0)
    }

    fn row(self) -> &'static (DType, usize, &'static str, &'static str) {
        TYPES.iter().find(|row| row.0 == self).expect("every element type has its row")
    }
}
