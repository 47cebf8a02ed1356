//! Disks that fill up, and other limits of the system: the run says what it needs, what was saved stays whole, and the run goes on from there.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::checkpoint;
use flatnce::run_dir;
use program::{flatnce, run_directory, said, save_dir, succeeds};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A run of a second; its checkpoints take 40 MiB.
const SETTINGS: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=32",
    "--image-size=8",
    "--model=res10",
    "--batch-size=8",
    "--optimizer=sgd",
    "--lr=0.05",
    "--warmup-epochs=0",
    "--save-every-n-epochs=1",
    "--device=cpu",
];

/// Runs a shell script with the program as `$FLATNCE`.
fn shell(script: &str, arguments: &[&str]) -> Output {
    let program = flatnce(&[]).get_program().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments).env("FLATNCE", program).env("OMP_NUM_THREADS", "1");
    command.output().expect("sh starts")
}

/// Two epochs in a directory below `results`.
fn trained(results: &Path) -> PathBuf {
    let save_dir = format!("--save-dir={}", results.display());
    succeeds(flatnce(&[SETTINGS, &["--epochs=2", &save_dir]].concat()));
    let mut at = results.to_path_buf();
    for _ in 0..3 {
        at = std::fs::read_dir(&at).expect("a directory").next().expect("an entry").expect("readable").path();
    }
    at
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_that_does_not_fit_is_an_error_and_the_older_ones_stay() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path());
    let resume = directory.to_str().expect("utf-8");
    // No file may grow beyond some MiB: the kernel refuses the rest of a checkpoint, as a quota would.
    let limited = r#"ulimit -f 8192; exec "$FLATNCE" --resume "$1" --epochs 4"#;
    let output = shell(limited, &[resume]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("needs 39.9 MiB at") && text.contains("make room"), "{text}");
    assert!(text.contains("checkpoint_0002.pth.tar") && text.contains("File too large"), "{text}");
    assert!(names(&directory).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(&directory));
    let mut damaged = Vec::new();
    let (path, newest) = checkpoint::newest_good(&directory, &mut |warning| damaged.push(warning)).expect("a good one");
    assert_eq!((newest.epochs_done, damaged.len()), (2, 0), "{}", path.display());
    // With room again, the run goes on.
    let output = flatnce(&["--resume", resume, "--epochs=4"]).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
    assert!(run_dir::list_checkpoints(&directory).expect("a listing").len() >= 3);
}

/// Runs `program`, shell code that finds the flags in `$@`, in a file system of so many MiB of its own, `$where`; then lists
/// the files in there. `None` where this machine lets nobody mount one.
fn on_a_small_disk(mib: u32, program: &str, arguments: &[&str]) -> Option<Output> {
    let place = tempfile::tempdir().expect("a directory");
    let mount = place.path().to_str().expect("utf-8");
    let inside = format!(
        r#"mount -t tmpfs -o size={mib}m tmpfs "$1" || exit 99
        where=$1; shift
        {program}
        find "$where" -type f
        exit $code"#
    );
    let script = format!("exec unshare --user --map-root-user --mount sh -c '{inside}' sh \"$@\"");
    let probe =
        shell("exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs tmpfs \"$1\"' sh \"$1\"", &[mount]);
    if !probe.status.success() {
        let why = said(&probe);
        support::absent(&format!("this machine lets nobody mount a file system of their own: {}", why.trim()));
        return None;
    }
    Some(shell(&script, &[&[mount], arguments].concat()))
}

#[test]
fn a_full_file_system_names_the_checkpoint_and_the_room_it_needs() {
    // Room for all four, until something else takes what is left.
    let program = r#""$FLATNCE" --save-dir="$where" "$@" & run=$!
        until find "$where" -name "checkpoint_0000.pth.tar" | grep -q .; do kill -0 $run || break; done
        head -c 200M /dev/zero > "$where/other"
        wait $run; code=$?"#;
    let settings = [SETTINGS, &["--train-images=128", "--epochs=4"]].concat();
    let Some(output) = on_a_small_disk(170, program, &settings) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left on device") && text.contains("needs 39.9 MiB at"), "{text}");
    assert!(text.contains("/checkpoint_0000.pth.tar\n"), "the first one is there: {text}");
    assert!(!text.contains(".tmp\n"), "{text}");
}

#[test]
fn a_run_whose_checkpoints_do_not_fit_writes_nothing() {
    let program = r#""$FLATNCE" --save-dir="$where" "$@"; code=$?"#;
    for (more, wanted) in [(&["--epochs=3"][..], 3), (&["--epochs=3", "--keep-last=1"], 2)] {
        let Some(output) = on_a_small_disk(60, program, &[SETTINGS, more].concat()) else { return };
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&format!("room for {wanted} of 40.1 MiB each")), "{text}");
        assert!(text.contains("0.06 GiB are free") && !text.contains("training.log"), "{text}");
        // What fits begins: two, or one and the next one beside it.
        let fewer = [SETTINGS, more, &["--epochs=2", "--save-every-n-epochs=2"]].concat();
        let Some(output) = on_a_small_disk(90, program, &fewer) else { return };
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
}

#[test]
fn a_log_that_cannot_be_written_costs_one_warning_and_no_training() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path());
    let log = directory.join("training.log");
    std::fs::remove_file(&log).expect("removes");
    std::os::unix::fs::symlink("/dev/full", &log).expect("links");
    let resume = directory.to_str().expect("utf-8");
    let output = flatnce(&["--resume", resume, "--epochs=4", "--verbose"]).output().expect("it starts");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("cannot write to").count(), 1, "{text}");
    assert!(text.contains("training.log") && text.contains("the run goes on"), "{text}");
    assert!(names(&directory).contains(&"checkpoint_0004.pth.tar".to_owned()));
}

#[test]
fn two_processes_do_not_train_in_one_directory() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path());
    let claim = run_dir::claim(&directory).expect("it is free");
    let resume = directory.to_str().expect("utf-8");
    let output = flatnce(&["--resume", resume, "--epochs=3"]).output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("another process is training in"), "{}", said(&output));
    drop(claim);
    let output = flatnce(&["--resume", resume, "--epochs=3"]).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
}

/// Whatever prints what it was asked for: a full disk behind standard output is an error, a reader that has gone is none.
#[test]
fn a_result_that_cannot_be_printed_is_an_error() {
    let place = tempfile::tempdir().expect("a directory");
    let directory = trained(place.path());
    assert_eq!(directory, run_directory(place.path()));
    let run = directory.to_str().expect("utf-8");
    let checkpoint = format!("{run}/checkpoint_0002.pth.tar");
    let at = |name: &str| place.path().join(name).display().to_string();
    let (trunk, sheet, features) = (at("trunk.safetensors"), at("sheet.png"), at("features"));
    let mini = ["--dataset-name=fashion_mnist_mini", "--image-size=8"];
    let embed = ["embed", "--part=train", "--train-images=8", "--device=cpu", "--checkpoint", &checkpoint, "--out"];
    let cases: [Vec<&str>; 10] = [
        vec!["--help"],
        vec!["--version"],
        vec!["report", "--help"],
        vec!["report", run],
        vec!["report", run, "--format=csv"],
        vec!["inspect", &checkpoint],
        vec!["export", "--force", "--checkpoint", &checkpoint, "--out", &trunk],
        [&["preview", "--images=2", "--out", &sheet][..], &mini].concat(),
        [&embed[..], &[&features, "--force"], &mini].concat(),
        [&["--dry-run"][..], SETTINGS, &["--epochs=1"]].concat(),
    ];
    for words in cases {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = flatnce(&words).stdout(full).output().expect("it starts");
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {text}");
        assert!(text.contains("to standard output") && text.contains("No space left on device"), "{words:?}: {text}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = flatnce(&words).stdout(writer).output().expect("it starts");
        assert!(output.status.success() && !said(&output).contains("error"), "{words:?}: {}", said(&output));
    }
}

#[test]
fn threads_that_the_system_does_not_grant_are_an_error() {
    let place = tempfile::tempdir().expect("a directory");
    let save_dir = save_dir(place.path());
    // A thousand stacks do not fit into what the program itself leaves of the address space.
    let limited = r#"ulimit -v 2000000; exec "$FLATNCE" "$@""#;
    let output = shell(limited, &[SETTINGS, &["--epochs=1", "--workers=1000", &save_dir]].concat());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("of 1000 cannot be started") && text.contains("ulimit -v, now 2000000"), "{text}");
    assert!(text.contains("--workers") && !text.contains("panicked"), "{text}");
}
