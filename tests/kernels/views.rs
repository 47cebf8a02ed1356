//! Whole views: the bits of the CPU engine, blur included.

use super::emulation::{Emulation, Gpu};
use super::pictures::{Content, Pictures};
use flatnce::augment::{BLUR, CropBox, Jitter, JitterOp, TensorRenderer, ViewParameters};
use flatnce::config::{Augmentation, DatasetName};
use tch::{Device, Kind, Tensor};

impl Pictures {
    fn by_kernel(&self, views: &[ViewParameters], kernel_px: u32, size: usize) -> Tensor {
        self.by_kernel_on(Device::Cpu, views, kernel_px, size)
    }

    fn by_kernel_on(&self, device: Device, views: &[ViewParameters], kernel_px: u32, size: usize) -> Tensor {
        let renderer = TensorRenderer::new(device, size, kernel_px);
        let plan = renderer.planner().views(views, self.width, self.height);
        assert_eq!((plan.chunk_count(), plan.views()), (0, views.len()), "the plan is the kernel's");
        renderer.views(&self.tensor().to_device(device), &self.rows(views.len()).to_device(device), &plan)
    }

    fn check(&self, name: &str, views: &[ViewParameters], kernel_px: u32, size: usize) {
        let wanted = self.by_cpu(views, kernel_px, size);
        let got = bytes(&self.by_kernel(views, kernel_px, size));
        assert_eq!(got.len(), wanted.len(), "{name}");
        if let Some(place) = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted) {
            let (view, at) = (place / (size * size * 3), place % (size * size * 3));
            panic!("{name}: level {at} of view {view} is {}, not {}: {:?}", got[place], wanted[place], views[view]);
        }
    }
}

fn bytes(images: &Tensor) -> Vec<u8> {
    Vec::try_from(images.contiguous().view(-1)).expect("bytes")
}

/// One view with every operation.
pub fn everything() -> Tensor {
    let pictures = Pictures::new(1, 23, 19, Content::SomeGrey);
    let order = [JitterOp::Saturation, JitterOp::Contrast, JitterOp::Hue, JitterOp::Brightness];
    let jitter = Some(Jitter { order, brightness: 1.2, contrast: 0.6, saturation: 1.4, hue: 0.1 });
    let crop = CropBox { top: 1, left: 2, height: 17, width: 20 };
    let view = ViewParameters { flip: true, jitter, ..ViewParameters::crop_only(crop) }.with(&BLUR, Some(1.3));
    pictures.by_kernel(&[view], 5, 18)
}

/// Resized views as they are, of which some blocks render two.
pub fn several_a_block() -> Tensor {
    let pixels: Vec<u8> = (0..600 * 9 * 9 * 3).map(|place| (place * 7 % 251) as u8).collect();
    let resized = Tensor::from_data_size(&pixels, &[600, 9, 9, 3], Kind::Uint8);
    let renderer = TensorRenderer::new(Device::Cpu, 9, 3);
    let views = vec![ViewParameters::crop_only(CropBox::whole(9, 9)); 600];
    renderer.colors(&resized, &renderer.planner().colors(&views))
}

#[test]
fn random_views_have_the_bits_of_the_cpu_engine() {
    for &dataset in DatasetName::ALL {
        let size = flatnce::data::protocol(dataset).size_px.min(96);
        let count = if size <= 32 { 400 } else { 60 };
        let pictures = Pictures::new(24, size as usize, size as usize, Content::SomeGrey);
        let _emulation = Emulation::start();
        for faster in [false, true] {
            let recipe = Augmentation::paper(dataset, size, faster);
            let views = pictures.drawn(&recipe, count);
            pictures.check(&format!("{dataset}"), &views, recipe.blur_kernel_px, size as usize);
        }
    }
}

#[test]
fn at_224_pixels_and_beside_shared_memory_the_bits_are_the_same() {
    let recipe = Augmentation { blur_prob: 0.7, ..Augmentation::paper(DatasetName::Imagenet, 224, false) };
    for (width, height) in [(256, 256), (500, 375)] {
        let pictures = Pictures::new(3, width, height, Content::SomeGrey);
        let _emulation = Emulation::start();
        pictures.check(&format!("{width} x {height}"), &pictures.drawn(&recipe, 16), recipe.blur_kernel_px, 224);
    }
    // A GPU without shared memory for it; more views than blocks, so that a block renders several.
    let recipe = Augmentation { blur_prob: 0.7, ..Augmentation::paper(DatasetName::Imagenet, 16, false) };
    let pictures = Pictures::new(9, 20, 30, Content::SomeGrey);
    let _emulation = Emulation::with_shared_bytes(1024);
    pictures.check("several views a block", &pictures.drawn(&recipe, 1200), 5, 16);
}

#[test]
fn odd_shapes_have_the_bits_of_the_cpu_engine() {
    let recipe = Augmentation { blur_prob: 0.5, ..Augmentation::paper(DatasetName::Imagenet, 32, false) };
    for (width, height, size) in
        [(61, 47, 32), (47, 61, 7), (5, 9, 32), (96, 3, 16), (3, 96, 16), (1, 1, 8), (200, 40, 24), (40, 200, 1)]
    {
        let pictures = Pictures::new(5, width, height, Content::SomeGrey);
        let _emulation = Emulation::start();
        let views = pictures.drawn(&recipe, 60);
        for kernel_px in [3, 23] {
            pictures.check(&format!("{width} x {height} to {size}"), &views, kernel_px, size);
        }
    }
}

#[test]
fn hue_has_the_bits_of_the_cpu_engine_for_many_colors_and_every_step() {
    let mut pixels = Vec::new();
    for color in 0..1u32 << 14 {
        let [red, green, blue] = [color * 37, color * 101 + 13, color * 197 / 3].map(|level| (level % 256) as u8);
        pixels.extend([red, green, blue]);
    }
    let pictures = Pictures { pixels, width: 128, height: 128 };
    let order = [JitterOp::Hue, JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation];
    let plain = ViewParameters::crop_only(CropBox::whole(128, 128));
    let turned = |steps: i32| {
        let hue = (steps as f32 + 0.5) / 255.0 - 0.5;
        let mut view = plain;
        view.jitter = Some(Jitter { order, brightness: 1.0, contrast: 1.0, saturation: 1.0, hue });
        view
    };
    let _emulation = Emulation::start();
    pictures.check("hue", &(0..256).map(turned).collect::<Vec<_>>(), 3, 128);
}

#[test]
fn colors_alone_complete_a_resized_view() {
    let pictures = Pictures::new(6, 45, 33, Content::SomeGrey);
    let recipe = Augmentation { blur_prob: 0.5, ..Augmentation::paper(DatasetName::Imagenet, 24, false) };
    let views = pictures.drawn(&recipe, 40);
    let resized: Vec<ViewParameters> = views.iter().map(|view| view.without_colors()).collect();
    let halfway = Tensor::from_data_size(&pictures.by_cpu(&resized, 3, 24), &[40, 24, 24, 3], Kind::Uint8);
    for shared_bytes in [80 << 10, 1024] {
        let _emulation = Emulation::with_shared_bytes(shared_bytes);
        let renderer = TensorRenderer::new(Device::Cpu, 24, 3);
        let finished = renderer.colors(&halfway, &renderer.planner().colors(&views));
        assert!(bytes(&finished) == pictures.by_cpu(&views, 3, 24));
    }
}

#[test]
fn an_empty_batch_is_an_empty_batch() {
    let _emulation = Emulation::start();
    let renderer = TensorRenderer::new(Device::Cpu, 24, 3);
    let images = Tensor::zeros([0, 24, 24, 3], (Kind::Uint8, Device::Cpu));
    assert_eq!(renderer.colors(&images, &renderer.planner().colors(&[])).size(), [0, 24, 24, 3]);
}

#[test]
fn views_have_the_same_bits_in_every_order_of_threads() {
    let pictures = Pictures::new(4, 37, 29, Content::SomeGrey);
    let recipe = Augmentation { blur_prob: 0.7, ..Augmentation::paper(DatasetName::Imagenet, 33, false) };
    let views = pictures.drawn(&recipe, 24);
    let emulation = Emulation::start();
    let first = pictures.by_kernel(&views, 5, 33);
    for order in 1..4 {
        emulation.order(order);
        assert_eq!(pictures.by_kernel(&views, 5, 33), first, "order {order}");
    }
}

#[test]
fn a_gpu_has_the_bits_of_the_cpu_engine() {
    let Some(_gpu) = Gpu::start() else { return };
    for (side, size, count) in [(32, 32, 2000), (96, 96, 500), (256, 224, 200)] {
        let recipe = Augmentation::paper(DatasetName::Imagenet, size, false);
        let pictures = Pictures::new(20, side, side, Content::SomeGrey);
        let views = pictures.drawn(&recipe, count);
        let got = pictures.by_kernel_on(Device::Cuda(0), &views, recipe.blur_kernel_px, size as usize);
        let wanted = pictures.by_cpu(&views, recipe.blur_kernel_px, size as usize);
        assert!(bytes(&got.to_device(Device::Cpu)) == wanted, "{side} to {size} pixels");
    }
}
