//! Batches: ordered, reshuffled, whole, and the same whatever the number of workers.

use assert_cmd::cargo::CommandCargoExt;
use flatnce::augment::EvalTransform;
use flatnce::config::{Augmentation, DataConfig, DataOnDevice, DatasetName};
use flatnce::data::{self, Packed, Part, Split};
use flatnce::loader::{Loader, Order, PREFETCH, Rendering, Share};
use flatnce::rng::{Purpose, Stream};
use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tch::{Device, Tensor};

/// `count` images of 6x6 pixels; every byte of image i is i.
fn numbered(count: usize) -> Arc<Split> {
    let pixels = (0..count).flat_map(|i| vec![i as u8; 6 * 6 * 3]).collect();
    let labels = Some((0..count as i64).map(|i| i * 10).collect());
    Arc::new(Split { labels, ..Split::unlabelled(Packed::new(pixels, 6, 6), "numbered".into()) })
}

fn views() -> Rendering {
    let recipe = Augmentation::paper(DatasetName::Cifar10, 8, true);
    Rendering::Views { recipe, size_px: 8 }
}

fn plain() -> Rendering {
    Rendering::Single(EvalTransform::Plain { size_px: 6 })
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::try_from(tensor.contiguous().view(-1)).expect("bytes")
}

/// Samples and pixels of every batch from `first` on.
fn contents(loader: &Loader, epoch: u64, first: usize) -> Vec<(Vec<usize>, Vec<u8>)> {
    loader.epoch(epoch, first).map(|batch| batch.expect("a batch")).map(|b| (b.samples, bytes(&b.images))).collect()
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let make = |workers| Loader::new(numbered(67), views(), Order::Shuffled, 20, 7, workers).expect("a loader");
    let one = contents(&make(1), 3, 0);
    assert_eq!(one.len(), 3);
    for workers in [2, 5] {
        assert_eq!(contents(&make(workers), 3, 0), one, "{workers} workers");
    }
    // A later start gives the rest of the same epoch.
    assert_eq!(contents(&make(3), 3, 2), one[2..]);
}

#[test]
fn every_epoch_is_a_new_permutation_and_the_remainder_is_left_out() {
    let loader = Loader::new(numbered(50), views(), Order::Shuffled, 16, 1, 2).expect("a loader");
    assert_eq!(loader.batches(), 3);
    let samples = |epoch| -> Vec<usize> { contents(&loader, epoch, 0).into_iter().flat_map(|(s, _)| s).collect() };
    let (first, second) = (samples(0), samples(1));
    assert_eq!((first.len(), first.iter().collect::<HashSet<_>>().len()), (48, 48));
    assert_ne!(first, second);
    assert_ne!(
        first.iter().collect::<HashSet<_>>(),
        second.iter().collect::<HashSet<_>>(),
        "other images are left out"
    );
    let other_seed = Loader::new(numbered(50), views(), Order::Shuffled, 16, 2, 2).expect("a loader");
    assert_ne!(other_seed.order(0), loader.order(0));
}

#[test]
fn two_views_of_an_image_differ_from_each_other_and_from_the_next_epochs() {
    let config = DataConfig { train_images: Some(8), ..DataConfig::new(DatasetName::FashionMnistMini, "datasets", 32) };
    let split = Arc::new(data::load(&config, Part::Train).expect("embedded"));
    let recipe = Augmentation::paper(DatasetName::FashionMnistMini, 32, false);
    let loader =
        Loader::new(split, Rendering::Views { recipe, size_px: 32 }, Order::Shuffled, 8, 1, 2).expect("a loader");
    let batch = loader.epoch(0, 0).next().expect("one").expect("a batch");
    assert_eq!(batch.images.size(), [16, 32, 32, 3]);
    let view = |batch: &Tensor, row: usize| bytes(&batch.get(row as i64));
    let next = loader.epoch(1, 0).next().expect("one").expect("a batch");
    for row in 0..8 {
        let again = next.samples.iter().position(|s| *s == batch.samples[row]).expect("the same 8 images");
        let (a, b, c) = (view(&batch.images, row), view(&batch.images, row + 8), view(&next.images, again));
        assert!(a != b && a != c && b != c, "sample {}", batch.samples[row]);
    }
}

#[test]
fn evaluation_walks_in_order_with_labels_and_the_remainder() {
    let loader = Loader::new(numbered(10), plain(), Order::Sequential, 4, 0, 3).expect("a loader");
    let batches: Vec<_> = loader.epoch(0, 0).map(|b| b.expect("a batch")).collect();
    assert_eq!(batches.iter().map(|b| b.samples.len()).collect::<Vec<_>>(), [4, 4, 2]);
    for batch in &batches {
        let labels = Vec::<i64>::try_from(batch.labels.as_ref().expect("labels")).expect("numbers");
        for (i, &sample) in batch.samples.iter().enumerate() {
            assert_eq!(labels[i], sample as i64 * 10);
            assert_eq!(bytes(&batch.images.get(i as i64)), vec![sample as u8; 108]);
        }
    }
    let shuffled = Loader::new(numbered(10), plain(), Order::ShuffledWhole, 4, 0, 3).expect("a loader");
    let mut samples: Vec<usize> = contents(&shuffled, 0, 0).into_iter().flat_map(|(s, _)| s).collect();
    assert_ne!(samples, (0..10).collect::<Vec<_>>());
    samples.sort_unstable();
    assert_eq!(samples, (0..10).collect::<Vec<_>>());
}

#[test]
fn the_shares_of_all_processes_are_the_batch() {
    let whole = Loader::new(numbered(67), views(), Order::Shuffled, 20, 7, 2).expect("a loader");
    let one = contents(&whole, 1, 1);
    let shares: Vec<_> = (0..3)
        .map(|rank| contents(&whole.clone().with_share(Share::Rows { rank, ranks: 3 }), 1, 1))
        .inspect(|batches| assert_eq!(batches.len(), one.len()))
        .collect();
    for (number, (samples, pixels)) in one.iter().enumerate() {
        let parts: Vec<_> = shares.iter().map(|batches| &batches[number]).collect();
        assert!(parts.iter().all(|(samples, _)| (6..=7).contains(&samples.len())));
        let joined: Vec<usize> = parts.iter().flat_map(|(samples, _)| samples.clone()).collect();
        assert_eq!(&joined, samples);
        // View-major within each part.
        let halves = |view: usize| {
            parts.iter().flat_map(move |(_, pixels)| {
                let half = pixels.len() / 2;
                pixels[view * half..][..half].to_vec()
            })
        };
        assert!(halves(0).chain(halves(1)).eq(pixels.iter().copied()), "batch {number}");
    }
    // The last batch of a whole epoch may be smaller than the number of processes.
    let loader = Loader::new(numbered(9), plain(), Order::Sequential, 4, 0, 1).expect("a loader");
    let lengths = |rank| -> Vec<usize> {
        contents(&loader.clone().with_share(Share::Rows { rank, ranks: 2 }), 0, 0)
            .iter()
            .map(|(s, _)| s.len())
            .collect()
    };
    assert_eq!((lengths(0), lengths(1)), (vec![2, 2, 0], vec![2, 2, 1]));
}

/// `count` noisy images, packed.
fn noisy(count: usize) -> Arc<Split> {
    let mut noise = Stream::new(4, Purpose::Subset, 0, 0, 0);
    let pixels = (0..count * 20 * 14 * 3).map(|_| noise.below(256) as u8).collect();
    let images = Packed::new(pixels, 20, 14);
    Arc::new(Split { labels: Some((0..count as i64).collect()), ..Split::unlabelled(images, "noisy".into()) })
}

/// Jitter and greyscale, no blur: both engines have the same pixels.
fn without_blur(size_px: usize) -> Rendering {
    Rendering::Views { recipe: Augmentation::paper(DatasetName::Cifar10, size_px as u32, false), size_px }
}

#[test]
fn the_tensor_engine_makes_the_batches_of_the_workers() {
    let workers = Loader::new(noisy(67), without_blur(12), Order::Shuffled, 20, 7, 2).expect("a loader");
    let epoch = contents(&workers, 3, 0);
    assert_eq!(contents(&workers.clone().deliver_to(Device::Cpu), 3, 0), epoch);
    for wish in [DataOnDevice::Auto, DataOnDevice::Yes, DataOnDevice::No] {
        let tensors = workers.clone().on_device(Device::Cpu, wish).expect("it fits");
        assert_eq!(contents(&tensors, 3, 0), epoch, "{wish}");
        assert_eq!(contents(&tensors, 3, 2), epoch[2..], "{wish}, from the middle");
        assert_eq!(contents(&tensors, 3, 3), [], "{wish}, from the end");
        let batch = tensors.epoch(3, 1).next().expect("one").expect("a batch");
        let labels = Vec::<i64>::try_from(batch.labels.expect("labels")).expect("numbers");
        assert!(labels.iter().eq(batch.samples.iter().map(|sample| *sample as i64).collect::<Vec<_>>().iter()));
        let said = tensors.describe();
        assert_eq!(said.contains("in its memory"), wish != DataOnDevice::No, "{said}");
        // A process's share of it.
        let share = Share::Rows { rank: 1, ranks: 3 };
        let theirs = contents(&workers.clone().with_share(share), 3, 0);
        assert_eq!(contents(&tensors.with_share(share), 3, 0), theirs, "{wish}, shared");
    }
}

/// A directory of `count` photographs of different sizes.
fn photographs(count: usize) -> (tempfile::TempDir, DataConfig) {
    let place = tempfile::tempdir().expect("a directory");
    let mut noise = Stream::new(5, Purpose::Subset, 0, 0, 0);
    for number in 0..count as u32 {
        let picture = image::RgbImage::from_fn(9 + number * 3, 40 - number, |_, _| {
            image::Rgb([0; 3].map(|_: u8| noise.below(256) as u8))
        });
        picture.save(place.path().join(format!("{number:02}.png"))).expect("a file");
    }
    let root = place.path().to_path_buf();
    let dataset = DatasetName::Folder;
    (place, DataConfig::new(dataset, root, 12))
}

#[test]
fn files_of_all_sizes_are_cropped_by_workers_and_colored_by_tensors() {
    let (_place, config) = photographs(14);
    let split = Arc::new(data::load(&config, Part::Unlabelled).expect("files"));
    let workers = Loader::new(split, without_blur(12), Order::Shuffled, 5, 7, 2).expect("a loader");
    let tensors = workers.clone().on_device(Device::Cpu, DataOnDevice::Auto).expect("files are streamed");
    for epoch in [0, 1] {
        assert_eq!(contents(&tensors, epoch, 0), contents(&workers, epoch, 0), "epoch {epoch}");
    }
    let error = workers.on_device(Device::Cpu, DataOnDevice::Yes).expect_err("files").to_string();
    assert!(
        error.contains("--data-on-device yes") && error.contains("image files") && error.contains("auto"),
        "{error}"
    );
}

#[test]
fn less_than_one_batch_is_an_error_that_names_the_flag() {
    let error = Loader::new(numbered(10), views(), Order::Shuffled, 16, 1, 1).expect_err("too few").to_string();
    assert!(error.contains("10 images") && error.contains("--batch-size"), "{error}");
}

#[test]
fn a_broken_image_ends_the_epoch_with_its_name() {
    let place = tempfile::tempdir().expect("a directory");
    for i in 0..PREFETCH * 4 {
        std::fs::write(place.path().join(format!("{i:02}.png")), b"no image").expect("a file");
    }
    let config = DataConfig::new(DatasetName::Folder, place.path().to_path_buf(), 8);
    let split = Arc::new(data::load(&config, Part::Unlabelled).expect("names only"));
    let loader = Loader::new(split, views(), Order::Shuffled, 4, 1, 2).expect("a loader");
    let mut epoch = loader.epoch(0, 0);
    let error = format!("{:#}", epoch.next().expect("one").expect_err("broken"));
    assert!(error.contains(".png"), "{error}");
    assert!(epoch.next().is_none());
}

/// A thread that calls an operation which libtorch spreads over threads gets a team of its own, named after it; with two
/// teams, each sleeps between operations instead of waiting awake, and training takes some 3% longer.
#[test]
#[cfg(target_os = "linux")]
fn loader_threads_have_no_teams_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    let mut run = Command::cargo_bin("flatnce")
        .unwrap()
        .args(["--dataset-name=fashion_mnist_mini", "--model=res10", "--batch-size=64", "--train-images=256"])
        .args(["--epochs=1", "--warmup-epochs=0", "--device=cpu", "--knn-every=0", "--workers=2", "--quiet"])
        .arg(format!("--save-dir={}", place.path().display()))
        .env("OMP_NUM_THREADS", "2")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let tasks = format!("/proc/{}/task", run.id());
    let (mut loaders, mut most) = (HashSet::new(), 0);
    while run.try_wait().unwrap().is_none() {
        let all: Vec<_> = std::fs::read_dir(&tasks).into_iter().flatten().flatten().collect();
        most = most.max(all.len());
        let named = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        loaders.extend(all.iter().filter(|task| named(task).starts_with("loader-")).map(|task| task.file_name()));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(run.wait().unwrap().success());
    assert!(most >= 4, "the trainer, a second thread of its team and two loaders: {most}");
    assert_eq!(loaders.len(), 2, "threads named after the loader's two");
}
