//! What is known of each data set before it is read: image size, number of
//! classes, and how to get it.

use crate::config::DatasetName;

/// Side in pixels of the square images that the set holds, or, for sets of
/// photographs in all sizes, at which it is customarily trained.
pub fn native_size_px(dataset: DatasetName) -> u32 {
    match dataset {
        DatasetName::Cifar10 | DatasetName::Cifar100 => 32,
        // 28 in the files, padded to 32 when read.
        DatasetName::FashionMnist | DatasetName::FashionMnistMini => 32,
        DatasetName::TinyImagenet => 64,
        DatasetName::Stl10 => 96,
        DatasetName::Imagenet
        | DatasetName::Caltech
        | DatasetName::Voc
        | DatasetName::Flower
        | DatasetName::Food
        | DatasetName::Sun
        | DatasetName::Folder => 224,
    }
}

/// Whether the images are read as one block of memory, all of one size; others are files, decoded as they come.
pub fn is_packed(dataset: DatasetName) -> bool {
    match dataset {
        DatasetName::Cifar10
        | DatasetName::Cifar100
        | DatasetName::FashionMnist
        | DatasetName::FashionMnistMini
        | DatasetName::Stl10 => true,
        DatasetName::TinyImagenet
        | DatasetName::Imagenet
        | DatasetName::Caltech
        | DatasetName::Voc
        | DatasetName::Flower
        | DatasetName::Food
        | DatasetName::Sun
        | DatasetName::Folder => false,
    }
}

/// Number of classes of the published set; `None` for `folder`. A tree on disk may hold fewer
/// (a subset of ImageNet, say): what counts in a run is `Split::classes`.
pub fn num_classes(dataset: DatasetName) -> Option<usize> {
    match dataset {
        DatasetName::Cifar10 | DatasetName::FashionMnist | DatasetName::FashionMnistMini | DatasetName::Stl10 => {
            Some(10)
        }
        DatasetName::Voc => Some(20),
        DatasetName::Cifar100 => Some(100),
        // Both without the background class.
        DatasetName::Caltech | DatasetName::Food => Some(101),
        DatasetName::Flower => Some(102),
        DatasetName::TinyImagenet => Some(200),
        DatasetName::Sun => Some(397),
        DatasetName::Imagenet => Some(1000),
        DatasetName::Folder => None,
    }
}

/// The next step for someone who lacks the data: a command, or where the set is published.
pub fn how_to_get(dataset: DatasetName) -> String {
    let manual = match dataset {
        DatasetName::FashionMnist
        | DatasetName::Cifar10
        | DatasetName::Cifar100
        | DatasetName::Stl10
        | DatasetName::TinyImagenet => {
            return format!("get it with `./scripts/get_data.sh {dataset}` (layout: datasets/README.md)");
        }
        DatasetName::FashionMnistMini => return "it is embedded in the program".to_owned(),
        DatasetName::Folder => return "give the directory of your JPEG and PNG images with `--data DIR`".to_owned(),
        DatasetName::Imagenet => "it is available after registration at https://image-net.org",
        DatasetName::Caltech => "it is published at https://data.caltech.edu/records/mzrjq-6wc02",
        DatasetName::Voc => "it is published at http://host.robots.ox.ac.uk/pascal/VOC/voc2007",
        DatasetName::Flower => "it is published at https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
        DatasetName::Food => "it is published at https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
        DatasetName::Sun => "it is published at https://vision.princeton.edu/projects/2010/SUN",
    };
    format!("{manual}; the layout that is read is in datasets/README.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_says_how_to_get_it() {
        for &dataset in DatasetName::ALL {
            assert!(!how_to_get(dataset).is_empty());
            assert!([32, 64, 96, 224].contains(&native_size_px(dataset)));
            assert_eq!(num_classes(dataset).is_none(), dataset == DatasetName::Folder);
        }
    }
}
