//! Configurations side by side: two runs, two ranks, two parts of an evaluation.

use serde_json::Value;

/// One setting of several configurations.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<'a> {
    /// Its place: `model.depth`.
    pub path: String,
    /// One value a configuration, in their order; null where it has none.
    pub values: Vec<&'a Value>,
}

impl Setting<'_> {
    /// Whether any two configurations differ in it.
    pub fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }
}

/// Every setting of these configurations, in the order in which they have them.
pub fn side_by_side<'a>(configurations: &[&'a Value]) -> Vec<Setting<'a>> {
    let mut found = Vec::new();
    walk("", configurations.to_vec(), &mut found);
    found
}

/// What two configurations differ in: path, ours, theirs.
pub fn differences<'a>(ours: &'a Value, theirs: &'a Value) -> Vec<(String, &'a Value, &'a Value)> {
    let all = side_by_side(&[ours, theirs]).into_iter();
    all.filter(Setting::differs).map(|setting| (setting.path, setting.values[0], setting.values[1])).collect()
}

fn walk<'a>(path: &str, values: Vec<&'a Value>, found: &mut Vec<Setting<'a>>) {
    let objects = values.iter().filter_map(|value| value.as_object());
    let mut keys: Vec<&String> = Vec::new();
    for key in objects.flat_map(|fields| fields.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.is_empty() || !values.iter().all(|value| value.is_object() || value.is_null()) {
        if !path.is_empty() {
            found.push(Setting { path: path.to_owned(), values });
        }
        return;
    }
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(&path, values.iter().map(|value| value.get(key).unwrap_or(&Value::Null)).collect(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named_by_their_path() {
        let ours = json!({"version": "0.1.0", "job": {"temperature": 0.1, "model": {"depth": "res18"}}, "seed": 1});
        assert!(differences(&ours, &ours.clone()).is_empty());
        let theirs = json!({"version": "0.2.0", "job": {"temperature": 0.2, "model": {"depth": "res18"}}});
        let said = |ours, theirs| -> Vec<String> {
            differences(ours, theirs).into_iter().map(|(path, a, b)| format!("{path} {b} instead of {a}")).collect()
        };
        assert_eq!(
            said(&ours, &theirs),
            ["version \"0.2.0\" instead of \"0.1.0\"", "job.temperature 0.2 instead of 0.1", "seed null instead of 1"]
        );
        assert_eq!(said(&theirs, &ours).len(), 3, "what only the other has counts too");
    }

    #[test]
    fn what_has_no_parts_in_one_has_none_of_them() {
        let (bare, knn) = (json!({"knn": null, "start": "fresh"}), json!({"knn": {"k": 5}, "start": {"resume": "x"}}));
        let all = side_by_side(&[&bare, &knn, &bare]);
        let paths: Vec<&str> = all.iter().map(|setting| setting.path.as_str()).collect();
        assert_eq!(paths, ["knn.k", "start"]);
        assert_eq!(all[0].values, [&json!(null), &json!(5), &json!(null)]);
        assert!(all.iter().all(Setting::differs));
        assert!(side_by_side(&[]).is_empty() && side_by_side(&[&json!(null)]).is_empty());
    }
}
