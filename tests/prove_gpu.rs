//! scripts/prove_gpu.sh: what it says and refuses, that it ends when it must, and on the CPU all of its stages.

mod support;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::python;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn script(words: &[&str]) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("scripts/prove_gpu.sh"));
    command.args(words);
    command
}

fn texts(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The names of the stages, as the plan has them.
fn stages() -> Vec<String> {
    let plan = std::fs::read_to_string(Path::new(ROOT).join("scripts/bench/gpu/main.py")).expect("the plan");
    let names = plan.split("Stage(\"").skip(1).map(|rest| rest.split('"').next().expect("a name").to_owned());
    names.collect()
}

#[test]
fn help_names_every_option_and_stage() {
    let output = script(&["--help"]).output().expect("it starts");
    assert!(output.status.success());
    let [help, _] = texts(&output);
    let options = [
        "--out",
        "--device",
        "--binary",
        "--measure",
        "--python",
        "--only",
        "--skip",
        "--keep",
        "--minutes",
        "--at-once",
        "--json",
        "--smoke",
    ];
    for option in options {
        assert!(help.contains(&format!("\n  {option} ")), "{option}");
    }
    // The last two are made beside the others.
    for stage in stages().iter().filter(|name| !["data", "warm"].contains(&name.as_str())) {
        assert!(help.contains(&format!("\n  {stage} ")), "{stage}");
    }
}

#[test]
fn wrong_options_are_refused_before_anything_is_built() {
    let cases: [(&[&str], &str); 7] = [
        (&["--smock"], "--help"),
        (&["--smoke"], "--out is missing"),
        (&["--binary"], "needs a file"),
        (&["--binary", "/absent/flatnce"], "/absent/flatnce"),
        (&["--python=/absent/python"], "/absent/python"),
        (&["--out", "/tmp/x", "--device", "gpu"], "neither cuda:N nor cpu"),
        (&["--out", "/tmp/x", "--device", "cpu"], "--smoke"),
    ];
    for (words, part) in cases {
        let output = script(words).output().expect("it starts");
        let [_, said] = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
}

/// A directory with programs of ours in `bin/`, and one for results.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(place.path("bin")).expect("a directory");
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        path
    }

    fn prove(&self, python: &Path, binary: &Path, words: &[&str]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("a PATH"));
        let mut command = script(&["--device", "cpu", "--smoke"]);
        command.arg("--out").arg(self.path("out")).arg("--python").arg(python).arg("--binary").arg(binary);
        command.args(words).env("PATH", path).env_remove("FLATNCE_MEASURE").output().expect("it starts")
    }

    fn summary(&self) -> String {
        std::fs::read_to_string(self.path("out/summary.txt")).expect("a summary")
    }

    fn numbers(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("out/gpu.json")).expect("gpu.json")).expect("JSON")
    }
}

/// Whether a process is there and has not ended.
fn alive(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[test]
fn what_hangs_is_ended_with_all_that_it_started() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    let text = r#"case $1 in
doctor) echo '{"healthy": true, "findings": []}' ;;
--version) echo flatnce 0 ;;
*) sleep 1000 & echo $! >>"$PIDS"; wait ;;
esac"#;
    let binary = place.program("flatnce", &format!("PIDS={}\n{text}", place.path("pids").display()));
    let output = place.prove(&python, &binary, &["--only", "doctor,trainings,study", "--minutes", "0.2"]);
    let [said, errors] = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(place.summary().contains("== trainings: stopped at its limit ("), "{said}{errors}");
    assert!(place.summary().contains("== study: not run: no time ("), "{said}{errors}");
    assert!(said.contains(&place.summary()) && errors.contains("not run: study (--only study)"), "{said}{errors}");
    let processes = std::fs::read_to_string(place.path("pids")).expect("some were started");
    assert!(processes.lines().count() >= 2, "{processes}");
    for process in processes.lines() {
        assert!(!alive(process), "{process} is left");
    }
    let states: Vec<Value> = place.numbers()["stages"].as_array().expect("stages").clone();
    assert_eq!(states.len(), 3, "{states:?}");
}

#[test]
fn what_times_nothing_runs_beside_each_other() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    // Each stage waits until the other has begun too, and then fails, for want of a run.
    let text = r#"case $1 in
doctor) echo '{"healthy": true, "findings": []}' ;;
--version) echo flatnce 0 ;;
*) case "$*" in *"/trainings/"*) own=trainings other=study ;; *) own=study other=trainings ;; esac
touch "$MARKS-$own"
for _ in {1..400}; do [[ -e $MARKS-$other ]] && exit 0; sleep 0.1; done
exit 1 ;;
esac"#;
    let marks = place.path("begun");
    let binary = place.program(
        "flatnce",
        &format!(
            "MARKS={}
{text}",
            marks.display()
        ),
    );
    let output = place.prove(&python, &binary, &["--only", "doctor,trainings,study", "--at-once", "2"]);
    let [said, errors] = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    let log = std::fs::read_to_string(place.path("out/stages.log")).expect("a log");
    assert!(!log.contains("[status 1]"), "one waited in vain: {log}");
    for part in ["== trainings", "== study"] {
        assert!(log.contains(part), "{log}");
    }
    assert!(said.contains("although the program ended well"), "{said}");
    let left: Vec<_> = std::fs::read_dir(place.path("out")).expect("results").filter_map(Result::ok).collect();
    assert!(!left.iter().any(|entry| entry.file_name() == "study.log"), "a stage's log is part of stages.log");
}

#[test]
fn a_failed_doctor_stops_everything() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    let text = r#"case $1 in
doctor) echo '{"healthy": false, "findings": []}'; exit 1 ;;
--version) echo flatnce 0 ;;
*) touch "$MARK" ;;
esac"#;
    let binary = place.program("flatnce", &format!("MARK={}\n{text}", place.path("mark").display()));
    let output = place.prove(&python, &binary, &[]);
    let [said, errors] = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(said.contains("FAILED  the doctor finds nothing wrong: status 1"), "{said}");
    assert_eq!(said.matches("not run: the doctor failed").count(), stages().len() - 3, "{said}");
    assert!(!place.path("mark").exists(), "something was run all the same");
}

/// Words that all checks of a whole run begin with: a check that nobody makes any more would pass.
const CHECKS: &[&str] = &[
    "the doctor finds nothing wrong",
    "its JSON says the same",
    "trains: tensor engine",
    "trains: fp16",
    "trains: images through the CPU's threads",
    "loss of the first step",
    "losses of an epoch",
    "gradients of the first step, head",
    "gradients of the first step, trunk",
    "1 + 2 epochs are 3",
    "both engines give the same pixels",
    "a run goes on, device to CPU",
    "a run goes on, CPU to device",
    "both devices evaluate a checkpoint alike",
    "fp16: a step that overflows",
    "a replayed run is a plain one, adam",
    "a replayed run is a plain one, lars",
    "fused kernels give the plain losses",
    "running out of memory is one error",
    "the batch that it names fits",
    "two processes train as one does",
    "two processes have the gradients of one, head",
    "two processes have the gradients of one, trunk",
];

/// The newest benches/measure that was built, if any was.
fn measure() -> Option<PathBuf> {
    let deps = Path::new(env!("CARGO_BIN_EXE_flatnce")).parent()?.join("deps");
    let entries = std::fs::read_dir(deps).ok()?.filter_map(Result::ok);
    let built = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("measure-") && !name.contains('.')
    });
    built.max_by_key(|entry| entry.metadata().and_then(|facts| facts.modified()).ok()).map(|entry| entry.path())
}

#[test]
fn every_stage_works_on_the_cpu() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    // As ncu writes them: its own lines, then a table; two launches of one kernel.
    place.program(
        "ncu",
        r#"while [[ $1 != --log-file ]]; do shift; done
cat >"$2" <<'END'
==PROF== Connected to process 1
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","1","void cudnn::conv<float, (int)2>(T1 *)","gpu__time_duration.sum","ns","1,500"
"1","1","void cudnn::conv<float, (int)2>(T1 *)","gpu__time_duration.sum","ns","500"
"2","1","bn_fw_tr_1C11_kernel","gpu__time_duration.sum","ns","6000"
END"#,
    );
    let measure = measure().map(|path| path.display().to_string());
    let words: Vec<&str> = measure.iter().flat_map(|path| ["--measure", path]).collect();
    let output = place.prove(&python, Path::new(env!("CARGO_BIN_EXE_flatnce")), &words);
    let [said, errors] = texts(&output);
    let log = || std::fs::read_to_string(place.path("out/stages.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}{errors}{}", log());
    let numbers = place.numbers();
    let of = |list: &str, key: &str| -> Vec<String> {
        let found = numbers[list].as_array().expect(list).iter();
        found.map(|one| one[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(of("stages", "state"), vec!["done"; stages().len()], "{said}");
    let checks = of("checks", "check");
    for check in CHECKS {
        assert!(checks.iter().any(|name| name.starts_with(check)), "{check} is missing: {checks:?}");
    }
    assert_eq!(checks.len(), CHECKS.len(), "{checks:?}");
    // A row for each peer, none of which failed.
    let against = of("rows", "against");
    for (peer, rows) in [("torch.compile, mode reduce-overhead", 2), ("main.py's recipe", 2), ("PyTorch eager", 1)] {
        assert_eq!(against.iter().filter(|name| name.starts_with(peer)).count(), rows, "{peer}: {against:?}");
    }
    assert!(!against.iter().any(|name| name.contains("failed")), "{said}");
    let shares = of("rows", "work").iter().filter(|work| work.starts_with("augmentation's share")).count();
    assert_eq!(shares, if measure.is_some() { 2 } else { 0 }, "{said}");
    let kernels = std::fs::read_to_string(place.path("out/kernels.csv")).expect("kernels.csv");
    assert!(kernels.contains("flatnce,BatchNorm,bn_fw_tr_1C11_kernel,6.0,0.7500,1"), "{kernels}");
    assert!(kernels.contains(r#""void cudnn::conv<float, (int)2>(T1 *)",2.0,0.2500,2"#), "{kernels}");
    assert!(kernels.contains("\ntorch.compile,"), "{kernels}");
    let files = std::fs::read_dir(place.path("out")).expect("results").count();
    assert!(files <= 8, "{files} files");
}

/// Steps that are not replayed are what "replay" is there to tell.
#[test]
fn a_cuda_part_that_does_not_load_stops_nothing_else() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    let text = r#"case $1 in
doctor) echo '{"healthy": false, "findings": [{"name": "CUDA part", "health": "wrong"}]}'; exit 1 ;;
--version) echo flatnce 0 ;;
esac"#;
    let binary = place.program("flatnce", text);
    let output = place.prove(&python, &binary, &["--only", "doctor"]);
    let [said, errors] = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    assert!(said.contains("the doctor finds nothing wrong: status 1, wrong CUDA part"), "{said}");
}

#[test]
fn nvidia_smi_is_read_where_it_is_and_missed_aloud_where_it_is_not() {
    let Some(python) = python("torch") else { return };
    let place = Place::new();
    // The program speaks when its words count, and is stopped when all of them have been heard.
    let (text, counting) = (
        "import os, sys, time; sys.path[:0] = ['scripts/bench/gpu', 'scripts/bench']; import timing
busy = timing.Busy('cuda:0'); busy.counts = True; open(os.environ['COUNTING'], 'w').close()
while not busy.problem: time.sleep(0.01)
print(busy.stop(), busy.problem)",
        place.path("counting"),
    );
    let run = |path: &Path| {
        let mut command = Command::new(&python);
        command.args(["-c", text]).current_dir(ROOT).env("PATH", path).env("COUNTING", &counting);
        let output = command.output().expect("it starts");
        let _ = std::fs::remove_file(&counting);
        let [said, errors] = texts(&output);
        assert!(output.status.success(), "{errors}");
        said
    };
    assert_eq!(run(&place.path("empty")), "[] nvidia-smi: No such file or directory\n");
    let speaks = "until [ -e \"$COUNTING\" ]; do /bin/sleep 0.01; done; echo 97; echo 98; echo Unknown Error";
    place.program("nvidia-smi", &format!("{speaks}; exec /bin/sleep 100"));
    assert_eq!(run(&place.path("bin")), "[97.0, 98.0] nvidia-smi said 'Unknown Error'\n");
}
