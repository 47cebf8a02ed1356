//! Strided views of a storage, checked against it and copied to row-major order where they are not in it.

use super::dtype::DType;
use super::error::Error;
use super::limits::Budget;
use super::tensor::{Storage, TensorData};

/// More dimensions than PyTorch itself supports.
const MAX_DIMENSIONS: usize = 64;

/// A tensor as a pickle describes it. Offsets, sizes and strides count elements.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub dtype: DType,
    /// First element of the tensor in its storage.
    pub first: u64,
    /// End of the part of the storage that the tensor may use.
    pub end: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

impl View {
    /// Checks that every element lies inside the storage, for any claimed numbers.
    pub(super) fn check(&self) -> Result<(), Error> {
        let (shape, strides) = (&self.shape, &self.strides);
        if shape.len() != strides.len() || shape.len() > MAX_DIMENSIONS {
            return Err(Error::damaged(format!(
                "a tensor with {} sizes and {} strides (at most {MAX_DIMENSIONS})",
                shape.len(),
                strides.len()
            )));
        }
        if shape.contains(&0) {
            return Ok(());
        }
        let last = shape.iter().zip(strides).try_fold(self.first, |last, (&size, &stride)| {
            (size - 1).checked_mul(stride).and_then(|step| last.checked_add(step))
        });
        match last {
            Some(last) if last < self.end => Ok(()),
            _ => Err(Error::damaged(format!(
                "a tensor of shape {shape:?}, strides {strides:?}, offset {} reaches past the {} elements of its storage",
                self.first, self.end
            ))),
        }
    }

    /// The tensor over `storage`: shared where it is row-major already, else copied on the account of `budget`.
    pub(super) fn over(&self, storage: &Storage, budget: &mut Budget) -> Result<TensorData, Error> {
        self.check()?;
        let element = self.dtype.size_bytes();
        let too_large = || Error::damaged(format!("a tensor of shape {:?} exceeds the address space", self.shape));
        let shape = self.shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(too_large)?;
        // Sizes of 0 are left out, so that a product of the others that overflows is met whatever their order.
        let bytes =
            shape.iter().filter(|&&size| size > 0).try_fold(element, |product, &size| product.checked_mul(size));
        let bytes = bytes.ok_or_else(too_large)?;
        if shape.contains(&0) {
            return Ok(TensorData::view(self.dtype, shape, storage.clone(), 0));
        }
        let first_byte = usize::try_from(self.first).ok().and_then(|first| first.checked_mul(element));
        let first_byte = first_byte.ok_or_else(too_large)?;
        if self.is_row_major() {
            return Ok(TensorData::view(self.dtype, shape, storage.clone(), first_byte));
        }
        budget.take(bytes as u64)?;
        // A dimension of size 1 is never stepped along, whatever stride is claimed for it.
        let steps =
            self.shape.iter().zip(&self.strides).map(|(&size, &stride)| if size == 1 { 0 } else { stride as usize });
        let strides: Vec<usize> = steps.collect();
        let source = &storage.bytes()[first_byte..];
        let copy = match element {
            1 => gather::<1>(source, &shape, &strides, bytes),
            2 => gather::<2>(source, &shape, &strides, bytes),
            4 => gather::<4>(source, &shape, &strides, bytes),
            _ => gather::<8>(source, &shape, &strides, bytes),
        };
        Ok(TensorData::new(self.dtype, shape, copy))
    }

    /// Strides of dimensions of size 1 mean nothing.
    fn is_row_major(&self) -> bool {
        let mut expected = 1u64;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let matches = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            matches
        })
    }
}

/// The elements (of `E` bytes) of a strided view in row-major order. `shape` has no 0 and is not scalar row-major.
fn gather<const E: usize>(source: &[u8], shape: &[usize], strides: &[usize], bytes: usize) -> Vec<u8> {
    let (elements, _) = source.as_chunks::<E>();
    let mut copy = Vec::with_capacity(bytes);
    let inner = shape.len() - 1;
    let mut index = vec![0usize; inner];
    let mut start = 0;
    loop {
        for step in 0..shape[inner] {
            copy.extend_from_slice(&elements[start + step * strides[inner]]);
        }
        // The next row, as an odometer counts.
        let mut axis = inner;
        loop {
            if axis == 0 {
                return copy;
            }
            axis -= 1;
            index[axis] += 1;
            start += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            start -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}
