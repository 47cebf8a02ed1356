//! Decoding of image files: agreement with Pillow, and every kind of broken file.

use flatnce::config::{DataConfig, DatasetName, Orientation};
use flatnce::data::{Part, decode_bytes, load};
use flatnce::pixels::RgbImage;
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgba};
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

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
        (b"GIF89a......", "a GIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"BM123456", "BMP"),
        (b"II\x2a\0....", "TIFF"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"plain text", "no image"),
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

#[test]
fn damaged_bytes_never_panic() {
    let mut stream = flatnce::rng::Stream::new(1, flatnce::rng::Purpose::Subset, 0, 0, 0);
    for name in ["444.jpg", "420.jpg", "progressive.jpeg", "cmyk.jpg", "ycck.jpg", "rgb.png", "palette.png"] {
        let whole = bytes(name);
        for _ in 0..150 {
            let mut damaged = whole.clone();
            for _ in 0..1 + stream.below(4) {
                let at = stream.below(damaged.len() as u64) as usize;
                damaged[at] = stream.next_u32() as u8;
            }
            // A change may be harmless; what matters is that the answer is an image or an error.
            let _ = decode(&damaged);
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
