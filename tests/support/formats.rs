//! The binary and text formats of the published data sets, for tests that write them.

use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::Path;

/// Writes a file below `root`, with its directories.
pub fn write(root: impl AsRef<Path>, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.as_ref().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The images and the labels of Fashion-MNIST: level index + row + 2 column, label index mod 10.
pub fn idx(count: u32) -> (Vec<u8>, Vec<u8>) {
    let mut images = [[0, 0, 8, 3], count.to_be_bytes(), 28u32.to_be_bytes(), 28u32.to_be_bytes()].concat();
    let mut labels = [[0, 0, 8, 1], count.to_be_bytes()].concat();
    for index in 0..count {
        images.extend((0..28 * 28).map(|at| (index + at / 28 + 2 * (at % 28)) as u8));
        labels.push((index % 10) as u8);
    }
    (images, labels)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The level of the CIFAR fixtures (tests/golden/data/make_pickles.py).
pub fn cifar_level(image: usize, channel: usize, y: usize, x: usize) -> u8 {
    ((31 * image + 67 * channel + 5 * y + 3 * x) % 256) as u8
}

/// One image of the binary version of CIFAR: its labels, then three planes.
pub fn cifar_record(label: &[u8], image: usize) -> Vec<u8> {
    let plane = |channel| (0..1024).map(move |at| cifar_level(image, channel, at / 32, at % 32));
    label.iter().copied().chain((0..3).flat_map(plane)).collect()
}

/// Images of STL-10, stored column by column: level 5 image + 60 channel + row + 2 column.
pub fn stl_images(count: usize) -> Vec<u8> {
    let plane = |i: usize, c: usize| (0..96 * 96usize).map(move |at| (5 * i + 60 * c + at % 96 + 2 * (at / 96)) as u8);
    (0..count).flat_map(|i| (0..3).flat_map(move |c| plane(i, c))).collect()
}

/// An annotation of VOC 2007 with these objects.
pub fn voc_annotation(objects: &str) -> String {
    format!(
        "<annotation><folder>VOC2007</folder><owner><name>person</name></owner><size><width>5</width></size>\
         {objects}</annotation>"
    )
}
