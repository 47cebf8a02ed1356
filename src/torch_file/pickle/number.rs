//! Integers beyond a machine word, and the numbers that numpy pickles as a type and bytes.

use super::super::value::Value;

/// First object of a file that `torch.save` wrote before it used zip archives: 0x1950a86a20f9469cfc6c.
pub(in super::super) const MAGIC_LEGACY: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Python's integer (two's complement, little-endian, any length) where it fits.
pub(super) fn long_to_i64(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    if bytes.len() > 8 && bytes[8..].iter().any(|&byte| byte != fill) {
        return None;
    }
    let mut word = [fill; 8];
    let kept = bytes.len().min(8);
    word[..kept].copy_from_slice(&bytes[..kept]);
    let value = i64::from_le_bytes(word);
    ((value < 0) == negative).then_some(value)
}

/// The number of a numpy scalar: `code` such as `f8`, in the byte order `order`. `None` where it is no number.
pub(super) fn numpy_number(code: &str, order: &str, bytes: &[u8]) -> Option<Value> {
    let (kind, size) = (code.chars().next()?, code.get(1..)?.parse::<usize>().ok()?);
    if size != bytes.len() {
        return None;
    }
    let mut little = bytes.to_vec();
    if order == ">" {
        little.reverse();
    }
    match (kind, size) {
        ('b', 1) => Some(Value::Bool(little[0] != 0)),
        ('f', 2) => Some(Value::Float(half_to_f64(u16::from_le_bytes(*little.first_chunk()?)))),
        ('f', 4) => Some(Value::Float(f32::from_le_bytes(*little.first_chunk()?).into())),
        ('f', 8) => Some(Value::Float(f64::from_le_bytes(*little.first_chunk()?))),
        ('i', 1 | 2 | 4 | 8) => long_to_i64(&little).map(Value::Int),
        ('u', 1 | 2 | 4 | 8) => {
            little.push(0);
            Some(long_to_i64(&little).map_or(Value::BigInt(little), Value::Int))
        }
        _ => None,
    }
}

/// IEEE 754 half precision, exactly.
fn half_to_f64(bits: u16) -> f64 {
    let sign = if bits & 0x8000 != 0 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_length() {
        assert_eq!(long_to_i64(&[]), Some(0));
        assert_eq!(long_to_i64(&[0xff]), Some(-1));
        assert_eq!(long_to_i64(&[0xff, 0]), Some(255));
        assert_eq!(long_to_i64(&i64::MIN.to_le_bytes()), Some(i64::MIN));
        assert_eq!(long_to_i64(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0]), None);
        assert_eq!(long_to_i64(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff]), Some(i64::MIN));
        assert_eq!(long_to_i64(&[0xff; 9]), Some(-1));
        assert_eq!(long_to_i64(&MAGIC_LEGACY), None);
    }

    #[test]
    fn numpy_numbers() {
        assert_eq!(numpy_number("f8", "<", &1.5f64.to_le_bytes()), Some(Value::Float(1.5)));
        assert_eq!(numpy_number("f4", ">", &1.5f32.to_be_bytes()), Some(Value::Float(1.5)));
        assert_eq!(numpy_number("f2", "<", &0x3e00u16.to_le_bytes()), Some(Value::Float(1.5)));
        assert_eq!(numpy_number("f2", "<", &0x8001u16.to_le_bytes()), Some(Value::Float(-(2f64.powi(-24)))));
        assert_eq!(numpy_number("i8", "<", &(-3i64).to_le_bytes()), Some(Value::Int(-3)));
        assert_eq!(numpy_number("u1", "|", &[200]), Some(Value::Int(200)));
        let large = [u64::MAX.to_le_bytes().as_slice(), &[0]].concat();
        assert_eq!(numpy_number("u8", "<", &u64::MAX.to_le_bytes()), Some(Value::BigInt(large)));
        assert_eq!(numpy_number("b1", "|", &[1]), Some(Value::Bool(true)));
        assert_eq!(numpy_number("f8", "<", &[0; 4]), None);
        assert_eq!(numpy_number("M8", "<", &[0; 8]), None);
        assert_eq!(numpy_number("é8", "<", &[0; 8]), None);
    }
}
