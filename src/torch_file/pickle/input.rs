//! The bytes of a pickle, taken from the front. What can stay where it is, stays; only the texts of protocol 0 are
//! decoded, each into about as many bytes as the file has for it.

use super::super::error::Error;
use std::borrow::Cow;

pub(super) struct Input<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0 }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(Error::damaged(format!("{length} bytes are needed here and {} are left", rest.len()))),
        }
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    /// An unsigned number of `N` bytes, little-endian.
    pub(super) fn number<const N: usize>(&mut self) -> Result<u64, Error> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(&self.fixed::<N>()?);
        Ok(u64::from_le_bytes(number))
    }

    /// Bytes behind their length, which takes `N` bytes.
    pub(super) fn sized<const N: usize>(&mut self) -> Result<&'a [u8], Error> {
        let length = self.number::<N>()?;
        self.take(length)
    }

    /// Text behind its length, which takes `N` bytes.
    pub(super) fn text<const N: usize>(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.sized::<N>()?).map_err(|_| Error::damaged("a string is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| Error::damaged("a line has no end"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    /// A line that is a name or a number in digits.
    pub(super) fn word(&mut self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.line()?).map_err(|_| Error::damaged("a name is not UTF-8"))
    }

    /// A line that is a string literal of Python's in quotes: `'a\x00\n'`.
    pub(super) fn literal(&mut self) -> Result<Cow<'a, [u8]>, Error> {
        let inner = match self.line()? {
            [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
            _ => return Err(Error::damaged("a string without quotes")),
        };
        if !inner.contains(&b'\\') {
            return Ok(inner.into());
        }
        // An escape of two digits is a byte, as every other letter is.
        Ok(unescaped(inner, true)?.chars().map(|letter| u32::from(letter) as u8).collect())
    }

    /// A line of text in which some characters are escaped, as `\u` or `\U`; the others are Latin-1.
    pub(super) fn escaped(&mut self) -> Result<Cow<'a, str>, Error> {
        let line = self.line()?;
        match std::str::from_utf8(line) {
            Ok(plain) if plain.is_ascii() && !plain.contains('\\') => Ok(plain.into()),
            _ => Ok(unescaped(line, false)?.into()),
        }
    }
}

/// The letters of a line in Latin-1, with the escapes of a literal, or with those of a text.
fn unescaped(line: &[u8], literal: bool) -> Result<String, Error> {
    let (mut text, mut rest) = (String::with_capacity(line.len()), line.iter().map(|&byte| char::from(byte)));
    while let Some(letter) = rest.next() {
        text.push(match letter {
            '\\' => match (rest.next(), literal) {
                (Some('n'), true) => '\n',
                (Some('r'), true) => '\r',
                (Some('t'), true) => '\t',
                (Some(quoted @ ('\\' | '\'' | '"')), true) => quoted,
                (Some('x'), true) => of_code(&mut rest, 2)?,
                (Some('u'), false) => of_code(&mut rest, 4)?,
                (Some('U'), false) => of_code(&mut rest, 8)?,
                _ => return Err(Error::damaged("an unknown escape")),
            },
            letter => letter,
        });
    }
    Ok(text)
}

/// The letter of a code of so many hexadecimal digits.
fn of_code(rest: &mut impl Iterator<Item = char>, digits: usize) -> Result<char, Error> {
    let code = (0..digits).try_fold(0, |code: u32, _| Some(code << 4 | rest.next()?.to_digit(16)?));
    code.and_then(char::from_u32).ok_or_else(|| Error::damaged("a broken escape"))
}
