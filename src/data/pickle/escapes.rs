//! Strings as protocol 0 spells them.

/// A Python string literal in quotes: `'a\x00\n'`.
pub fn unescape(literal: &[u8]) -> Result<Vec<u8>, String> {
    let inner = match literal {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        _ => return Err("a string without quotes".into()),
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(&quoted @ (b'\\' | b'\'' | b'"')) => quoted,
            Some(b'x') => u8::try_from(hexadecimal(&mut rest, 2)?).map_err(|_| "a broken escape")?,
            _ => return Err("an unknown escape".into()),
        });
    }
    Ok(bytes)
}

/// Text in which only some characters are escaped, as `\u` or `\U`; the others are Latin-1.
pub fn unescape_text(line: &[u8]) -> Result<String, String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'\\' {
            text.push(char::from(byte));
            continue;
        }
        let digits = match rest.next() {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => return Err("an unknown escape".into()),
        };
        text.push(char::from_u32(hexadecimal(&mut rest, digits)?).ok_or("no character")?);
    }
    Ok(text)
}

fn hexadecimal(digits: &mut std::slice::Iter<'_, u8>, count: usize) -> Result<u32, String> {
    let digit = |_| digits.next().and_then(|&byte| char::from(byte).to_digit(16));
    Ok((0..count).map(digit).try_fold(0u32, |number, digit| Some(number << 4 | digit?)).ok_or("a broken escape")?)
}
