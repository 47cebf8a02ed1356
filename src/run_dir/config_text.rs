//! Reads `config.yml` back: the block-style YAML that [`super::to_yaml`] writes,
//! with comment lines, empty lines and single quotes that a person may add.
//! Anchors, block scalars and flow mappings are not read; they are errors.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Number, Value};
use std::path::Path;
use std::str::Chars;

/// Levels that are read at most: a damaged file must not exhaust the stack.
const DEEPEST: usize = 32;

/// Reads `directory/config.yml`.
///
/// # Errors
/// The file cannot be read, or a line of it (named) is no such YAML.
pub fn read_config(directory: &Path) -> Result<Value> {
    let path = directory.join("config.yml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    from_yaml(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// The value that [`super::to_yaml`] wrote as `text`.
///
/// # Errors
/// A line that is no such YAML, by its number.
pub fn from_yaml(text: &str) -> Result<Value> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start_matches(' ');
        if !content.trim().is_empty() && !content.starts_with('#') {
            lines.push(Line { number: index + 1, indent: line.len() - content.len(), content: content.trim_end() });
        }
    }
    let mut reader = Reader { lines, at: 0 };
    let [first, rest @ ..] = reader.lines.as_slice() else { bail!("it is empty") };
    if rest.is_empty() && !first.is_item() && split_key(first.content).is_none() {
        return scalar(first.content).with_context(|| format!("line {}", first.number));
    }
    let value = reader.block(first.indent, 0)?;
    match reader.lines.get(reader.at) {
        None => Ok(value),
        Some(line) => bail!("line {}: unexpected indentation", line.number),
    }
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    content: &'a str,
}

impl Line<'_> {
    fn is_item(&self) -> bool {
        self.content == "-" || self.content.starts_with("- ")
    }
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

impl Reader<'_> {
    /// The mapping or the list whose lines stand at `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let first = self.lines[self.at];
        if depth > DEEPEST {
            bail!("line {}: nested deeper than {DEEPEST} levels", first.number);
        }
        if first.is_item() { self.list(indent, depth) } else { self.mapping(indent, depth) }
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut fields = Map::new();
        while let Some(line) = self.lines.get(self.at).copied().filter(|line| line.indent == indent) {
            let (key, rest) = split_key(line.content).with_context(|| format!("line {}: no key", line.number))?;
            self.at += 1;
            let value = if rest.is_empty() {
                self.below(indent, depth, line.number)?
            } else {
                scalar(rest).with_context(|| format!("line {}", line.number))?
            };
            if fields.insert(key, value).is_some() {
                bail!("line {}: a second value for one key", line.number);
            }
        }
        Ok(Value::Object(fields))
    }

    fn list(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        while let Some(line) = self.lines.get(self.at).copied().filter(|line| line.indent == indent && line.is_item()) {
            let rest = line.content[1..].trim_start();
            if rest.is_empty() {
                self.at += 1;
                items.push(self.below(indent, depth, line.number)?);
            } else if split_key(rest).is_some() {
                // The object begins behind the dash: read on as if it stood in a line of its own.
                let indent = line.indent + line.content.len() - rest.len();
                self.lines[self.at] = Line { indent, content: rest, ..line };
                items.push(self.mapping(indent, depth + 1)?);
            } else {
                self.at += 1;
                items.push(scalar(rest).with_context(|| format!("line {}", line.number))?);
            }
        }
        Ok(Value::Array(items))
    }

    /// What a line without a value of its own holds.
    fn below(&mut self, indent: usize, depth: usize, number: usize) -> Result<Value> {
        match self.lines.get(self.at) {
            Some(next) if next.indent > indent => {
                let deeper = next.indent;
                self.block(deeper, depth + 1)
            }
            _ => bail!("line {number}: nothing behind the key"),
        }
    }
}

/// `key: value` or `key:`; `None` for a plain value.
fn split_key(content: &str) -> Option<(String, &str)> {
    let (key, rest) = match content.chars().next()? {
        '"' | '\'' => quoted(content).ok()?,
        '[' | '{' => return None,
        _ => {
            let end = content.find(": ").or_else(|| content.ends_with(':').then(|| content.len() - 1))?;
            (content[..end].to_owned(), &content[end..])
        }
    };
    let rest = rest.strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| (key, rest.trim_start()))
}

/// A value that stands on one line.
fn scalar(text: &str) -> Result<Value> {
    if let Some(items) = text.strip_prefix('[') {
        return list_on_a_line(items);
    }
    if text.starts_with(['"', '\'']) {
        let (string, rest) = quoted(text)?;
        return if rest.is_empty() { Ok(Value::String(string)) } else { bail!("{rest:?} behind a string") };
    }
    Ok(match text {
        "null" | "~" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "{}" => Value::Object(Map::new()),
        _ if text.starts_with(['{', '&', '*', '|', '>', '!', '%', '@', '`']) => bail!("{text:?} is not understood"),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    })
}

/// The entries of a list behind its bracket.
fn list_on_a_line(mut rest: &str) -> Result<Value> {
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start();
        let length = match rest.starts_with(['"', '\'']) {
            true => rest.len() - quoted(rest)?.1.len(),
            false => rest.find([',', ']']).context("a list without its end")?,
        };
        let (item, behind) = rest.split_at(length);
        if !item.trim_end().is_empty() {
            items.push(scalar(item.trim_end())?);
        }
        rest = match behind.trim_start() {
            "]" => return Ok(Value::Array(items)),
            behind => behind.strip_prefix(',').context("a list without its end")?,
        };
    }
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

/// The string in quotes at the start of a text, and what follows. In double quotes YAML's escapes are understood.
fn quoted(text: &str) -> Result<(String, &str)> {
    let (mut string, mut chars) = (String::new(), text.chars());
    let quote = chars.next();
    loop {
        let c = chars.next().context("a string without its end")?;
        string.push(match c {
            _ if Some(c) == quote => return Ok((string, chars.as_str())),
            '\\' if quote == Some('"') => match chars.next() {
                Some(c @ ('"' | '\\' | '/')) => c,
                Some('n') => '\n',
                Some('t') => '\t',
                Some('x') => character(&mut chars, 2)?,
                Some('u') => character(&mut chars, 4)?,
                Some('U') => character(&mut chars, 8)?,
                other => bail!("the escape \\{} is not understood", other.unwrap_or(' ')),
            },
            c => c,
        });
    }
}

/// The character of a code of so many hexadecimal digits.
fn character(chars: &mut Chars, digits: usize) -> Result<char> {
    let hex: String = chars.take(digits).collect();
    let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits).and_then(char::from_u32);
    code.with_context(|| format!("\\...{hex} is no character"))
}

#[cfg(test)]
mod tests {
    use super::super::to_yaml;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back() {
        let config = json!({
            "job": { "pretrain": { "lr": 1e-6, "epochs": 4, "huge": 1e300, "negative": -3, "t": 0.07 } },
            "device": "cuda:0", "resume": null, "yes": true, "odd key: x": "a: b, \"c\" \\ # d",
            "control": "tab\t line\n bell\u{7} high \u{1f600} é",
            "mean": [0.5, 0.25], "words": ["a, b", "12", "null", "it's"], "none": {}, "empty": [],
            "long": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            "command": ["x", "--lr", "1e-3", "a: b", "", "-", "- x", "[", "{}", "k:", "o'k", "f", "g"],
            "runs": [{ "a": 1, "b": [], "c": { "d": [[1, 2], [3]] } }, "no", { "e": {} }],
        });
        assert_eq!(from_yaml(&to_yaml(&config)).unwrap(), config);
        for plain in [json!({}), json!("x"), json!(3), json!([1, 2]), json!([[1], [2]])] {
            assert_eq!(from_yaml(&to_yaml(&plain)).unwrap(), plain, "{plain}");
        }
    }

    #[test]
    fn damage_is_an_error_with_its_line() {
        for (text, expected) in [
            ("", "empty"),
            ("a: 1\nb", "line 2"),
            ("a: 1\n   b: 2\n", "line 2"),
            ("a:\nb: 1\n", "line 1"),
            ("a: \"torn\n", "line 1"),
            ("a: [1, 2\n", "line 1"),
            ("a: 1\na: 2\n", "line 2"),
            ("a: &x 1\n", "line 1"),
            ("a: \"\\q\"\n", "line 1"),
        ] {
            let error = format!("{:#}", from_yaml(text).unwrap_err());
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let deep: String = (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(from_yaml(&deep).is_err());
    }
}
