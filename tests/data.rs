//! Every data source, on files and trees written here in their real formats, and every kind of fault in them.

use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{Images, Part, Split, load};
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
