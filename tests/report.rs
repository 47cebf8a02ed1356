//! The reports as files and text: what a run prints and leaves behind, read
//! back by ourselves and by the Python programs that people will read it with.

mod support;

use flatnce::report::plots::{Figure, Panel, Series, Stroke, curves, draw};
use flatnce::report::{Console, Histogram, Plan, Record, RunLog, Verbosity, encode_png, read_json_lines};
use flatnce::run_dir::{self, CheckpointKind, CheckpointName};
use flatnce::train::pretrain::curves::training_figure;
use flatnce::train::pretrain::numbers::numbers;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// Runs one of the readers beside the fixtures; `None` (said plainly) without Python.
fn read_with_python(script: &str, argument: &str, input: &str) -> Option<Value> {
    let python = support::python("tensorboard")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report").join(script);
    let mut child = Command::new(python)
        .arg(script)
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A writer whose content the test can look at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn console(verbosity: Verbosity) -> (Console, Shared, Shared) {
    let (out, err) = (Shared::default(), Shared::default());
    (Console::to_writers(verbosity, out.clone(), err.clone()), out, err)
}

const STEPS_PER_EPOCH: u64 = 5;

fn plan(first_epoch: u64, epochs: u64) -> Plan {
    Plan { first_epoch, epochs, steps_per_epoch: STEPS_PER_EPOCH, first_batch: 0, resumed: first_epoch > 0 }
}

fn epoch_report(epoch: u64) -> Record {
    let record = Record::new(epoch, (epoch + 1) * STEPS_PER_EPOCH).with("loss_infonce", 4.0 / (epoch + 1) as f64);
    let record = record.with("contrastive_top1", 40.0).with("contrastive_top5", 0.0).with("ness_mean", 0.25);
    let record = record.with("mi_ceiling_nats", 127f64.ln()).with("lr", 1e-3).with("temperature", 0.1);
    record.with("images_per_second", 1893.0).with("entropy", 0.5 + epoch as f64)
}

fn step_records(epoch: u64) -> Vec<Record> {
    let record = |step| {
        let record = Record::new(epoch, step).with("loss_infonce", step as f64).with("contrastive_top1", 10.0);
        record.with("ness_mean", 0.5).with("lr", 0.1)
    };
    (epoch * STEPS_PER_EPOCH + 1..=(epoch + 1) * STEPS_PER_EPOCH).map(record).collect()
}

/// Trains `epochs` (of the plan) as far as `until`.
fn pretend(log: &mut RunLog, plan: Plan, until: u64) {
    for epoch in plan.first_epoch..until {
        log.start_epoch(epoch);
        for _ in 0..plan.steps_per_epoch {
            log.step(64, || Record::new(epoch, 1).with("loss_infonce", 1.0).with("lr", 1.0));
        }
        log.record_steps(&step_records(epoch));
        log.epoch(&epoch_report(epoch));
    }
}

#[test]
fn a_run_prints_plain_lines_and_keeps_the_same_in_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let (console, out, err) = console(Verbosity::Normal);
    let mut log = RunLog::create(Some(directory.path()), plan(0, 2), numbers(), console).unwrap();
    pretend(&mut log, plan(0, 2), 2);
    log.warn("the \u{1b}[31mdisk\u{1b}[0m is\nslow");
    log.detail("for the curious");
    log.finish("done", &[]);

    let out = out.text();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(
        lines[0].starts_with("epoch 1/2  loss 4.000  top-1 40.0%  NESS 0.250  lr 0.001  1893 img/s  ETA "),
        "{out}"
    );
    assert_eq!(lines[1], "epoch 2/2  loss 2.000  top-1 40.0%  NESS 0.250  lr 0.001  1893 img/s");
    assert_eq!(lines[2], "done");
    assert!(out.lines().all(|line| line.len() <= 100 && !line.contains(char::is_control)));
    assert!(err.text().starts_with("warning: the "));

    let text = std::fs::read_to_string(directory.path().join("training.log")).unwrap();
    let logged: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        logged[1..],
        [
            "INFO    epoch 2/2  loss 2.000  top-1 40.0%  NESS 0.250  lr 0.001  1893 img/s",
            "WARNING the \\u001b[31mdisk\\u001b[0m is",
            "WARNING slow",
            "DETAIL  for the curious",
            "INFO    done",
        ]
    );
    for line in text.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        chrono::DateTime::parse_from_rfc3339(time).unwrap();
    }
}

#[test]
fn quiet_prints_errors_and_the_result_only() {
    let directory = tempfile::tempdir().unwrap();
    let (console, out, err) = console(Verbosity::Quiet);
    let mut log = RunLog::create(Some(directory.path()), plan(0, 1), numbers(), console.clone()).unwrap();
    pretend(&mut log, plan(0, 1), 1);
    log.note("note");
    log.warn("warning");
    console.error(&anyhow::anyhow!("broken"));
    log.finish("top-1 85.4%", &[]);
    assert_eq!(out.text(), "top-1 85.4%\n");
    assert_eq!(err.text(), "error: broken\n");
    let text = std::fs::read_to_string(directory.path().join("training.log")).unwrap();
    assert!(text.contains("INFO    note") && text.contains("WARNING warning"), "{text}");
}

#[test]
fn without_a_terminal_steps_ask_for_no_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(Some(directory.path()), plan(0, 1), numbers(), console(Verbosity::Normal).0).unwrap();
    log.start_epoch(0);
    for _ in 0..STEPS_PER_EPOCH {
        log.step(64, || panic!("this would wait for the device"));
    }
}

#[test]
fn a_resumed_run_continues_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(Some(directory.path()), plan(0, 4), numbers(), console(Verbosity::Quiet).0).unwrap();
    pretend(&mut log, plan(0, 4), 3);
    drop(log);
    // A crash tore the last line.
    let metrics = directory.path().join("metrics.jsonl");
    let mut file = std::fs::OpenOptions::new().append(true).open(&metrics).unwrap();
    file.write_all(b"{\"epoch\":3,\"loss_in").unwrap();
    assert_eq!(read_json_lines::<Record>(&metrics).unwrap().len(), 3);

    // The newest checkpoint is that of epoch 1: epoch 2 is trained again.
    let mut log = RunLog::create(Some(directory.path()), plan(2, 4), numbers(), console(Verbosity::Quiet).0).unwrap();
    pretend(&mut log, plan(2, 4), 4);
    log.finish("", &[]);
    let reports = read_json_lines::<Record>(&metrics).unwrap();
    assert_eq!(reports, (0..4).map(epoch_report).collect::<Vec<_>>());
    let steps = read_json_lines::<Record>(&directory.path().join("steps.jsonl")).unwrap();
    assert_eq!(steps, (0..4).flat_map(step_records).collect::<Vec<_>>());
    let log = std::fs::read_to_string(directory.path().join("training.log")).unwrap();
    assert_eq!(log.matches("epoch 3/4").count(), 2, "{log}");
    assert!(log.contains("resumed: epoch 3 of 4 is next"), "{log}");
}

#[test]
fn numbers_that_are_not_finite_become_null_and_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (console, _, err) = console(Verbosity::Normal);
    let mut log = RunLog::create(Some(directory.path()), plan(0, 1), numbers(), console).unwrap();
    let report = epoch_report(0).with("loss_infonce", f64::NAN).with("ness_mean", f64::INFINITY);
    log.epoch(&report);
    let path = directory.path().join("metrics.jsonl");
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["loss_infonce"], Value::Null);
    assert_eq!(line["non_finite"], json!(["loss_infonce", "ness_mean"]));
    assert_eq!(err.text(), "warning: epoch 1: loss_infonce, ness_mean not finite: written as null to metrics.jsonl\n");
    let back = &read_json_lines::<Record>(&path).unwrap()[0];
    assert!(back.number("loss_infonce").is_nan() && back.get("ness_mean").is_some_and(f64::is_nan));
    assert!(back.get("knn_top1").is_none());
    assert_eq!(*back, report);
}

/// `/dev/full` answers every write with "no space left on device".
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_warned_about_once_and_the_run_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.path().join("training.log")).unwrap();
    let (console, out, err) = console(Verbosity::Normal);
    let mut log = RunLog::create(Some(directory.path()), plan(0, 3), numbers(), console).unwrap();
    pretend(&mut log, plan(0, 3), 3);
    log.finish("done", &[]);
    assert_eq!(err.text().lines().count(), 1, "{}", err.text());
    assert!(err.text().contains("training.log (No space left on device"), "{}", err.text());
    assert!(out.text().ends_with("done\n"));
    assert_eq!(read_json_lines::<Record>(&directory.path().join("metrics.jsonl")).unwrap().len(), 3);
}

fn event_files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("events.out.tfevents."))
        .collect();
    files.sort();
    files
}

#[test]
fn tensorboard_reads_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(Some(directory.path()), plan(0, 4), numbers(), console(Verbosity::Quiet).0).unwrap();
    let mut histogram = Histogram::new(-1.0, 1.0, 4);
    histogram.extend([-0.9, 0.1, 0.2, 0.9]);
    let picture = draw(&training_figure("run", &[epoch_report(0)], &[]));
    log.events().histogram("similarity/negatives", 5, &histogram);
    log.events().image("views", 5, picture.as_ref()).unwrap();
    log.events().text("config", 0, "lr: **0.6** é");
    pretend(&mut log, plan(0, 4), 3);
    drop(log);

    // A crash in the middle of a record: its length and half of its contents are there.
    let first = &event_files(directory.path())[0];
    let whole = std::fs::read(first).unwrap();
    std::fs::OpenOptions::new().append(true).open(first).unwrap().write_all(&whole[..25]).unwrap();

    // Resumed after epoch 1.
    let mut log = RunLog::create(Some(directory.path()), plan(2, 4), numbers(), console(Verbosity::Quiet).0).unwrap();
    pretend(&mut log, plan(2, 4), 4);
    log.finish("", &[]);
    assert_eq!(event_files(directory.path()).len(), 2);

    let Some(found) = read_with_python("read_events.py", directory.path().to_str().unwrap(), "") else { return };
    let steps: Vec<u64> = found["scalars"]["loss"].as_array().unwrap().iter().map(|e| e[0].as_u64().unwrap()).collect();
    assert_eq!(steps, [5, 10, 15, 20], "each epoch once, though epoch 2 was trained twice");
    let steps = found["scalars"]["step/loss"].as_array().unwrap();
    assert_eq!(*steps, (1..=20).map(|step| json!([step, step as f64])).collect::<Vec<_>>());
    for (tag, value) in
        [("acc/top1", 40.0), ("acc/top5", 0.0), ("learning_rate", 1e-3), ("ness/mean", 0.25), ("entropy", 0.5)]
    {
        let read = found["scalars"][tag][0][1].as_f64().unwrap();
        assert_eq!(read, f64::from(value as f32), "{tag}");
    }
    assert!(found["scalars"].get("knn/top1").is_none());
    let read = &found["histograms"]["similarity/negatives"][0];
    assert_eq!(read["step"], 5);
    assert_eq!(read["bucket"], json!([1.0, 0.0, 2.0, 1.0]));
    assert_eq!(read["bucket_limit"], json!([-0.5, 0.0, 0.5, 1.0]));
    assert_eq!((&read["min"], &read["max"], &read["num"]), (&json!(-0.9), &json!(0.9), &json!(4.0)));
    assert_eq!(found["images"]["views"], json!([[5, 1280, 492, encode_png(picture.as_ref()).unwrap().len()]]));
    assert_eq!(found["texts"]["config/text_summary"], json!([[0, "lr: **0.6** é"]]));
}

/// Our own walk over the framing: lengths add up to the file, and the names are where they should be.
#[test]
fn an_event_file_is_a_chain_of_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(Some(directory.path()), plan(0, 1), numbers(), console(Verbosity::Quiet).0).unwrap();
    pretend(&mut log, plan(0, 1), 1);
    log.finish("", &[]);
    let files = event_files(directory.path());
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(&format!(".{}.0", std::process::id())), "{name}");
    let bytes = std::fs::read(&files[0]).unwrap();
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        records.push(&bytes[at + 12..at + 12 + length]);
        at += 12 + length + 4;
    }
    assert_eq!(at, bytes.len());
    assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
    let holds = |tag: &[u8]| records.iter().any(|record| record.windows(tag.len()).any(|window| window == tag));
    assert!(holds(b"\x0a\x04loss\x15") && holds(b"\x0a\x08acc/top1\x15") && holds(b"\x0a\x0dlearning_rate\x15"));
}

/// Wherever a crash cuts a file, TensorBoard reads every record before the cut.
#[test]
fn what_a_crash_leaves_of_an_event_file_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RunLog::create(Some(directory.path()), plan(0, 2), numbers(), console(Verbosity::Quiet).0).unwrap();
    pretend(&mut log, plan(0, 2), 2);
    log.finish("", &[]);
    let file = event_files(directory.path()).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        at += 16 + u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        ends.push(at);
    }
    let Some(found) = read_with_python("read_torn.py", file.to_str().unwrap(), "") else { return };
    let found = found.as_array().unwrap();
    assert!(found.len() > 50 && ends.len() > 20, "{} pieces of {} records", found.len(), ends.len());
    for piece in found {
        let (kept, records) = (piece[0].as_u64().unwrap() as usize, piece[1].as_u64().unwrap() as usize);
        assert_eq!(records, ends.iter().filter(|&&end| end <= kept).count(), "{kept} of {} bytes", bytes.len());
    }
}

#[test]
fn runs_started_together_get_directories_of_their_own() {
    let results = tempfile::tempdir().unwrap();
    let started = chrono::NaiveDate::from_ymd_opt(2026, 3, 9).unwrap().and_hms_opt(4, 5, 6).unwrap();
    let parent = run_dir::pretrain_parent(
        results.path(),
        flatnce::config::DatasetName::Cifar10,
        512,
        flatnce::config::Objective::FlatClr,
    );
    assert_eq!(parent, results.path().join("cifar10/512_FlatCLR"));
    let mut names: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| run_dir::create(&parent, started).unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap().file_name().unwrap().to_str().unwrap().to_string()).collect()
    });
    names.sort();
    let date = "09-03-2026-04-05-06";
    let expected: Vec<String> =
        std::iter::once(date.to_string()).chain((2..=8).map(|number| format!("{date}-{number}"))).collect();
    assert_eq!(names, expected);
}

#[test]
fn evaluation_directories_follow_upstreams_readme() {
    use flatnce::config::{DatasetName, Objective, TransferMode};
    let place = |mode| {
        run_dir::evaluation_parent(Path::new("results"), DatasetName::Cifar100, Objective::SimClr, 256, 100, mode)
    };
    assert_eq!(place(TransferMode::LinearEval), Path::new("results/cifar100/simclr/256_100_fc"));
    assert_eq!(place(TransferMode::Finetune), Path::new("results/cifar100/simclr/256_100_ft"));
}

#[test]
fn checkpoints_are_listed_oldest_first() {
    let directory = tempfile::tempdir().unwrap();
    let within = CheckpointName { epoch: 26, kind: CheckpointKind::Within { step: 1300 } };
    let names = [
        CheckpointName::finished(0),
        CheckpointName::finished(2),
        within,
        CheckpointName::finished(26),
        CheckpointName::finished(9_998),
        CheckpointName::finished(10_000),
    ];
    assert_eq!(names[0].to_string(), "checkpoint_0000.pth.tar");
    assert_eq!(within.to_string(), "checkpoint_0026_step_00001300.pth.tar");
    for name in names.iter().rev() {
        std::fs::write(directory.path().join(name.to_string()), "").unwrap();
    }
    for other in ["checkpoint_0003.pth.tar.tmp", ".checkpoint_0003.pth.tar", "checkpoint_3.pth.tar", "config.yml"] {
        assert_eq!(CheckpointName::parse(other), None);
        std::fs::write(directory.path().join(other), "").unwrap();
    }
    for other in [
        "checkpoint_.pth.tar",
        "checkpoint_0003_step_12.pth.tar",
        "checkpoint_0003_step_.pth.tar",
        "checkpoint_+001.pth.tar",
        "checkpoint_99999999999.pth.tar",
        "checkpoint_00é",
    ] {
        assert_eq!(CheckpointName::parse(other), None);
    }
    let found = run_dir::list_checkpoints(directory.path()).unwrap();
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    assert!(run_dir::list_checkpoints(&directory.path().join("absent")).is_err());
}

#[test]
fn what_a_killed_save_left_is_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let left_over = ["checkpoint_0003.pth.tar.tmp", "checkpoint_0026_step_00001300.pth.tar.0123456789abcdef.tmp"];
    let others = ["checkpoint_0003.pth.tar", "notes.tmp", "checkpoint_3.pth.tar.0123456789abcdef.tmp"];
    left_over.iter().chain(&others).for_each(|name| std::fs::write(directory.path().join(name), "").unwrap());
    run_dir::remove_half_written(directory.path()).unwrap();
    assert!(left_over.iter().all(|name| !directory.path().join(name).exists()));
    assert!(others.iter().all(|name| directory.path().join(name).exists()));
}

/// A deterministic source of awkward values.
struct Awkward(u64);

impl Awkward {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn string(&mut self) -> String {
        const WORDS: [&str; 36] = [
            "",
            "yes",
            "No",
            "ON",
            "null",
            "~",
            "y",
            "1e-6",
            "1.0",
            "0x1f",
            "1_000",
            "12:30:45",
            "2026-11-24",
            "- a",
            "a: b",
            "#x",
            "a #b",
            "'",
            "\"",
            "\\",
            " a ",
            "é",
            "日本",
            "😀",
            "\u{85}",
            "\u{2028}",
            "\u{feff}",
            "\u{7f}",
            "\u{0}",
            "=",
            "<<",
            ".inf",
            "!tag",
            "&a",
            "*a",
            "cuda:0",
        ];
        match self.below(4) {
            0 => "/data/fashion_mnist".into(),
            1 => (0..self.below(6)).map(|_| char::from(b' ' + self.below(95) as u8)).collect(),
            2 => format!("{}\n\t{}", WORDS[self.below(WORDS.len())], WORDS[self.below(WORDS.len())]),
            _ => WORDS[self.below(WORDS.len())].into(),
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        let numbers = [1e-6, 0.1, -0.0, 1e300, 5e-324, 1e16, 123456.789, -2.5e-7, 1.0, f64::MAX];
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(1000)),
            3 => [json!(u64::MAX), json!(i64::MIN), json!(0)][self.below(3)].clone(),
            4 => json!(numbers[self.below(numbers.len())]),
            5 => json!(self.string()),
            6 | 7 => Value::Object((0..self.below(5)).map(|_| (self.string(), self.value(depth - 1))).collect()),
            _ => (0..self.below(12)).map(|_| self.value(depth - 1)).collect(),
        }
    }
}

#[test]
fn pyyaml_reads_the_values_that_were_written() {
    let mut awkward = Awkward(42);
    let mut values: Vec<Value> = (0..600).map(|_| awkward.value(4)).collect();
    values
        .push(json!({ "lr": 1e-6, "final_lr": 1e21, "objective": "flatclr", "mean": [0.5, 0.5, 0.5], "resume": null }));
    let texts: Vec<String> = values.iter().map(run_dir::to_yaml).collect();
    let Some(read) = read_with_python("read_yaml.py", "", &json!(texts).to_string()) else { return };
    for (index, value) in values.iter().enumerate() {
        assert_eq!(read[index], *value, "{}", texts[index]);
    }
}

#[test]
fn a_configuration_file_opens_with_the_command_that_repeats_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["flatnce", "--data", "my data", "--lr", "0.6"].map(String::from);
    run_dir::write_config(directory.path(), &json!({ "lr": 0.6 }), &command).unwrap();
    assert_eq!(
        std::fs::read_to_string(directory.path().join("config.yml")).unwrap(),
        "# Every setting of this run, resolved. The same run again:\n# flatnce --data 'my data' --lr 0.6\nlr: 0.6\n"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary is left");
    let absent = directory.path().join("absent");
    let error = run_dir::write_config(&absent, &json!({}), &command).unwrap_err();
    assert!(error.to_string().contains("config.yml"), "{error}");
}

/// A made-up run: falling curves with noise from a fixed sequence.
fn curve(epochs: u64, steps_per_epoch: u64) -> (Vec<Record>, Vec<Record>) {
    let mut noise = Awkward(1);
    let mut random = || noise.below(1_000_000) as f64 / 1e6 - 0.5;
    let (mut steps, mut reports) = (Vec::new(), Vec::new());
    for epoch in 0..epochs {
        let mut sums = (0.0, 0.0);
        for step in epoch * steps_per_epoch..(epoch + 1) * steps_per_epoch {
            let progress = step as f64 / (epochs * steps_per_epoch) as f64;
            let loss_infonce = 2.2 + 2.6 * (-6.0 * progress).exp() + 0.3 * random();
            let ness_mean = 0.22 + 0.7 * (-9.0 * progress).exp() + 0.04 * random();
            sums = (sums.0 + loss_infonce, sums.1 + ness_mean);
            let record = Record::new(epoch, step + 1).with("loss_infonce", loss_infonce);
            steps.push(record.with("ness_mean", ness_mean));
        }
        let record = Record::new(epoch, (epoch + 1) * steps_per_epoch).with("mi_ceiling_nats", 127f64.ln());
        let record = record.with("loss_infonce", sums.0 / steps_per_epoch as f64);
        reports.push(record.with("ness_mean", sums.1 / steps_per_epoch as f64));
    }
    (reports, steps)
}

/// Where a picture goes: `$FLATNCE_KEEP_PLOTS/name` to be looked at, else a directory that is removed.
fn picture_path(temporary: &Path, name: &str) -> PathBuf {
    std::env::var_os("FLATNCE_KEEP_PLOTS").map_or(temporary.to_path_buf(), PathBuf::from).join(name)
}

#[test]
fn the_training_picture_shows_its_curves() {
    let directory = tempfile::tempdir().unwrap();
    let path = picture_path(directory.path(), "training.png");
    let (epochs, steps) = curve(4, 62);
    curves(&path, &training_figure("FlatCLR, res10, batch 64", &epochs, &steps)).unwrap();
    let picture = image::open(&path).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (1280, 492));
    let pixels = |colour: [u8; 3]| picture.pixels().filter(|pixel| pixel.0 == colour).count();
    assert!(pixels([255; 3]) > 1280 * 492 * 3 / 4, "a light background");
    assert!(pixels([0, 114, 178]) > 800, "the bold curves");
    assert!(pixels([213, 94, 0]) > 300, "the dashed line");
    // Title and labels: dark pixels above the panels, from the font in the program.
    let dark = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
        x.flat_map(|x| y.clone().map(move |y| (x, y))).filter(|&(x, y)| picture.get_pixel(x, y).0[0] < 128).count()
    };
    assert!(dark(400..900, 5..50) > 200, "the title");
    assert!(dark(0..30, 150..400) > 100, "the label of y");
}

#[test]
fn awkward_figures_are_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let series = |name: &str, colour, points: Vec<(f64, f64)>| Series {
        name: name.into(),
        colour,
        stroke: Stroke::Bold,
        points,
    };
    let panel = |title: &str, series| Panel {
        title: title.into(),
        x_label: "epochs".into(),
        y_label: "top-1 (%)".into(),
        series,
        ..Panel::default()
    };
    let many = (0..7).map(|i| {
        series(
            &format!("FlatCLR, batch {}", 32 << i),
            i,
            (0..90).map(|x| (f64::from(x), (i * x as usize) as f64)).collect(),
        )
    });
    let figure = Figure {
        title: "Awkward".into(),
        panels: vec![
            panel("seven runs", many.collect()),
            panel("one point", vec![series("a", 0, vec![(3.0, 1e-5)])]),
            panel("nothing", vec![]),
            panel("a gap", vec![series("a", 0, vec![(0.0, 1e7), (1.0, f64::NAN), (2.0, 3e7), (3.0, 2e7)])]),
        ],
    };
    let path = picture_path(directory.path(), "awkward.png");
    curves(&path, &figure).unwrap();
    assert_eq!(image::open(&path).unwrap().to_rgb8().dimensions(), (4 * 640, 440 + 52));
    // Before the first epoch there is nothing to show, and that can be shown.
    curves(&picture_path(directory.path(), "empty.png"), &training_figure("no epoch yet", &[], &[])).unwrap();
    let (epochs, steps) = curve(100, 200);
    let long = picture_path(directory.path(), "long.png");
    curves(&long, &training_figure("long", &epochs, &steps)).unwrap();
    // Thick lines that turn sharply stay inside the axes: no blue above or below them.
    let picture = image::open(&long).unwrap().to_rgb8();
    let outside = picture.enumerate_pixels().filter(|(_, y, _)| !(105..440).contains(y) && !(80..100).contains(y));
    assert!(outside.into_iter().all(|(.., pixel)| pixel.0[2].abs_diff(pixel.0[0]) < 16));
    let (epochs, _) = curve(1, 20);
    curves(&picture_path(directory.path(), "one.png"), &training_figure("one epoch", &epochs, &[])).unwrap();
    assert!(curves(Path::new("/absent/x.png"), &figure).unwrap_err().to_string().contains("/absent/x.png"));
}

#[test]
fn json_lines_carry_what_the_terminal_would_say() {
    let directory = tempfile::tempdir().unwrap();
    let out = Shared::default();
    let console = Console::json_to(Verbosity::Normal, out.clone());
    let mut log = RunLog::create(Some(directory.path()), plan(0, 1), numbers(), console.clone()).unwrap();
    pretend(&mut log, plan(0, 1), 1);
    log.warn("the \u{1b}[31mdisk\u{1b}[0m is slow");
    log.detail("for the curious");
    log.finish("done", &[]);
    let text = out.text();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["epoch", "warning", "result"], "{text}");
    assert_eq!((lines[0]["loss_infonce"].as_f64(), lines[0]["epoch"].as_u64()), (Some(4.0), Some(0)));
    assert_eq!(lines[2]["message"], "done");
    assert!(!text.contains('\u{1b}'), "{text}");
    for line in &lines {
        chrono::DateTime::parse_from_rfc3339(line["time"].as_str().unwrap()).unwrap();
    }
}

#[test]
fn names_of_other_people_reach_no_terminal_raw() {
    let name = "a\u{1b}]0;x\u{7}\u{9b}31m\u{202e}gnp.exe\nerror: all is well";
    let (console, out, err) = console(Verbosity::Verbose);
    console.note(name);
    console.detail(name);
    console.warn(name);
    console.error(&anyhow::anyhow!("{name}").context(name));
    console.result(&format!("first line\n{}", flatnce::report::Table::new([name])));
    for text in [out.text(), err.text()] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
        assert!(text.contains("a\\u001b]0;x\\u0007\\u009b31m\\u202egnp.exe\\nerror: all is well"), "{text}");
        assert!(!text.contains("\nerror: all"), "{text}");
    }
    assert_eq!(err.text().lines().count(), 3, "{}", err.text());
    let out = Shared::default();
    Console::json_to(Verbosity::Normal, out.clone()).warn(name);
    assert!(!out.text().contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{}", out.text());
    let line: Value = serde_json::from_str(&out.text()).unwrap();
    assert!(line["message"].as_str().unwrap().contains("\\u202egnp.exe"), "{line}");
}
