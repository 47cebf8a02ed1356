//! Data sets in one file or a few: NumPy's `.npz` in MedMNIST's layout, and Hugging Face's parquet files.

#[path = "support/program.rs"]
mod program;
mod support;

use flate2::{Compression, write::DeflateEncoder};
use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{self, Part, Split};
use flatnce::pixels::RgbImage;
use program::{said, start};
use std::io::Write;
use std::path::Path;
use std::process::Command;

fn load(dataset: DatasetName, root: &Path, part: Part) -> anyhow::Result<Split> {
    data::load(&DataConfig::new(dataset, root, 28), part)
}

fn pixels(split: &Split, index: usize) -> Vec<u8> {
    split.image(index, &mut RgbImage::default()).expect("an image").pixels.to_vec()
}

fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The records of an archive: names and bytes.
type Records = Vec<(&'static str, Vec<u8>)>;

/// A zip archive of deflated records, as `numpy.savez_compressed` makes it.
fn npz(records: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in records {
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::default());
        packed.write_all(contents).expect("memory");
        let packed = packed.finish().expect("memory");
        let name = format!("{name}.npy");
        let mut about = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        about.extend(crc32fast::hash(contents).to_le_bytes());
        about.extend((packed.len() as u32).to_le_bytes());
        about.extend((contents.len() as u32).to_le_bytes());
        about.extend([name.len() as u8, 0, 0, 0]);
        directory.extend([b"PK\x01\x02\x14\x00", &about[..], &[0; 10]].concat());
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend([b"PK\x03\x04", &about[..], name.as_bytes(), &packed].concat());
    }
    let count = [records.len() as u8, 0];
    let (size, start) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &start, &[0, 0]].concat()
}

/// Two grey training images of 2x3 pixels and one for testing.
fn small() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("train_images", npy("|u1", "(2, 2, 3)", &(0..12).collect::<Vec<u8>>())),
        ("train_labels", npy("|u1", "(2, 1)", &[1, 0])),
        ("test_images", npy("|u1", "(1, 2, 3)", &[9; 6])),
        ("test_labels", npy("<i8", "(1,)", &2i64.to_le_bytes())),
    ]
}

#[test]
fn arrays_in_the_layout_of_medmnist_are_a_data_set() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("set.npz");
    std::fs::write(&path, npz(&small())).expect("writes");
    let train = load(DatasetName::Npz, &path, Part::Train).expect("reads");
    assert_eq!(train.describe(), "npz train: 2 images of 3x2 pixels, 3 classes");
    assert_eq!((train.labels.as_deref(), train.classes[2].as_str()), (Some(&[1, 0][..]), "2"));
    assert_eq!(pixels(&train, 1)[..9], [6, 6, 6, 7, 7, 7, 8, 8, 8]);
    // The only file of a directory.
    let test = load(DatasetName::Npz, place.path(), Part::Test).expect("reads");
    assert_eq!((test.len(), test.labels.as_deref(), test.classes.len()), (1, Some(&[2][..]), 3));
    std::fs::write(place.path().join("second.npz"), b"").expect("writes");
    let error = load(DatasetName::Npz, place.path(), Part::Test).expect_err("two files").to_string();
    assert!(error.contains("several .npz files") && error.contains("second.npz"), "{error}");
}

#[test]
fn arrays_that_are_no_such_set_are_named() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("set.npz");
    let images = || npy("|u1", "(2, 2, 3)", &[0; 12]);
    let cases: Vec<(Records, Part, &str)> = vec![
        (vec![("train_images", npy("|u1", "(1, 4, 4, 4)", &[0; 64]))], Part::Train, "volumes"),
        (vec![("train_images", npy("<f4", "(1, 1, 1)", &[0; 4]))], Part::Train, "uint8"),
        (vec![("train_images", npy("|u1", "(2, 2, 4)", &[0; 12]))], Part::Train, "asks for [2, 2, 4]"),
        (vec![("train_images", npy("|u1", "(99999999999, 9999, 9999)", &[]))], Part::Train, "GiB of memory"),
        (
            vec![("train_images", images()), ("train_labels", npy("|u1", "(2, 14)", &[0; 28]))],
            Part::Train,
            "14 labels an image",
        ),
        (
            vec![("train_images", images()), ("train_labels", npy("|i1", "(2,)", &[255, 0]))],
            Part::Train,
            "the label -1",
        ),
        (
            vec![("train_images", images()), ("train_labels", npy("|u1", "(3,)", &[0; 3]))],
            Part::Train,
            "3 labels for 2",
        ),
        (vec![("train_images", images())], Part::Test, "no test_images.npy and no val_images.npy"),
        (vec![("images", images())], Part::Train, "its arrays are images.npy"),
    ];
    for (records, part, expected) in cases {
        std::fs::write(&path, npz(&records)).expect("writes");
        let error = format!("{:#}", load(DatasetName::Npz, &path, part).expect_err(expected));
        assert!(error.contains(expected) && error.contains("set.npz"), "{expected}: {error}");
    }
    let without = npz(&[("train_images", images()), ("val_images", images())]);
    std::fs::write(&path, without).expect("writes");
    let test = load(DatasetName::Npz, &path, Part::Test).expect("val stands in");
    assert!(test.labels.is_none() && test.len() == 2);
    std::fs::write(&path, b"<html>").expect("writes");
    assert!(load(DatasetName::Npz, &path, Part::Train).is_err());
}

/// Every changed byte is an error, or changes nothing that is read.
fn mutated(bytes: &[u8], path: &Path, mut read: impl FnMut(&Path) -> bool) -> usize {
    let mut whole = 0;
    for round in 0..600usize {
        let mut changed = bytes.to_vec();
        let at = (round * 7919) % changed.len();
        changed[at] ^= 1 << (round % 8);
        if round % 3 == 0 {
            let other = (round * 104_729 + 13) % changed.len();
            changed[other] = [0, 0xff, 0x7f, 0x80][round % 4];
        }
        if round % 50 == 0 {
            changed.truncate(at);
        }
        std::fs::write(path, changed).expect("writes");
        whole += usize::from(read(path));
    }
    whole
}

#[test]
fn damaged_archives_of_arrays_are_errors() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("set.npz");
    let bytes = npz(&small());
    std::fs::write(&path, &bytes).expect("writes");
    let good = load(DatasetName::Npz, &path, Part::Train).expect("reads");
    let whole = mutated(&bytes, &path, |path| match load(DatasetName::Npz, path, Part::Train) {
        Ok(split) => {
            assert_eq!((pixels(&split, 0), pixels(&split, 1)), (pixels(&good, 0), pixels(&good, 1)));
            true
        }
        Err(_) => false,
    });
    assert!(whole < 450, "{whole} of 600");
}

#[test]
fn numpys_own_files_are_read_and_trained_on() {
    let Some(python) = support::python("numpy") else { return };
    let place = tempfile::tempdir().expect("a directory");
    let script = "
import numpy as np, sys
rng = np.random.default_rng(0)
def part(n):
    labels = np.arange(n) % 3
    images = rng.integers(0, 256, (n, 28, 28, 3), dtype=np.uint8)
    return images, labels.astype(np.uint8).reshape(n, 1)
arrays = {}
for name, n in [('train', 40), ('val', 6), ('test', 9)]:
    arrays[name + '_images'], arrays[name + '_labels'] = part(n)
np.savez_compressed(sys.argv[1] + '/packed.npz', **arrays)
np.savez(sys.argv[1] + '/plain.npz', **arrays)
arrays['train_images'][7].tofile(sys.argv[1] + '/seventh')
";
    let made = Command::new(python).args(["-c", script]).arg(place.path()).output().expect("it starts");
    assert!(made.status.success(), "{}", said(&made));
    let seventh = std::fs::read(place.path().join("seventh")).expect("reads");
    for name in ["packed.npz", "plain.npz"] {
        let train = load(DatasetName::Npz, &place.path().join(name), Part::Train).expect(name);
        assert_eq!((train.len(), train.classes.len(), train.label(7)), (40, 3, Some(1)), "{name}");
        assert_eq!(pixels(&train, 7), seventh, "{name}");
    }
    let data = format!("--data={}", place.path().join("packed.npz").display());
    let save_dir = program::save_dir(&place.path().join("results"));
    let words =
        ["--dataset-name=medmnist", "--model=res10", "--batch-size=8", "--epochs=1", "--device=cpu", &data, &save_dir];
    let output = start(&words);
    assert!(output.status.success(), "{}", said(&output));
    // The side of the images in the file.
    let output = start(&[&words[..], &["--dry-run"]].concat());
    assert!(said(&output).contains("views [16, 3, 28, 28]"), "{}", said(&output));
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_program_without_parquet_says_how_to_build_it() {
    let error = load(DatasetName::Parquet, Path::new("tests/golden/data/parquet/hub"), Part::Train).expect_err("none");
    assert!(error.to_string().contains("cargo build --release --features parquet"), "{error}");
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;

    const GOLDEN: &str = "tests/golden/data/parquet";

    fn read(name: &str, part: Part) -> anyhow::Result<Split> {
        load(DatasetName::Parquet, &Path::new(GOLDEN).join(name), part)
    }

    fn fails(name: &str, part: Part, words: &[&str]) {
        let error = format!("{:#}", read(name, part).expect_err(name));
        assert!(words.iter().all(|word| error.contains(word)), "{name}: {error}");
    }

    /// Of image `n` of tests/golden/data/make_parquet.py.
    fn colour(n: u8) -> Vec<u8> {
        [20 * n, 255 - n, 7].repeat(12)
    }

    #[test]
    fn hugging_faces_files_are_parts_with_class_names() {
        let train = read("hub", Part::Train).expect("reads");
        assert_eq!((train.len(), train.labels.as_deref()), (5, Some(&[0, 1, 2, 1, 0][..])));
        assert_eq!(train.classes, ["cat", "dog", "owl"]);
        // Two files of row groups of two rows, snappy and zstd.
        (0..5).for_each(|n| assert_eq!(pixels(&train, n), colour(n as u8), "{n}"));
        assert_eq!(train.file_name(3).expect("a name"), Path::new("003.png"));
        let place = train.images.place(4);
        assert!(place.ends_with("train-00001-of-00002.parquet, row 1"), "{place:?}");
        assert_eq!(train.name, "parquet train");
        let (marks, subset) = (train.marks(), train.subset(&[4, 0]));
        assert_eq!((pixels(&subset, 0), pixels(&subset, 1)), (colour(4), colour(0)));
        assert!(
            marks.differ(&subset.marks()).is_some() && marks.differ(&train.subset(&[0, 1, 2, 3, 4]).marks()).is_none()
        );
        let test = read("hub", Part::Test).expect("validation stands in");
        assert_eq!((test.len(), pixels(&test, 1)), (2, colour(6)));
        assert!(test.notes[0].contains("validation"), "{:?}", test.notes);
    }

    #[test]
    fn files_without_notes_and_hidden_labels_are_read() {
        let bare = read("bare/0000.parquet", Part::Train).expect("reads");
        assert_eq!((bare.labels.as_deref(), bare.classes.len()), (Some(&[4, 0][..]), 5));
        assert_eq!((pixels(&bare, 1), bare.file_name(0)), (colour(1), None));
        let secret = read("secret", Part::Test).expect("reads");
        assert!(secret.labels.is_none() && secret.len() == 3);
        let pattern = read("hub/data/train-*-of-00002.parquet", Part::Train).expect("reads");
        assert_eq!(pattern.len(), 5);
        let part = read("hub/data/train-00001-of-00002.parquet", Part::Train).expect("asked for by name");
        assert_eq!(pixels(&part, 0), colour(3));
        let absent = read("absent", Part::Train).expect("reads");
        let error = absent.image(1, &mut RgbImage::default()).expect_err("elsewhere").to_string();
        assert!(error.contains("train.parquet, row 1") && error.contains("its bytes are not in the file"), "{error}");
        assert_eq!(pixels(&absent, 0), colour(0));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        fails("text.parquet", Part::Train, &["no column of images", "text"]);
        fails("secret", Part::Train, &["no train-*.parquet is there"]);
        fails("nothing", Part::Train, &["holds no .parquet file"]);
        let place = tempfile::tempdir().expect("a directory");
        let one = "train-00001-of-00002.parquet";
        std::fs::copy(Path::new(GOLDEN).join("hub/data").join(one), place.path().join(one)).expect("copies");
        let error = load(DatasetName::Parquet, place.path(), Part::Train).expect_err("half").to_string();
        assert!(error.contains("1 missing (00000)"), "{error}");
        std::fs::write(place.path().join("train.parquet"), b"PAR1 and no more PAR1").expect("writes");
        let path = place.path().join("train.parquet");
        let error = load(DatasetName::Parquet, &path, Part::Train).expect_err("no parquet").to_string();
        assert!(error.contains("train.parquet is no parquet file"), "{error}");
    }

    #[test]
    fn damaged_files_are_errors() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("train.parquet");
        for file in ["hub/data/train-00000-of-00002.parquet", "bare/0000.parquet", "absent/train.parquet"] {
            let bytes = std::fs::read(Path::new(GOLDEN).join(file)).expect("reads");
            let read = |path: &Path| {
                let Ok(split) = load(DatasetName::Parquet, path, Part::Train) else { return false };
                (0..split.len().min(9)).all(|n| split.image(n, &mut RgbImage::default()).is_ok())
            };
            let whole = mutated(&bytes, &path, read);
            assert!(whole < 500, "{file}: {whole} of 600");
        }
    }

    #[test]
    fn images_that_are_read_once_in_order_need_no_memory() {
        let data = DataConfig { in_order: true, ..DataConfig::new(DatasetName::Parquet, format!("{GOLDEN}/hub"), 28) };
        let train = data::load(&data, Part::Train).expect("reads");
        (0..5).for_each(|n| assert_eq!(pixels(&train, n), colour(n as u8), "{n}"));
    }
}
