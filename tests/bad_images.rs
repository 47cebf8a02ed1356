//! `--bad-images`: a broken file stops a run and is named, or all files are read first and the broken ones left out.

use assert_cmd::cargo::CommandCargoExt;
use flatnce::config::{BadImages, DataConfig, DatasetName, Orientation};
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
    // The headers tell it too, and the error says what to do.
    let error = format!("{:#}", load(place.path(), BadImages::Fail).expect_err("2 are broken"));
    assert!(error.contains("2 of 200 images") && error.contains("0007a.png") && error.contains("0150a.png"), "{error}");
    assert!(error.contains("--bad-images skip (skip:5%"), "{error}");

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
    assert!(
        said(&skipped).contains("1 of the 112 images of folder train cannot be read and is left out"),
        "{}",
        said(&skipped)
    );
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
    assert!(said(&failed).contains("0010a.png: it is a FIFO"), "{}", said(&failed));
    std::os::unix::fs::symlink("/dev/zero", &zeros).expect("links");
    let error = format!("{:#}", load(&data, BadImages::Skip { most_percent: 1.0 }).expect_err("2 of 22"));
    assert!(error.contains("2 of the 22 images"), "{error}");
}

/// Loads the images twice, as a run does, and gives the first answer and all that was said.
fn readable(config: &DataConfig) -> (anyhow::Result<Readable>, String) {
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    struct Into(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let console = Console::to_writers(Verbosity::Normal, Into(said.clone()), Into(said.clone()));
    let loaded = readable::load(config, Part::Unlabelled, &console);
    if loaded.is_ok() {
        readable::load(config, Part::Train, &console).expect("they can be read again");
    }
    let text = String::from_utf8(said.lock().expect("nobody panicked").clone()).expect("text");
    (loaded, text)
}

/// Whatever cannot be read is left out, and any number of it.
#[test]
fn skip_leaves_out_every_kind_of_file_that_cannot_be_read() {
    let place = tempfile::tempdir().expect("a directory");
    folder(place.path(), 20, &["broken.png", "broken2.png"]);
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path().join(name), bytes).expect("writes");
    write("empty.jpg", b"");
    write("page.jpg", b"<html>404</html>");
    write("photo.jpg", b"\0\0\0\x1cftypheic");
    let half = std::fs::read(place.path().join("0003.png")).expect("a picture");
    write("half.png", &half[..half.len() - 20]);
    assert!(Command::new("mkfifo").arg(place.path().join("fifo.png")).status().expect("it starts").success());
    let mut config = DataConfig::new(DatasetName::Folder, place.path().to_owned(), 8);
    config.bad_images = BadImages::SKIP;
    let (loaded, said) = readable(&config);
    let Readable { split, left_out } = loaded.expect("20 are left");
    assert_eq!((split.len(), left_out.len()), (20, 7));
    for (name, word) in [("page.jpg", "HTML"), ("photo.jpg", "HEIC"), ("empty.jpg", "empty"), ("fifo.png", "FIFO")] {
        let bad = left_out.iter().find(|bad| bad.path.ends_with(name)).expect("named");
        assert!(bad.reason.contains(word), "{bad}");
    }
    assert!(said.contains("7 of the 27 images") && said.contains("25.9% of them"), "{said}");

    config.bad_images = "skip:5%".parse().expect("a rule");
    let error = format!("{:#}", readable(&config).0.expect_err("7 of 27 are more"));
    assert!(error.contains("more than 5%") && error.contains("--bad-images skip"), "{error}");

    let nothing = tempfile::tempdir().expect("a directory");
    folder(nothing.path(), 0, &["a.png", "b.png"]);
    let config = DataConfig {
        bad_images: BadImages::SKIP,
        ..DataConfig::new(DatasetName::Folder, nothing.path().to_owned(), 8)
    };
    let error = format!("{:#}", readable(&config).0.expect_err("none is left"));
    assert!(error.contains("nothing is left") && error.contains("a.png"), "{error}");
}

/// A directory of more files than are looked at for a sample: the broken one is found all the same.
#[test]
fn the_headers_of_many_files_are_looked_at_before_a_run() {
    let place = tempfile::tempdir().expect("a directory");
    folder(place.path(), 1_000, &[]);
    let config = DataConfig::new(DatasetName::Folder, place.path().to_owned(), 8);
    let (loaded, said) = readable(&config);
    assert_eq!(loaded.expect("all are whole").split.len(), 1_000);
    assert!(said.contains("all 1,000 headers looked at in "), "{said}");
    std::fs::write(place.path().join("0501a.png"), b"\x89PNG").expect("writes");
    let error = format!("{:#}", readable(&config).0.expect_err("one is broken"));
    assert!(error.contains("1 of 1,001 images") && error.contains("0501a.png: it is truncated"), "{error}");
}

/// Images that are not what they seem are counted, and said once a kind.
#[test]
fn unusual_images_are_counted() {
    let place = tempfile::tempdir().expect("a directory");
    folder(place.path(), 5, &[]);
    let golden = Path::new("tests/golden/data/images");
    for name in ["rotated.jpg", "cmyk.jpg", "ycck.jpg", "palette_transparent.png"] {
        std::fs::copy(golden.join(name), place.path().join(name)).expect("copies");
    }
    for number in 0..3u16 {
        let deep = image::ImageBuffer::from_fn(9, 9, |x, y| image::Luma([(number + 1) * (x * y * 16) as u16]));
        deep.save(place.path().join(format!("deep{number}.png"))).expect("writes");
    }
    let mut config = DataConfig::new(DatasetName::Folder, place.path().to_owned(), 8);
    let (loaded, said) = readable(&config);
    loaded.expect("all are whole");
    for words in [
        "3 of 12 images have samples of 16 bits",
        "nearly black",
        "data of 12 bits?",
        "multiply 16",
        "2 of 12 images are in a printer's colours (CMYK)",
        "1 of 12 images has a palette with transparency",
        "1 of 12 images was taken with a turned camera; --orientation exif",
    ] {
        assert_eq!(said.matches(words).count(), 1, "once, however often a run loads them: {words}: {said}");
    }
    (config.orientation, config.bad_images) = (Orientation::Exif, BadImages::SKIP);
    let (loaded, said) = readable(&config);
    assert!(said.contains("1 of 12 images is turned upright") && said.contains("nearly black"), "{said}");
    let split = loaded.expect("all are whole").split;
    let turned =
        (0..split.len()).find(|&index| split.file_name(index) == Some(Path::new("rotated.jpg"))).expect("there");
    let mut scratch = flatnce::pixels::RgbImage::default();
    let image = split.image(turned, &mut scratch).expect("whole");
    assert_eq!((image.width, image.height), (45, 67));
}
