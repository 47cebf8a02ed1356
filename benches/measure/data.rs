//! Indexing and loading.

use super::serve;
use anyhow::{Context, Result, anyhow, bail, ensure};
use flatnce::cli;
use flatnce::config::{Augmentation, DataConfig, DataOnDevice, DatasetName, DeviceChoice};
use flatnce::data::{self, Packed, Part, Split};
use flatnce::loader::{Loader, Order, Rendering};
use flatnce::rng::{Purpose, Stream};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Lists the tree, or takes it from the index in `cache`.
pub fn index(directory: &Path, cache: Option<&Path>) -> Result<()> {
    serve(|| {
        let (tree, kept) = data::indexed_in(directory, cache)?;
        Ok(json!({"files": tree.files.len(), "classes": tree.classes.len(), "kept": kept}))
    })
}

/// Two views of 32 px each of `images` images of a data set, as in training and without the encoder. The order of
/// the whole epoch is drawn, and its share for these images counts.
pub fn loader(source: &str, workers: usize, images: usize) -> Result<()> {
    let (dataset, root) = match source {
        "embedded" => (DatasetName::FashionMnistMini, PathBuf::new()),
        directory => (DatasetName::Folder, PathBuf::from(directory)),
    };
    let config = DataConfig::new(dataset, root, 32);
    let split = Arc::new(data::load(&config, Part::Unlabelled)?);
    let total = split.len();
    let recipe = Augmentation::paper(DatasetName::Cifar10, 32, false);
    let loader = Loader::new(split, Rendering::Views { recipe, size_px: 32 }, Order::Shuffled, 128, 0, workers)?;
    ensure!(total >= 128, "{total} images are no batch");
    let batches = images.div_ceil(128);
    let mut epoch = 0;
    serve(|| {
        let start = Instant::now();
        let order = loader.order(epoch);
        let order_seconds = start.elapsed().as_secs_f64();
        drop(order);
        let (mut done, mut seconds) = (0, 0.0);
        // As many epochs as it takes; each begins with its order, whose share for the batches taken is counted.
        while done < batches {
            let start = Instant::now();
            let mut under_way = loader.epoch(epoch, 0);
            let begun = start.elapsed().as_secs_f64();
            let mut taken = 0;
            for batch in under_way.by_ref().take(batches - done) {
                std::hint::black_box(batch?);
                taken += 1;
            }
            let share = taken as f64 / loader.batches() as f64;
            seconds += start.elapsed().as_secs_f64() - begun + begun * share;
            done += taken;
            epoch += 1;
        }
        let microseconds = seconds * 1e6 / (done * 128) as f64;
        Ok(json!({
            "images": total, "order_seconds": order_seconds, "seconds": seconds,
            "images_per_second": 1e6 / microseconds, "microseconds_per_image": microseconds
        }))
    })
}

/// Images of a tree, or of the shards that a pattern stands for, in the random order of an epoch: `read` alone, or made
/// into `views` of 224 px by ImageNet's recipe. Every answer is of an epoch of its own.
pub fn photographs(work: &str, source: &str, workers: usize, images: usize) -> Result<()> {
    let dataset = if source.ends_with(".tar") { DatasetName::Shards } else { DatasetName::Folder };
    let start = Instant::now();
    let split = Arc::new(data::load(&DataConfig::new(dataset, source, 224), Part::Unlabelled)?);
    let indexed = start.elapsed().as_secs_f64();
    ensure!((128..=split.len()).contains(&images), "{images} of {} images are none or no batch", split.len());
    let recipe = Augmentation::paper(DatasetName::Imagenet, 224, false);
    let rendering = Rendering::Views { recipe, size_px: 224 };
    let loader = Loader::new(Arc::clone(&split), rendering, Order::Shuffled, 128, 0, workers)?;
    let mut epoch = 0;
    serve(|| {
        let (start, mut done) = (Instant::now(), images);
        match work {
            "read" => read(&split, &loader.order(epoch)[..images], workers)?,
            "views" => {
                done = 0;
                for batch in loader.epoch(epoch, 0).take(images / 128) {
                    done += std::hint::black_box(batch?).samples.len();
                }
            }
            other => bail!("{other} is neither read nor views"),
        }
        epoch += 1;
        let seconds = start.elapsed().as_secs_f64();
        Ok(json!({"images": split.len(), "index_seconds": indexed, "images_per_second": done as f64 / seconds}))
    })
}

/// Reads images in this order on so many threads.
fn read(split: &Split, order: &[usize], threads: usize) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(&index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            std::hint::black_box(split.images.stored(index)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("reading does not panic"))
    })
}

/// The tensor engine alone: batches of views of made-up images in the device's memory, waited for at the end. `shape` is
/// `32` (CIFAR-10's recipe) or `224` (ImageNet's, from images of 96 pixels).
///
/// An epoch has 32 batches: at its start a thread begins to plan, which in training happens as seldom or more so.
pub fn tensors(shape: &str, batch: usize, device: &str, batches: usize) -> Result<()> {
    let (width, size_px, recipe) = match shape {
        "32" => (32, 32, Augmentation::paper(DatasetName::Cifar10, 32, false)),
        "224" => (96, 224, Augmentation::paper(DatasetName::Imagenet, 224, false)),
        other => bail!("{other} is neither 32 nor 224"),
    };
    let choice = DeviceChoice::try_from(device.to_owned()).map_err(|error| anyhow!(error))?;
    let (device, _) = flatnce::device::resolve(choice)?;
    let mut noise = Stream::new(0, Purpose::Subset, 0, 0, 0);
    let one_batch: Vec<u8> = (0..batch * width * width * 3).map(|_| noise.below(256) as u8).collect();
    let pixels = one_batch.repeat(32);
    let split = Arc::new(Split::unlabelled(Packed::new(pixels, width, width), "made up".into()));
    let loader = Loader::new(split, Rendering::Views { recipe, size_px }, Order::Shuffled, batch, 0, 1)?;
    let loader = loader.on_device(device, DataOnDevice::Yes)?;
    let mut epoch = 0;
    serve(|| {
        let start = Instant::now();
        let (mut done, mut last) = (0, None);
        while done < batches {
            for batch in loader.epoch(epoch, 0).take(batches - done) {
                last = Some(batch?.images);
                done += 1;
            }
            epoch += 1;
        }
        // Reading waits for all that was asked of the device before.
        let level = last.context("a batch")?.get(0).max().int64_value(&[]);
        let seconds = start.elapsed().as_secs_f64() / done as f64;
        Ok(json!({"seconds": seconds, "views_per_second": 2.0 * batch as f64 / seconds, "level": level}))
    })
}

/// What a command line of flags means.
pub fn resolved(line: &[&str]) -> Result<cli::Resolved> {
    cli::resolve(&cli::parse(line)?, &cli::resolve::read_saved)
}
