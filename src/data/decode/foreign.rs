//! What a file is that is no image in a format that is read, for people.

use super::format_of;

/// Extensions of images in formats that are not read.
pub const EXTENSIONS: &str = "heic heif avif jp2 j2k jpf jpx jxl psd";

/// First bytes, and what begins with them.
const BEGINNINGS: [(&[u8], &str); 32] = [
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"\0\0\x02\0", "a cursor (CUR)"),
    (b"DDS ", "a texture (DDS)"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance image (HDR)"),
    (b"qoif", "a QOI image"),
    (b"gimp xcf", "a GIMP file (XCF)"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a file packed with gzip"),
    (b"BZh", "a file packed with bzip2"),
    (b"\xfd7zXZ\0", "a file packed with xz"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\0\0\x01\xba", "a video (MPEG)"),
    (b"OggS", "a video or sound (Ogg)"),
    (b"ID3", "a sound (MP3)"),
    (b"\xd0\xcf\x11\xe0", "a database of thumbnails or an old Office file"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches the file itself)"),
];

/// What a file is that begins with these bytes: `a zip archive`, `a text`. Of an image that is read, its format.
pub fn kind(bytes: &[u8]) -> &'static str {
    if let Some(format) = format_of(bytes) {
        return format.name;
    }
    if let Some((_, name)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return name;
    }
    match bytes {
        [] => "an empty file",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.get(..4) {
            Some(b"avif" | b"avis") => "an AVIF image",
            Some(b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1") => "a HEIC image",
            Some(b"crx ") => "a raw photograph (CR3)",
            _ => "a video (MP4 or QuickTime)",
        },
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => "a video (AVI)",
        _ if bytes.get(257..262) == Some(b"ustar") => "a tar archive",
        _ if bytes.get(128..132) == Some(b"DICM") => "a DICOM image",
        _ if bytes.iter().all(|&byte| byte == 0) => "a file of zeros",
        _ => text(bytes),
    }
}

fn text(bytes: &[u8]) -> &'static str {
    let beginning = &bytes[..bytes.len().min(512)];
    let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    if beginning.trim_ascii_start().starts_with(b"<") {
        return "a text in HTML or XML (a failed download?)";
    }
    // A character may be cut in two at the end.
    let whole = match std::str::from_utf8(beginning) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&beginning[..error.valid_up_to()]).ok(),
        Err(_) => None,
    };
    let plain = |text: &str| text.chars().all(|letter| !letter.is_control() || letter.is_ascii_whitespace());
    if whole.is_some_and(plain) { "a text" } else { "no image of a known kind" }
}

/// Whether a file that begins so is an image of a format that is not read: HEIC, AVIF, JPEG 2000, JPEG XL, Photoshop.
pub fn is_unread_image(beginning: &[u8]) -> bool {
    match beginning {
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => {
            [b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"]
                .iter()
                .any(|known| brand.starts_with(*known))
        }
        [0, 0, 0, 12, kind @ ..] => kind.starts_with(b"jP  ") || kind.starts_with(b"JXL "),
        [0xff, 0x0a, ..] | [0xff, 0x4f, 0xff, 0x51, ..] | [b'8', b'B', b'P', b'S', ..] => true,
        _ => false,
    }
}
