//! `flatnce doctor` on this machine.

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;
use std::process::{Command, Output};

fn doctor(flags: &[&str]) -> Output {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    command.arg("doctor").args(flags).env("OMP_NUM_THREADS", "1").output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_machine_that_runs_the_tests_is_fit() {
    let output = doctor(&["--device", "cpu"]);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    for part in ["libtorch          2.11.0", "CPU precisions", "libtorch computes on 1", "free"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("WRONG") && errors.is_empty(), "{said}{errors}");
}

#[test]
fn what_is_wrong_has_its_remedy_and_exit_code_1() {
    if flatnce::device::cuda_obstacle().is_none() {
        return; // A GPU that works: nothing is wrong.
    }
    let output = doctor(&["--device", "cuda", "--json"]);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(errors.starts_with("error: ") && errors.contains("wrong"), "{errors}");
    let said: Value = serde_json::from_str(&said).expect("JSON, whatever is wrong");
    assert_eq!(said["healthy"], false);
    let findings = said["findings"].as_array().expect("a list");
    let wrong: Vec<&Value> = findings.iter().filter(|finding| finding["health"] == "wrong").collect();
    assert!(!wrong.is_empty());
    for finding in wrong {
        assert!(finding["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{finding}");
    }
}

#[test]
fn the_bench_measures_every_precision() {
    let output = doctor(&["--device", "cpu", "--bench", "--json"]);
    let said: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    let measured = said["bench"].as_array().expect("a list");
    for (what, precision) in
        [("matrix product", "fp32"), ("matrix product", "bf16"), ("training step", "fp32"), ("training step", "bf16")]
    {
        let found = measured
            .iter()
            .find(|line| line["precision"] == precision && line["what"].as_str().is_some_and(|w| w.starts_with(what)));
        let value = found.and_then(|line| line["value"].as_f64()).unwrap_or_else(|| panic!("{what}, {precision}"));
        assert!(value.is_finite() && value > 0.0, "{what}, {precision}: {value}");
    }
    assert!(measured.iter().any(|line| line["unit"] == "GB/s"));
}
