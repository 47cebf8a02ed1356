//! Views per second of both engines on one thread of the CPU. Peers: scripts/bench/peer.py.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flatnce::augment::{EvalTransform, Filter, Renderer, TensorRenderer, draw};
use flatnce::config::{Augmentation, DatasetName};
use flatnce::pixels::{RgbImage, RgbRef};
use flatnce::rng::{Purpose, Stream};
use std::hint::black_box;
use tch::{Device, Kind, Tensor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

/// A picture with smooth parts, edges and noise; grey if `grey`.
fn picture(width: usize, height: usize, seed: u64, grey: bool) -> RgbImage {
    let mut noise = Stream::new(seed, Purpose::Subset, 0, 0, 0);
    let mut image = RgbImage::new(width, height);
    for (place, pixel) in image.pixels.chunks_exact_mut(3).enumerate() {
        let (y, x) = (place / width, place % width);
        let base = [x * 255 / width, y * 255 / height, (x / 8 + y / 8) % 2 * 160];
        let level = base.map(|level| (level as u64 + noise.below(32)).min(255) as u8);
        pixel.copy_from_slice(&if grey { [level[0]; 3] } else { level });
    }
    image
}

/// Two views of each of 64 images, parameters drawn anew every time.
fn two_views(criterion: &mut Criterion, name: &str, images: &[RgbImage], dataset: DatasetName, size_px: usize) {
    let recipe = Augmentation::paper(dataset, size_px as u32, false);
    let mut renderer = Renderer::new();
    let mut out = vec![0; size_px * size_px * 3];
    let (mut sample, views) = (0u64, 2 * images.len() as u64);
    let mut group = criterion.benchmark_group("augment");
    group.sample_size(20).throughput(Throughput::Elements(views)).bench_function(name, |bencher| {
        bencher.iter(|| {
            for image in images {
                sample += 1;
                for view in 0..2 {
                    let mut stream = Stream::new(0, Purpose::View, 0, sample, view);
                    let parameters = draw(&recipe, &mut stream, image.width, image.height);
                    renderer.view(image.as_ref(), &parameters, recipe.blur_kernel_px, size_px, &mut out);
                    black_box(&mut out);
                }
            }
        });
    });
    group.finish();
}

fn pictures(count: u64, width: usize, height: usize, grey: bool) -> Vec<RgbImage> {
    (0..count).map(|seed| picture(width, height, seed, grey)).collect()
}

fn views(criterion: &mut Criterion) {
    two_views(criterion, "cifar10 32 px", &pictures(64, 32, 32, false), DatasetName::Cifar10, 32);
    two_views(criterion, "fashion_mnist 32 px", &pictures(64, 32, 32, true), DatasetName::FashionMnist, 32);
    two_views(criterion, "imagenet 224 px of 500 x 375", &pictures(16, 500, 375, false), DatasetName::Imagenet, 224);
}

/// A batch of 64 images, two views of each, by the tensor engine on the CPU.
fn tensor_views(criterion: &mut Criterion, name: &str, images: &[RgbImage], dataset: DatasetName, size_px: usize) {
    let recipe = Augmentation::paper(dataset, size_px as u32, false);
    let (width, height, count) = (images[0].width, images[0].height, images.len());
    let pixels: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
    let shape = [count, height, width, 3].map(|length| length as i64);
    let pixels = Tensor::from_data_size(&pixels, &shape, Kind::Uint8);
    let rows = Tensor::arange(count as i64, (Kind::Int64, Device::Cpu)).repeat([2]);
    let renderer = TensorRenderer::new(Device::Cpu, size_px, recipe.blur_kernel_px);
    let mut epoch = 0;
    let mut group = criterion.benchmark_group("augment");
    group.sample_size(20).throughput(Throughput::Elements(2 * count as u64)).bench_function(name, |bencher| {
        bencher.iter(|| {
            epoch += 1;
            let stream = |view| Stream::new(0, Purpose::View, epoch, view as u64, 0);
            let views: Vec<_> = (0..2 * count).map(|view| draw(&recipe, &mut stream(view), width, height)).collect();
            let plan = renderer.planner().views(&views, width, height);
            let _ = black_box(renderer.views(&pixels, &rows, &plan));
        });
    });
    group.finish();
}

fn tensors(criterion: &mut Criterion) {
    tch::set_num_threads(1);
    tensor_views(criterion, "tensor engine, cifar10 32 px", &pictures(64, 32, 32, false), DatasetName::Cifar10, 32);
    let large = pictures(16, 256, 256, false);
    tensor_views(criterion, "tensor engine, imagenet 224 px of 256 x 256", &large, DatasetName::Imagenet, 224);
}

fn evaluation(criterion: &mut Criterion) {
    let image = picture(500, 375, 0, false);
    let (mut renderer, mut out) = (Renderer::new(), vec![0; 224 * 224 * 3]);
    let transform = EvalTransform::ResizeCenterCrop { resize_px: 256, crop_px: 224, filter: Filter::Bicubic };
    let mut group = criterion.benchmark_group("augment");
    group.sample_size(20).throughput(Throughput::Elements(1)).bench_function("evaluation 256, 224 px", |bencher| {
        let mut stream = Stream::new(0, Purpose::Evaluation, 0, 0, 0);
        bencher.iter(|| transform.apply(&mut renderer, image.as_ref(), &mut stream, black_box(&mut out)));
    });
    group.finish();
}

/// JPEG to two views of ImageNet's recipe; counted in images.
fn decode_and_views(criterion: &mut Criterion) {
    let jpeg = include_bytes!("../tests/golden/augment/photo.jpg");
    let recipe = Augmentation::paper(DatasetName::Imagenet, 224, false);
    let (mut renderer, mut out, mut sample) = (Renderer::new(), vec![0; 224 * 224 * 3], 0);
    let mut group = criterion.benchmark_group("augment");
    group.sample_size(20).throughput(Throughput::Elements(1)).bench_function("jpeg 500 x 333, 224 px", |bencher| {
        bencher.iter(|| {
            let mut decoder = JpegDecoder::new(ZCursor::new(&jpeg[..]));
            let pixels = decoder.decode().expect("the photograph decodes");
            let (width, height) = decoder.dimensions().expect("a decoded image has dimensions");
            let image = RgbRef { width, height, pixels: &pixels };
            sample += 1;
            for view in 0..2 {
                let mut stream = Stream::new(0, Purpose::View, 0, sample, view);
                let parameters = draw(&recipe, &mut stream, width, height);
                renderer.view(image, &parameters, recipe.blur_kernel_px, 224, &mut out);
                black_box(&mut out);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, views, tensors, evaluation, decode_and_views);
criterion_main!(benches);
