//! A small tree of every data set in its real format, whose images are of every kind that photographs come in:
//! greyscale, CMYK, YCCK, progressive and EXIF-rotated JPEG, palette and 16-bit PNG, upper-case extensions.

use super::formats::{cifar_record, gzip, idx, stl_images, voc_annotation, write};
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb};
use std::io::Cursor;
use std::path::Path;

/// JPEG files of tests/golden/data/images, 67x45 pixels each.
const JPEGS: [&str; 7] =
    ["420.jpg", "grey.JPG", "cmyk.jpg", "rotated.jpg", "ycck.jpg", "progressive.jpeg", "restart.jpg"];
/// And PNG files; `None` is one of 16 bits, made here.
const PNGS: [Option<&str>; 4] = [Some("palette.png"), None, Some("rgba.png"), Some("grey.PNG")];

/// What a tree holds, as the results of an evaluation must say it.
#[derive(Clone, Copy, Debug)]
pub struct Tree {
    pub dataset: &'static str,
    pub classes: usize,
    pub train: usize,
    pub test: usize,
}

const fn tree(dataset: &'static str, classes: usize, train: usize, test: usize) -> Tree {
    Tree { dataset, classes, train, test }
}

/// Every data set that is read from files.
pub const TREES: [Tree; 13] = [
    tree("stl10", 10, 20, 10),
    tree("tiny_imagenet", 2, 22, 6),
    tree("imagenet", 2, 40, 22),
    tree("caltech", 2, 60, 8),
    tree("flower", 2, 22, 8),
    tree("SUN", 2, 22, 8),
    tree("food", 2, 22, 6),
    tree("voc", 20, 20, 8),
    tree("cifar10", 10, 20, 10),
    tree("cifar100", 100, 20, 10),
    // 1% of these labels is one image a class.
    tree("fashion_mnist", 10, 1000, 20),
    tree("folder", 3, 33, 9),
    tree("shards", 3, 33, 9),
];

/// The tree of this data set.
pub fn named(dataset: &str) -> Tree {
    *TREES.iter().find(|tree| tree.dataset == dataset).expect("a data set that is read from files")
}

impl Tree {
    /// Writes it below `root`.
    pub fn write(self, root: &Path) {
        match self.dataset {
            "stl10" => stl10(self, root),
            "tiny_imagenet" => tiny_imagenet(self, root),
            "imagenet" => imagenet(self, root),
            "caltech" => caltech(root),
            "flower" => split(self, root, &["train", "val", "test"]),
            "SUN" => split(self, root, &["train", "val"]),
            "food" => food(self, root),
            "voc" => voc(self, root),
            "cifar10" => cifar10(self, root),
            "cifar100" => cifar100(self, root),
            "fashion_mnist" => fashion_mnist(self, root),
            "folder" => split(self, root, &["train", "test"]),
            "shards" => shards(self, root),
            other => panic!("no tree of {other}"),
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/golden/data/images").join(name)).unwrap()
}

fn jpeg(index: usize) -> Vec<u8> {
    golden(JPEGS[index % JPEGS.len()])
}

/// JPEG and PNG in turn.
fn picture(index: usize) -> Vec<u8> {
    let kind = index % (JPEGS.len() + PNGS.len());
    match kind.checked_sub(JPEGS.len()).map(|png| PNGS[png]) {
        None => jpeg(kind),
        Some(Some(name)) => golden(name),
        Some(None) => sixteen_bits(),
    }
}

fn sixteen_bits() -> Vec<u8> {
    let image = ImageBuffer::from_fn(40, 30, |x, y| Rgb([1000 * x as u16, 2000 * y as u16, 500 * (x + y) as u16]));
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A name whose extension is what `picture` gives, in capitals for every other image.
fn name(index: usize) -> String {
    let extension = if index % (JPEGS.len() + PNGS.len()) < JPEGS.len() { "jpg" } else { "png" };
    let extension = if index.is_multiple_of(2) { extension.to_owned() } else { extension.to_uppercase() };
    format!("image_{index:04}.{extension}")
}

/// `PART/CLASS/` with photographs; the last part is the one that is tested.
fn split(tree: Tree, root: &Path, parts: &[&str]) {
    let home = if tree.dataset == "folder" { String::new() } else { format!("{}/", tree.dataset) };
    for &part in parts {
        let images = match part {
            "train" => tree.train,
            // What is not tested must not count.
            "val" if parts.contains(&"test") => tree.classes,
            _ => tree.test,
        };
        for index in 0..images {
            write(root, &format!("{home}{part}/class_{}/{}", index % tree.classes, name(index)), picture(index));
        }
    }
}

/// An archive for each part, with a directory for each class.
fn shards(tree: Tree, root: &Path) {
    for (part, images) in [("train", tree.train), ("test", tree.test)] {
        let mut archive = tar::Builder::new(Vec::new());
        for index in 0..images {
            let (picture, mut header) = (picture(index), tar::Header::new_ustar());
            header.set_size(picture.len() as u64);
            let place = format!("class_{}/{}", index % tree.classes, name(index));
            archive.append_data(&mut header, place, picture.as_slice()).unwrap();
        }
        write(root, &format!("{part}-000000.tar"), archive.into_inner().unwrap());
    }
}

/// With the published list of 1% of the labels: two files. Extensions are `.JPEG` whatever is in the file, as there.
fn imagenet(tree: Tree, root: &Path) {
    for (part, images) in [("train", tree.train), ("val", tree.test)] {
        for index in 0..images {
            let class = ["n01440764", "n01443537"][index % tree.classes];
            write(root, &format!("imagenet/{part}/{class}/{class}_{index}.JPEG"), picture(index));
        }
    }
    write(root, "imagenet/1percent.txt", "n01440764_4.JPEG\nn01443537_7.JPEG\n");
}

fn tiny_imagenet(tree: Tree, root: &Path) {
    let home = "tiny-imagenet-200";
    let classes = ["n01443537", "n01629819"];
    for index in 0..tree.train {
        let class = classes[index % tree.classes];
        write(root, &format!("{home}/train/{class}/images/{class}_{index}.JPEG"), jpeg(index));
    }
    let mut annotations = String::new();
    for index in 0..tree.test {
        write(root, &format!("{home}/val/images/val_{index}.JPEG"), jpeg(index));
        annotations += &format!("val_{index}.JPEG\t{}\t0\t0\t60\t40\n", classes[index % tree.classes]);
    }
    write(root, &format!("{home}/val/val_annotations.txt"), annotations);
}

/// 30 images of a class are for training; the background is no class.
fn caltech(root: &Path) {
    for class in ["accordion", "airplanes", "BACKGROUND_Google"] {
        for index in 0..34 {
            write(root, &format!("caltech/101_ObjectCategories/{class}/image_{index:04}.jpg"), jpeg(index));
        }
    }
}

fn food(tree: Tree, root: &Path) {
    for (list, images, first) in [("train", tree.train, 0), ("test", tree.test, 1000)] {
        let mut lines = String::new();
        for index in 0..images {
            let id = format!("{}/{}", ["apple_pie", "waffles"][index % tree.classes], first + index);
            write(root, &format!("food-101/images/{id}.jpg"), jpeg(index));
            lines += &format!("{id}\n");
        }
        write(root, &format!("food-101/meta/{list}.txt"), lines);
    }
}

fn voc(tree: Tree, root: &Path) {
    let home = "VOCdevkit/VOC2007";
    for (list, images, first) in [("trainval", tree.train, 1), ("test", tree.test, 5001)] {
        let mut lines = String::new();
        for index in 0..images {
            let id = format!("{:06}", first + index);
            let class = ["cat", "dog", "sofa", "person"][index % 4];
            let objects = format!("<object><name>{class}</name></object><object><name>car</name></object>");
            write(root, &format!("{home}/Annotations/{id}.xml"), voc_annotation(&objects));
            write(root, &format!("{home}/JPEGImages/{id}.jpg"), jpeg(index));
            lines += &format!("{id}\n");
        }
        write(root, &format!("{home}/ImageSets/Main/{list}.txt"), lines);
    }
}

fn stl10(tree: Tree, root: &Path) {
    let home = "stl10_binary";
    let labels = |images: usize| (0..images).map(|i| (i % 10 + 1) as u8).collect::<Vec<_>>();
    for (part, images) in [("train", tree.train), ("test", tree.test)] {
        write(root, &format!("{home}/{part}_X.bin"), stl_images(images));
        write(root, &format!("{home}/{part}_y.bin"), labels(images));
    }
    write(root, &format!("{home}/unlabeled_X.bin"), stl_images(24));
}

fn cifar_records(images: usize, label: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..images).flat_map(|index| cifar_record(&label(index), index)).collect()
}

fn cifar10(tree: Tree, root: &Path) {
    let records = |images| cifar_records(images, |index| vec![(index % 10) as u8]);
    for batch in 1..=5 {
        write(root, &format!("cifar-10-batches-bin/data_batch_{batch}.bin"), records(tree.train / 5));
    }
    write(root, "cifar-10-batches-bin/test_batch.bin", records(tree.test));
}

fn cifar100(tree: Tree, root: &Path) {
    for (part, images) in [("train", tree.train), ("test", tree.test)] {
        let records = cifar_records(images, |index| vec![(index % 20) as u8, (5 * index % 100) as u8]);
        write(root, &format!("cifar-100-binary/{part}.bin"), records);
    }
}

fn fashion_mnist(tree: Tree, root: &Path) {
    for (prefix, images) in [("train", tree.train), ("t10k", tree.test)] {
        let (pixels, labels) = idx(images as u32);
        write(root, &format!("FashionMNIST/raw/{prefix}-images-idx3-ubyte.gz"), gzip(&pixels));
        write(root, &format!("FashionMNIST/raw/{prefix}-labels-idx1-ubyte"), labels);
    }
}
