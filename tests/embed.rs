//! `flatnce embed`: the features of the linear evaluation, as files that NumPy and safetensors read.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::augment::EvalTransform;
use flatnce::checkpoint;
use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{self, Part};
use flatnce::model::{Encoder, HeadKind};
use flatnce::report::{Console, Verbosity};
use flatnce::train::features::Extractor;
use flatnce::train::ranks::Ranks;
use program::{flatnce, run_directory, said, save_dir, start, succeeds};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tch::{Device, Kind};

/// The initial weights of a run, at 8 pixels.
fn encoder(place: &Path) -> PathBuf {
    let results = place.join("results");
    let save_dir = save_dir(&results);
    let words = [
        "--dataset-name=fashion_mnist_mini",
        "--image-size=8",
        "--model=res10",
        "--batch-size=8",
        "--epochs=0",
        "--device=cpu",
        &save_dir,
    ];
    succeeds(flatnce(&words));
    run_directory(&results).join("checkpoint_0000.pth.tar")
}

fn embed(checkpoint: &Path, out: &Path, more: &[&str]) -> Output {
    let (checkpoint, out) = (format!("--checkpoint={}", checkpoint.display()), format!("--out={}", out.display()));
    let words = ["embed", "--image-size=8", "--precision=fp32", "--device=cpu", &checkpoint, &out];
    start(&[&words[..], more].concat())
}

const MINI: &str = "--dataset-name=fashion_mnist_mini";

/// The numbers behind the header of an `.npy` file.
fn npy(path: &Path) -> (String, Vec<u8>) {
    let bytes = std::fs::read(path).expect("reads");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    (String::from_utf8_lossy(&bytes[10..10 + length]).into_owned(), bytes[10 + length..].to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn the_features_are_those_of_the_linear_evaluation() {
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    let out = place.path().join("test");
    let output = embed(&file, &out, &[MINI]);
    assert!(output.status.success(), "{}", said(&output));
    let (header, features) = npy(&out.join("features.npy"));
    assert!(header.contains("'<f4'") && header.contains("(1000, 512)"), "{header}");

    let data = DataConfig::new(DatasetName::FashionMnistMini, "datasets", 8);
    let split = Arc::new(data::load(&data, Part::Test).expect("it is inside the program"));
    let saved = checkpoint::read(&file).expect("reads");
    let network = Encoder::new(&saved.config.expect("ours").model, HeadKind::Projection, Device::Cpu, 0);
    network.load(&saved.model).expect("it fits");
    let console = Console::to_writers(Verbosity::Quiet, std::io::sink(), std::io::sink());
    let extractor = Extractor {
        encoder: &network,
        compute: Kind::Float,
        seed: 0,
        workers: 2,
        console: &console,
        ranks: &Ranks::alone(),
    };
    let transform = EvalTransform::evaluation(data.dataset, 8);
    let expected = extractor.extract(&split, transform, 0).expect("features");
    let expected = Vec::<f32>::try_from(expected.values.contiguous().view(-1)).expect("numbers");
    let found = floats(&features);
    assert_eq!(found.len(), expected.len());
    // Threads cut sums differently; nothing else may differ.
    let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-5, "{largest:e}");
    assert!(expected.iter().any(|value| value.abs() > 0.01), "features of nothing");

    let (header, labels) = npy(&out.join("labels.npy"));
    assert!(header.contains("'<i8'") && header.contains("(1000,)"), "{header}");
    let labels: Vec<i64> = labels.as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b)).collect();
    assert_eq!(Some(&labels), split.labels.as_ref());
    let about: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("embed.json")).expect("reads")).expect("JSON");
    assert_eq!((about["images"].as_i64(), about["part"].as_str()), (Some(1000), Some("test")));
    assert_eq!(about["classes"].as_array().map(Vec::len), Some(10));

    let output = embed(&file, &out, &[MINI]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("embed.json is there already"), "{}", said(&output));
    let output = embed(&file, &out, &[MINI, "--force", "--part=train", "--train-images=10"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(npy(&out.join("features.npy")).0.contains("(10, 512)"));
}

#[test]
fn names_are_those_of_the_files_and_unlabelled_images_have_no_labels() {
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    let images = place.path().join("images");
    std::fs::create_dir_all(&images).expect("a directory");
    for (number, name) in ["b.png", "a.png", "line\nbreak.PNG"].iter().enumerate() {
        let picture = image::RgbImage::from_pixel(9, 11, image::Rgb([40 * number as u8, 90, 200]));
        picture.save_with_format(images.join(name), image::ImageFormat::Png).expect("writes");
    }
    let out = place.path().join("out");
    let data = format!("--data={}", images.display());
    let folder = ["--dataset-name=folder", &data, "--part=unlabelled", "--format=safetensors"];
    let output = embed(&file, &out, &folder);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(std::fs::read_to_string(out.join("names.txt")).expect("reads"), "a.png\nb.png\nline\\nbreak.PNG\n");
    let weights = checkpoint::read_weights(&out.join("embed.safetensors")).expect("reads").state;
    assert_eq!(weights.get("features").expect("there").size(), [3, 512]);
    assert!(weights.get("labels").is_none());

    // An image that breaks half-way leaves nothing behind.
    let whole = std::fs::read(images.join("a.png")).expect("an image");
    std::fs::write(images.join("c.png"), &whole[..whole.len() - 20]).expect("writes");
    let out = place.path().join("broken");
    let output = embed(&file, &out, &folder);
    assert_eq!(output.status.code(), Some(1));
    // The image is at fault, and not the file that its features were on their way to.
    assert!(said(&output).contains("c.png") && !said(&output).contains("cannot write"), "{}", said(&output));
    assert_eq!(std::fs::read_dir(&out).expect("a directory").count(), 0);
}

/// Names and contents of what lies in a directory.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("readable").path());
    let mut all: Vec<_> = entries
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), std::fs::read(&path)))
        .map(|(name, bytes)| (name, bytes.expect("a file")))
        .collect();
    all.sort();
    all
}

#[test]
fn an_embedding_is_replaced_whole_or_stays() {
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    let out = place.path().join("out");
    let output = embed(&file, &out, &[MINI, "--part=train", "--train-images=10"]);
    assert!(output.status.success(), "{}", said(&output));
    let labelled = contents(&out);
    let names = |all: &[(String, Vec<u8>)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&labelled), ["embed.json", "features.npy", "labels.npy", "names.txt"]);

    // Images without labels; of 300 the last one is broken, long after the first features were written.
    let images = place.path().join("images");
    std::fs::create_dir_all(&images).expect("a directory");
    let picture = |number: usize| images.join(format!("{number:03}.png"));
    image::RgbImage::from_pixel(8, 8, image::Rgb([200, 90, 30])).save(picture(0)).expect("writes");
    (1..299).for_each(|number| std::fs::hard_link(picture(0), picture(number)).expect("links"));
    std::fs::write(picture(299), b"\x89PNG broken").expect("writes");
    let data = format!("--data={}", images.display());
    let folder = ["--dataset-name=folder", &data, "--part=unlabelled", "--force"];
    let output = embed(&file, &out, &folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("299.png"), "{}", said(&output));
    assert!(contents(&out) == labelled, "{:?}", names(&contents(&out)));

    // Another process is at it.
    std::fs::remove_file(picture(299)).expect("removes");
    let lock = std::fs::File::open(&out).expect("a directory");
    lock.lock().expect("it is free");
    let output = embed(&file, &out, &folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("another process is writing into"), "{}", said(&output));
    assert!(contents(&out) == labelled, "{:?}", names(&contents(&out)));
    drop(lock);

    // One that was killed has left something; no label of the old set stays.
    let left_over = out.join("unfinished.0123456789abcdef.tmp");
    std::fs::create_dir(&left_over).expect("a directory");
    std::fs::write(left_over.join("features.npy"), "half").expect("writes");
    let output = embed(&file, &out, &folder);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&contents(&out)), ["embed.json", "features.npy", "names.txt"]);
    let output = embed(&file, &out, &[&folder[..], &["--format=safetensors"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(names(&contents(&out)), ["embed.json", "embed.safetensors", "names.txt"]);
}

#[test]
fn the_projection_head_is_embedded_on_request() {
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    let out = place.path().join("projected");
    let few = [MINI, "--projected", "--part=train", "--train-images=20"];
    let output = embed(&file, &out, &few);
    assert!(output.status.success(), "{}", said(&output));
    assert!(npy(&out.join("features.npy")).0.contains("(20, 128)"));
    // An exported trunk has none.
    let exported = place.path().join("trunk.safetensors");
    let words = ["export", "--checkpoint", file.to_str().expect("utf-8"), "--out", exported.to_str().expect("utf-8")];
    assert!(start(&words).status.success());
    let output = embed(&exported, &place.path().join("none"), &few);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("has no projection head"), "{}", said(&output));
}

/// Features of 2,000 and of 26,000 images: 4 and 53 MB on the disk, and in memory at their peak the same.
#[test]
fn memory_does_not_grow_with_the_data() {
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    let picture = place.path().join("picture.png");
    image::RgbImage::from_pixel(8, 8, image::Rgb([200, 90, 30])).save(&picture).expect("writes");
    let peak = |images: usize| -> i64 {
        let (data, out) = (place.path().join(format!("data_{images}")), place.path().join(format!("out_{images}")));
        std::fs::create_dir(&data).expect("a directory");
        for number in 0..images {
            std::fs::hard_link(&picture, data.join(format!("{number:06}.png"))).expect("links");
        }
        let mut command = flatnce(&[
            "embed",
            "--image-size=8",
            "--precision=fp32",
            "--device=cpu",
            "--workers=1",
            "--dataset-name=folder",
        ]);
        command.args(["--part=unlabelled", &format!("--data={}", data.display()), &format!("--out={}", out.display())]);
        command.arg(format!("--checkpoint={}", file.display()));
        // The list of the folder's names may be kept; it is no part of what is measured.
        command.env("FLATNCE_INDEX_CACHE", "off").stdout(std::process::Stdio::null());
        #[expect(clippy::zombie_processes, reason = "wait4 waits for it")]
        let child = command.spawn().expect("it starts");
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        // SAFETY: the child has not been waited for, so its number is still its own; both places are ours.
        let ended = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
        assert_eq!((ended, status), (child.id() as i32, 0), "{images} images");
        let bytes = std::fs::metadata(out.join("features.npy")).expect("there").len();
        assert_eq!(bytes, 128 + 4 * 512 * images as u64);
        // SAFETY: wait4 filled it in.
        unsafe { usage.assume_init() }.ru_maxrss // KiB
    };
    let (few, many) = (peak(2_000), peak(26_000));
    assert!(many - few < 12 << 10, "{few} KiB for 2,000 images, {many} KiB for 26,000");
}

#[test]
fn numpy_and_safetensors_read_the_same_numbers() {
    let Some(python) = support::python("safetensors") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let file = encoder(place.path());
    for format in ["npy", "safetensors"] {
        let format_flag = format!("--format={format}");
        let few = [MINI, "--part=train", "--train-images=300", &format_flag];
        let output = embed(&file, &place.path().join(format), &few);
        assert!(output.status.success(), "{}", said(&output));
    }
    let script = "
import numpy as np, sys
from safetensors import safe_open
place = sys.argv[1]
x, y = np.load(f'{place}/npy/features.npy'), np.load(f'{place}/npy/labels.npy')
assert x.dtype == np.float32 and x.shape == (300, 512) and y.dtype == np.int64 and y.shape == (300,)
with safe_open(f'{place}/safetensors/embed.safetensors', 'np') as file:
    assert (file.get_tensor('features') == x).all() and (file.get_tensor('labels') == y).all()
    assert file.metadata()['dataset'] == 'fashion_mnist_mini' and file.metadata()['images'] == '300'
assert len(open(f'{place}/npy/names.txt').read().split()) == 300
";
    let output = Command::new(python).args(["-c", script]).arg(place.path()).output().expect("it starts");
    assert!(output.status.success(), "{}", said(&output));
}
