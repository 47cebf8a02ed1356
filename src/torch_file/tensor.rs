//! Tensors as bytes: contiguous, row-major, little-endian.

use super::dtype::DType;
use std::fmt;
use std::sync::Arc;

/// Memory that several tensors may share, as `torch.Storage` does. Cloning shares it.
#[derive(Clone)]
pub struct Storage(Arc<Vec<u8>>);

impl Storage {
    /// Takes the bytes over without copying them.
    pub fn new(bytes: Vec<u8>) -> Storage {
        Storage(Arc::new(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether both are the same memory, not merely equal bytes.
    pub fn is_same(&self, other: &Storage) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The same for clones of one storage, different for any two others alive.
    pub(super) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// A tensor as data. Two tensors are equal when type, shape and bytes are (so a NaN equals itself).
#[derive(Clone)]
pub struct TensorData {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
    first_byte: usize,
}

impl TensorData {
    /// A tensor that owns its `bytes`: row-major, little-endian.
    ///
    /// # Panics
    /// Where `bytes` has not exactly the length that `dtype` and `shape` ask for.
    pub fn new(dtype: DType, shape: impl Into<Vec<usize>>, bytes: Vec<u8>) -> TensorData {
        let length = bytes.len();
        let tensor = TensorData::view(dtype, shape, Storage::new(bytes), 0);
        assert_eq!(tensor.size_bytes(), length, "bytes against {dtype:?} of shape {:?}", tensor.shape);
        tensor
    }

    /// A tensor over a part of `storage`, starting at `first_byte`. Tensors that share a storage are written once.
    ///
    /// # Panics
    /// Where the tensor would reach past the storage, or does not start on a whole element.
    pub fn view(dtype: DType, shape: impl Into<Vec<usize>>, storage: Storage, first_byte: usize) -> TensorData {
        let tensor = TensorData { dtype, shape: shape.into(), storage, first_byte };
        assert!(first_byte.is_multiple_of(dtype.size_bytes()), "byte {first_byte} splits an element of {dtype:?}");
        assert!(
            first_byte.checked_add(tensor.size_bytes()).is_some_and(|end| end <= tensor.storage.bytes().len()),
            "{dtype:?} of shape {:?} at byte {first_byte} exceeds its storage",
            tensor.shape
        );
        tensor
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    fn size_bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }

    /// The elements: row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.first_byte..self.first_byte + self.size_bytes()]
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Where the tensor starts in its storage.
    pub fn first_byte(&self) -> usize {
        self.first_byte
    }
}

impl PartialEq for TensorData {
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor({} {:?})", self.dtype.name(), self.shape)
    }
}
