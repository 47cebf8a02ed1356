//! Every data source, on files and trees written here in their real formats, and every kind of fault in them.

#[path = "support/formats.rs"]
mod formats;

use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{Part, Split, load, protocol, semi_subset};
use flatnce::pixels::RgbImage;
use formats::{cifar_level, cifar_record, gzip, idx, stl_images, voc_annotation, write};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const GOLDEN: &str = "tests/golden/data";

fn config(dataset: DatasetName, root: &Path) -> DataConfig {
    DataConfig::new(dataset, root.to_path_buf(), protocol(dataset).size_px)
}

fn read(dataset: DatasetName, root: &TempDir, part: Part) -> Split {
    load(&config(dataset, root.path()), part).unwrap_or_else(|error| panic!("{dataset}: {error:#}"))
}

/// The error must hold every one of `words`.
fn fails(dataset: DatasetName, root: &TempDir, part: Part, words: &[&str]) {
    let error = load(&config(dataset, root.path()), part).expect_err("an error was expected");
    let text = format!("{error:#}");
    for word in words {
        assert!(text.contains(word), "{text:?} should contain {word:?}");
    }
}

/// Writes empty files: enough where only names are read.
fn touch(root: &TempDir, paths: &[&str]) {
    for path in paths {
        write(root, path, "");
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn labels(split: &Split) -> &[i64] {
    split.labels.as_deref().expect("a labelled split")
}

/// All that is said of how they were found.
fn notes(split: &Split) -> String {
    split.notes.join("\n")
}

fn counts(split: &Split) -> Vec<usize> {
    let mut counts = vec![0; split.classes.len()];
    for &label in labels(split) {
        counts[label as usize] += 1;
    }
    counts
}

fn names(split: &Split) -> Vec<String> {
    (0..split.len()).map(|index| split.file_name(index).unwrap().to_str().unwrap().to_owned()).collect()
}

/// Pixels of image `index`, whatever holds them.
fn pixels(split: &Split, index: usize) -> Vec<u8> {
    split.image(index, &mut RgbImage::default()).unwrap().pixels.to_vec()
}

mod packed {
    use super::*;

    #[test]
    fn the_embedded_images_are_balanced_padded_and_grey() {
        for (part, per_class) in [(Part::Train, 400), (Part::Unlabelled, 400), (Part::Test, 100)] {
            let split = read(DatasetName::FashionMnistMini, &temporary(), part);
            assert_eq!(counts(&split), vec![per_class; 10]);
            let packed = split.packed().expect("packed");
            assert_eq!((split.len(), packed.width(), packed.height()), (per_class * 10, 32, 32));
            for index in 0..split.len() {
                let image = packed.get(index);
                for (at, pixel) in image.pixels.chunks_exact(3).enumerate() {
                    assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2]);
                    let inside = |place| (2..30).contains(&place);
                    assert!(pixel[0] == 0 || (inside(at % 32) && inside(at / 32)), "the margin is black");
                }
                assert!(image.pixels.iter().any(|&level| level > 100), "image {index} is not empty");
            }
        }
    }

    #[test]
    fn fashion_mnist_reads_plain_and_compressed_files_in_each_usual_place() {
        let (images, labels) = idx(12);
        for (home, packed) in [("fashion_mnist", true), ("FashionMNIST/raw", false), (".", true)] {
            let root = temporary();
            for prefix in ["train", "t10k"] {
                let end = if packed { ".gz" } else { "" };
                let pack = |bytes: &[u8]| if packed { gzip(bytes) } else { bytes.to_vec() };
                write(&root, &format!("{home}/{prefix}-images-idx3-ubyte{end}"), pack(&images));
                write(&root, &format!("{home}/{prefix}-labels-idx1-ubyte{end}"), pack(&labels));
            }
            for part in [Part::Train, Part::Test] {
                let split = read(DatasetName::FashionMnist, &root, part);
                assert_eq!((split.len(), labels[8..].len()), (12, 12));
                assert_eq!(split.label(11), Some(1));
                // Image 5, row 3, column 4 of the file: 5 + 3 + 8; two pixels further in after padding.
                let image = pixels(&split, 5);
                assert_eq!(image[(5 * 32 + 6) * 3..][..3], [16; 3]);
                assert_eq!(image[(5 * 32 + 1) * 3..][..3], [0; 3]);
            }
        }
    }

    #[test]
    fn faults_in_fashion_mnist_are_named() {
        let dataset = DatasetName::FashionMnist;
        let root = temporary();
        fails(dataset, &root, Part::Train, &["train-images-idx3-ubyte", "./scripts/get_data.sh fashion_mnist"]);
        let (images, mut labels) = idx(12);
        write(&root, "fashion_mnist/train-images-idx3-ubyte", &images[..5000]);
        fails(dataset, &root, Part::Train, &["train-labels-idx1-ubyte", "get_data.sh"]);
        write(&root, "fashion_mnist/train-labels-idx1-ubyte", &labels);
        fails(dataset, &root, Part::Train, &["train-images", "truncated", "9408", "get_data.sh"]);
        write(&root, "fashion_mnist/train-images-idx3-ubyte", &labels);
        fails(dataset, &root, Part::Train, &["train-images", "0x00000803"]);
        write(&root, "fashion_mnist/train-images-idx3-ubyte", &idx(13).0);
        fails(dataset, &root, Part::Train, &["train-labels", "12 labels for 13 images"]);
        labels[10] = 11;
        write(&root, "fashion_mnist/train-images-idx3-ubyte", &images);
        write(&root, "fashion_mnist/train-labels-idx1-ubyte", &labels);
        fails(dataset, &root, Part::Train, &["train-labels", "the label 11"]);
        let images = root.path().join("fashion_mnist/train-images-idx3-ubyte");
        fs::remove_file(&images).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &images).unwrap();
        fails(dataset, &root, Part::Train, &["train-images", "it is a device"]);
        fs::remove_file(&images).unwrap();
        fs::File::create(&images).unwrap().set_len(1 << 40).unwrap();
        fails(dataset, &root, Part::Train, &["train-images", "no file of this kind has more"]);
        write(
            &root,
            "fashion_mnist/train-images-idx3-ubyte",
            [&[0u8, 0, 8, 3][..], &[0, 0, 0, 1].repeat(3), &[7]].concat(),
        );
        fails(dataset, &root, Part::Train, &["train-images", "[1, 1, 1]", "28"]);
    }

    fn has_levels(split: &Split, index: usize, image: usize) -> bool {
        let found = pixels(split, index);
        (0..3072).all(|at| found[at] == cifar_level(image, at % 3, at / 96, at / 3 % 32))
    }

    #[test]
    fn cifar_10_reads_its_binary_version() {
        let root = temporary();
        for batch in 1..=5u8 {
            let records = [cifar_record(&[batch], batch.into()), cifar_record(&[9], 2 * usize::from(batch))].concat();
            write(&root, &format!("cifar-10-batches-bin/data_batch_{batch}.bin"), records);
        }
        write(&root, "cifar-10-batches-bin/test_batch.bin", cifar_record(&[0], 77));
        let train = read(DatasetName::Cifar10, &root, Part::Train);
        assert_eq!(labels(&train), [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
        assert!(has_levels(&train, 4, 3) && has_levels(&train, 5, 6));
        assert_eq!(train.classes[9], "truck");
        assert_eq!(train.describe(), "cifar10 train: 10 images of 32x32 pixels, 10 classes");
        assert!(has_levels(&read(DatasetName::Cifar10, &root, Part::Test), 0, 77));

        write(&root, "cifar-10-batches-bin/data_batch_4.bin", cifar_record(&[10], 1));
        fails(DatasetName::Cifar10, &root, Part::Train, &["data_batch_4.bin", "label 10", "0 to 9"]);
        write(&root, "cifar-10-batches-bin/data_batch_4.bin", &cifar_record(&[1], 1)[..3000]);
        fails(
            DatasetName::Cifar10,
            &root,
            Part::Train,
            &["data_batch_4.bin", "3,000", "3,073", "30,730,000", "get_data.sh cifar10"],
        );
        fs::remove_file(root.path().join("cifar-10-batches-bin/data_batch_4.bin")).unwrap();
        fails(DatasetName::Cifar10, &root, Part::Train, &["data_batch_4.bin", "get_data.sh cifar10"]);
        fails(
            DatasetName::Cifar10,
            &temporary(),
            Part::Train,
            &["cifar10 is not there", "data_batch_1.bin", "get_data.sh cifar10"],
        );
    }

    #[test]
    fn cifar_100_takes_the_fine_label() {
        let root = temporary();
        write(
            &root,
            "cifar100/cifar-100-binary/train.bin",
            [cifar_record(&[19, 11], 1), cifar_record(&[4, 99], 2)].concat(),
        );
        write(&root, "cifar100/cifar-100-binary/test.bin", cifar_record(&[0, 0], 3));
        let train = read(DatasetName::Cifar100, &root, Part::Train);
        assert_eq!(labels(&train), [11, 99]);
        assert_eq!((train.classes[11].as_str(), train.classes[99].as_str()), ("boy", "worm"));
        assert!(has_levels(&train, 1, 2));
        assert_eq!(read(DatasetName::Cifar100, &root, Part::Test).len(), 1);
    }

    fn pickle(name: &str) -> Vec<u8> {
        fs::read(format!("{GOLDEN}/pickles/{name}")).unwrap()
    }

    #[test]
    fn cifar_reads_its_python_version_in_every_protocol() {
        for name in ["python2", "protocol0", "protocol1", "protocol2", "protocol3", "protocol4", "column_major"] {
            let root = temporary();
            for batch in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
            {
                write(&root, &format!("cifar-10-batches-py/{batch}"), pickle(name));
            }
            let test = read(DatasetName::Cifar10, &root, Part::Test);
            assert_eq!(labels(&test), [3, 9], "{name}");
            assert!(has_levels(&test, 0, 0) && has_levels(&test, 1, 1), "{name}");
            assert_eq!(read(DatasetName::Cifar10, &root, Part::Train).len(), 10);
        }
        let root = temporary();
        write(&root, "cifar-100-python/train", pickle("fine"));
        let train = read(DatasetName::Cifar100, &root, Part::Train);
        assert_eq!(labels(&train), [42, 99]);
        assert!(has_levels(&train, 1, 1));
    }

    #[test]
    fn nothing_in_a_pickle_is_executed_and_faults_are_named() {
        let root = temporary();
        for (name, word) in [
            ("bad_call", "system"),
            ("bad_type", "other than bytes"),
            ("bad_shape", "[2, 64]"),
            ("bad_label", "label 10"),
            ("fine", "\"labels\""),
        ] {
            write(&root, "cifar-10-batches-py/test_batch", pickle(name));
            fails(DatasetName::Cifar10, &root, Part::Test, &["test_batch", word, "get_data.sh cifar10"]);
        }
        assert!(!Path::new("executed").exists());
    }

    #[test]
    fn a_pickle_that_repeats_itself_does_not_fill_the_memory() {
        // One text of a megabyte, and 10,000 calls that would copy it.
        let text = [b"X\x00\x00\x10\x00".to_vec(), vec![b'a'; 1 << 20], b"q\0X\x06\0\0\0latin1q\x01".to_vec()].concat();
        let copies = b"c_codecs\nencode\nh\0h\x01\x86R".repeat(10_000);
        let root = temporary();
        write(&root, "cifar-10-batches-py/test_batch", [b"\x80\x02".to_vec(), text, copies].concat());
        fails(DatasetName::Cifar10, &root, Part::Test, &["its contents need", "the limit is", "get_data.sh"]);
        write(&root, "cifar-10-batches-py/test_batch", b"]".repeat(3_000_000));
        fails(DatasetName::Cifar10, &root, Part::Test, &["the limit is 13048576", "get_data.sh"]);
        write(&root, "cifar-10-batches-py/test_batch", b"N".repeat(3_000_000));
        fails(DatasetName::Cifar10, &root, Part::Test, &["the limit is 13048576", "get_data.sh"]);
    }

    #[test]
    fn a_damaged_pickle_never_panics() {
        let mut stream = flatnce::rng::Stream::new(2, flatnce::rng::Purpose::Subset, 0, 0, 0);
        let root = temporary();
        for name in ["python2", "protocol0", "protocol2", "protocol4"] {
            let whole = pickle(name);
            // The instructions lie at both ends, around the pixels.
            let places: Vec<usize> = (0..whole.len()).filter(|&at| at < 250 || at + 100 > whole.len()).collect();
            for _ in 0..150 {
                let mut damaged = whole.clone();
                damaged[places[stream.below(places.len() as u64) as usize]] = stream.next_u32() as u8;
                write(&root, "cifar-10-batches-py/test_batch", damaged);
                // A change may be harmless; what matters is that the answer is a split or an error.
                let _ = load(&config(DatasetName::Cifar10, root.path()), Part::Test);
            }
        }
    }

    #[test]
    fn a_truncated_pickle_is_an_error_wherever_it_ends() {
        let root = temporary();
        for name in ["python2", "protocol0", "protocol2", "protocol4"] {
            let whole = pickle(name);
            for length in (0..whole.len()).filter(|n| *n < 60 || n % 499 == 0 || *n + 40 > whole.len()) {
                write(&root, "cifar-10-batches-py/test_batch", &whole[..length]);
                fails(DatasetName::Cifar10, &root, Part::Test, &["test_batch", "get_data.sh cifar10"]);
            }
        }
    }

    #[test]
    fn stl_10_is_turned_from_columns_to_rows() {
        let root = temporary();
        write(&root, "stl10/stl10_binary/train_X.bin", stl_images(3));
        write(&root, "stl10/stl10_binary/train_y.bin", [1, 10, 5]);
        // More than are turned at a time.
        write(&root, "stl10/stl10_binary/unlabeled_X.bin", stl_images(1030));
        let train = read(DatasetName::Stl10, &root, Part::Train);
        assert_eq!(labels(&train), [0, 9, 4]);
        let image = pixels(&train, 2);
        for (y, x, c) in [(0, 0, 0), (7, 90, 1), (95, 3, 2)] {
            assert_eq!(image[(y * 96 + x) * 3 + c], (10 + 60 * c + y + 2 * x) as u8);
        }
        let unlabelled = read(DatasetName::Stl10, &root, Part::Unlabelled);
        assert_eq!((unlabelled.len(), unlabelled.labels.is_none(), unlabelled.classes.len()), (1030, true, 0));
        let (y, x, c) = (95, 94, 1);
        let last = pixels(&unlabelled, 1029)[(y * 96 + x) * 3 + c];
        assert_eq!(last, (5 * 1029 + 60 * c + y + 2 * x) as u8);

        fails(DatasetName::Stl10, &root, Part::Test, &["test_X.bin", "get_data.sh stl10"]);
        write(&root, "stl10/stl10_binary/train_y.bin", [1, 10]);
        fails(DatasetName::Stl10, &root, Part::Train, &["train_y.bin", "2 labels for 3 images"]);
        write(&root, "stl10/stl10_binary/train_y.bin", [1, 0, 1]);
        fails(DatasetName::Stl10, &root, Part::Train, &["train_y.bin", "the label 0", "1 to 10"]);
        write(&root, "stl10/stl10_binary/train_X.bin", &stl_images(1)[1..]);
        fails(DatasetName::Stl10, &root, Part::Train, &["train_X.bin", "27,647", "138,240,000", "get_data.sh stl10"]);
        // A hole of 27 GB.
        let hole = fs::File::create(root.path().join("stl10/stl10_binary/train_X.bin")).unwrap();
        hole.set_len(27_648_000_000).unwrap();
        fails(DatasetName::Stl10, &root, Part::Train, &["train_X.bin", "1,000,000 records", "the original 5,000"]);
    }
}

mod trees {
    use super::*;

    #[test]
    fn imagenet_numbers_classes_by_wordnet_id() {
        let root = temporary();
        let files = ["train/n02/n02_2.JPEG", "train/n02/n02_10.JPEG", "train/n01/n01_7.JPEG", "train/n03/n03_1.JPEG"];
        touch(&root, &files.map(|file| ["imagenet/", file].concat()).each_ref().map(String::as_str));
        touch(&root, &["imagenet/val/n03/v1.JPEG", "imagenet/val/n01/v2.JPEG", "imagenet/val/n01/notes.txt"]);
        let train = read(DatasetName::Imagenet, &root, Part::Train);
        assert_eq!(train.classes, ["n01", "n02", "n03"]);
        assert_eq!(names(&train), ["n01/n01_7.JPEG", "n02/n02_10.JPEG", "n02/n02_2.JPEG", "n03/n03_1.JPEG"]);
        assert_eq!(labels(&train), [0, 1, 1, 2]);
        // A class that the test part lacks does not shift the others.
        let val = read(DatasetName::Imagenet, &root, Part::Test);
        assert_eq!((labels(&val), val.classes.len()), (&[0, 2][..], 3));
        // The directory itself may be given.
        let inside = load(&config(DatasetName::Imagenet, &root.path().join("imagenet")), Part::Train).unwrap();
        assert_eq!(inside.len(), 4);

        touch(&root, &["imagenet/val/n04/v3.JPEG"]);
        fails(DatasetName::Imagenet, &root, Part::Test, &["val/n04", "no class of the training images"]);
        // A directory without images is no class, and shifts nothing; one that the test part needs is missed there.
        fs::create_dir(root.path().join("imagenet/train/n00")).unwrap();
        let train = read(DatasetName::Imagenet, &root, Part::Train);
        assert_eq!((train.classes.len(), labels(&train)), (3, &[0, 1, 1, 2][..]));
        assert!(notes(&train).contains("1 directory without images (n00)"), "{}", notes(&train));
        fs::rename(root.path().join("imagenet/val/n04"), root.path().join("imagenet/val/n00")).unwrap();
        fails(DatasetName::Imagenet, &root, Part::Test, &["val/n00", "which hold no image of it"]);
        fails(DatasetName::Imagenet, &temporary(), Part::Train, &["imagenet is not there", "datasets/README.md"]);
    }

    #[test]
    fn a_flat_validation_directory_is_explained() {
        let root = temporary();
        touch(&root, &["imagenet/train/n01/a.JPEG", "imagenet/val/ILSVRC2012_val_00000001.JPEG"]);
        fails(
            DatasetName::Imagenet,
            &root,
            Part::Test,
            &["imagenet/val", "1 image in it directly", "LOC_val_solution.csv", "val.txt", "one directory per class"],
        );
        touch(&root, &["imagenet/ILSVRC2012_validation_ground_truth.txt"]);
        fails(DatasetName::Imagenet, &root, Part::Test, &["ground_truth.txt is not enough", "meta.mat"]);
    }

    /// 1,000 classes, one image each, and three validation images in one directory.
    fn flat(home: &str) -> TempDir {
        let root = temporary();
        for class in 0..1000 {
            touch(&root, &[&format!("{home}/train/n{class:08}/a.JPEG")]);
        }
        for image in 1..=3 {
            touch(&root, &[&format!("{home}/val/ILSVRC2012_val_0000000{image}.JPEG")]);
        }
        root
    }

    #[test]
    fn a_flat_validation_directory_is_labelled_by_the_list_beside_it() {
        let dataset = DatasetName::Imagenet;
        let root = flat("imagenet");
        let caffe = "ILSVRC2012_val_00000003.JPEG 65\nval/ILSVRC2012_val_00000001.JPEG 999\nILSVRC2012_val_00000002.JPEG 0\n\
                     ILSVRC2012_val_00000004.JPEG 7\n";
        write(&root, "imagenet/val.txt", caffe);
        let val = read(dataset, &root, Part::Test);
        assert_eq!(labels(&val), [999, 0, 65]);
        assert!(names(&val)[0].ends_with("val_00000001.JPEG"), "{:?}", names(&val));
        assert!(notes(&val).contains("1 of the 4 images that"), "{}", notes(&val));
        for (line, words) in [
            ("ILSVRC2012_val_00000002.JPEG 1000", &["val.txt:1", "no number from 0 to 999", "another order"][..]),
            ("ILSVRC2012_val_00000002.JPEG n09", &["val.txt:1", "n09"]),
            ("ILSVRC2012_val_00000002.JPEG", &["val.txt:1", "a file and a class"]),
            (
                "ILSVRC2012_val_00000002.JPEG 7",
                &["2 images", "no line", "val_00000001.JPEG, ILSVRC2012_val_00000003.JPEG"],
            ),
        ] {
            write(&root, "imagenet/val.txt", line);
            fails(dataset, &root, Part::Test, words);
        }
        // Kaggle's tree, with its list above it.
        let root = flat("ILSVRC/Data/CLS-LOC");
        let csv = "ImageId,PredictionString\nILSVRC2012_val_00000001,n00000004 85 1 499 272 \n\
                   ILSVRC2012_val_00000003,n00000002 1 2 3 4 n00000002 5 6 7 8 \nILSVRC2012_val_00000002,n00000999 1 1 2 2\n";
        write(&root, "LOC_val_solution.csv", csv);
        assert_eq!(labels(&read(dataset, &root, Part::Test)), [4, 999, 2]);
        // Numbers mean nothing where classes are missing; WordNet ids do.
        fs::remove_dir_all(root.path().join("ILSVRC/Data/CLS-LOC/train/n00000000")).unwrap();
        assert_eq!(labels(&read(dataset, &root, Part::Test)), [3, 998, 1]);
        fs::remove_file(root.path().join("LOC_val_solution.csv")).unwrap();
        write(&root, "val.txt", caffe);
        fails(dataset, &root, Part::Test, &["numbers of classes need all 1,000", "999 classes"]);
    }

    #[test]
    fn flowers_and_sun_are_tested_where_upstream_tests_them() {
        for (dataset, home, test) in [(DatasetName::Flower, "flower", "test"), (DatasetName::Sun, "SUN", "val")] {
            let root = temporary();
            for part in ["train", "val", "test"] {
                touch(&root, &[&format!("{home}/{part}/b/{part}.jpg"), &format!("{home}/{part}/a/{part}.jpg")]);
            }
            assert_eq!(labels(&read(dataset, &root, Part::Train)), [0, 1]);
            assert_eq!(names(&read(dataset, &root, Part::Test)), [format!("a/{test}.jpg"), format!("b/{test}.jpg")]);
            fs::remove_dir_all(root.path().join(home).join(test)).unwrap();
            assert_eq!(read(dataset, &root, Part::Test).len(), 2, "the other of the two is taken");
            fs::rename(root.path().join(home).join("train"), root.path().join(home).join("Training")).unwrap();
            assert_eq!(read(dataset, &root, Part::Train).len(), 2, "in any case");
            touch(&root, &[&format!("{home}/train/a/more.jpg")]);
            fails(dataset, &root, Part::Train, &["Training/ and train/ look like the same part"]);
            fs::remove_dir_all(root.path().join(home).join("train")).unwrap();
            fs::rename(root.path().join(home).join("Training"), root.path().join(home).join("train")).unwrap();
            fs::remove_dir_all(root.path().join(home).join(if test == "val" { "test" } else { "val" })).unwrap();
            fails(dataset, &root, Part::Test, &["neither val/ nor test/"]);
        }
    }

    #[test]
    fn food_reads_its_lists_and_sorted_trees() {
        let root = temporary();
        touch(
            &root,
            &["food-101/images/apple_pie/1.jpg", "food-101/images/waffles/2.jpg", "food-101/images/waffles/3.jpg"],
        );
        write(&root, "food-101/meta/train.txt", "waffles/3\napple_pie/1\n");
        write(&root, "food-101/meta/test.txt", "waffles/2\n");
        let train = read(DatasetName::Food, &root, Part::Train);
        assert_eq!(
            (names(&train), labels(&train)),
            (vec!["waffles/3.jpg".into(), "apple_pie/1.jpg".into()], &[1, 0][..])
        );
        assert_eq!(names(&read(DatasetName::Food, &root, Part::Test)), ["waffles/2.jpg"]);
        write(&root, "food-101/meta/test.txt", "waffles/2\nsoup/4\n");
        fails(DatasetName::Food, &root, Part::Test, &["test.txt:2", "soup"]);
        for outside in ["waffles/../../../etc/x", "/etc/x", "waffles/\0x"] {
            write(&root, "food-101/meta/test.txt", format!("waffles/2\n{outside}\n"));
            fails(DatasetName::Food, &root, Part::Test, &["test.txt:2", "no file inside the data set's directory"]);
        }
        let sorted = temporary();
        touch(&sorted, &["food/train/pie/1.jpg", "food/val/pie/2.jpg"]);
        assert_eq!(read(DatasetName::Food, &sorted, Part::Test).len(), 1);
        fails(DatasetName::Food, &temporary(), Part::Test, &["food is not there"]);
    }

    #[test]
    fn tiny_imagenet_reads_its_annotations() {
        let root = temporary();
        let home = "tiny-imagenet-200";
        touch(&root, &[&format!("{home}/train/n02/images/n02_0.JPEG"), &format!("{home}/train/n01/images/n01_0.JPEG")]);
        touch(&root, &[&format!("{home}/train/n01/n01_boxes.txt"), &format!("{home}/val/images/val_0.JPEG")]);
        touch(&root, &[&format!("{home}/val/images/val_1.JPEG")]);
        let annotations = format!("{home}/val/val_annotations.txt");
        write(&root, &annotations, "val_1.JPEG\tn01\t0\t0\t1\t1\nval_0.JPEG\tn02\t0\t0\t1\t1\n");
        let train = read(DatasetName::TinyImagenet, &root, Part::Unlabelled);
        assert_eq!(names(&train), ["n01/images/n01_0.JPEG", "n02/images/n02_0.JPEG"]);
        let val = read(DatasetName::TinyImagenet, &root, Part::Test);
        assert_eq!((names(&val), labels(&val)), (vec!["val_1.JPEG".into(), "val_0.JPEG".into()], &[0, 1][..]));

        write(&root, &annotations, "val_1.JPEG\tn01\t0\t0\t1\t1\n");
        fails(DatasetName::TinyImagenet, &root, Part::Test, &["1 image in", "val_annotations.txt: val_0.JPEG"]);
        let twice = "val_1.JPEG\tn01\nval_0.JPEG\tn01\nval_1.JPEG\tn02\n";
        write(&root, &annotations, twice);
        fails(DatasetName::TinyImagenet, &root, Part::Test, &["val_annotations.txt:3", "named twice"]);
        for (text, word) in [("val_0.JPEG", "tab"), ("val_0.JPEG\tn09\t", "n09"), ("val_7.JPEG\tn01", "val_7.JPEG")] {
            write(&root, &annotations, text);
            fails(
                DatasetName::TinyImagenet,
                &root,
                Part::Test,
                &["val_annotations.txt:1", word, "get_data.sh tiny_imagenet"],
            );
        }
        fs::remove_file(root.path().join(&annotations)).unwrap();
        fails(DatasetName::TinyImagenet, &root, Part::Test, &["val_annotations.txt", "get_data.sh tiny_imagenet"]);
        // Sorted into classes, as many scripts leave it.
        fs::remove_dir_all(root.path().join(home).join("val")).unwrap();
        touch(&root, &[&format!("{home}/val/n02/val_0.JPEG")]);
        assert_eq!(labels(&read(DatasetName::TinyImagenet, &root, Part::Test)), [1]);
    }

    #[test]
    fn caltech_splits_each_class_into_thirty_and_the_rest() {
        let root = temporary();
        for (class, count) in [("Faces", 40), ("ant", 31), ("BACKGROUND_Google", 50)] {
            for index in 0..count {
                touch(&root, &[&format!("caltech/101_ObjectCategories/{class}/image_{index:04}.jpg")]);
            }
        }
        let train = read(DatasetName::Caltech, &root, Part::Train);
        let test = read(DatasetName::Caltech, &root, Part::Test);
        assert_eq!(train.classes, ["Faces", "ant"]);
        assert_eq!((counts(&train), counts(&test)), (vec![30, 30], vec![10, 1]));
        let mut all = [names(&train), names(&test)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 71, "no image is in both parts");
        assert_eq!(names(&train), names(&read(DatasetName::Caltech, &root, Part::Train)), "the choice is fixed");
        assert_ne!(names(&train)[..30], all[..30], "the choice is not simply the first thirty");
        fs::remove_file(root.path().join("caltech/101_ObjectCategories/ant/image_0000.jpg")).unwrap();
        fails(DatasetName::Caltech, &root, Part::Test, &["ant", "holds 30 images"]);
    }

    #[test]
    fn voc_takes_the_class_of_the_first_object() {
        let root = temporary();
        let home = "VOC/VOCdevkit/VOC2007";
        let xml = |id: &str, text: &str| write(&root, &format!("{home}/Annotations/{id}.xml"), text);
        write(&root, &format!("{home}/ImageSets/Main/trainval.txt"), "000005\n000007\n");
        let parts = "<object><part><name>head</name></part><name>sofa</name></object><object><name>cat</name></object>";
        xml("000005", &voc_annotation(parts));
        xml("000007", &voc_annotation("<object><name> car </name><pose>Left</pose></object>"));
        let train = read(DatasetName::Voc, &root, Part::Train);
        assert_eq!(
            labels(&train).iter().map(|&l| train.classes[l as usize].as_str()).collect::<Vec<_>>(),
            ["sofa", "car"]
        );
        assert_eq!(names(&train), ["000005.jpg", "000007.jpg"]);
        let error = train.image(0, &mut flatnce::pixels::RgbImage::default()).expect_err("it is not there");
        let path = &error.path;
        assert!(path.ends_with("VOC2007/JPEGImages/000005.jpg"));
        fails(DatasetName::Voc, &root, Part::Test, &["test.txt", "datasets/README.md"]);
        for (text, word) in [
            (voc_annotation(""), "no object"),
            (voc_annotation("<object><name>unicorn</name></object>"), "unicorn"),
            (voc_annotation("<object></object>"), "no name"),
            ("<annotation>".to_owned(), "broken XML"),
        ] {
            xml("000007", &text);
            fails(DatasetName::Voc, &root, Part::Train, &["000007.xml", word]);
        }
        // A parser's time grows with the square of an element's attributes.
        let attributes: String = (0..50_000).map(|number| format!(" a{number}=''")).collect();
        xml("000007", &format!("<annotation{attributes}></annotation>"));
        fails(DatasetName::Voc, &root, Part::Train, &["000007.xml", "no file of this kind has more than 131072"]);
        fs::remove_file(root.path().join(home).join("Annotations/000007.xml")).unwrap();
        fails(DatasetName::Voc, &root, Part::Train, &["000007.xml", "cannot be read"]);
        for outside in ["../../../../x", "/etc/x"] {
            write(&root, &format!("{home}/ImageSets/Main/trainval.txt"), format!("000005\n{outside}\n"));
            fails(DatasetName::Voc, &root, Part::Train, &["trainval.txt", outside, "no file inside"]);
        }
    }

    #[test]
    fn a_folder_is_labelled_by_its_subdirectories_or_unlabelled() {
        let flat = temporary();
        touch(&flat, &["b.JPG", "a.Png", "readme.txt", ".hidden.png", ".cache/x.png", "more/deep/c.jpeg"]);
        let split = read(DatasetName::Folder, &flat, Part::Train);
        assert_eq!(
            (names(&split), split.labels.is_none()),
            (vec!["a.Png".into(), "b.JPG".into(), "more/deep/c.jpeg".into()], true)
        );
        fails(DatasetName::Folder, &flat, Part::Test, &["no test images", "train/CLASS/", "test/CLASS/"]);

        let labelled = temporary();
        touch(&labelled, &["cats/1.jpg", "ants/2.png", "ants/young/3.png", ".git/x"]);
        let split = read(DatasetName::Folder, &labelled, Part::Unlabelled);
        assert_eq!((split.classes.join(" "), labels(&split)), ("ants ants/young cats".into(), &[0, 1, 2][..]));

        let parts = temporary();
        touch(&parts, &["train/cats/1.jpg", "train/ants/2.png", "val/cats/3.png"]);
        assert_eq!(read(DatasetName::Folder, &parts, Part::Train).len(), 2);
        assert_eq!(labels(&read(DatasetName::Folder, &parts, Part::Test)), [1]);
        touch(&parts, &["test/ants/4.png"]);
        assert_eq!(labels(&read(DatasetName::Folder, &parts, Part::Test)), [0], "test/ comes before val/");
    }

    #[test]
    fn faults_of_a_folder_are_named() {
        let root = temporary();
        touch(&root, &["cats/notes.txt"]);
        fails(DatasetName::Folder, &root, Part::Train, &["holds no image", "1 .txt file (cats/notes.txt)"]);
        let error = load(&config(DatasetName::Folder, &root.path().join("no")), Part::Train).unwrap_err();
        assert!(format!("{error}").contains("is no directory"));
        let loops = temporary();
        touch(&loops, &["a.jpg"]);
        std::os::unix::fs::symlink(loops.path(), loops.path().join("again")).unwrap();
        fails(DatasetName::Folder, &loops, Part::Train, &["loop of links"]);
    }
}

/// Directories of one's own, as they really come.
mod own {
    use super::*;
    use flatnce::config::Labels;
    use std::os::unix::fs::symlink;

    const JPEG: &[u8] = b"\xff\xd8\xff\xe0 the beginning of one";

    fn folder(root: &TempDir, part: Part, labels: Option<Labels>) -> Split {
        let config = DataConfig { labels, ..config(DatasetName::Folder, root.path()) };
        load(&config, part).unwrap_or_else(|error| panic!("{error:#}"))
    }

    #[test]
    fn content_decides_what_is_an_image_unless_the_name_does() {
        let root = temporary();
        let usual = "a.jfif b.JPE c.jif d.pjpeg e.gif f.BMP g.dib h.webp i.tif j.tiff k.pnm l.pbm m.pgm n.ppm o.heic p.avif \
                     q.jp2 r.jxl s.psd";
        usual.split_ascii_whitespace().for_each(|name| touch(&root, &[&format!("x/{name}")]));
        for name in ["x/t", "x/u.1", "x/v.image", "x/w.jpg.bak"] {
            write(&root, name, JPEG);
        }
        write(&root, "x/y.unknown", b"\0\0\0\x18ftypheic\0\0\0\0");
        // What is no image: by its name, or by its content.
        for name in ["x/a.txt", "x/b.TXT", "x/c.mp4", "x/d.npy", "x/Thumbs.db"] {
            write(&root, name, JPEG);
        }
        write(&root, "x/README", "text");
        write(&root, "x/clip.unknown", b"\0\0\0\x18ftypmp42\0\0\0\0");
        let split = folder(&root, Part::Train, None);
        assert_eq!(split.len(), 19 + 5, "{:?}", names(&split));
        let said = notes(&split);
        for words in [
            "2 .txt files (x/a.txt, ...)",
            "1 .mp4 file (x/c.mp4)",
            "1 .npy file",
            "1 .db file (x/Thumbs.db)",
            "1 file without extension (x/README)",
            "1 .unknown file (x/clip.unknown)",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_systems_leave_behind_is_passed_over_and_said() {
        let root = temporary();
        touch(
            &root,
            &["cats/1.jpg", "dogs/2.jpg", "__MACOSX/cats/1.jpg", "cats/@eaDir/thumb.jpg", "__pycache__/x.pyc"],
        );
        touch(&root, &["$RECYCLE.BIN/3.jpg", "System Volume Information/4.jpg", ".DS_Store", "cats/.DS_Store"]);
        for empty in ["lost+found", "birds", "cats/old"] {
            fs::create_dir(root.path().join(empty)).unwrap();
        }
        symlink("/nowhere/x", root.path().join("link")).unwrap();
        symlink("/nowhere/x.jpg", root.path().join("dogs/x.jpg")).unwrap();
        symlink("/nowhere/notes.txt", root.path().join("dogs/notes.txt")).unwrap();
        let split = folder(&root, Part::Unlabelled, None);
        // A name that promises an image is kept, so that whoever reads it says what is wrong.
        assert_eq!(names(&split), ["cats/1.jpg", "dogs/2.jpg", "dogs/x.jpg"]);
        assert_eq!((labels(&split), split.classes.join(" ")), (&[0, 1, 1][..], "cats dogs".into()));
        let said = notes(&split);
        for words in [
            "1 directory __MACOSX",
            "1 directory @eaDir (cats/@eaDir)",
            "1 directory lost+found",
            "2 directories without images (birds, ...)",
            "2 dead links (dogs/notes.txt, ...)",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn parts_are_known_by_their_usual_names() {
        for (train, test) in [
            ("train", "test"),
            ("Training", "Testing"),
            ("training", "validation"),
            ("TRAIN", "VAL"),
            ("train", "valid"),
            ("train", "dev"),
            ("train2017", "val2017"),
            ("training_set", "test_set"),
        ] {
            let root = temporary();
            touch(&root, &[&format!("{train}/a/1.jpg"), &format!("{train}/b/2.jpg"), &format!("{test}/b/3.jpg")]);
            let (own, other) = (folder(&root, Part::Train, None), folder(&root, Part::Test, None));
            assert_eq!(
                (names(&own), names(&other)),
                (vec!["a/1.jpg".into(), "b/2.jpg".into()], vec!["b/3.jpg".into()])
            );
            assert_eq!((labels(&own), labels(&other)), (&[0, 1][..], &[1][..]), "{train} {test}");
        }
        let root = temporary();
        touch(&root, &["train/a/1.jpg", "valid/a/2.jpg", "Test/a/3.jpg", "extra/a/4.jpg", "docs/notes.txt"]);
        let split = folder(&root, Part::Test, None);
        assert_eq!(names(&split), ["a/3.jpg"]);
        let said = notes(&split);
        assert!(
            said.contains("valid is not used: the test images are in") && said.contains("no parts: extra/"),
            "{said}"
        );
    }

    #[test]
    fn a_tree_that_looks_like_parts_and_is_not_is_asked_about() {
        for (files, words) in [
            (&["train/1.jpg", "train2/2.jpg"][..], "train/ and train2/ look like the same part"),
            (&["train/a/1.jpg", "Train/a/2.jpg"], "Train/ and train/ look like the same part"),
            (&["test/1.jpg", "cats/2.jpg"], "test/ looks like a part, and no train/"),
            (&["dev/1.jpg", "cats/2.jpg"], "dev/ looks like a part"),
            (&["test/a/1.jpg", "val/a/2.jpg"], "looks like a part"),
            (&["1.jpg", "test/2.jpg"], "test/ looks like a part"),
            (&["bus/1.jpg", "car/2.jpg", "train/3.jpg"], "train/ and bus/ hold images alike"),
        ] {
            let root = temporary();
            touch(&root, files);
            for part in [Part::Unlabelled, Part::Train, Part::Test] {
                fails(DatasetName::Folder, &root, part, &["not clear", words, "--data", "--labels none"]);
            }
            let all = folder(&root, Part::Unlabelled, Some(Labels::None));
            assert_eq!((all.len(), all.labels.is_none()), (files.len(), true));
        }
        // No doubt where classes lie in it, or where nothing beside it holds images.
        for other in ["extra/a/2.jpg", "docs/notes.txt"] {
            let root = temporary();
            touch(&root, &["train/a/1.jpg", other]);
            assert_eq!(names(&folder(&root, Part::Train, None)), ["a/1.jpg"]);
        }
    }

    #[test]
    fn a_class_is_the_directory_that_holds_images() {
        let root = temporary();
        touch(&root, &["food/bakery/1.jpg", "food/kitchen/2.jpg", "home/kitchen/3.jpg", "home/kitchen/images/4.jpg"]);
        touch(&root, &["yard/images/5.jpg", "yard/boxes.txt", "food cart/6.jpg"]);
        let split = folder(&root, Part::Train, None);
        assert_eq!(
            split.classes,
            ["food cart", "food/bakery", "food/kitchen", "home/kitchen", "home/kitchen/images", "yard"]
        );
        let class = |index: usize| split.classes[labels(&split)[index] as usize].as_str();
        for (index, file) in names(&split).iter().enumerate() {
            let directory = file.rsplit_once('/').unwrap().0;
            assert_eq!(class(index), if directory == "yard/images" { "yard" } else { directory });
        }
        let said = notes(&split);
        assert!(
            said.contains("4 of 6 classes lie in other directories, such as food/bakery, food/kitchen, home/kitchen:"),
            "{said}"
        );
    }

    #[test]
    fn letters_above_all_classes_are_not_in_their_names() {
        let root = temporary();
        for part in ["train", "val"] {
            touch(
                &root,
                &[&format!("SUN397/{part}/b/bakery/shop/{part}.jpg"), &format!("SUN397/{part}/a/abbey/{part}.jpg")],
            );
            touch(&root, &[&format!("SUN397/{part}/b/bow_window/indoor/{part}.jpg")]);
        }
        let (train, val) = (read(DatasetName::Sun, &root, Part::Train), read(DatasetName::Sun, &root, Part::Test));
        assert_eq!(train.classes, ["abbey", "bakery/shop", "bow_window/indoor"]);
        assert_eq!((labels(&val), &val.classes), (&[0, 1, 2][..], &train.classes));
        assert!(notes(&train).contains("such as bakery/shop, bow_window/indoor"), "{}", notes(&train));
        // Not where it would say less: another letter, or two classes of one name.
        for odd in ["SUN397/train/a/bakery/shop/1.jpg", "SUN397/train/A/abbey/1.jpg"] {
            touch(&root, &[odd]);
            let classes = read(DatasetName::Sun, &root, Part::Train).classes;
            assert!(classes.contains(&"b/bakery/shop".to_owned()), "{classes:?}");
            fs::remove_file(root.path().join(odd)).unwrap();
        }
    }

    #[test]
    fn labels_are_said_and_can_be_turned_off_and_on() {
        let root = temporary();
        touch(&root, &["2017/a.jpg", "2018/b.jpg", "2019/c.jpg", "2020/d.jpg"]);
        let said = notes(&folder(&root, Part::Unlabelled, None));
        assert_eq!(said, "labels: the 4 directories (2017, 2018, 2019, ...); --labels none if they are no classes");
        let none = folder(&root, Part::Unlabelled, Some(Labels::None));
        assert_eq!((none.len(), none.labels.is_none(), notes(&none).as_str()), (4, true, ""));
        // One image beside them.
        touch(&root, &["cover.jpg"]);
        let flipped = folder(&root, Part::Unlabelled, None);
        assert!(flipped.labels.is_none() && flipped.len() == 5);
        let said = notes(&flipped);
        assert!(said.contains("no labels, because of 1 image in") && said.contains("--labels directories"), "{said}");
        let kept = folder(&root, Part::Unlabelled, Some(Labels::Directories));
        assert_eq!(labels(&kept), [0, 1, 2, 3]);
        assert!(notes(&kept).contains("1 image in") && notes(&kept).contains("left out"), "{}", notes(&kept));
        let flat = temporary();
        touch(&flat, &["a.jpg", "b.jpg"]);
        let config = DataConfig { labels: Some(Labels::Directories), ..config(DatasetName::Folder, flat.path()) };
        let error = format!("{:#}", load(&config, Part::Train).unwrap_err());
        assert!(error.contains("no class directories") && error.contains("2 images in it directly"), "{error}");
        let one = temporary();
        touch(&one, &["cats/a.jpg"]);
        assert!(folder(&one, Part::Train, None).describe().ends_with(", 1 class"));
    }

    #[test]
    fn several_directories_are_one_set() {
        let root = temporary();
        touch(
            &root,
            &[
                "one/train/cats/1.jpg",
                "one/train/dogs/2.jpg",
                "one/test/dogs/3.jpg",
                "two/cats/4.jpg",
                "two/ants/5.jpg",
            ],
        );
        let at = |name: &str| root.path().join(name);
        let several = |roots: &[&str], part, labels| {
            let more_roots = roots[1..].iter().map(|name| at(name)).collect();
            load(&DataConfig { more_roots, labels, ..config(DatasetName::Folder, &at(roots[0])) }, part)
        };
        let train = several(&["one", "two"], Part::Train, None).unwrap();
        assert_eq!(train.classes, ["ants", "cats", "dogs"]);
        assert_eq!(names(&train), ["one/train/cats/1.jpg", "one/train/dogs/2.jpg", "two/ants/5.jpg", "two/cats/4.jpg"]);
        assert_eq!(labels(&train), [1, 2, 0, 1]);
        assert!(train.images.place(3).is_file());
        let test = several(&["one", "two"], Part::Test, None).unwrap();
        assert_eq!((names(&test), labels(&test), test.classes.len()), (vec!["dogs/3.jpg".into()], &[2][..], 3));
        let none = several(&["two", "one"], Part::Unlabelled, Some(Labels::None)).unwrap();
        assert_eq!((none.len(), none.labels.is_none()), (4, true));
        // One without classes makes all of them unlabelled.
        touch(&root, &["flat/6.jpg"]);
        assert!(several(&["one", "flat"], Part::Train, None).unwrap().labels.is_none());
        for (roots, words) in [
            (&["one", "one"][..], "would count twice"),
            (&["one", "one/train"], "one/train lies in --data"),
            (&["one", "none"], "none is no directory"),
            (&["two", "flat"], "no test images"),
        ] {
            let error = format!("{:#}", several(roots, Part::Test, None).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn own_pictures_are_no_data_however_many_lie_beside_them() {
        let root = temporary();
        let picture = RgbImage { width: 2, height: 2, pixels: vec![7; 12] };
        let save = |name: &str| flatnce::report::save_png(&root.path().join(name), picture.as_ref()).unwrap();
        let plain = flatnce::report::encode_png(picture.as_ref()).unwrap();
        for number in 0..200 {
            write(&root, &format!("numbered/img_{number}.png"), &plain);
            write(&root, &format!("hashed/{:016x}.png", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1)), &plain);
        }
        write(&root, "few/a.png", &plain);
        for name in [
            "numbered/views.png",
            "numbered/long_name_of_a_sheet.png",
            "hashed/views.png",
            "few/b.png",
            "few/c",
            "views.png",
        ] {
            save(name);
        }
        // Where one is found, the others of a whole series are.
        (0..100).for_each(|number| save(&format!("few/chart-{number}.png")));
        let split = folder(&root, Part::Train, None);
        assert_eq!((split.len(), split.classes.join(" ")), (401, "few hashed numbered".into()));
        assert!(notes(&split).contains("106 pictures drawn by flatnce"), "{}", notes(&split));
    }
}

mod subsets {
    use super::*;

    /// Classes of 10, 40 and 150 images.
    fn uneven() -> (TempDir, Split) {
        let root = temporary();
        for (class, count) in [("n01", 10), ("n02", 40), ("n03", 150)] {
            for index in 0..count {
                touch(&root, &[&format!("imagenet/train/{class}/{class}_{index}.JPEG")]);
            }
        }
        let split = read(DatasetName::Imagenet, &root, Part::Train);
        (root, split)
    }

    #[test]
    fn a_share_is_exact_balanced_and_fixed_by_its_seed() {
        let (_root, split) = uneven();
        for (ratio, expected) in [(0.03, [2, 2, 2]), (0.15, [10, 10, 10]), (0.3, [10, 25, 25]), (1.0, [10, 40, 150])] {
            assert_eq!(counts(&semi_subset(&split, ratio, 1, None).unwrap()), expected, "{ratio}");
        }
        let of = |ratio, seed| names(&semi_subset(&split, ratio, seed, None).unwrap());
        assert_eq!(of(0.1, 5), of(0.1, 5));
        assert_ne!(of(0.1, 5), of(0.1, 6));
        assert!(of(0.15, 5).is_sorted(), "the order of the split is kept");
        let large = of(0.3, 5);
        assert!(of(0.03, 5).iter().all(|name| large.contains(name)), "a smaller share lies in a larger one");
        // 0.1 of 200 are 20 images: 7, 7 and 6, whichever class gets less.
        let uneven = counts(&semi_subset(&split, 0.1, 3, None).unwrap());
        assert_eq!((uneven.iter().sum::<usize>(), *uneven.iter().min().unwrap()), (20, 6));
    }

    #[test]
    fn lists_choose_by_file_name() {
        let (root, split) = uneven();
        write(&root, "imagenet/1percent.txt", "n03_7.JPEG\nn01_2.JPEG\n\n");
        let list = flatnce::data::list_for(DatasetName::Imagenet, root.path(), 0.01).expect("the list is found");
        assert_eq!(names(&semi_subset(&split, 0.01, 0, Some(&list)).unwrap()), ["n01/n01_2.JPEG", "n03/n03_7.JPEG"]);
        assert!(flatnce::data::list_for(DatasetName::Imagenet, root.path(), 0.1).is_none());
        assert!(flatnce::data::list_for(DatasetName::Flower, root.path(), 0.01).is_none(), "only ImageNet has them");
        assert!(flatnce::data::list_for(DatasetName::Imagenet, root.path(), 0.011).is_none());
        write(&root, "imagenet/1percent.txt", "n01_2.JPEG\nn01_99.JPEG\n");
        let error = format!("{:#}", semi_subset(&split, 0.01, 0, Some(&list)).unwrap_err());
        assert!(
            error.contains("1percent.txt:2") && error.contains("n01_99.JPEG") && error.contains("1 of 2"),
            "{error}"
        );
    }

    #[test]
    fn impossible_shares_are_refused() {
        let (_root, split) = uneven();
        for (ratio, word) in [(0.0, "above 0"), (1.5, "at most 1"), (f64::NAN, "NaN"), (0.001, "larger share")] {
            let error = format!("{:#}", semi_subset(&split, ratio, 0, None).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
        let unlabelled = Split { labels: None, ..split };
        assert!(semi_subset(&unlabelled, 0.1, 0, None).unwrap_err().to_string().contains("no labels"));
    }
}
