//! What the runs' settings differ in.

use super::gather::Found;
use crate::config::side_by_side;
use serde_json::Value;

/// The settings of all runs by their path in `config.yml`, a cell a run; "-" where a run does not have it.
#[derive(Default)]
pub struct Settings {
    /// With more than one value.
    pub different: Vec<(String, Vec<String>)>,
    /// The same in every run.
    pub common: Vec<(String, String)>,
}

/// Compares the runs' settings.
pub fn settings(found: &Found) -> Settings {
    let runs: Vec<&Value> = found.runs.iter().map(|run| run.settings.as_ref().unwrap_or(&Value::Null)).collect();
    let mut all = side_by_side(&runs);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    let mut settings = Settings::default();
    for setting in all {
        if setting.differs() {
            settings.different.push((setting.path, setting.values.into_iter().map(shown).collect()));
        } else {
            settings.common.push((setting.path, shown(setting.values[0])));
        }
    }
    settings
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
