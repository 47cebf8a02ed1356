//! Whether two ranks were started alike.

use serde_json::Value;

/// Where `theirs` differs from `ours`, one `path: theirs instead of ours` each, in our order.
pub fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", ours, theirs, &mut found);
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if let (Value::Object(a), Value::Object(b)) = (ours, theirs) {
        let extra = b.keys().filter(|key| !a.contains_key(*key));
        for key in a.keys().chain(extra) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
        }
    } else if ours != theirs {
        found.push(format!("{path} {theirs} instead of {ours}"));
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
        assert_eq!(
            differences(&ours, &theirs),
            ["version \"0.2.0\" instead of \"0.1.0\"", "job.temperature 0.2 instead of 0.1", "seed null instead of 1"]
        );
        assert_eq!(differences(&theirs, &ours).len(), 3, "what only the other has counts too");
    }
}
