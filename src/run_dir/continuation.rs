//! What `config.yml` says of a run beside its settings: whose it is, and where it was continued otherwise than before.

use super::Lineage;
use super::config_file::{inline, read_config, write, write_config};
use crate::config::differences;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

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
    let began = read_config(directory).and_then(|config| lineage_of(&config, directory).map(|_| config)).ok();
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
    if !directory.join("config.yml").exists() {
        return Ok(None);
    }
    lineage_of(&read_config(directory)?, directory)
}

fn lineage_of(config: &Value, directory: &Path) -> Result<Option<Lineage>> {
    let lineage = config.get(LINEAGE).cloned().map(serde_json::from_value).transpose();
    lineage
        .with_context(|| format!("{} is damaged: lineage cannot be understood", directory.join("config.yml").display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_run_is_amended_only_where_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let (place, text) =
            (directory.path(), || std::fs::read_to_string(directory.path().join("config.yml")).unwrap());
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
        assert_eq!(
            (read["history"][0]["after_step"].as_u64(), read["history"].as_array().unwrap().len()),
            (Some(12), 2)
        );
        assert_eq!(read["history"][1]["set_aside"], "abandoned-1");
        assert_eq!(read_lineage(place).unwrap().unwrap(), branch);
        // What cannot be understood is kept, and nobody makes up how the run began.
        std::fs::write(place.join("config.yml"), "lineage: 7\n").unwrap();
        assert!(format!("{:#}", read_lineage(place).unwrap_err()).contains("config.yml is damaged"));
        amend(&grown, &[], &branch, None);
        assert_eq!(std::fs::read_to_string(place.join("config.yml.damaged")).unwrap(), "lineage: 7\n");
        assert!(text().contains("it was continued with:\n# x --resume --epochs=4\n"), "{}", text());
    }
}
