//! Reads `config.yml` back: the block-style YAML that [`super::to_yaml`] writes,
//! with comment lines, empty lines and single quotes that a person may add.
//! Anchors, block scalars and flow mappings are not read; they are errors.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Number, Value};
use std::path::Path;

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
            let context = || format!("line {}", line.number);
            let (key, rest) = split_key(line.content).with_context(|| format!("line {}: no key", line.number))?;
            let key = match scalar(key).with_context(context)? {
                Value::String(key) => key,
                other => other.to_string(),
            };
            self.at += 1;
            let value = if rest.is_empty() {
                self.below(indent, depth, line.number)?
            } else {
                scalar(rest).with_context(context)?
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
fn split_key(content: &str) -> Option<(&str, &str)> {
    let end = match content.chars().next()? {
        quote @ ('"' | '\'') => 1 + closing(&content[1..], quote)? + 1,
        '[' | '{' => return None,
        _ => content.find(": ").or_else(|| content.ends_with(':').then(|| content.len() - 1))?,
    };
    let rest = content[end..].strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| (&content[..end], rest.trim_start()))
}

/// The place of the quote that ends a string.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn scalar(text: &str) -> Result<Value> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').context("a list without its end")?;
        return pieces(inner).into_iter().map(scalar).collect::<Result<_>>().map(Value::Array);
    }
    if text.starts_with('"') {
        return string(text).map(Value::String);
    }
    if let Some(inner) = text.strip_prefix('\'') {
        let end = closing(inner, '\'').filter(|end| end + 1 == inner.len()).context("a string without its end")?;
        return Ok(Value::String(inner[..end].to_owned()));
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

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
    whole.ok().or_else(|| Number::from_f64(text.parse().ok()?))
}

/// The entries of a list on one line, split at the commas outside strings.
fn pieces(inner: &str) -> Vec<&str> {
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(c) = inner[at..].chars().next() {
        at += match c {
            '"' | '\'' => closing(&inner[at + 1..], c).map_or(1, |end| end + 2),
            ',' => {
                found.push(inner[start..at].trim());
                start = at + 1;
                1
            }
            c => c.len_utf8(),
        };
    }
    found.push(inner[start..].trim());
    found.retain(|piece| !piece.is_empty());
    found
}

/// A string in double quotes with YAML's escapes.
fn string(text: &str) -> Result<String> {
    let inner = &text[1..];
    let end = closing(inner, '"').filter(|end| end + 1 == inner.len()).context("a string without its end")?;
    let (mut out, mut chars) = (String::new(), inner[..end].chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let digits = match chars.next() {
            Some(c @ ('"' | '\\' | '/')) => {
                out.push(c);
                continue;
            }
            Some('n') => {
                out.push('\n');
                continue;
            }
            Some('t') => {
                out.push('\t');
                continue;
            }
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            other => bail!("the escape \\{} is not understood", other.unwrap_or(' ')),
        };
        let hex: String = chars.by_ref().take(digits).collect();
        let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits).and_then(char::from_u32);
        out.push(code.with_context(|| format!("\\...{hex} is no character"))?);
    }
    Ok(out)
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
