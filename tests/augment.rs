//! The augmentation against torchvision and Pillow: operations, whole views, and
//! the distribution of the parameters. Fixtures: tests/golden/augment/make.py.

use flatnce::augment::{
    BLUR, CropBox, EvalTransform, Filter, GRAYSCALE, Jitter, JitterOp, Renderer, ViewParameters, draw,
};
use flatnce::augment::{blur::Blur, color, hue, recipe::random_resized_crop};
use flatnce::config::{Augmentation, ClassifierAugment, DatasetName};
use flatnce::pixels::{RgbImage, RgbRef};
use flatnce::rng::{Purpose, Stream};
use serde_json::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

const PIXELS: &[u8] = include_bytes!("golden/augment/pixels.bin");

fn fixtures() -> Value {
    serde_json::from_str(include_str!("golden/augment/cases.json")).unwrap()
}

fn integer(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn image(place: &Value) -> RgbRef<'static> {
    let (width, height) = (integer(&place["width"]), integer(&place["height"]));
    RgbRef { width, height, pixels: &PIXELS[integer(&place["offset"])..][..width * height * 3] }
}

fn op(name: &str) -> JitterOp {
    match name {
        "brightness" => JitterOp::Brightness,
        "contrast" => JitterOp::Contrast,
        "saturation" => JitterOp::Saturation,
        "hue" => JitterOp::Hue,
        other => panic!("{other} is no operation"),
    }
}

fn parameters(case: &Value) -> ViewParameters {
    let crop = &case["crop"];
    let [top, left, height, width] = [0, 1, 2, 3].map(|i| integer(&crop[i]));
    let jitter = &case["jitter"];
    let view = ViewParameters {
        flip: case["flip"].as_bool().unwrap_or(false),
        jitter: jitter.is_object().then(|| Jitter {
            order: [0, 1, 2, 3].map(|i| op(jitter["order"][i].as_str().unwrap())),
            brightness: float(&jitter["brightness"]) as f32,
            contrast: float(&jitter["contrast"]) as f32,
            saturation: float(&jitter["saturation"]) as f32,
            hue: float(&jitter["hue"]) as f32,
        }),
        ..ViewParameters::crop_only(CropBox { top, left, height, width })
    };
    view.with(&GRAYSCALE, (case["grayscale"] == true).then_some(0.0))
        .with(&BLUR, case["sigma"].as_f64().map(|sigma| sigma as f32))
}

fn render(source: RgbRef<'_>, parameters: &ViewParameters, kernel_px: u32, size: usize) -> Vec<u8> {
    // A pattern that no view has: bytes left unwritten would show.
    let [mut a, mut b] = [vec![0xAA; size * size * 3], vec![0x55; size * size * 3]];
    Renderer::new().view(source, parameters, kernel_px, size, &mut a);
    Renderer::new().view(source, parameters, kernel_px, size, &mut b);
    assert_eq!(a, b, "not every byte of the output is written");
    a
}

fn stream(sample: u64) -> Stream {
    Stream::new(5, Purpose::View, 0, sample, 0)
}

fn recipe(strength: f64, blur_prob: f64) -> Augmentation {
    Augmentation { jitter_strength: strength, blur_prob, ..Augmentation::paper(DatasetName::Cifar10, 32, false) }
}

/// A photograph in the fixtures, 60 x 45.
fn photo() -> RgbRef<'static> {
    image(&fixtures()["images"]["photo"])
}

#[test]
fn views_have_the_bits_of_torchvision_on_pil_images() {
    let fixtures = fixtures();
    let views = fixtures["views"].as_array().unwrap();
    assert!(views.len() > 40);
    // One renderer for all: nothing of a view may leak into the next.
    let mut renderer = Renderer::new();
    for case in views {
        let expected = image(&case["expected"]);
        let size = integer(&case["size"]);
        let kernel = case["kernel"].as_u64().unwrap_or(3) as u32;
        let mut out = vec![0; size * size * 3];
        let source = image(&fixtures["images"][case["image"].as_str().unwrap()]);
        renderer.view(source, &parameters(case), kernel, size, &mut out);
        let worst = out.iter().zip(expected.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // torch's convolution adds in another order than ours, so a blurred level may round the other way.
        let allowed = if case["sigma"].is_number() { 1 } else { 0 };
        assert!(worst <= allowed, "off by {worst}: {case}");
    }
}

#[test]
fn resizing_has_pillows_bits_for_many_shapes() {
    let fixtures = fixtures();
    let shapes = fixtures["checksums"]["shapes"].as_array().unwrap();
    assert_eq!(shapes.len(), 600);
    let mut renderer = Renderer::new();
    for shape in shapes {
        let [width, height, size, expected] = [0, 1, 2, 3].map(|i| integer(&shape[i]));
        // The same formula as in make.py.
        let pixels = (0..(width * height * 3) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let source = RgbImage { width, height, pixels };
        let mut out = vec![0; size * size * 3];
        let view = ViewParameters::crop_only(CropBox::whole(width, height));
        renderer.view(source.as_ref(), &view, 3, size, &mut out);
        assert_eq!(crc32fast::hash(&out) as usize, expected, "{width} x {height} to {size}");
    }
}

#[test]
fn evaluation_transforms_have_the_bits_of_torchvision() {
    let fixtures = fixtures();
    for case in fixtures["evaluations"].as_array().unwrap() {
        let (resize_px, crop_px) = (integer(&case["resize"]), integer(&case["crop"]));
        let filter = if case["filter"] == "bicubic" { Filter::Bicubic } else { Filter::Bilinear };
        let mut out = vec![0; crop_px * crop_px * 3];
        let source = image(&fixtures["images"][case["image"].as_str().unwrap()]);
        let transform = EvalTransform::ResizeCenterCrop { resize_px, crop_px, filter };
        transform.apply(&mut Renderer::new(), source, &mut stream(0), &mut out);
        assert!(out == image(&case["expected"]).pixels, "{case}");
    }
}

#[test]
fn plain_evaluation_copies_and_resizes_only_other_sizes() {
    let fixtures = fixtures();
    let small = image(&fixtures["images"]["small"]);
    let plain = EvalTransform::evaluation(DatasetName::Cifar10, 32);
    let mut out = vec![0; 32 * 32 * 3];
    plain.apply(&mut Renderer::new(), small, &mut stream(0), &mut out);
    assert_eq!(out, small.pixels);
    let (mut resized, mut expected) = (vec![0; 24 * 24 * 3], vec![0; 24 * 24 * 3]);
    EvalTransform::Plain { size_px: 24 }.apply(&mut Renderer::new(), photo(), &mut stream(0), &mut resized);
    EvalTransform::ResizeCenterCrop { resize_px: 24, crop_px: 24, filter: Filter::Bilinear }.apply(
        &mut Renderer::new(),
        photo(),
        &mut stream(0),
        &mut expected,
    );
    assert_eq!(resized, expected);
}

#[test]
fn transforms_follow_the_data_set() {
    let resize = |resize_px| EvalTransform::ResizeCenterCrop { resize_px, crop_px: 224, filter: Filter::Bicubic };
    assert_eq!(EvalTransform::evaluation(DatasetName::Imagenet, 224), resize(256));
    assert_eq!(EvalTransform::evaluation(DatasetName::Flower, 224), resize(224));
    assert_eq!(EvalTransform::training(DatasetName::Flower, 224, None), resize(224));
    assert_eq!(EvalTransform::training(DatasetName::Stl10, 96, None), EvalTransform::Plain { size_px: 96 });
    let training = EvalTransform::training(DatasetName::Imagenet, 224, None);
    assert_eq!(training, EvalTransform::RandomCropFlip { size_px: 224, filter: Filter::Bicubic });
    assert!(training.is_random() && !resize(256).is_random());
    assert_eq!([training.size_px(), resize(256).size_px()], [224, 224]);
    // As asked, whatever the data set.
    let asked = |dataset, size, augment| EvalTransform::training(dataset, size, Some(augment));
    assert_eq!(asked(DatasetName::Imagenet, 224, ClassifierAugment::None), resize(256));
    assert_eq!(asked(DatasetName::Flower, 224, ClassifierAugment::CropFlip), training);
    let shift = |resize_px, crop_px, filter, margin_px| EvalTransform::RandomShiftFlip {
        resize_px,
        crop_px,
        filter,
        margin_px,
    };
    let shifted = asked(DatasetName::Imagenet, 224, ClassifierAugment::ShiftFlip);
    assert_eq!(shifted, shift(256, 224, Filter::Bicubic, 28));
    assert!(shifted.is_random() && shifted.size_px() == 224);
    assert_eq!(asked(DatasetName::Cifar10, 32, ClassifierAugment::ShiftFlip), shift(32, 32, Filter::Bilinear, 4));
}

/// torchvision's `RandomCrop(side, padding)` and `RandomHorizontalFlip`, pixel by pixel.
#[test]
fn shifted_images_are_the_plain_ones_moved_and_mirrored() {
    let fixtures = fixtures();
    let small = image(&fixtures["images"]["small"]);
    let cifar = EvalTransform::training(DatasetName::Cifar10, 32, Some(ClassifierAugment::ShiftFlip));
    let other = EvalTransform::training(DatasetName::Flower, 24, Some(ClassifierAugment::ShiftFlip));
    for (source, side, margin, plain, transform) in [
        (small, 32, 4, EvalTransform::evaluation(DatasetName::Cifar10, 32), cifar),
        (photo(), 24, 3, EvalTransform::evaluation(DatasetName::Flower, 24), other),
    ] {
        let (mut still, mut moved) = (vec![0; side * side * 3], vec![0; side * side * 3]);
        plain.apply(&mut Renderer::new(), source, &mut stream(0), &mut still);
        let shifted = |right: i32, down: i32, flip: bool| -> Vec<u8> {
            let level = |y: i32, x: i32, channel: usize| {
                let (y, x) = (y - down, (if flip { side as i32 - 1 - x } else { x }) - right);
                let inside = (0..side as i32).contains(&y) && (0..side as i32).contains(&x);
                if inside { still[(y as usize * side + x as usize) * 3 + channel] } else { 0 }
            };
            let places = (0..side as i32).flat_map(|y| (0..side as i32).map(move |x| (y, x)));
            places.flat_map(|(y, x)| [level(y, x, 0), level(y, x, 1), level(y, x, 2)]).collect()
        };
        let mut found = std::collections::BTreeMap::new();
        for draw in 0..2000 {
            transform.apply(&mut Renderer::new(), source, &mut stream(draw), &mut moved);
            *found.entry(moved.clone()).or_insert(0) += 1;
        }
        let mut possible: Vec<Vec<u8>> = Vec::new();
        for (right, down) in (-margin..=margin).flat_map(|right| (-margin..=margin).map(move |down| (right, down))) {
            possible.extend([shifted(right, down, false), shifted(right, down, true)]);
        }
        assert!(found.keys().all(|picture| possible.contains(picture)));
        // 162 or 98 ways, each drawn 12 or 20 times of 2,000 on average.
        assert!(found.len() + 2 >= possible.len(), "{} of {}", found.len(), possible.len());
        assert!(found.values().all(|&count| count < 50), "{:?}", found.values());
    }
}

/// All 2^24 colours as planes, red slowest.
fn every_color() -> [Vec<u8>; 3] {
    [16, 8, 0].map(|shift| (0..1u32 << 24).map(|color| (color >> shift) as u8).collect())
}

/// CRC-32 of planes, interleaved.
fn crc(planes: [&[u8]; 3]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    for ((r, g), b) in planes[0].chunks(4096).zip(planes[1].chunks(4096)).zip(planes[2].chunks(4096)) {
        let block: Vec<u8> = r.iter().zip(g).zip(b).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
        hasher.update(&block);
    }
    hasher.finalize().into()
}

#[test]
fn hue_has_pillows_bits_for_every_color() {
    let colors = every_color();
    for case in fixtures()["checksums"]["hue"].as_array().unwrap() {
        let [mut r, mut g, mut b] = colors.clone();
        hue::rotate(&mut r, &mut g, &mut b, hue::steps(float(&case[0]) as f32));
        assert_eq!(crc([&r, &g, &b]), case[1].as_u64().unwrap(), "shift {}", case[0]);
    }
}

#[test]
fn saturation_and_grayscale_have_pillows_bits_for_every_color() {
    let fixtures = fixtures();
    let checksums = &fixtures["checksums"];
    let colors = every_color();
    for case in checksums["saturation"].as_array().unwrap() {
        let [mut r, mut g, mut b] = colors.clone();
        color::saturation(&mut r, &mut g, &mut b, float(&case[0]) as f32);
        assert_eq!(crc([&r, &g, &b]), case[1].as_u64().unwrap(), "factor {}", case[0]);
    }
    let [mut grey, green, blue] = colors;
    color::grayscale(&mut grey, &green, &blue);
    assert_eq!(u64::from(crc32fast::hash(&grey)), checksums["grayscale"].as_u64().unwrap());
}

#[test]
fn brightness_and_contrast_have_pillows_bits_for_every_level() {
    let fixtures = fixtures();
    let levels: Vec<u8> = (0..=255).collect();
    for case in fixtures["checksums"]["brightness"].as_array().unwrap() {
        let mut out = levels.clone();
        color::brightness(&mut out, float(&case[0]) as f32);
        assert_eq!(u64::from(crc32fast::hash(&out)), case[1].as_u64().unwrap(), "factor {}", case[0]);
    }
    for case in fixtures["checksums"]["contrast"].as_array().unwrap() {
        let mut all = Vec::new();
        for mean in 0..=255 {
            let mut out = levels.clone();
            color::contrast(&mut out, mean, float(&case[0]) as f32);
            all.extend(out);
        }
        assert_eq!(u64::from(crc32fast::hash(&all)), case[1].as_u64().unwrap(), "factor {}", case[0]);
    }
}

#[test]
fn the_mean_grey_level_is_rounded() {
    assert_eq!(color::mean_luma(&[10, 11], &[10, 11], &[10, 11]), 11);
    assert_eq!(color::mean_luma(&[10, 10, 11], &[10, 10, 11], &[10, 10, 11]), 10);
    assert_eq!(color::mean_grey(&[255; 70_000]), 255);
}

#[test]
fn blur_agrees_with_a_naive_convolution() {
    let size = 13;
    let mut random = stream(1);
    let levels: Vec<u8> = (0..size * size).map(|_| random.below(256) as u8).collect();
    let reflect = |i: i32| {
        let last = size as i32 - 1;
        let i = i.abs();
        (if i > last { 2 * last - i } else { i }) as usize
    };
    for (kernel, sigma) in [(3, 0.1f32), (5, 1.0), (23, 1.9), (23, 0.4)] {
        let half = kernel / 2;
        let weight = |d: i32| (-0.5 * (f64::from(d) / f64::from(sigma)).powi(2)).exp();
        let total: f64 = (-half..=half).map(weight).sum();
        let mut blurred = levels.clone();
        Blur::default().apply(&mut blurred, size, kernel as usize, sigma);
        for (place, &level) in blurred.iter().enumerate() {
            let (y, x) = ((place / size) as i32, (place % size) as i32);
            let mut sum = 0.0;
            for dy in -half..=half {
                for dx in -half..=half {
                    let level = f64::from(levels[reflect(y + dy) * size + reflect(x + dx)]);
                    sum += weight(dy) * weight(dx) / (total * total) * level;
                }
            }
            assert!((f64::from(level) - sum).abs() < 0.502, "kernel {kernel}, sigma {sigma}: {level} for {sum}");
        }
    }
}

#[test]
fn a_view_reads_nothing_outside_its_crop() {
    let source = photo();
    let crop = CropBox { top: 7, left: 13, height: 21, width: 30 };
    let mut other = RgbImage { width: source.width, height: source.height, pixels: source.pixels.to_vec() };
    for (place, level) in other.pixels.iter_mut().enumerate() {
        let (y, x) = (place / 3 / source.width, place / 3 % source.width);
        if !(7..28).contains(&y) || !(13..43).contains(&x) {
            *level ^= 0xFF;
        }
    }
    for sample in 0..20 {
        let parameters = ViewParameters { crop, ..draw(&recipe(1.0, 0.5), &mut stream(sample), 60, 45) };
        assert_eq!(render(source, &parameters, 3, 32), render(other.as_ref(), &parameters, 3, 32));
    }
}

#[test]
fn flipping_twice_changes_nothing_and_once_mirrors() {
    let crop = CropBox { top: 3, left: 5, height: 37, width: 29 };
    let plain = ViewParameters::crop_only(crop);
    let straight = render(photo(), &plain, 3, 20);
    let mirrored = render(photo(), &ViewParameters { flip: true, ..plain }, 3, 20);
    assert_ne!(straight, mirrored);
    let back: Vec<u8> =
        mirrored.chunks_exact(60).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    assert_eq!(straight, back);
}

#[test]
fn identity_parameters_give_the_resized_crop() {
    let source = photo();
    let crop = CropBox { top: 4, left: 20, height: 32, width: 32 };
    // A crop of the output's size is the crop itself.
    let cut: Vec<u8> = (4..36).flat_map(|y| &source.pixels[(y * 60 + 20) * 3..][..32 * 3]).copied().collect();
    let plain = ViewParameters::crop_only(crop);
    assert_eq!(render(source, &plain, 3, 32), cut);
    // The smallest sigma leaves the centre of the kernel alone.
    assert_eq!(render(source, &plain.with(&BLUR, Some(0.1)), 3, 32), cut);
}

#[test]
fn equal_channels_are_the_same_by_either_path() {
    // A single coloured pixel in a far corner, outside the support of the others, forces the path of three planes.
    let grey = image(&fixtures()["images"]["grey"]);
    let mut colored = RgbImage { width: 32, height: 32, pixels: grey.pixels.to_vec() };
    assert_eq!(&colored.pixels[..3], [0, 0, 0]);
    colored.pixels[0] = 1;
    for sample in 0..40 {
        let crop = CropBox::whole(32, 32);
        let mut parameters = ViewParameters { crop, ..draw(&recipe(1.0, 0.5), &mut stream(sample), 32, 32) };
        parameters.flip = false;
        let (one, three) = (render(grey, &parameters, 3, 32), render(colored.as_ref(), &parameters, 3, 32));
        // Blur spreads the pixel by one.
        for place in (0..32 * 32).filter(|place| place / 32 > 1 || place % 32 > 1) {
            assert_eq!(one[place * 3..][..3], three[place * 3..][..3], "{parameters:?}");
        }
    }
}

#[test]
fn the_same_key_gives_the_same_view() {
    let draw_at = |epoch, sample, view| {
        let mut stream = Stream::new(1, Purpose::View, epoch, sample, view);
        draw(&recipe(0.5, 0.5), &mut stream, 60, 45)
    };
    assert_eq!(draw_at(3, 14, 1), draw_at(3, 14, 1));
    for other in [draw_at(4, 14, 1), draw_at(3, 15, 1), draw_at(3, 14, 0)] {
        assert_ne!(draw_at(3, 14, 1), other);
    }
}

/// Mean, variance and fourth central moment.
fn moments(values: &[f64]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |power| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>() / n;
    [mean, central(2), central(4)]
}

/// Mean and variance of `values` within five standard errors of torchvision's.
fn assert_moments(name: &str, values: &[f64], expected: &Value) {
    let [mean, variance, _] = moments(values);
    let [mean_t, variance_t, fourth_t] = ["mean", "variance", "fourth"].map(|key| float(&expected[key]));
    // The expected moments are themselves of 200,000 draws.
    let share = 1.0 / values.len() as f64 + 1.0 / 200_000.0;
    let (mean_bound, variance_bound) =
        (5.0 * (variance_t * share).sqrt(), 5.0 * ((fourth_t - variance_t * variance_t).max(0.0) * share).sqrt());
    assert!((mean - mean_t).abs() <= mean_bound + 1e-9, "{name}: mean {mean}, torchvision {mean_t} ± {mean_bound}");
    assert!(
        (variance - variance_t).abs() <= variance_bound + 1e-9,
        "{name}: variance {variance}, torchvision {variance_t} ± {variance_bound}"
    );
}

/// A share of `count` among 10,000 within five standard errors of `expected`.
fn assert_share(name: &str, count: usize, expected: f64) {
    let bound = 5.0 * (expected * (1.0 - expected) / 1e4).sqrt();
    assert!((count as f64 / 1e4 - expected).abs() <= bound, "{name}: {count} of 10,000, expected {expected}");
}

const DRAWS: u64 = 10_000;

#[test]
fn crops_are_distributed_as_torchvisions() {
    let golden: Value = serde_json::from_str(include_str!("golden/augment/moments.json")).unwrap();
    for case in golden["crops"].as_array().unwrap() {
        let (width, height) = (integer(&case["width"]), integer(&case["height"]));
        let pair = |key: &str| (float(&case[key][0]), float(&case[key][1]));
        let boxes: Vec<CropBox> = (0..DRAWS)
            .map(|sample| random_resized_crop(&mut stream(sample), width, height, pair("scale"), pair("ratio")))
            .collect();
        assert!(boxes.iter().all(|b| b.width > 0 && b.left + b.width <= width && b.top + b.height <= height));
        let area = |b: &CropBox| (b.width * b.height) as f64 / (width * height) as f64;
        let center = |b: &CropBox| (b.left as f64 + b.width as f64 / 2.0) / width as f64;
        let check = |name: &str, value: &dyn Fn(&CropBox) -> f64| {
            let values: Vec<f64> = boxes.iter().map(value).collect();
            assert_moments(&format!("{name} in {width} x {height}"), &values, &case[name]);
        };
        check("area", &area);
        check("log_ratio", &|b| (b.width as f64 / b.height as f64).ln());
        check("top", &|b| b.top as f64);
        check("left", &|b| b.left as f64);
        check("box_height", &|b| b.height as f64);
        check("box_width", &|b| b.width as f64);
        check("center_times_area", &|b| center(b) * area(b));
    }
}

#[test]
fn colors_flips_and_blur_are_distributed_as_torchvisions() {
    let golden: Value = serde_json::from_str(include_str!("golden/augment/moments.json")).unwrap();
    for case in golden["jitters"].as_array().unwrap() {
        let recipe = recipe(float(&case["strength"]), 0.5);
        let drawn: Vec<ViewParameters> = (0..DRAWS).map(|sample| draw(&recipe, &mut stream(sample), 32, 32)).collect();
        let count = |what: &dyn Fn(&ViewParameters) -> bool| drawn.iter().filter(|p| what(p)).count();
        assert_share("flip", count(&|p| p.flip), 0.5);
        assert_share("jitter", count(&|p| p.jitter.is_some()), 0.8);
        assert_share("grayscale", count(&|p| p.of(&GRAYSCALE).is_some()), 0.2);
        assert_share("blur", count(&|p| p.of(&BLUR).is_some()), 0.5);
        assert_share("flip and grayscale", count(&|p| p.flip && p.of(&GRAYSCALE).is_some()), 0.1);
        assert_share("jitter and blur", count(&|p| p.jitter.is_some() && p.of(&BLUR).is_some()), 0.4);
        let sigmas: Vec<f64> = drawn.iter().filter_map(|p| p.of(&BLUR)).map(f64::from).collect();
        assert_moments("sigma", &sigmas, &golden["sigma"]);
        let jitters: Vec<Jitter> = drawn.iter().filter_map(|p| p.jitter).collect();
        for (index, name) in ["brightness", "contrast", "saturation", "hue"].into_iter().enumerate() {
            let factor = |j: &Jitter| f64::from([j.brightness, j.contrast, j.saturation, j.hue][index]);
            let values: Vec<f64> = jitters.iter().map(factor).collect();
            assert_moments(name, &values, &case[name]);
            for place in 0..4 {
                let count = jitters.iter().filter(|j| j.order[place] == op(name)).count();
                let share = count as f64 / jitters.len() as f64;
                let expected = float(&case["place_of_op"][index][place]);
                assert!((share - expected).abs() < 5.0 * (0.1875 / 8e3f64).sqrt() + 0.005, "{name} at place {place}");
            }
        }
    }
}

#[test]
fn no_strength_means_no_jitter_and_no_probability_no_blur() {
    for sample in 0..1000 {
        let drawn = draw(&recipe(0.0, 0.0), &mut stream(sample), 32, 32);
        assert!(drawn.jitter.is_none() && drawn.of(&BLUR).is_none());
    }
}

#[test]
fn a_crop_exists_in_the_thinnest_image() {
    for (width, height) in [(1, 1), (1, 500), (500, 1), (3, 1000)] {
        for sample in 0..200 {
            let crop = random_resized_crop(&mut stream(sample), width, height, (0.08, 1.0), (0.75, 4.0 / 3.0));
            let source = RgbImage::new(width, height);
            render(source.as_ref(), &ViewParameters::crop_only(crop), 3, 8);
        }
    }
}

#[test]
#[should_panic(expected = "is not inside a 60 x 45 image")]
fn a_crop_outside_the_image_is_a_bug() {
    let crop = CropBox { top: 40, left: 0, height: 6, width: 5 };
    render(photo(), &ViewParameters::crop_only(crop), 3, 8);
}

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes every request on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the system's allocator through `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_warm_renderer_allocates_nothing() {
    let (recipe, source) = (recipe(1.0, 0.5), photo());
    let mut renderer = Renderer::new();
    let mut out = vec![0; 32 * 32 * 3];
    let mut allocations_of = |samples: std::ops::Range<u64>| {
        let before = ALLOCATIONS.with(Cell::get);
        for sample in samples {
            renderer.view(source, &draw(&recipe, &mut stream(sample), 60, 45), 3, 32, &mut out);
        }
        ALLOCATIONS.with(Cell::get) - before
    };
    assert!(allocations_of(0..200) > 0, "the allocator does not count");
    assert_eq!(allocations_of(200..400), 0);
}
