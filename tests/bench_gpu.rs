//! scripts/bench_gpu.sh: what it says and refuses. `./scripts/bench_gpu.sh --device cpu --smoke` runs all of it.

use std::path::Path;
use std::process::{Command, Output};

fn bench(words: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench_gpu.sh");
    Command::new(script).args(words).output().expect("it starts")
}

#[test]
fn help_names_every_option() {
    let output = bench(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for option in ["--device", "--binary", "--measure", "--python", "--json", "--smoke", "--skip-checks"] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn wrong_options_are_refused_before_anything_is_built() {
    let cases: [(&[&str], &str); 4] = [
        (&["--smock"], "--help"),
        (&["--binary"], "needs a file"),
        (&["--binary", "/absent/flatnce"], "/absent/flatnce"),
        (&["--python", "/absent/python"], "/absent/python"),
    ];
    for (words, part) in cases {
        let output = bench(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
}
