//! What the program writes into a directory of images is never taken for images.

#[path = "support/program.rs"]
mod program;

use image::{ImageFormat, RgbImage};
use program::{flatnce, said, succeeds};
use std::path::{Path, PathBuf};

/// Two classes of ten PNG files; the first part of a file's name is its class.
fn photos() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a directory");
    for (class, level) in [("cats", 40), ("dogs", 200)] {
        std::fs::create_dir(place.path().join(class)).expect("a directory");
        for number in 0..10u8 {
            let picture =
                RgbImage::from_fn(12, 12, |x, y| image::Rgb([level, (x * 20) as u8, (y * 20) as u8 + number]));
            let path = place.path().join(class).join(format!("{class}_{number}.png"));
            picture.save_with_format(path, ImageFormat::Png).expect("it is written");
        }
    }
    place
}

/// Runs the program in the directory of the images; the answer is all that it said.
fn run(place: &Path, words: &str) -> String {
    let mut command = flatnce(&words.split_ascii_whitespace().collect::<Vec<_>>());
    command.current_dir(place);
    said(&succeeds(command))
}

const IMAGES: &str = "--dataset-name folder --data . --image-size 8";
const TRAIN: &str = "--model res10 --batch-size 8 --warmup-epochs 0 --device cpu";

fn runs(place: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(place.join("results/folder/8_FlatCLR")).expect("runs");
    let mut all: Vec<PathBuf> = all.map(|entry| entry.expect("an entry").path()).collect();
    all.sort_by_key(|path| {
        std::fs::metadata(path.join("config.yml")).expect("it is a run").modified().expect("a time")
    });
    all
}

#[test]
fn whatever_the_program_writes_beside_images_is_no_data() {
    let photos = photos();
    let place = photos.path();
    let whole = "20 image files under ., 2 classes";
    assert!(run(place, &format!("{IMAGES} {TRAIN} --epochs 1")).contains(whole));
    let first = runs(place).remove(0);
    assert!(first.join("curves.png").is_file());
    // With a second run beside them, and every tool's files.
    let second = run(place, &format!("{IMAGES} {TRAIN} --epochs 1"));
    assert!(second.contains(whole) && second.contains("1 directory of flatnce's results"), "{second}");
    let checkpoint = first.join("checkpoint_0001.pth.tar").display().to_string();
    run(place, &format!("preview {IMAGES} --images 4 --out views.png --views views.safetensors"));
    run(place, &format!("preview {IMAGES} --images 4 --out cats/views.png"));
    run(place, &format!("embed {IMAGES} --part train --checkpoint {checkpoint} --out features --device cpu"));
    run(place, &format!("export --checkpoint {checkpoint} --out dogs/encoder.safetensors"));
    run(place, "report results/folder --html report.html --pictures pictures");
    run(place, "report results/folder --format json --out table.json");
    let drawn = std::fs::read_dir(place.join("pictures")).expect("pictures").count();
    assert!(drawn > 3, "{drawn}");

    let resumed = run(place, &format!("--resume {} --epochs 2", first.display()));
    assert!(resumed.contains(whole), "{resumed}");
    let again = run(
        place,
        &format!(
            "embed {IMAGES} --part train --checkpoint-dir {} --out features --force --device cpu",
            first.display()
        ),
    );
    let pictures = format!("{} pictures drawn by flatnce", drawn + 2);
    for words in [whole, "labels: the 2 directories (cats, dogs)", "2 directories of flatnce's results", &pictures] {
        assert!(again.contains(words), "{words}: {again}");
    }
    let names = std::fs::read_to_string(place.join("features/names.txt")).expect("names");
    assert_eq!(names.lines().count(), 20, "{names}");
    assert!(names.lines().all(|name| name.starts_with("cats/cats_") || name.starts_with("dogs/dogs_")), "{names}");
}

#[test]
fn results_are_known_by_what_they_are_and_not_by_their_names() {
    let photos = photos();
    let place = photos.path();
    // A class of the user's own of that name stays.
    std::fs::rename(place.join("dogs"), place.join("results")).expect("it moves");
    assert!(
        run(place, &format!("{IMAGES} {TRAIN} --epochs 0 --save-dir .")).contains("20 image files under ., 2 classes")
    );
    // A run that was moved and whose settings somebody has edited, with a picture of an older version, without a mark.
    let moved = place.join("old run");
    let written =
        std::fs::read_dir(place.join("folder/8_FlatCLR")).expect("a run").next().expect("one").expect("an entry");
    std::fs::rename(written.path(), &moved).expect("it moves");
    std::fs::copy(place.join("cats/cats_0.png"), moved.join("curves.png")).expect("it is copied");
    let config = std::fs::read_to_string(moved.join("config.yml")).expect("settings");
    std::fs::write(moved.join("config.yml"), config.split_once('\n').expect("lines").1).expect("it is written");
    let said = run(place, &format!("{IMAGES} {TRAIN} --dry-run"));
    assert!(
        said.contains("20 image files under ., 2 classes") && said.contains("flatnce's results (old run)"),
        "{said}"
    );
    // A config.yml of somebody else is no mark.
    std::fs::write(place.join("cats/config.yml"), "names: [cat]\n").expect("it is written");
    assert!(run(place, &format!("{IMAGES} {TRAIN} --dry-run")).contains("20 image files"));
}

#[test]
fn several_directories_train_as_one_set_wherever_they_are_moved() {
    let (one, two) = (photos(), photos());
    std::fs::rename(two.path().join("dogs"), two.path().join("birds")).expect("it moves");
    let above = tempfile::tempdir().expect("a directory");
    let place = |name: &str| above.path().join(name);
    std::fs::rename(one.path(), place("one")).expect("it moves");
    std::fs::rename(two.path(), place("two")).expect("it moves");
    let words = format!("--dataset-name folder --image-size 8 {TRAIN} --save-dir results --data one --data two");
    let said = run(above.path(), &format!("{words} --epochs 1"));
    assert!(said.contains("40 image files") && said.contains("3 classes"), "{said}");
    let first = runs(above.path()).remove(0);
    // The other places hold from here on, in settings and command.
    std::fs::create_dir(place("moved")).expect("a directory");
    for name in ["one", "two"] {
        std::fs::rename(place(name), place("moved").join(name)).expect("it moves");
    }
    let resume = format!("--resume {} --epochs 2", first.display());
    run(above.path(), &format!("{resume} --data moved/one --data moved/two"));
    let config = std::fs::read_to_string(first.join("config.yml")).expect("settings");
    assert!(config.contains("root: moved/one") && config.contains("more_roots: [moved/two]"), "{config}");
    assert!(config.contains("--data=moved/one --data=moved/two"), "{config}");
    // One of the two is another set.
    let mut command = flatnce(&["--resume", first.to_str().expect("text"), "--data", "moved/one", "--epochs", "3"]);
    let output = command.current_dir(above.path()).output().expect("it starts");
    assert!(!output.status.success());
    assert!(program::said(&output).contains("there were 40 images and are 20 now"), "{}", program::said(&output));
}
