//! The contact sheet shows what training sees.

use assert_cmd::cargo::CommandCargoExt;
use flatnce::config::{Augmentation, DataConfig, DatasetName};
use flatnce::data::{self, Part, Split};
use flatnce::loader::{Loader, Order, Rendering};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

fn preview(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::cargo_bin("flatnce").expect("the binary is built");
    command.arg("preview").args(words).current_dir(directory).env("OMP_NUM_THREADS", "1");
    command.output().expect("it starts")
}

/// The images inside the program.
fn embedded() -> Arc<Split> {
    let data = DataConfig::new(DatasetName::FashionMnistMini, "datasets", 32);
    Arc::new(data::load(&data, Part::Unlabelled).expect("it is inside the program"))
}

/// The top left pixel of every enlarged pixel of the tile at `(left, top)`: the tile as it was.
fn tile(sheet: &image::RgbImage, left: u32, top: u32, factor: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..32 {
        for x in 0..32 {
            pixels.extend(sheet.get_pixel(left + x * factor, top + y * factor).0);
        }
    }
    pixels
}

#[test]
fn the_views_on_the_sheet_are_those_of_the_first_batch() {
    let place = tempfile::tempdir().expect("a directory");
    let words = ["--dataset-name=fashion_mnist_mini", "--images=3", "--epoch=2", "--seed=9", "--crop-scale-min=0.3"];
    let output = preview(place.path(), &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sheet = image::open(place.path().join("views.png")).expect("a picture").to_rgb8();

    let split = embedded();
    let recipe = Augmentation { crop_scale_min: 0.3, ..Augmentation::paper(DatasetName::FashionMnistMini, 32, false) };
    let rendering = Rendering::Views { recipe, size_px: 32 };
    // As training has it, with another batch size and number of workers than the sheet.
    let loader = Loader::new(Arc::clone(&split), rendering, Order::Shuffled, 64, 9, 1).expect("a loader");
    let batch = loader.epoch(2, 0).next().expect("a batch").expect("images");
    for sample in 0..3u32 {
        let group = 10 + sample * (3 * 96 + 2 * 2 + 10);
        let mut scratch = Default::default();
        let original = split.image(batch.samples[sample as usize], &mut scratch).expect("an image").pixels.to_vec();
        assert!(tile(&sheet, group, 10, 3) == original, "original {sample}");
        for view in 0..2u32 {
            let row = batch.images.get(i64::from(view * 64 + sample)).contiguous().view(-1);
            let expected = Vec::<u8>::try_from(row).expect("bytes");
            assert!(tile(&sheet, group + (view + 1) * 98, 10, 3) == expected, "sample {sample}, view {view}");
        }
    }
}

#[test]
fn parameters_are_printed_on_request_and_errors_name_the_flag() {
    let place = tempfile::tempdir().expect("a directory");
    let output = preview(place.path(), &["--dataset-name=fashion_mnist_mini", "--images=2", "--parameters"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().filter(|line| line.starts_with('|')).count(), 2 + 2 * 2, "{said}");

    let output = preview(place.path(), &["--dataset-name=fashion_mnist_mini", "--images=5000", "--out=other.png"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose a smaller --images than 5000"));
    assert!(!place.path().join("other.png").exists());
    let output = preview(place.path(), &["--dataset_name=fashion_mnist_mini", "--out=absent/other.png"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent/other.png"));
}

#[test]
fn the_tensor_engine_shows_its_own_views() {
    let place = tempfile::tempdir().expect("a directory");
    let sheet = |engine: &str, more: &[&str]| {
        let (out, views) = (format!("--out={engine}.png"), format!("--views={engine}.safetensors"));
        let engine = format!("--engine={engine}");
        let words = [&["--dataset-name=fashion_mnist_mini", "--images=12", &out, &views, &engine], more].concat();
        let output = preview(place.path(), &words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let name = engine.trim_start_matches("--engine=");
        let read = |kind: &str| std::fs::read(place.path().join(format!("{name}.{kind}"))).expect("a file");
        let bytes = read("safetensors");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
        let notes = header.metadata().clone().expect("notes");
        assert_eq!(notes["engine"], name);
        (read("png"), file.tensor("views").expect("views").data().to_vec())
    };
    // Without blur the engines have the same pixels, with it they may differ by a level.
    assert!(sheet("tensor", &[]) == sheet("cpu", &[]));
    let (_, tensor) = sheet("tensor", &["--blur"]);
    let (_, cpu) = sheet("cpu", &["--blur"]);
    assert!(tensor.iter().zip(&cpu).all(|(a, b)| a.abs_diff(*b) <= 1));
}

#[test]
fn batches_of_views_are_those_of_training() {
    let place = tempfile::tempdir().expect("a directory");
    let words = ["--dataset-name=fashion_mnist_mini", "--images=5", "--seed=9", "--batches=3", "--views=v.safetensors"];
    let output = preview(place.path(), &words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let split = embedded();
    let rendering =
        Rendering::Views { recipe: Augmentation::paper(DatasetName::FashionMnistMini, 32, false), size_px: 32 };
    let loader = Loader::new(split, rendering, Order::Shuffled, 5, 9, 2).expect("a loader");
    let bytes = std::fs::read(place.path().join("v.safetensors")).expect("a file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let (views, samples) = (file.tensor("views").unwrap(), file.tensor("samples").unwrap());
    assert_eq!((views.shape(), samples.shape()), (&[3, 10, 32, 32, 3][..], &[3, 5][..]));
    let batch_bytes = 10 * 32 * 32 * 3;
    for (number, batch) in loader.epoch(0, 0).take(3).enumerate() {
        let batch = batch.expect("images");
        let wanted = Vec::<u8>::try_from(batch.images.contiguous().view(-1)).unwrap();
        assert!(views.data()[number * batch_bytes..][..batch_bytes] == wanted[..], "batch {number}");
        let places: Vec<u8> = batch.samples.iter().flat_map(|&sample| (sample as i64).to_le_bytes()).collect();
        assert_eq!(&samples.data()[number * 40..][..40], &places[..]);
    }
    let too_many = ["--dataset-name=fashion_mnist_mini", "--batches=9999", "--views=w.safetensors", "--out=w.png"];
    let output = preview(place.path(), &too_many);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--batches"), "{said}");
    assert!(!place.path().join("w.png").exists() && !place.path().join("w.safetensors").exists());
}
