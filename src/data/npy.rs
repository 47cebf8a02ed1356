//! The header of a NumPy array (`.npy`): magic number, version, and a Python dictionary of its type, order and shape.

/// An array without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// As NumPy spells it: `|u1`, `<i8`.
    pub dtype: String,
    pub shape: Vec<usize>,
}

/// Longest header; NumPy itself refuses longer ones.
const MOST_BYTES: usize = 10_000;

/// The array that `bytes` begin with, and where its elements begin.
///
/// The error says what is wrong; the caller names the file.
pub fn header(bytes: &[u8]) -> Result<(Array, usize), String> {
    let cut = || "its header is cut short".to_owned();
    let version = bytes.strip_prefix(b"\x93NUMPY").ok_or("it is no NumPy array")?;
    let (length, begins) = match version {
        [1, 0, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        [2 | 3, 0, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        [major, minor, ..] => return Err(format!("it has the format {major}.{minor} of NumPy, and up to 3.0 is read")),
        _ => return Err(cut()),
    };
    if length > MOST_BYTES {
        return Err(format!("its header has {length} bytes, and {MOST_BYTES} are read"));
    }
    let text = bytes.get(begins..begins + length).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is no text")?;
    let value = |key: &str| {
        let (_, behind) = text.split_once(&format!("'{key}'"))?;
        behind.trim_start().strip_prefix(':').map(str::trim_start)
    };
    let broken = |key: &str| format!("its header has no {key} that is understood: {}", text.trim());
    let descr = value("descr").and_then(|behind| behind.strip_prefix('\'')?.split_once('\''));
    let dtype = descr.ok_or_else(|| broken("type"))?.0.to_owned();
    match value("fortran_order") {
        Some(order) if order.starts_with("False") => {}
        Some(order) if order.starts_with("True") => {
            return Err("it lies column by column (Fortran order); save it with numpy.ascontiguousarray".to_owned());
        }
        _ => return Err(broken("order")),
    }
    let shape = value("shape").and_then(|behind| behind.strip_prefix('(')?.split_once(')'));
    let sides = shape.ok_or_else(|| broken("shape"))?.0.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Result<Vec<usize>, _> = sides.map(str::parse).collect();
    Ok((Array { dtype, shape: shape.map_err(|_| broken("shape"))? }, begins + length))
}

impl Array {
    /// Bytes of an element, of the types that are read.
    fn element_bytes(&self) -> Result<usize, String> {
        match self.dtype.as_str() {
            "|u1" | "|i1" | "|b1" => Ok(1),
            "<u2" | "<i2" => Ok(2),
            "<u4" | "<i4" => Ok(4),
            "<u8" | "<i8" => Ok(8),
            other => Err(format!("its type is {other}; whole numbers in the order of x86 are read ('|u1', '<i8')")),
        }
    }

    /// Refuses another number of bytes than the header asks for.
    pub fn check_length(&self, bytes: usize) -> Result<(), String> {
        let element = self.element_bytes()?;
        let needed = self.shape.iter().try_fold(element, |product, &side| product.checked_mul(side));
        match needed {
            Some(needed) if needed == bytes => Ok(()),
            _ => Err(format!("its header asks for {:?} of {}, and it has {bytes} bytes", self.shape, self.dtype)),
        }
    }

    /// The elements, of a type of whole numbers.
    pub fn whole_numbers(&self, bytes: &[u8]) -> Result<Vec<i64>, String> {
        let signed = self.dtype.as_bytes().get(1) == Some(&b'i');
        let size = self.element_bytes()?;
        let number = |element: &[u8]| {
            let negative = signed && element[size - 1] & 0x80 != 0;
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..size].copy_from_slice(element);
            // Beyond the largest i64 it is negative, which no label is.
            i64::from_le_bytes(wide)
        };
        Ok(bytes.chunks_exact(size).map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes
    }

    #[test]
    fn headers_are_read_as_numpy_writes_them() {
        let bytes = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }          \n");
        let (array, begins) = header(&bytes).unwrap();
        assert_eq!((array.dtype.as_str(), &array.shape[..], begins), ("|u1", &[3, 28, 28][..], bytes.len()));
        assert!(array.check_length(3 * 28 * 28).is_ok() && array.check_length(3 * 28 * 28 - 1).is_err());
        let (array, _) = header(&npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }\n")).unwrap();
        assert_eq!(array.whole_numbers(&[254, 255, 1, 1]).unwrap(), [-2, 257]);
        let (array, _) = header(&npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }\n")).unwrap();
        assert_eq!(array.whole_numbers(&[255; 8]).unwrap(), [-1]);
    }

    #[test]
    fn hostile_headers_are_errors() {
        for (text, expected) in [
            ("{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }", "Fortran"),
            ("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,), }", "no type"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (-3,), }", "no shape"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999,), }", "no shape"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (3", "no shape"),
            ("{}", "no type"),
        ] {
            let error = header(&npy(text)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for bytes in [&b"PK"[..], b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"\x93NUMPY\x02\x00\xff\xff\xff\xff"] {
            assert!(header(bytes).is_err());
        }
        let (array, _) =
            header(&npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 16), }")).unwrap();
        assert!(array.check_length(0).is_err(), "the product is beyond 64 bits");
        let (array, _) = header(&npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")).unwrap();
        assert!(array.check_length(8).unwrap_err().contains("|O") && array.whole_numbers(&[]).is_err());
    }
}
