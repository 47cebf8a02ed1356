//! What a command does not say: the size at which an encoder sees images, the home in a path, how many images are drawn.

#[path = "support/program.rs"]
mod program;

use program::{flatnce, run_directory, said, save_dir, start, succeeds};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The initial weights of a run at 8 pixels.
fn encoder(place: &Path) -> PathBuf {
    let results = place.join("pretraining");
    let save_dir = save_dir(&results);
    let words = ["--dataset-name=fashion_mnist_mini", "--image-size=8", "--model=res10", "--batch-size=8"];
    succeeds(flatnce(&[&words[..], &["--epochs=0", "--device=cpu", &save_dir]].concat()));
    run_directory(&results).join("checkpoint_0000.pth.tar")
}

/// Two classes of grey pictures, four for training and two for testing.
fn folder(place: &Path, classes: &[&str]) -> String {
    for (number, class) in classes.iter().enumerate() {
        for part in ["train/a", "train/b", "train/c", "train/d", "test/a", "test/b"] {
            let (part, name) = part.split_once('/').expect("a part");
            let directory = place.join("images").join(part).join(class);
            std::fs::create_dir_all(&directory).expect("a directory");
            let picture = image::RgbImage::from_pixel(20, 18, image::Rgb([90 * number as u8, 90, 200]));
            picture.save(directory.join(format!("{name}.png"))).expect("writes");
        }
    }
    format!("--data={}", place.join("images").display())
}

fn evaluate(checkpoint: &Path, more: &[&str]) -> Output {
    let checkpoint = format!("--checkpoint={}", checkpoint.display());
    let words = ["--train-mode=eval", "--precision=fp32", "--device=cpu", "--fc-epochs=2", &checkpoint];
    start(&[&words[..], more].concat())
}

#[test]
fn an_encoder_sees_photographs_at_the_size_of_its_training() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, data) = (encoder(place.path()), folder(place.path(), &["cat", "dog"]));
    let save = save_dir(&place.path().join("results"));
    let words = ["--dataset-name=folder", &data, &save];
    let told = said(&evaluate(&file, &[&words[..], &["--dry-run"]].concat()));
    assert!(told.contains("8x8 pixels to the encoder, as the encoder was trained"), "{told}");
    assert!(!told.contains("px; --image-size"), "{told}");
    let told = said(&evaluate(&file, &[&words[..], &["--dry-run", "--image-size=16"]].concat()));
    assert!(told.contains("16x16 pixels to the encoder, as --image-size asks"), "{told}");
    assert!(told.contains("trained on images of 8 px and is given 16 px; --image-size 8 repeats"), "{told}");
    // These are those of its training, whose usual size is another one.
    let told = said(&evaluate(&file, &["--dataset-name=fashion_mnist_mini", "--dry-run", &save]));
    assert!(told.contains("8x8 pixels to the encoder, as the encoder was trained"), "{told}");

    let output = evaluate(&file, &words);
    assert!(output.status.success(), "{}", said(&output));
    let mut at = place.path().join("results");
    for _ in 0..4 {
        at = std::fs::read_dir(&at).expect("a directory").next().expect("an entry").expect("readable").path();
    }
    let config = std::fs::read_to_string(at.join("config.yml")).expect("reads");
    assert!(config.contains("image_size_px: 8\n"), "{config}");

    // The size survives an export, and embed takes it.
    let (export, out) = (place.path().join("encoder.safetensors"), place.path().join("features"));
    let export = export.to_str().expect("utf-8");
    succeeds(flatnce(&["export", "--checkpoint", file.to_str().expect("utf-8"), "--out", export]));
    let (from, out_flag) = (format!("--checkpoint={export}"), format!("--out={}", out.display()));
    let output = start(&["embed", "--dataset-name=folder", "--device=cpu", &data, &from, &out_flag]);
    assert!(said(&output).contains("8x8 pixels to the encoder, as the encoder was trained"), "{}", said(&output));
    let about = std::fs::read_to_string(out.join("embed.json")).expect("reads");
    assert!(about.contains("\"crop_px\": 8"), "{about}");
}

#[test]
fn an_evaluation_that_is_continued_keeps_its_size() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, data) = (encoder(place.path()), folder(place.path(), &["cat", "dog"]));
    let save = save_dir(&place.path().join("results"));
    let words = ["--dataset-name=folder", &data, &save, "--fc-save-every-n-epochs=1", "--feature-cache=off"];
    let output = evaluate(&file, &[&words[..], &["--image-size=16"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    let mut at = place.path().join("results");
    for _ in 0..4 {
        at = std::fs::read_dir(&at).expect("a directory").next().expect("an entry").expect("readable").path();
    }
    let saved = std::fs::read_dir(&at).expect("a directory").flatten().map(|entry| entry.file_name());
    let saved = saved.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".pth.tar")).min();
    let from = format!("--fc-train-from={}", saved.expect("a checkpoint"));
    let log_dir = format!("--fc-log-dir={}", at.display());
    let told = said(&evaluate(&file, &[&words[..], &[&log_dir, &from, "--dry-run"]].concat()));
    assert!(told.contains("16x16 pixels to the encoder, as the evaluation began"), "{told}");
    assert!(!told.contains("differs from the evaluation"), "{told}");
}

#[test]
fn one_class_is_warned_of_wherever_labels_judge() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, data) = (encoder(place.path()), folder(place.path(), &["cat"]));
    let save = save_dir(&place.path().join("results"));
    let warning = "are of a single class, cat";
    let told = said(&evaluate(&file, &["--dataset-name=folder", &data, &save]));
    assert!(told.contains(warning) && told.contains("4 image files under") && told.contains("1 class\n"), "{told}");
    let out = format!("--out={}", place.path().join("features").display());
    let from = format!("--checkpoint={}", file.display());
    let told = said(&start(&["embed", "--dataset-name=folder", "--device=cpu", &data, &from, &out]));
    assert!(told.contains(warning), "{told}");
    let words = ["--dataset-name=folder", &data, &save, "--model=res10", "--batch-size=2", "--image-size=8"];
    let told = said(&start(&[&words[..], &["--knn-every=1", "--epochs=1", "--device=cpu", "--dry-run"]].concat()));
    assert!(told.contains(warning), "{told}");
}

#[test]
fn a_broken_image_is_named_and_not_the_file_of_features() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, data) = (encoder(place.path()), folder(place.path(), &["cat", "dog"]));
    std::fs::write(place.path().join("images/test/cat/a.png"), b"\x89PNG\r\n\x1a\n and no more").expect("writes");
    let out = place.path().join("features");
    let (from, out_flag) = (format!("--checkpoint={}", file.display()), format!("--out={}", out.display()));
    let output = start(&["embed", "--dataset-name=folder", "--device=cpu", &data, &from, &out_flag]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("cat/a.png") && !told.contains("features.npy"), "{told}");
}

#[test]
fn the_home_stands_behind_a_tilde_in_every_path() {
    let place = tempfile::tempdir().expect("a directory");
    let home = place.path().join("home");
    std::fs::create_dir(&home).expect("a directory");
    let run = |words: &[&str]| {
        let mut command = flatnce(words);
        command.env("HOME", &home).current_dir(place.path());
        command
    };
    let words = ["--dataset-name=fashion_mnist_mini", "--image-size=8", "--model=res10", "--batch-size=8"];
    succeeds(run(&[&words[..], &["--epochs=0", "--device=cpu", "--save-dir=~/results"]].concat()));
    assert!(home.join("results").is_dir() && !place.path().join("~").exists());
    let output = run(&["--resume=~/nothing", "--dry-run"]).output().expect("it starts");
    assert!(said(&output).contains(home.join("nothing").to_str().expect("utf-8")), "{}", said(&output));
    let output = run(&["inspect", "~/nothing"]).output().expect("it starts");
    assert!(said(&output).contains(home.join("nothing").to_str().expect("utf-8")), "{}", said(&output));
    // A name that begins so is none.
    let output = run(&["inspect", "~nobody"]).output().expect("it starts");
    assert!(said(&output).contains("~nobody") && !said(&output).contains("home"), "{}", said(&output));
}

#[test]
fn a_path_that_is_no_text_is_one_error_with_its_flag() {
    let place = tempfile::tempdir().expect("a directory");
    let odd = OsStr::from_bytes(b"pictures\xff");
    std::fs::create_dir(place.path().join(odd)).expect("a directory");
    for (words, flag) in [
        (&["--dataset-name=folder", "--data"][..], "--data"),
        (&["--save-dir"], "--save-dir"),
        (&["--resume"], "--resume"),
        (&["--from-pretrained"], "--from-pretrained"),
        (&["--train-mode=eval", "--checkpoint"], "--checkpoint"),
        (&["--feature-cache"], "--feature-cache"),
        (&["preview", "--out"], "--out"),
        (&["inspect"], "<FILE|DIR>"),
    ] {
        let mut command = flatnce(words);
        let output = command.arg(odd).current_dir(place.path()).output().expect("it starts");
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {told}");
        assert!(told.contains(flag) && told.contains(r"pictures\xFF") && told.contains("UTF-8"), "{words:?}: {told}");
    }
}

#[test]
fn a_preview_of_few_images_draws_those_that_are_there() {
    let place = tempfile::tempdir().expect("a directory");
    let data = folder(place.path(), &["cat", "dog"]);
    let sheet = format!("--out={}", place.path().join("views.png").display());
    let words = ["preview", "--dataset-name=folder", "--image-size=16", &data, &sheet];
    let output = succeeds(flatnce(&words));
    assert!(said(&output).contains("8 images, each with its two views"), "{}", said(&output));
    let output = start(&[&words[..], &["--images=9"]].concat());
    assert!(!output.status.success() && said(&output).contains("has 8 images"), "{}", said(&output));
    let output = succeeds(flatnce(&[&words[..], &["--images=1"]].concat()));
    assert!(said(&output).contains("1 image, each with"), "{}", said(&output));
}
