//! Decoding of image files: agreement with Pillow, and every kind of broken file.

#[path = "support/held.rs"]
mod held;
mod support;

use flatnce::config::{DataConfig, DatasetName, Orientation};
use flatnce::data::{Look, MAX_PIXELS, Part, Unseen, decode_bytes, load, look};
use flatnce::pixels::RgbImage;
use flatnce::rng::{Purpose, Stream};
use held::measured;
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixture(name: &str) -> PathBuf {
    Path::new("tests/golden/data/images").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<RgbImage, String> {
    let mut out = RgbImage::default();
    decode_bytes(bytes, Orientation::Stored, &mut out).map(|()| out)
}

/// Largest and mean difference between two images of one size.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(&a, &b)| a.abs_diff(b));
    let (max, sum) = differences.fold((0, 0u64), |(max, sum), d| (max.max(d), sum + u64::from(d)));
    (max, sum as f64 / a.len() as f64)
}

#[test]
fn images_of_every_kind_decode_as_pillow_decodes_them() {
    // Largest and mean difference allowed. JPEG's inverse transform and the interpolation of
    // colour at lower resolution differ between decoders; everything else is exact.
    let (exact, transform, colour) = ((0, 0.0), (2, 0.05), (4, 0.5));
    let mut scratch = RgbImage::default();
    for (name, (max, mean)) in [
        ("444.jpg", transform),
        ("422.jpg", colour),
        ("420.jpg", colour),
        ("progressive.jpeg", colour),
        ("restart.jpg", colour),
        ("rgb.jpg", transform),
        ("grey.JPG", transform),
        ("cmyk.jpg", transform),
        ("ycck.jpg", transform),
        // Pillow's convert("RGB") leaves the orientation alone, and so do we.
        ("rotated.jpg", colour),
        ("rgb.png", exact),
        ("palette.png", exact),
        ("palette_transparent.png", exact),
        ("two_bits.png", exact),
        ("one_bit.png", exact),
        ("rgba.png", exact),
        ("grey_alpha.png", exact),
        ("grey.PNG", exact),
    ] {
        let expected = image::open(fixture(&format!("{name}.expected.png"))).unwrap().into_rgb8();
        decode_bytes(&std::fs::read(fixture(name)).unwrap(), Orientation::Stored, &mut scratch).unwrap();
        assert_eq!((scratch.width as u32, scratch.height as u32), expected.dimensions(), "{name}");
        let found = difference(&scratch.pixels, &expected);
        assert!(found.0 <= max && found.1 <= mean, "{name}: differs by {found:?}, allowed {:?}", (max, mean));
    }
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

#[test]
fn sixteen_bit_samples_keep_their_upper_byte() {
    let grey = ImageBuffer::from_fn(3, 2, |x, y| Luma([0x1234u16 + 0x2100 * x as u16 + y as u16]));
    assert_eq!(decode(&png(grey)).unwrap().pixels[..9], [0x12, 0x12, 0x12, 0x33, 0x33, 0x33, 0x54, 0x54, 0x54]);
    let grey_alpha = ImageBuffer::from_pixel(1, 1, LumaA([0x80ffu16, 0x0101]));
    assert_eq!(decode(&png(grey_alpha)).unwrap().pixels, [0x80; 3]);
    let rgb = ImageBuffer::from_pixel(1, 1, Rgb([0x01ffu16, 0x8000, 0xffff]));
    assert_eq!(decode(&png(rgb)).unwrap().pixels, [1, 0x80, 0xff]);
    let rgba = ImageBuffer::from_pixel(1, 1, Rgba([0x01ffu16, 0x8000, 0xffff, 7]));
    assert_eq!(decode(&png(rgba)).unwrap().pixels, [1, 0x80, 0xff]);
}

#[test]
fn a_jpeg_cut_anywhere_is_an_error() {
    for name in ["420.jpg", "progressive.jpeg", "restart.jpg", "cmyk.jpg", "grey.JPG", "rotated.jpg"] {
        let whole = bytes(name);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{name} cut to {length} of {} bytes decodes", whole.len());
        }
    }
}

#[test]
fn a_thumbnail_does_not_stand_in_for_the_end_of_its_image() {
    let (image, thumbnail) = (bytes("420.jpg"), bytes("grey.JPG"));
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let whole = [&image[..2], &[0xff, 0xe1], &length, &thumbnail, &image[2..]].concat();
    assert_eq!(decode(&whole), decode(&image));
    assert!(decode(&whole[..whole.len() - 2]).unwrap_err().contains("no end marker"));
    // What follows the end, as some cameras write it, is of no interest.
    assert_eq!(decode(&[&whole[..], b"trailing"].concat()), decode(&image));
}

#[test]
fn bytes_that_other_decoders_step_over_do_no_harm() {
    for name in ["444.jpg", "420.jpg", "progressive.jpeg", "restart.jpg"] {
        let whole = bytes(name);
        let expected = decode(&whole).unwrap();
        let find = |code| whole.windows(2).position(|pair| pair == [0xff, code]).unwrap();
        let end = whole.len() - 2;
        // Before the tables, before the scan, before the end: zeros, noise, fill bytes.
        for (at, extra) in [(find(0xdb), vec![0; 40]), (find(0xda), vec![0x33; 254]), (find(0xda), vec![0xff; 9])] {
            let stray = [&whole[..at], &extra, &whole[at..]].concat();
            assert_eq!(decode(&stray).as_ref(), Ok(&expected), "{name}: {} bytes at {at}", extra.len());
        }
        let tail = [&whole[..end], &[7; 5000], &whole[end..]].concat();
        assert_eq!(decode(&tail).as_ref(), Ok(&expected), "{name}");
    }
}

#[test]
fn a_png_cut_or_changed_is_an_error() {
    for name in ["rgb.png", "palette.png"] {
        let whole = bytes(name);
        // The last chunk, of 12 bytes, holds nothing.
        for length in 0..whole.len() - 12 {
            assert!(decode(&whole[..length]).is_err(), "{name} cut to {length} of {} bytes decodes", whole.len());
        }
        let mut changed = whole.clone();
        let middle = whole.len() / 2;
        changed[middle] ^= 1;
        assert!(decode(&changed).unwrap_err().contains("broken PNG"));
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html><title>404</title>", "failed download"),
        (b"GIF89a......", "broken GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "broken WebP (truncated)"),
        (b"BMW is a make of cars", "a text"),
        (b"P1 is a name", "a text"),
        (b"II\x2a\0....", "broken TIFF (truncated)"),
        (b"\0\0\0\x1cftypavif", "an AVIF image, and JPEG, PNG, WebP"),
        (b"\0\0\0\x1cftypheic", "a HEIC image"),
        (b"\0\0\0\x1cftypisom", "a video"),
        (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 image"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"PK\x03\x04", "a zip archive"),
        (b"%PDF-1.4", "a PDF document"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"plain text", "a text"),
        (b"\x01\x02\x03\x04", "no image of a known kind"),
    ] {
        let error = decode(bytes).unwrap_err();
        assert!(error.contains(word), "{error:?} should contain {word:?}");
    }
}

#[test]
fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
    let mut bomb = bytes("grey.PNG");
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let sum = crc32fast::hash(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&sum);
    assert!(decode(&bomb).unwrap_err().contains("60000x60000"));
    let mut bomb = bytes("444.jpg");
    let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert!(decode(&bomb).unwrap_err().contains("60000x60000"));
}

/// A picture of one bit a pixel unpacks to a thousand times three bytes for each of its own.
#[test]
fn a_small_file_of_many_pixels_is_refused() {
    let mut header = [0, 0, 0, 13].to_vec();
    header.extend(b"IHDR");
    header.extend([13_000u32.to_be_bytes(), 13_000u32.to_be_bytes()].concat());
    header.extend([1, 3, 0, 0, 0]);
    header.extend(crc32fast::hash(&header[4..]).to_be_bytes());
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        let at = header.len() + 4;
        header.extend((body.len() as u32).to_be_bytes());
        header.extend(kind);
        header.extend(body);
        header.extend(crc32fast::hash(&header[at..]).to_be_bytes());
    };
    chunk(b"PLTE", &[1, 2, 3, 4, 5, 6]);
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..13_000 {
        packed.write_all(&[0; 1 + 13_000 / 8]).unwrap();
    }
    chunk(b"IDAT", &packed.finish().unwrap());
    chunk(b"IEND", &[]);
    let bomb = [b"\x89PNG\r\n\x1a\n".as_slice(), &header].concat();
    assert!(bomb.len() < 30_000, "{}", bomb.len());
    let error = decode(&bomb).unwrap_err();
    assert!(error.contains("13000x13000 pixels") && error.contains("89478485"), "{error}");
}

fn damage(bytes: &mut Vec<u8>, stream: &mut Stream) {
    let at = |stream: &mut Stream, end: usize| stream.below(end as u64) as usize;
    match stream.below(4) {
        // Anywhere, or in the header.
        which @ 0..=1 => {
            let end = if which == 0 { bytes.len() } else { bytes.len().min(120) };
            for _ in 0..1 + stream.below(4) {
                let place = at(stream, end);
                bytes[place] = stream.next_u32() as u8;
            }
        }
        2 => bytes.truncate(at(stream, bytes.len())),
        _ => {
            let from = at(stream, bytes.len());
            let end = (from + 1 + at(stream, 20)).min(bytes.len());
            bytes[from..end].fill(if stream.chance(0.5) { 0 } else { 0xff });
        }
    }
}

#[test]
fn damaged_files_of_every_format_are_images_or_errors() {
    let formats = fs::read_dir(fixture("formats")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = formats.collect();
    for name in
        ["444.jpg", "420.jpg", "progressive.jpeg", "cmyk.jpg", "ycck.jpg", "rotated.jpg", "rgb.png", "palette.png"]
    {
        paths.push(fixture(name));
    }
    paths.sort();
    for path in paths {
        let whole = fs::read(&path).unwrap();
        assert!(decode(&whole).is_ok(), "{}", path.display());
        let (mut refused, mut out) = (0, RgbImage::default());
        for round in 0..500 {
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut Stream::new(1, Purpose::Subset, round, 0, 0));
            let (decoded, held) = measured(|| {
                let _ = look(&bytes[..bytes.len().min(200)]);
                decode_bytes(&bytes, Orientation::Exif, &mut out)
            });
            refused += usize::from(decoded.is_err());
            // Three bytes a pixel, three more where it is turned, and what a decoder unpacks in between.
            let allowed = 8 * 3 * MAX_PIXELS as isize;
            assert!(held < allowed, "{}, round {round}: {held} bytes", path.display());
            out = RgbImage::default();
        }
        assert!(refused > 50, "{}: only {refused} of 500 were refused", path.display());
    }
}

/// Pillow's answer to a file: what it calls it, its size, and its pixels.
fn pillow(path: &Path, ending: &str) -> Option<(String, RgbImage)> {
    let bytes = fs::read(path.with_file_name(format!("{}.{ending}", path.file_name()?.to_str()?))).ok()?;
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let words: Vec<&str> = head.split(' ').collect();
    let image =
        RgbImage { width: words[1].parse().ok()?, height: words[2].parse().ok()?, pixels: bytes[end + 1..].to_vec() };
    Some((words[0].to_owned(), image))
}

#[test]
fn every_kind_that_pillow_writes_is_read_as_pillow_reads_it() {
    let Some(python) = support::python("PIL") else { return };
    let place = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pillow.py");
    assert!(Command::new(python).args([script, "make"]).arg(place.path()).status().unwrap().success());
    let mut paths: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !path.to_str().unwrap().ends_with(".rgb") && !path.to_str().unwrap().ends_with(".upright"));
    assert!(paths.len() > 80, "{}", paths.len());
    for path in paths {
        let (name, bytes) = (path.display(), fs::read(&path).unwrap());
        for (ending, orientation) in [("rgb", Orientation::Stored), ("upright", Orientation::Exif)] {
            let (kind, expected) = pillow(&path, ending).expect("Pillow reads what it writes");
            let mut found = RgbImage::default();
            decode_bytes(&bytes, orientation, &mut found).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((found.width, found.height), (expected.width, expected.height), "{name}");
            let (max, mean) = difference(&found.pixels, &expected.pixels);
            let allowed = match (kind.split('/').next().unwrap(), path.file_name().unwrap().to_str().unwrap()) {
                ("JPEG", _) | (_, "jpeg.tif") => (4, 0.5),
                ("WEBP", lossy) if !lossy.contains("lossless") => (4, 0.5),
                // Pillow rounds samples of 16 bits here; they keep their upper byte.
                (_, "wide.ppm") => (1, 0.5),
                _ => (0, 0.0),
            };
            assert!(max <= allowed.0 && mean <= allowed.1, "{name} ({kind}): {max} at most, {mean} on average");
        }
    }
}

#[test]
fn a_header_is_told_from_the_beginning_of_a_file() {
    let of = |name: &str| bytes(name);
    let told = |bytes: &[u8]| {
        let whole = look(bytes).unwrap();
        // Of every beginning it says the same, or that there is more; never that the file is broken.
        let mut first = None;
        for length in 3..bytes.len() {
            match look(&bytes[..length]) {
                Ok(found) if found == whole => first = first.or(Some(length)),
                // A short beginning may be of another kind, and what is said about it at the end is not here yet.
                Ok(_) => {}
                Err(Unseen::Short) => assert!(first.is_none(), "{length}"),
                Err(Unseen::Broken(reason)) => assert!(length < 20, "{length}: {reason}"),
            }
        }
        whole
    };
    let plain =
        Look { format: "JPEG", width: 67, height: 45, deep: false, clear_palette: false, cmyk: false, orientation: 1 };
    assert_eq!(told(&of("420.jpg")), plain);
    assert_eq!(told(&of("cmyk.jpg")), Look { cmyk: true, ..plain });
    assert_eq!(told(&of("rotated.jpg")), Look { orientation: 6, ..plain });
    assert_eq!(told(&of("palette_transparent.png")), Look { format: "PNG", clear_palette: true, ..plain });
    let deep = png(ImageBuffer::from_pixel(9, 3, Luma([0x1234u16])));
    assert_eq!(told(&deep), Look { format: "PNG", width: 9, height: 3, deep: true, ..plain });
    for (name, format) in
        [("rgb-lossy.webp", "WebP"), ("clear.gif", "GIF"), ("bits.bmp", "BMP"), ("group4.tif", "TIFF")]
    {
        let found = told(&of(&format!("formats/{name}")));
        assert_eq!((found.format, found.width, found.height), (format, 61, 47), "{name}");
        assert_eq!(found.clear_palette, name == "clear.gif");
    }
}

#[test]
fn rare_kinds_of_jpeg_are_named() {
    let whole = bytes("444.jpg");
    let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (code, bits, word) in [
        (0xc9, 8, "arithmetic coding"),
        (0xca, 8, "arithmetic coding"),
        (0xc3, 8, "lossless"),
        (0xc5, 8, "hierarchical"),
        (0xc1, 12, "12 bits"),
    ] {
        let mut changed = whole.clone();
        (changed[frame + 1], changed[frame + 4]) = (code, bits);
        let error = decode(&changed).unwrap_err();
        assert!(error.contains(word) && error.contains("not read"), "{error}");
    }
}

#[test]
fn hostile_exif_does_no_harm() {
    let whole = bytes("rotated.jpg");
    let at = whole.windows(6).position(|window| window == b"Exif\0\0").unwrap() + 6;
    let end = at - 8 + usize::from(u16::from_be_bytes([whole[at - 8], whole[at - 7]]));
    let mut out = RgbImage::default();
    for place in at..end {
        for value in [0, 1, 9, 0x7f, 0xff] {
            let mut changed = whole.clone();
            changed[place] = value;
            // The note cannot be read, or says something else: the pixels are not touched by that.
            decode_bytes(&changed, Orientation::Exif, &mut out).unwrap();
            assert_eq!(out.pixels.len(), 67 * 45 * 3);
        }
    }
}

#[test]
fn a_split_names_the_broken_file_and_goes_on() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.jpg"), &bytes("420.jpg")[..1000]).unwrap();
    fs::copy(fixture("rgb.png"), root.path().join("b.JPEG")).unwrap();
    let config = DataConfig::new(DatasetName::Folder, root.path().to_path_buf(), 224);
    let split = load(&config, Part::Train).unwrap();
    let mut scratch = RgbImage::default();
    let bad = split.image(0, &mut scratch).unwrap_err();
    assert!(bad.path.ends_with("a.jpg") && bad.reason.contains("truncated"), "{bad}");
    // A PNG under the name of a JPEG, as in ImageNet.
    assert_eq!(split.image(1, &mut scratch).unwrap().width, 67);
    fs::remove_file(root.path().join("b.JPEG")).unwrap();
    assert!(split.image(1, &mut scratch).unwrap_err().to_string().contains("b.JPEG"));
}
