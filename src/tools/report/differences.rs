//! What the runs' settings differ in.

use super::gather::Found;
use serde_json::Value;
use std::collections::BTreeMap;

/// The settings of all runs by their path in `config.yml`, a cell a run; `None` where a run does not have it.
pub struct Settings {
    /// With more than one value.
    pub different: Vec<(String, Vec<Option<String>>)>,
    /// The same in every run.
    pub common: Vec<(String, String)>,
}

/// Compares the runs' settings.
pub fn settings(found: &Found) -> Settings {
    let mut all: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for (place, run) in found.runs.iter().enumerate() {
        let mut flat = Vec::new();
        if let Some(settings) = &run.settings {
            flatten(settings, String::new(), &mut flat);
        }
        for (path, value) in flat {
            all.entry(path).or_insert_with(|| vec![None; found.runs.len()])[place] = Some(value);
        }
    }
    let mut settings = Settings { different: Vec::new(), common: Vec::new() };
    for (path, values) in all {
        match &values[0] {
            Some(first) if values.iter().all(|value| value.as_ref() == Some(first)) => {
                settings.common.push((path, first.clone()));
            }
            _ => settings.different.push((path, values)),
        }
    }
    settings
}

fn flatten(value: &Value, path: String, into: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, path, into);
            }
        }
        Value::String(text) => into.push((path, text.clone())),
        Value::Null => into.push((path, "-".to_owned())),
        other => into.push((path, other.to_string())),
    }
}
