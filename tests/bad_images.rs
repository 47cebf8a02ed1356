//! `--bad-images`: a broken file stops a run and is named, or all files are read first and the broken ones left out.

use assert_cmd::cargo::CommandCargoExt;
use flatnce::config::{BadImages, DataConfig, DatasetName};
use flatnce::data::Part;
use flatnce::report::{Console, Verbosity};
use flatnce::train::readable::{self, Readable};
use std::path::Path;
use std::process::{Command, Output};

/// A folder of `good` images and of files that are none, spread among them by name.
fn folder(place: &Path, good: usize, broken: &[&str]) {
    std::fs::create_dir_all(place).expect("a directory");
    for number in 0..good {
        let picture = image::RgbImage::from_pixel(9, 9, image::Rgb([number as u8, 90, 200]));
        picture.save(place.join(format!("{number:04}.png"))).expect("writes");
    }
    for name in broken {
        std::fs::write(place.join(name), b"\x89PNG\r\n\x1a\n and nothing more").expect("writes");
    }
}

fn load(place: &Path, rule: BadImages) -> anyhow::Result<Readable> {
    let config = DataConfig { bad_images: rule, ..DataConfig::new(DatasetName::Folder, place.to_owned(), 8) };
    readable::load(&config, Part::Unlabelled, &Console::to_writers(Verbosity::Quiet, std::io::sink(), std::io::sink()))
}

#[test]
fn broken_files_are_left_out_up_to_one_in_a_hundred() {
    let place = tempfile::tempdir().expect("a directory");
    folder(place.path(), 198, &["0007a.png", "0150a.png"]);
    let Readable { split, left_out } =
        load(place.path(), BadImages::Skip { most_percent: 1.0 }).expect("2 of 200 are tolerated");
    assert_eq!((split.len(), left_out.len()), (198, 2));
    let names: Vec<_> = left_out.iter().map(|bad| bad.path.file_name().expect("a name").to_owned()).collect();
    assert_eq!(names, ["0007a.png", "0150a.png"]);
    // The others in their order, none twice.
    for index in 0..198 {
        assert_eq!(split.file_name(index).expect("a file"), Path::new(&format!("{index:04}.png")));
    }
    // Nothing is looked at beforehand where the first broken image is to be an error.
    assert_eq!(load(place.path(), BadImages::Fail).expect("names only").split.len(), 200);

    std::fs::write(place.path().join("0180a.png"), b"broken").expect("writes");
    let error =
        format!("{:#}", load(place.path(), BadImages::Skip { most_percent: 1.0 }).expect_err("3 of 201 are not"));
    assert!(error.contains("3 of the 201 images") && error.contains("1.5%"), "{error}");
}

fn train(place: &Path, data: &Path, rule: &str) -> Output {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    command.args(["--dataset-name=folder", "--image-size=8", "--model=res10", "--batch-size=8", "--epochs=1"]);
    command.args(["--device=cpu", "--knn-every=0", &format!("--bad-images={rule}"), "--optimizer=sgd", "--lr=0.01"]);
    command.args([format!("--data={}", data.display()), format!("--save-dir={}", place.join(rule).display())]);
    command.env("OMP_NUM_THREADS", "1").output().expect("it starts")
}

#[test]
fn a_run_stops_at_a_broken_image_or_says_which_it_leaves_out() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("images");
    folder(&data, 111, &["0050a.png"]);
    let said = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let failed = train(place.path(), &data, "fail");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("0050a.png"), "{}", said(&failed));

    let skipped = train(place.path(), &data, "skip");
    assert!(skipped.status.success(), "{}", said(&skipped));
    assert!(said(&skipped).contains("1 of 112 images are broken and left out"), "{}", said(&skipped));
    let mut run = place.path().join("skip");
    for _ in 0..3 {
        run = std::fs::read_dir(&run).expect("a directory").next().expect("an entry").expect("readable").path();
    }
    let list = std::fs::read_to_string(run.join("bad_images.txt")).expect("the list");
    assert!(list.lines().count() == 1 && list.contains("0050a.png: "), "{list}");
}

/// A FIFO that is called an image is no image: nobody waits for what comes out of it.
#[test]
fn fifos_and_devices_among_images_are_broken_ones() {
    let place = tempfile::tempdir().expect("a directory");
    let data = place.path().join("images");
    folder(&data, 20, &[]);
    let (fifo, zeros) = (data.join("0010a.png"), data.join("0011a.png"));
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("it starts").success());
    let failed = train(place.path(), &data, "fail");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("0010a.png cannot be used: it is a FIFO"), "{}", said(&failed));
    std::os::unix::fs::symlink("/dev/zero", &zeros).expect("links");
    let error = format!("{:#}", load(&data, BadImages::Skip { most_percent: 1.0 }).expect_err("2 of 22"));
    assert!(error.contains("2 of the 22 images"), "{error}");
}
