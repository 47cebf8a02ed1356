//! Rows of pictures with words beside them: a query and its neighbours.

use super::canvas::{SCALE, painted, text};
use crate::pixels::RgbImage;
use crate::report::contact_sheet::paste;
use plotters::style::text_anchor::HPos;

/// A picture and the colour of its frame.
#[derive(Clone, Debug)]
pub struct Tile {
    pub picture: RgbImage,
    /// Of the query's class or of another; `None`: not known, or the query itself.
    pub agrees: Option<bool>,
}

/// The words at the left, then the query, then its neighbours, the nearest first.
#[derive(Clone, Debug)]
pub struct Row {
    pub words: String,
    pub tiles: Vec<Tile>,
}

/// What a sheet is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paper {
    White,
    /// For pages that are dark: grey words on the colour of the page's boxes.
    Dark,
}

impl Paper {
    /// The colour of what is `level` on white paper, where 255 is the paper itself.
    fn colour(self, level: u8) -> [u8; 3] {
        match self {
            Paper::White => [level; 3],
            Paper::Dark => {
                [0x20, 0x23, 0x27].map(|paper: u8| paper + ((228 - paper) as u32 * u32::from(255 - level) / 255) as u8)
            }
        }
    }
}

const FRAME_PX: usize = 4;
const GAP_PX: usize = 8;
const WORDS_PX: usize = 190;
const TITLE_PX: usize = 44;
/// After the query.
const QUERY_GAP_PX: usize = 22;
/// Okabe and Ito's blue and vermilion, which colour-blind readers can tell apart.
const AGREES: [u8; 3] = [0, 114, 178];
const DIFFERS: [u8; 3] = [213, 94, 0];
const UNKNOWN: [u8; 3] = [200, 200, 200];

/// The rows below each other under a title; tiles are as large as the largest.
pub fn neighbour_sheet(title: &str, rows: &[Row], paper: Paper) -> RgbImage {
    let tiles = || rows.iter().flat_map(|row| &row.tiles);
    let side = tiles().map(|tile| tile.picture.width.max(tile.picture.height)).max().unwrap_or(1);
    let longest = rows.iter().map(|row| row.tiles.len()).max().unwrap_or(0);
    let step = side + 2 * FRAME_PX + GAP_PX;
    let width = WORDS_PX + longest * step + QUERY_GAP_PX + GAP_PX;
    let height = TITLE_PX + rows.len() * step + GAP_PX;
    let mut sheet = RgbImage::new(width, height);
    sheet.pixels.as_chunks_mut().0.fill(paper.colour(255));
    for (number, row) in rows.iter().enumerate() {
        let top = TITLE_PX + number * step;
        for (place, tile) in row.tiles.iter().enumerate() {
            let left = WORDS_PX + place * step + if place > 0 { QUERY_GAP_PX } else { 0 };
            let frame = tile.agrees.map_or(UNKNOWN, |agrees| if agrees { AGREES } else { DIFFERS });
            fill(&mut sheet, (left, top), side + 2 * FRAME_PX, frame);
            paste(&mut sheet, &tile.picture, left + FRAME_PX, top + FRAME_PX);
        }
    }
    paste(&mut sheet, &letters(title, 19.0, (width - 2 * GAP_PX, TITLE_PX), paper), GAP_PX, 0);
    for (number, row) in rows.iter().enumerate() {
        let words = letters(&row.words, 15.0, (WORDS_PX - 2 * GAP_PX, side), paper);
        paste(&mut sheet, &words, GAP_PX, TITLE_PX + number * step + FRAME_PX);
    }
    sheet
}

/// Text at the left of an empty field, half way up.
fn letters(words: &str, size_px: f64, (width, height): (usize, usize), paper: Paper) -> RgbImage {
    let half = (height as u32 * SCALE / 2) as i32;
    let mut field = painted(width, height, |area| text(area, words, size_px, HPos::Left, (0, half)));
    field.pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = paper.colour(pixel[0]));
    field
}

fn fill(sheet: &mut RgbImage, (left, top): (usize, usize), side: usize, colour: [u8; 3]) {
    for y in top..top + side {
        let row = (y * sheet.width + left) * 3;
        sheet.pixels[row..row + side * 3].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&colour));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_who_agrees() {
        let tile = |level, agrees| Tile { picture: RgbImage { width: 2, height: 2, pixels: vec![level; 12] }, agrees };
        let row = Row { words: "cat".into(), tiles: vec![tile(1, None), tile(2, Some(true)), tile(3, Some(false))] };
        let sheet = neighbour_sheet("title", std::slice::from_ref(&row), Paper::White);
        let step = 2 + 2 * FRAME_PX + GAP_PX;
        let at = |x: usize, y: usize| &sheet.pixels[(y * sheet.width + x) * 3..][..3];
        for (place, frame, level) in [(0, UNKNOWN, 1), (1, AGREES, 2), (2, DIFFERS, 3)] {
            let left = WORDS_PX + place * step + if place > 0 { QUERY_GAP_PX } else { 0 };
            assert_eq!(at(left, TITLE_PX), frame);
            assert_eq!(at(left + FRAME_PX, TITLE_PX + FRAME_PX), [level; 3]);
        }
        assert!(sheet.pixels[..TITLE_PX * sheet.width * 3].iter().any(|&level| level < 100), "a title");
        let dark = neighbour_sheet("title", &[row], Paper::Dark);
        assert_eq!((dark.width, dark.height), (sheet.width, sheet.height));
        assert_eq!(dark.pixels[..3], [0x20, 0x23, 0x27]);
        assert!(dark.pixels[..TITLE_PX * sheet.width * 3].iter().any(|&level| level > 180), "a title");
    }
}
