//! `config.yml`: everything resolved, as block-style YAML that people read and
//! PyYAML's `safe_load` turns into the same values.

use crate::config::{Evaluate, Pretrain, Settings};
use crate::durable;
use crate::files;
use crate::own::CONFIG_LINE;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Number, Value};
use std::io::Write;
use std::path::Path;

/// Writes `directory/config.yml` in one step: a comment with the command line that repeats the run, then `config`.
///
/// # Errors
/// The file cannot be written.
pub fn write_config(directory: &Path, config: &Value, command: &[String]) -> Result<()> {
    write(directory, config, "The same run again:", command)
}

/// The same, with `what` to say of the command line.
pub(super) fn write(directory: &Path, config: &Value, what: &str, command: &[String]) -> Result<()> {
    let (command, settings) = (shell_words(command), to_yaml(config));
    durable::replace(&directory.join("config.yml"), |file| {
        write!(file, "{CONFIG_LINE} {what}\n# {command}\n{settings}")?;
        Ok(())
    })
}

/// Reads `directory/config.yml`, as [`write_config`] or a person left it.
///
/// # Errors
/// The file cannot be read, or is no mapping in YAML, with the line; a setting that no run can have.
pub fn read_config(directory: &Path) -> Result<Value> {
    read_config_file(&directory.join("config.yml"))
}

/// The same of a file by any name.
///
/// # Errors
/// As [`read_config`].
pub fn read_config_file(path: &Path) -> Result<Value> {
    let text =
        files::read_text(path, files::SETTINGS_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    let settings = from_yaml(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let part = |name: &str| settings.pointer(name).unwrap_or(&Value::Null);
    Pretrain::in_range(part("/job/pretrain"))
        .and_then(|()| Evaluate::in_range(part("/job/evaluate")))
        .with_context(|| format!("{} cannot be a run's", path.display()))?;
    Ok(settings)
}

fn from_yaml(text: &str) -> Result<Value> {
    // Through the library's own type, which refuses a key that is there twice.
    let value = serde_json::to_value(serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text)?)?;
    ensure!(value.is_object(), "it holds no settings");
    Ok(value)
}

/// Block-style YAML of any JSON value.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => object(&mut out, fields, 0),
        Value::Array(items) if !fits_a_line(items) => array(&mut out, items, 0),
        _ => {
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
    out
}

fn object(out: &mut String, fields: &Map<String, Value>, indent: usize) {
    for (index, (key, value)) in fields.iter().enumerate() {
        // The first field of an array's object stands behind the dash.
        if index > 0 || !out.ends_with("- ") {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&text(key));
        out.push(':');
        nested(out, value, indent + 2);
    }
}

fn array(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        out.extend(std::iter::repeat_n(' ', indent));
        match item {
            Value::Object(fields) if !fields.is_empty() => {
                out.push_str("- ");
                object(out, fields, indent + 2);
            }
            _ => {
                out.push('-');
                nested(out, item, indent + 2);
            }
        }
    }
}

/// A value behind `key:` or `-`.
fn nested(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            object(out, fields, indent);
        }
        Value::Array(items) if !fits_a_line(items) => {
            out.push('\n');
            array(out, items, indent);
        }
        _ => {
            out.push(' ');
            out.push_str(&inline(value));
            out.push('\n');
        }
    }
}

/// Short lists of numbers and words stand on one line: `[0.5, 0.5, 0.5]`.
fn fits_a_line(items: &[Value]) -> bool {
    items.len() <= 8 && items.iter().all(|item| !item.is_object() && !item.is_array())
}

pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => self::number(number),
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(_) => "{}".into(),
    }
}

/// PyYAML wants a point in every float and a sign in every exponent: `1e-6` is a string to it, `1.0e-6` a number.
fn number(number: &Number) -> String {
    if number.is_i64() || number.is_u64() {
        return number.to_string();
    }
    let digits = format!("{:?}", number.as_f64().unwrap_or(f64::NAN));
    let Some((mantissa, exponent)) = digits.split_once('e') else { return digits };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// Bare where YAML 1.1 cannot take it for anything but this string, else in double quotes.
fn text(string: &str) -> String {
    const OTHER_MEANINGS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let begins_well = string.starts_with(|c: char| c.is_ascii_alphabetic() || "/_".contains(c));
    let plain = string.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-".contains(c));
    if begins_well && plain && !OTHER_MEANINGS.contains(&string.to_ascii_lowercase().as_str()) {
        return string.to_string();
    }
    let mut quoted = String::from('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(c),
            // What PyYAML's reader takes as printable, less the characters that break lines.
            '\u{a1}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' => {
                quoted.push(c)
            }
            _ if u32::from(c) <= 0xffff => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// A command line as a shell reads it back.
pub fn shell_words<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|word| shell_word(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A word as a POSIX shell (bash for control characters) reads it back.
fn shell_word(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/_.-=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.to_string();
    }
    if !word.chars().any(char::is_control) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    // A line break inside would end the comment.
    let escaped: String = word
        .chars()
        .map(|c| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("$'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_reads_well() {
        let config = json!({
            "dataset": "fashion_mnist_mini",
            "lr": 1e-6,
            "epochs": 4,
            "device": "cuda:0",
            "resume": null,
            "model": { "mean": [0.5, 0.5, 0.5], "head": { "layers": 2 }, "none": {} },
            "runs": [{ "a": 1, "b": [] }, "no"],
        });
        assert_eq!(
            to_yaml(&config),
            "dataset: fashion_mnist_mini\nlr: 1.0e-6\nepochs: 4\ndevice: \"cuda:0\"\nresume: null\n\
             model:\n  mean: [0.5, 0.5, 0.5]\n  head:\n    layers: 2\n  none: {}\n\
             runs:\n  - a: 1\n    b: []\n  - \"no\"\n"
        );
    }

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
        assert_eq!(
            from_yaml("# by a person\n\na: 'b'\nseed: 18446744073709551615").unwrap(),
            json!({"a": "b", "seed": u64::MAX})
        );
    }

    #[test]
    fn damage_is_an_error_with_its_line() {
        for (text, expected) in [
            ("", ""),
            ("# no more", ""),
            ("- 1", "no settings"),
            ("a: 1\nb", "line 2"),
            ("a: 1\n   b: 2\n", "line 2"),
            ("a: \"torn\n", "line"),
            ("a: [1, 2\n", "line"),
            ("a: 1\na: 2\n", "duplicate"),
            ("a: *x\n", "line 1"),
            ("a: \"\\q\"\n", "line 1"),
        ] {
            let error = format!("{:#}", from_yaml(text).unwrap_err());
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let deep: String = (0..1000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(from_yaml(&deep).is_err());
        for deep in [format!("a: {}", "[".repeat(20_000)), "- ".repeat(20_000), "{a: ".repeat(20_000)] {
            assert!(from_yaml(&deep).unwrap_err().to_string().contains("recursion limit"));
        }
    }

    #[test]
    fn what_no_run_can_have_is_named() {
        let place = tempfile::tempdir().unwrap();
        for (settings, expected) in [
            (json!({"job": {"pretrain": {"temperature": -1.0}}}), "temperature is -1.0; it has to be a number above 0"),
            (json!({"job": {"pretrain": {"model": {"head": {"layers": 4_000_000_000u32}}}}}), "from 1 to 64"),
            (json!({"job": {"evaluate": {"reg_weights": [0.0, -1.0]}}}), "reg_weights[1] is -1.0"),
        ] {
            std::fs::write(place.path().join("config.yml"), to_yaml(&settings)).unwrap();
            let error = format!("{:#}", read_config(place.path()).unwrap_err());
            assert!(error.contains("config.yml cannot be a run's: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn words_survive_the_shell() {
        for (word, quoted) in [
            ("--lr=0.6", "--lr=0.6"),
            ("my data", "'my data'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("a\nb'", r"$'a\u000ab\''"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(shell_word(word), quoted);
        }
    }
}
