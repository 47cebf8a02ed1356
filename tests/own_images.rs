//! One's own images, from `train DIR` to features: what a command leaves open follows from the images, the machine and
//! the encoder's checkpoint.

#[path = "support/program.rs"]
mod program;
mod support;

use program::{flatnce, run_directory, said, succeeds};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two classes of ten pictures each, which differ in their colours.
fn photos(place: &Path, name: &str) {
    for number in 0..20u8 {
        let class = if number % 2 == 0 { "warm" } else { "cold" };
        let directory = place.join(name).join(class);
        std::fs::create_dir_all(&directory).expect("a directory");
        let tone = |x: u32| (x * 8) as u8 + number;
        let picture = image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb(if class == "warm" { [tone(x), 10, tone(y) / 4] } else { [10, tone(y) / 4, tone(x)] })
        });
        picture.save(directory.join(format!("{number}.png"))).expect("it is written");
    }
}

fn run(place: &Path, words: &[&str]) -> Output {
    let mut command = flatnce(words);
    // Nothing is found that another test has kept.
    command.current_dir(place).env("XDG_CACHE_HOME", place.join("cache"));
    command.output().expect("it starts")
}

fn told(place: &Path, words: &[&str]) -> String {
    let output = run(place, words);
    assert!(output.status.success(), "{words:?}\n{}", said(&output));
    said(&output)
}

const TINY: &[&str] =
    &["--model=res10", "--image-size=16", "--device=cpu", "--precision=fp32", "--warmup-epochs=0", "--batch-size=4"];

/// A run on `photos`, and its directory.
fn trained(place: &Path) -> PathBuf {
    photos(place, "photos");
    told(place, &[TINY, &["--dataset-name=folder", "--data=photos", "--epochs=1", "--knn-every=1"]].concat());
    run_directory(&place.join("results"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn only_directory(parent: &Path) -> PathBuf {
    let found: Vec<PathBuf> =
        std::fs::read_dir(parent).expect("a directory").map(|e| e.expect("readable").path()).collect();
    let [one] = &found[..] else { panic!("{found:?}") };
    one.clone()
}

fn outcome(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("linear_eval.json")).expect("results")).expect("JSON")
}

#[test]
fn an_evaluation_needs_no_more_than_its_encoder() {
    let place = tempfile::tempdir().expect("a directory");
    let run_at = trained(place.path());
    let words =
        ["--train-mode=eval", "--checkpoint-dir", text(&run_at), "--fc-epochs=20", "--device=cpu", "--precision=fp32"];
    let said_first = told(place.path(), &words);
    assert!(said_first.contains("images: folder in photos, on which the encoder was trained"), "{said_first}");
    assert!(said_first.contains("16x16 pixels to the encoder, as the encoder was trained"), "{said_first}");
    assert!(said_first.contains("4 of the 20 training images, a fifth of every class, are held out"), "{said_first}");

    // It lies with its run, and says on what it judged.
    let directory = only_directory(&run_at.join("evaluations/folder_1_fc"));
    let first = outcome(&directory);
    assert_eq!((&first["train_images"], &first["test_images"]), (&16.into(), &4.into()));
    assert_eq!((&first["test_images_held_out"], &first["image_size_px"]), (&true.into(), &16.into()));
    assert!(first["meaning"]["test_images_held_out"].as_str().is_some_and(|text| text.contains("a fifth")));
    assert!(first["knn_weighted_top1"].as_f64() >= Some(75.0), "colours are told apart: {first}");

    // Where --save-dir asks for a place it lies there as main.py has it; other images are taken where they are named.
    told(place.path(), &[&words[..], &["--save-dir=others", "--seed=7"]].concat());
    let second = outcome(&only_directory(&place.path().join("others/folder/flatclr/4_1_fc")));
    assert_eq!(first["knn_weighted_top1"], second["knn_weighted_top1"], "the same images, whatever the seed");
    let other = [&words[..], &["--dataset-name=fashion_mnist_mini", "--train-images=64"]].concat();
    assert!(told(place.path(), &other).contains("fashion_mnist_mini test"));
    assert!(run_at.join("evaluations/fashion_mnist_mini_1_fc").is_dir());

    // One report has the run and what was found of it, wherever that lies.
    let report: Value = serde_json::from_str(&String::from_utf8_lossy(
        &run(place.path(), &["report", text(&run_at), "--format=json"]).stdout,
    ))
    .expect("JSON");
    assert!(report.to_string().matches("linear_eval").count() >= 2, "{report}");
}

#[test]
fn images_that_have_moved_are_asked_for() {
    let place = tempfile::tempdir().expect("a directory");
    let run_at = trained(place.path());
    std::fs::rename(place.path().join("photos"), place.path().join("moved")).expect("moves");
    let words = ["--train-mode=eval", "--checkpoint-dir", text(&run_at), "--fc-epochs=2", "--device=cpu"];
    let output = run(place.path(), &words);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("photos, which is not there") && said(&output).contains("--data"),
        "{}",
        said(&output)
    );
    let found = told(place.path(), &[&words[..], &["--data=moved"]].concat());
    assert!(found.contains("images: folder, on which the encoder was trained"), "{found}");
    // An encoder that is not there is what is at fault, not the images.
    let output = run(place.path(), &["--train-mode=eval", "--checkpoint=nothing.pth.tar"]);
    assert!(said(&output).contains("nothing.pth.tar") && !said(&output).contains("imagenet"), "{}", said(&output));
}

#[test]
fn features_are_of_the_test_images_or_of_all() {
    let place = tempfile::tempdir().expect("a directory");
    let run_at = trained(place.path());
    let names =
        |out: &str| std::fs::read_to_string(place.path().join(out).join("names.txt")).expect("names").lines().count();
    let words = ["embed", "--checkpoint-dir", text(&run_at), "--device=cpu"];
    let all = told(place.path(), &[&words[..], &["--out=all"]].concat());
    assert!(all.contains("no test images: the features are those of all images"), "{all}");
    assert_eq!(names("all"), 20);
    photos(place.path(), "parts/train");
    photos(place.path(), "parts/test");
    std::fs::remove_file(place.path().join("parts/test/warm/0.png")).expect("removes");
    told(place.path(), &[&words[..], &["--data=parts", "--out=test"]].concat());
    assert_eq!(names("test"), 19);
}

#[test]
fn train_chooses_what_is_not_typed_and_says_the_whole_command() {
    let place = tempfile::tempdir().expect("a directory");
    photos(place.path(), "my photos");
    let words = ["train", "my photos", "--hours=1", "--device=cpu", "--model=res10", "--epochs=2", "--name=first"];
    let said = told(place.path(), &words);
    assert!(said.contains("images: 20, the shorter side 16 pixels in the middle, 2 classes"), "{said}");
    assert!(said.contains("timed just now (--hours 1)") && said.contains("epoch 2/2"), "{said}");
    let line = said.lines().find(|line| line.contains("--dataset-name=folder")).expect("the command").trim();
    let run_at = place.path().join("results/folder/10_FlatCLR/first");
    let config = std::fs::read_to_string(run_at.join("config.yml")).expect("settings");
    for part in ["depth: res10", "image_size_px: 32", "stem: small", "name: adam", "batch_size: 10"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    assert!(config.contains(line), "the same run again: {config}");
    // The printed command makes the same run.
    let again = line.replace("--name=first", "--name=second");
    let mut shell = Command::new("sh");
    shell.args(["-c", &again]).current_dir(place.path()).env("OMP_NUM_THREADS", "1");
    succeeds(shell);
    let settings = |name: &str| {
        let text =
            std::fs::read_to_string(place.path().join("results/folder/10_FlatCLR").join(name).join("config.yml"));
        text.expect("settings")
            .split_once("\njob:")
            .expect("settings")
            .1
            .split_once("\nhistory")
            .map(|(job, _)| job.to_owned())
    };
    assert_eq!(settings("first"), settings("second"));
}

#[test]
fn train_asks_for_images_and_for_a_new_run() {
    let place = tempfile::tempdir().expect("a directory");
    photos(place.path(), "photos");
    std::fs::create_dir(place.path().join("empty")).expect("a directory");
    for (words, told) in [
        (&["train", "nothing"][..], "nothing is no directory of images"),
        (&["train", "empty"], "holds no image"),
        (&["train", "photos", "--resume=results"], "--resume: train begins"),
        (&["train", "photos", "--data=photos"], "--data: train begins"),
        (&["train", "photos", "--hours=0"], "--hours"),
        (&["train"], "<DIR>"),
    ] {
        let output = run(place.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(told), "{words:?}: {}", said(&output));
    }
    // One of several that a launcher has started would choose otherwise than the others.
    let mut rank = flatnce(&["train", "photos"]);
    rank.envs([
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "1"),
    ]);
    let output = rank.current_dir(place.path()).output().expect("it starts");
    assert!(!output.status.success() && said(&output).contains("for one process"), "{}", said(&output));
}

/// A run of years on a CPU, begun, and all that it says.
fn long_run(place: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut shell = Command::new("sh");
    // The process of the shell becomes the program's.
    shell.args(["-c", "exec \"$0\" \"$@\" 2>&1", env!("CARGO_BIN_EXE_flatnce")]);
    shell.args(["--dataset-name=fashion_mnist_mini", "--model=res18", "--image-size=64", "--batch-size=8"]);
    shell.args(["--device=cpu", "--epochs=1000000", "--knn-every=0", "--save-every-n-epochs=1000", "--keep-last=2"]);
    shell.env("OMP_NUM_THREADS", "1").current_dir(place).stdout(Stdio::piped());
    let mut child = shell.spawn().expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, said)
}

#[test]
fn a_run_of_days_is_told_before_its_first_step() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut child, said) = long_run(place.path());
    let mut seen = Vec::new();
    for line in said.lines() {
        seen.push(line.expect("text"));
        if seen.last().is_some_and(|line| line.contains("this will take about")) {
            break;
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let (said, warning) = (seen.join("\n"), seen.last().expect("a line"));
    assert!(said.contains("time: about") && said.contains("1,000,000 epochs of 4,000 images"), "{said}");
    assert!(said.contains("memory: about") && said.contains("GiB in main memory"), "{said}");
    assert!(warning.contains("days (") && warning.contains("within an hour on this machine: --model=res18"), "{said}");
    assert!(warning.contains("--epochs=") && warning.contains("GPU"), "{said}");
    assert!(!said.contains("results go to"), "nothing is written yet: {said}");
}

/// While it looks at how long it will take: there is nothing to be saved.
#[test]
fn a_stop_before_the_first_step_is_heard_at_once() {
    let place = tempfile::tempdir().expect("a directory");
    let (mut child, mut said) = long_run(place.path());
    let mut line = String::new();
    while !line.starts_with("device: CPU") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it has ended");
    }
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    // SAFETY: a plain system call on a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    let status = child.wait().expect("it ends");
    let rest: Vec<String> = said.lines().map(|line| line.expect("text")).collect();
    assert_eq!(status.code(), Some(75), "{rest:?}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(rest.iter().any(|line| line.contains("SIGTERM: stopped before the first step")), "{rest:?}");
    assert!(!place.path().join("results").exists());
}
