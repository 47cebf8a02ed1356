//! Every data source, on files and trees written here in their real formats, and every kind of fault in them.

use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{Images, Part, Split, decode_file, load};
use flatnce::pixels::RgbImage;
use std::path::Path;

fn config(dataset: DatasetName, root: &Path) -> DataConfig {
    DataConfig { dataset, root: root.to_path_buf(), image_size_px: flatnce::data::native_size_px(dataset) }
}

fn counts(split: &Split) -> Vec<usize> {
    let mut counts = vec![0; split.classes.len()];
    for &label in split.labels.as_ref().expect("a labelled split") {
        counts[label as usize] += 1;
    }
    counts
}

#[test]
fn the_embedded_images_are_balanced_padded_and_grey() {
    for (part, per_class) in [(Part::Train, 400), (Part::Unlabelled, 400), (Part::Test, 100)] {
        let split = load(&config(DatasetName::FashionMnistMini, Path::new("nowhere")), part).unwrap();
        assert_eq!(counts(&split), vec![per_class; 10]);
        let Images::Packed(packed) = &split.images else { panic!("packed") };
        assert_eq!((packed.len(), packed.width(), packed.height()), (per_class * 10, 32, 32));
        let mut scratch = RgbImage::default();
        for index in 0..split.len() {
            let image = split.image(index, &mut scratch).unwrap();
            for (at, pixel) in image.pixels.chunks_exact(3).enumerate() {
                assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2]);
                let inside = |place| (2..30).contains(&place);
                assert!(pixel[0] == 0 || (inside(at % 32) && inside(at / 32)), "the margin is black");
            }
            assert!(image.pixels.iter().any(|&level| level > 100), "image {index} is not empty");
        }
    }
}

/// Largest and mean difference between two images of one size.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b));
    let (max, sum) = differences.fold((0, 0u64), |(max, sum), d| (max.max(d), sum + u64::from(d)));
    (max, sum as f64 / a.len() as f64)
}

#[test]
fn images_of_every_kind_decode_as_pillow_decodes_them() {
    let directory = Path::new("tests/golden/data/images");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let expected = directory.join(format!("{}.expected.png", path.file_name().unwrap().to_str().unwrap()));
        if !expected.exists() {
            continue;
        }
        seen += 1;
        let expected = image::open(expected).unwrap().into_rgb8();
        let mut out = RgbImage::default();
        decode_file(&path, &mut out).unwrap();
        assert_eq!((out.width, out.height), (expected.width() as usize, expected.height() as usize), "{path:?}");
        let (max, mean) = difference(&out.pixels, &expected);
        println!("{path:?}: max {max} mean {mean:.3}");
    }
    assert_eq!(seen, 18);
}
