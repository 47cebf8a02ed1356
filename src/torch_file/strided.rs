//! Strided views of a storage, checked against it and copied to row-major order where they are not in it.

use super::dtype::DType;
use super::error::Error;
use super::limits::Budget;
use super::tensor::{Storage, TensorData};

/// As many dimensions as PyTorch supports.
pub(super) const MAX_DIMENSIONS: usize = 64;

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
        let gather = match element {
            1 => gather::<1>,
            2 => gather::<2>,
            4 => gather::<4>,
            _ => gather::<8>,
        };
        let mut copy = Vec::with_capacity(bytes);
        gather(source, 0, &shape, &strides, &mut copy);
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

/// Appends the elements (of `E` bytes) of a strided view in row-major order; `start` is its first one. `shape` is not empty.
fn gather<const E: usize>(source: &[u8], start: usize, shape: &[usize], strides: &[usize], copy: &mut Vec<u8>) {
    let (elements, _) = source.as_chunks::<E>();
    let steps = (0..shape[0]).map(|step| start + step * strides[0]);
    if shape.len() == 1 {
        steps.for_each(|at| copy.extend_from_slice(&elements[at]));
    } else {
        steps.for_each(|at| gather::<E>(source, at, &shape[1..], &strides[1..], copy));
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::Limits;
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    /// Element by element: the index of every coordinate, summed.
    fn naive(view: &View, storage: &[u8]) -> Vec<u8> {
        let element = view.dtype.size_bytes();
        let count: u64 = view.shape.iter().product();
        let mut out = Vec::new();
        for flat in 0..count {
            let (mut rest, mut at) = (flat, view.first);
            for (&size, &stride) in view.shape.iter().zip(&view.strides).rev() {
                at += rest % size * stride;
                rest /= size;
            }
            out.extend(&storage[at as usize * element..(at as usize + 1) * element]);
        }
        out
    }

    #[test]
    fn views_agree_with_the_naive_copy() {
        let (mut inside, mut outside) = (0, 0);
        for round in 0..3000 {
            let mut random = ChaCha8Rng::seed_from_u64(round);
            let mut below = |limit: u64| random.next_u64() % limit;
            let dtype = [DType::U8, DType::F16, DType::F32, DType::I64][below(4) as usize];
            let end = 40;
            let bytes: Vec<u8> = (0..end as usize * dtype.size_bytes()).map(|_| below(256) as u8).collect();
            let dimensions = below(5);
            let shape: Vec<u64> = (0..dimensions).map(|_| below(5)).collect();
            let strides: Vec<u64> = (0..dimensions).map(|_| below(12)).collect();
            let view = View { dtype, first: below(20), end, shape, strides };
            let last = view.shape.iter().zip(&view.strides).map(|(size, stride)| size.saturating_sub(1) * stride);
            let fits = view.shape.contains(&0) || view.first + last.sum::<u64>() < end;
            let storage = Storage::new(bytes);
            let tensor = view.over(&storage, &mut Budget::new(&Limits::default(), 0));
            assert_eq!(tensor.is_ok(), fits, "{view:?}");
            match tensor {
                Ok(tensor) => {
                    assert_eq!(tensor.bytes(), naive(&view, storage.bytes()), "{view:?}");
                    inside += 1;
                }
                Err(_) => outside += 1,
            }
        }
        assert!(inside > 500 && outside > 100, "{inside} inside, {outside} outside");
    }

    #[test]
    fn sizes_of_one_may_have_any_stride() {
        let view = View { dtype: DType::U8, first: 1, end: 4, shape: vec![1, 3], strides: vec![u64::MAX, 1] };
        let storage = Storage::new(vec![0, 1, 2, 3]);
        let tensor = view.over(&storage, &mut Budget::new(&Limits::default(), 0)).unwrap();
        assert_eq!(tensor.bytes(), [1, 2, 3]);
        assert!(tensor.storage().is_same(&storage));
        let transposed = View { shape: vec![2, 1, 2], strides: vec![1, u64::MAX, 2], first: 0, ..view };
        let tensor = transposed.over(&storage, &mut Budget::new(&Limits::default(), 0)).unwrap();
        assert_eq!(tensor.bytes(), [0, 2, 1, 3]);
    }
}
