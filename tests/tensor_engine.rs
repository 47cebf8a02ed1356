//! The tensor engine against the CPU engine: each operation, whole recipes, odd shapes, chunks.

#[path = "support/pictures.rs"]
mod pictures;

use flatnce::augment::{BLUR, CropBox, GRAYSCALE, Jitter, JitterOp, Products, TensorRenderer, ViewParameters};
use flatnce::config::{Augmentation, DatasetName};
use pictures::{Content, Pictures};
use tch::{Device, Kind, Tensor};

impl Pictures {
    fn by_tensors(&self, renderer: &TensorRenderer, views: &[ViewParameters]) -> Vec<u8> {
        let plan = renderer.planner().views(views, self.width, self.height);
        let images = renderer.views(&self.tensor(), &self.rows(views.len()), &plan);
        let side = renderer.size_px() as i64;
        assert_eq!((images.size(), images.kind()), (vec![views.len() as i64, side, side, 3], Kind::Uint8));
        Vec::try_from(images.contiguous().view(-1)).expect("bytes")
    }

    /// Largest and mean difference of the engines, in levels.
    fn difference(&self, views: &[ViewParameters], kernel_px: u32, size: usize) -> (u8, f64) {
        let [tensors, halves] = [Products::Float64, Products::Float32Halves]
            .map(|products| TensorRenderer::new(Device::Cpu, size, kernel_px).with_products(products))
            .map(|renderer| self.by_tensors(&renderer, views));
        assert!(tensors == halves, "halves of weights give the bits of whole ones");
        compare(&self.by_cpu(views, kernel_px, size), &tensors)
    }
}

fn compare(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let total: u64 = differences().map(u64::from).sum();
    (differences().max().unwrap_or(0), total as f64 / a.len() as f64)
}

const ORDERS: [[JitterOp; 4]; 6] = {
    use JitterOp::*;
    [
        [Hue, Brightness, Contrast, Saturation],
        [Brightness, Hue, Saturation, Contrast],
        [Contrast, Saturation, Hue, Brightness],
        [Saturation, Contrast, Brightness, Hue],
        [Contrast, Brightness, Saturation, Hue],
        [Hue, Saturation, Brightness, Contrast],
    ]
};

fn jitter(brightness: f32, contrast: f32, saturation: f32, hue: f32) -> Vec<ViewParameters> {
    let plain = ViewParameters::crop_only(CropBox::whole(32, 32));
    let with = |order| {
        let mut view = plain;
        view.jitter = Some(Jitter { order, brightness, contrast, saturation, hue });
        view
    };
    ORDERS.map(with).into()
}

#[test]
fn each_operation_has_the_bits_of_the_cpu_engine() {
    let plain = ViewParameters::crop_only(CropBox::whole(32, 32));
    let one = |change: fn(&mut ViewParameters)| {
        let mut view = plain;
        change(&mut view);
        vec![view]
    };
    let cases = [
        ("nothing", one(|_| {})),
        ("flip", one(|view| view.flip = true)),
        ("crop", one(|view| view.crop = CropBox { top: 3, left: 9, height: 13, width: 22 })),
        ("crop and flip", one(|view| (view.crop.width, view.flip) = (17, true))),
        ("greyscale", one(|view| *view = view.with(&GRAYSCALE, Some(0.0)))),
        ("brightness", jitter(1.37, 1.0, 1.0, 0.0)),
        ("darkness", jitter(0.0, 1.0, 1.0, 0.0)),
        ("contrast", jitter(1.0, 0.42, 1.0, 0.0)),
        ("much contrast", jitter(1.0, 1.79, 1.0, 0.0)),
        ("saturation", jitter(1.0, 1.0, 0.11, 0.0)),
        ("much saturation", jitter(1.0, 1.0, 1.73, 0.0)),
        ("hue", jitter(1.0, 1.0, 1.0, 0.083)),
        ("hue back", jitter(1.0, 1.0, 1.0, -0.2)),
        ("all in every order", jitter(1.21, 0.77, 1.48, -0.13)),
    ];
    for content in [Content::Mixed, Content::Noise, Content::Grey] {
        let pictures = Pictures::new(4, 32, 32, content);
        for (name, views) in &cases {
            assert_eq!(pictures.difference(views, 3, 32), (0, 0.0), "{name}");
        }
    }
}

#[test]
fn hue_has_the_bits_of_the_cpu_engine_for_many_colors_and_every_step() {
    // 2^18 colours: every level of red and green that is a multiple of 4, of blue any.
    let mut pixels = Vec::new();
    for color in 0..1u32 << 18 {
        let [red, green, blue] =
            [(color >> 12) * 4 + (color & 3), (color >> 6 & 63) * 4 + 1, (color & 63) * 4 + (color >> 16)];
        pixels.extend([red, green, blue].map(|level| level as u8));
    }
    let pictures = Pictures { pixels, width: 512, height: 512 };
    let crop = CropBox::whole(512, 512);
    let turns = |hue| ViewParameters {
        jitter: Some(Jitter { order: ORDERS[0], brightness: 1.0, contrast: 1.0, saturation: 1.0, hue }),
        ..ViewParameters::crop_only(crop)
    };
    for steps in (0..256).step_by(15) {
        let hue = ((steps as f32 + 0.5) / 255.0) - 0.5;
        assert_eq!(pictures.difference(&[turns(hue)], 3, 512), (0, 0.0), "{hue}");
    }
}

/// Without blur the bits, with it a level more or less where the sum stands at a half.
#[test]
fn the_recipes_of_all_data_sets_agree() {
    for &dataset in DatasetName::ALL {
        let size = flatnce::data::protocol(dataset).size_px.min(96);
        let pictures = Pictures::new(24, size as usize, size as usize, Content::Mixed);
        for faster in [false, true] {
            let recipe = Augmentation::paper(dataset, size, faster);
            let views = pictures.drawn(&recipe, 96);
            let (worst, mean) = pictures.difference(&views, recipe.blur_kernel_px, size as usize);
            let blurs = recipe.blur_prob > 0.0;
            assert!(worst <= u8::from(blurs), "{dataset}: {worst}");
            assert!(mean <= if blurs { 0.001 } else { 0.0 }, "{dataset}: {mean}");
        }
    }
}

/// The bound at 224 pixels: 1 level, and on average a thousandth.
#[test]
fn at_224_pixels_a_blurred_level_is_off_by_one_at_most() {
    let recipe = Augmentation::paper(DatasetName::Imagenet, 224, false);
    for (width, height) in [(256, 256), (500, 375)] {
        let pictures = Pictures::new(4, width, height, Content::Mixed);
        let mut views = pictures.drawn(&recipe, 24);
        let (worst, mean) = pictures.difference(&views, recipe.blur_kernel_px, 224);
        assert!(worst <= 1 && mean <= 0.001, "{worst}, {mean}");
        views.iter_mut().for_each(|view| *view = view.with(&BLUR, None));
        assert_eq!(pictures.difference(&views, recipe.blur_kernel_px, 224), (0, 0.0));
    }
}

#[test]
fn odd_shapes_have_the_bits_of_the_cpu_engine() {
    let recipe = Augmentation { blur_prob: 0.0, ..Augmentation::paper(DatasetName::Imagenet, 32, false) };
    // Narrowed, enlarged, wide, high, one pixel; both orders of the passes in one batch.
    for (width, height, size) in
        [(61, 47, 32), (47, 61, 7), (5, 9, 32), (96, 3, 16), (3, 96, 16), (1, 1, 8), (200, 40, 24), (40, 200, 1)]
    {
        for content in [Content::Mixed, Content::Noise, Content::Grey] {
            let pictures = Pictures::new(5, width, height, content);
            let views = pictures.drawn(&recipe, 60);
            assert_eq!(pictures.difference(&views, 3, size), (0, 0.0), "{width} x {height} to {size}");
        }
    }
    let pictures = Pictures::new(3, 19, 23, Content::Noise);
    let pixel = |top, left| ViewParameters::crop_only(CropBox { top, left, height: 1, width: 1 });
    let thin = ViewParameters::crop_only(CropBox { top: 0, left: 18, height: 23, width: 1 });
    let views = [pixel(0, 0), pixel(22, 18), pixel(11, 4), thin, ViewParameters { flip: true, ..thin }];
    assert_eq!(pictures.difference(&views, 3, 12), (0, 0.0));
}

/// The largest sums there are: white, shrunk by as much as halves of weights are used for, and by more.
#[test]
fn white_stays_white_however_much_it_is_shrunk() {
    for width in [32, 416, 440, 448, 449, 464, 2000] {
        let mut pictures = Pictures::new(1, width, 3, Content::Noise);
        pictures.pixels.fill(255);
        let views = [ViewParameters::crop_only(CropBox::whole(width, 3))];
        assert_eq!(pictures.difference(&views, 3, 32), (0, 0.0), "{width}");
    }
}

#[test]
fn small_views_are_blurred_as_the_cpu_engine_blurs_them() {
    let pictures = Pictures::new(3, 24, 24, Content::Noise);
    for (size, kernel_px) in [(1, 3), (2, 5), (5, 23), (16, 9)] {
        let plain = ViewParameters::crop_only(CropBox::whole(24, 24));
        let views: Vec<_> = [0.1, 0.4, 1.0, 1.9].map(|s| plain.with(&BLUR, Some(s))).into();
        let (worst, mean) = pictures.difference(&views, kernel_px, size);
        assert!(worst <= 1 && mean < 0.01, "{size}, {kernel_px}: {worst}, {mean}");
    }
    // The smallest sigma changes nothing, exactly.
    let still = [ViewParameters::crop_only(CropBox::whole(24, 24)).with(&BLUR, Some(0.1))];
    assert_eq!(pictures.difference(&still, 3, 24), (0, 0.0));
}

#[test]
fn nothing_outside_the_crop_bleeds_in() {
    let mut pictures = Pictures::new(1, 40, 30, Content::Noise);
    let crop = CropBox { top: 7, left: 13, height: 11, width: 20 };
    let recipe = Augmentation::paper(DatasetName::Imagenet, 16, false);
    let views: Vec<_> = pictures.drawn(&recipe, 20).into_iter().map(|view| ViewParameters { crop, ..view }).collect();
    let renderer = TensorRenderer::new(Device::Cpu, 16, 3);
    let before = pictures.by_tensors(&renderer, &views);
    for (place, level) in pictures.pixels.iter_mut().enumerate() {
        let (y, x) = (place / 3 / 40, place / 3 % 40);
        if !(7..18).contains(&y) || !(13..33).contains(&x) {
            *level ^= 0xFF;
        }
    }
    assert!(before == pictures.by_tensors(&renderer, &views));
}

#[test]
fn chunks_change_no_bit() {
    let pictures = Pictures::new(7, 50, 40, Content::Mixed);
    let recipe = Augmentation::paper(DatasetName::Imagenet, 32, false);
    let views = pictures.drawn(&recipe, 61);
    let whole = TensorRenderer::new(Device::Cpu, 32, 3).with_chunk_bytes(1 << 40);
    assert_eq!(whole.planner().views(&views, 50, 40).chunk_count(), 1);
    let expected = pictures.by_tensors(&whole, &views);
    for bytes in [1, 1 << 20, 3 << 20] {
        let cut = TensorRenderer::new(Device::Cpu, 32, 3).with_chunk_bytes(bytes);
        let chunks = cut.planner().views(&views, 50, 40).chunk_count();
        assert!(chunks > 1 && (bytes > 1 || chunks == 61), "{chunks}");
        // Products of matrices of other sizes may add in another order: blur's level.
        let (worst, mean) = compare(&expected, &pictures.by_tensors(&cut, &views));
        assert!(worst <= 1 && mean < 0.001, "{worst}, {mean}");
    }
}

#[test]
fn colors_alone_complete_a_resized_view() {
    let pictures = Pictures::new(6, 45, 33, Content::Mixed);
    let recipe = Augmentation { blur_prob: 0.0, ..Augmentation::paper(DatasetName::Imagenet, 24, false) };
    let views = pictures.drawn(&recipe, 40);
    let resized: Vec<ViewParameters> =
        views.iter().map(|view| ViewParameters { flip: view.flip, ..ViewParameters::crop_only(view.crop) }).collect();
    let halfway = pictures.by_cpu(&resized, 3, 24);
    let renderer = TensorRenderer::new(Device::Cpu, 24, 3);
    let resized = Tensor::from_data_size(&halfway, &[40, 24, 24, 3], Kind::Uint8);
    let finished = renderer.colors(&resized, &renderer.planner().colors(&views));
    let finished = Vec::<u8>::try_from(finished.contiguous().view(-1)).expect("bytes");
    assert!(finished == pictures.by_cpu(&views, 3, 24));
    assert!(finished != halfway);
}

#[test]
fn an_empty_batch_is_an_empty_batch() {
    let renderer = TensorRenderer::new(Device::Cpu, 24, 3);
    let images =
        renderer.colors(&Tensor::zeros([0, 24, 24, 3], (Kind::Uint8, Device::Cpu)), &renderer.planner().colors(&[]));
    assert_eq!(images.size(), [0, 24, 24, 3]);
}
