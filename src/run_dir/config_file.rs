//! `config.yml`: everything resolved, as block-style YAML that people read and
//! PyYAML's `safe_load` turns into the same values.

use super::Lineage;
use crate::config::{Evaluate, Pretrain, Settings, differences};
use crate::durable;
use crate::files;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Number, Value, json};
use std::io::Write;
use std::path::Path;

/// Writes `directory/config.yml` in one step: a comment with the command line that repeats the run, then `config`.
///
/// # Errors
/// The file cannot be written.
pub fn write_config(directory: &Path, config: &Value, command: &[String]) -> Result<()> {
    write(directory, config, "The same run again:", command)
}

fn write(directory: &Path, config: &Value, what: &str, command: &[String]) -> Result<()> {
    let words: Vec<String> = command.iter().map(|word| shell_word(word)).collect();
    let (command, settings) = (words.join(" "), to_yaml(config));
    durable::replace(&directory.join("config.yml"), |file| {
        write!(file, "# Every setting of this run, resolved. {what}\n# {command}\n{settings}")?;
        Ok(())
    })
}

/// What `config.yml` calls the run's [`Lineage`].
const LINEAGE: &str = "lineage";

/// [`write_config`] of a run that begins, and whose it is from now on.
///
/// # Errors
/// The file cannot be written.
pub fn write_run_config(directory: &Path, config: &Value, command: &[String], lineage: &Lineage) -> Result<()> {
    let mut config = config.clone();
    config[LINEAGE] = json!(lineage);
    write_config(directory, &config, command)
}

/// How a run is continued.
#[derive(Debug)]
pub struct Continuation<'a> {
    /// Everything resolved, as [`write_config`] takes it, with the command that continues.
    pub config: &'a Value,
    /// Flags of that command that change settings of the run: behind the command that began it they repeat the run.
    pub adopted: &'a [String],
    pub lineage: &'a Lineage,
    /// Steps done.
    pub after_step: u64,
    /// The directory that later checkpoints have been moved to.
    pub set_aside: Option<&'a str>,
}

/// Brings `directory/config.yml` up to date in one step, if the continued run differs from what it says: the settings, the
/// command that repeats the run, the lineage, and in `history` what has changed when. A file that cannot be understood is
/// kept beside the new one. The answer: the settings that have changed, in words.
///
/// # Errors
/// The file cannot be written.
pub fn amend_config(directory: &Path, now: &Continuation) -> Result<Vec<String>> {
    let path = directory.join("config.yml");
    let began = read_lineage(directory).and_then(|_| read_config(directory)).ok();
    if began.is_none() && path.exists() {
        std::fs::copy(&path, directory.join("config.yml.damaged"))
            .with_context(|| format!("cannot keep a copy of {}", path.display()))?;
    }
    let settings = |config: &Value| config.pointer("/job/pretrain").cloned().unwrap_or_default();
    let new = settings(now.config);
    let old = began.as_ref().map_or_else(|| new.clone(), settings);
    let word = |value: &Value| value.as_str().map_or_else(|| inline(value), str::to_owned);
    let changed = differences(&old, &new).into_iter();
    let changes: Vec<String> =
        changed.map(|(path, old, new)| format!("{path}: {} -> {}", word(old), word(new))).collect();
    let lineage = json!(now.lineage);
    if changes.is_empty() && began.as_ref().is_some_and(|began| began[LINEAGE] == lineage) {
        return Ok(changes);
    }
    let known = began.is_some();
    let mut config = began.unwrap_or_else(|| now.config.clone());
    config["job"]["pretrain"] = new;
    config[LINEAGE] = lineage;
    if !changes.is_empty() || now.set_aside.is_some() || !known {
        let mut entry = json!({
            "time": crate::clock::now().format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            "after_step": now.after_step,
            "command": now.config["command"],
        });
        if !changes.is_empty() {
            entry["changes"] = json!(changes);
        }
        if let Some(name) = now.set_aside {
            entry["set_aside"] = json!(name);
        }
        match config["history"].as_array_mut() {
            Some(history) => history.push(entry),
            None => config["history"] = json!([entry]),
        }
    }
    let mut command = words(&config["command"]);
    if known && !changes.is_empty() {
        command.extend_from_slice(now.adopted);
        config["command"] = json!(command);
    }
    let what = if known { "The same run again:" } else { "How it began is not known; it was continued with:" };
    write(directory, &config, what, &command)?;
    Ok(changes)
}

fn words(command: &Value) -> Vec<String> {
    let words = command.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The lineage of the run in `directory`; `None` where no `config.yml` tells it.
///
/// # Errors
/// The file is there and cannot be understood.
pub fn read_lineage(directory: &Path) -> Result<Option<Lineage>> {
    let path = directory.join("config.yml");
    if !path.exists() {
        return Ok(None);
    }
    let lineage = read_config(directory)?.get(LINEAGE).cloned().map(serde_json::from_value).transpose();
    lineage.with_context(|| format!("{} is damaged: lineage cannot be understood", path.display()))
}

/// Reads `directory/config.yml`, as [`write_config`] or a person left it.
///
/// # Errors
/// The file cannot be read, or is no mapping in YAML, with the line; a setting that no run can have.
pub fn read_config(directory: &Path) -> Result<Value> {
    let path = directory.join("config.yml");
    let text =
        files::read_text(&path, files::SETTINGS_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
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

fn inline(value: &Value) -> String {
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
    fn a_continued_run_is_amended_only_where_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let (place, text) = (directory.path(), || std::fs::read_to_string(directory.path().join("config.yml")).unwrap());
        let config = |epochs: u32, words: &[&str]| json!({"job": {"pretrain": {"epochs": epochs}}, "command": words});
        let (began, word) = (Lineage::default().branch(0), |word: &str| word.to_owned());
        write_run_config(place, &config(2, &["x", "--epochs=2"]), &[word("x"), word("--epochs=2")], &began).unwrap();
        let before = text();
        let amend = |config: &Value, adopted: &[String], lineage: &Lineage, set_aside: Option<&str>| {
            amend_config(place, &Continuation { config, adopted, lineage, after_step: 12, set_aside }).unwrap()
        };
        let again = config(2, &["x", "--resume"]);
        assert!(amend(&again, &[], &began, None).is_empty() && text() == before);
        let grown = config(4, &["x", "--resume", "--epochs=4"]);
        assert_eq!(amend(&grown, &[word("--epochs=4")], &began, None), ["epochs: 2 -> 4"]);
        assert!(text().contains("The same run again:\n# x --epochs=2 --epochs=4\n"), "{}", text());
        let branch = began.branch(6);
        assert!(amend(&grown, &[], &branch, Some("abandoned-1")).is_empty());
        let read = read_config(place).unwrap();
        assert_eq!((read["history"][0]["after_step"].as_u64(), read["history"].as_array().unwrap().len()), (Some(12), 2));
        assert_eq!(read["history"][1]["set_aside"], "abandoned-1");
        assert_eq!(read_lineage(place).unwrap().unwrap(), branch);
        // What cannot be understood is kept, and nobody makes up how the run began.
        std::fs::write(place.join("config.yml"), "lineage: 7\n").unwrap();
        assert!(format!("{:#}", read_lineage(place).unwrap_err()).contains("config.yml is damaged"));
        amend(&grown, &[], &branch, None);
        assert_eq!(std::fs::read_to_string(place.join("config.yml.damaged")).unwrap(), "lineage: 7\n");
        assert!(text().contains("it was continued with:\n# x --resume --epochs=4\n"), "{}", text());
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
