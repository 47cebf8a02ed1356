//! Many small pictures on one: groups of tiles side by side, in columns.

use crate::pixels::{RgbImage, RgbRef};

/// Between the tiles of a group, and between groups.
const GAP_PX: usize = 2;
const GROUP_GAP_PX: usize = 10;

/// A grey that tells dark and light pictures from the page.
const PAPER: u8 = 236;

/// A whole-number enlargement, so that every pixel stays a pixel: at least 1, and to about `at_least_px`.
pub fn enlarged(tile: RgbRef, at_least_px: usize) -> RgbImage {
    let factor = at_least_px.div_ceil(tile.width.max(tile.height).max(1)).max(1);
    let mut large = RgbImage::new(tile.width * factor, tile.height * factor);
    for (place, pixel) in large.pixels.chunks_exact_mut(3).enumerate() {
        let (y, x) = (place / (tile.width * factor) / factor, place % (tile.width * factor) / factor);
        pixel.copy_from_slice(&tile.pixels[(y * tile.width + x) * 3..][..3]);
    }
    large
}

/// The sheet: `groups` of tiles (of any sizes) from left to right, `columns` groups a row.
///
/// Panics without groups, tiles or columns.
pub fn contact_sheet(groups: &[Vec<RgbImage>], columns: usize) -> RgbImage {
    let tiles = groups.iter().flatten();
    let width = tiles.clone().map(|tile| tile.width).max().expect("a sheet has tiles");
    let height = tiles.map(|tile| tile.height).max().expect("a sheet has tiles");
    let in_group = groups.iter().map(Vec::len).max().expect("a sheet has groups");
    let columns = columns.min(groups.len());
    let rows = groups.len().div_ceil(columns);
    let group_width = in_group * width + (in_group - 1) * GAP_PX;
    let (step_x, step_y) = (group_width + GROUP_GAP_PX, height + GROUP_GAP_PX);
    let mut sheet = RgbImage::new(GROUP_GAP_PX + columns * step_x, GROUP_GAP_PX + rows * step_y);
    sheet.pixels.fill(PAPER);
    for (number, group) in groups.iter().enumerate() {
        let (left, top) = (GROUP_GAP_PX + number % columns * step_x, GROUP_GAP_PX + number / columns * step_y);
        for (place, tile) in group.iter().enumerate() {
            // In the middle of its field.
            let x = left + place * (width + GAP_PX) + (width - tile.width) / 2;
            paste(&mut sheet, tile, x, top + (height - tile.height) / 2);
        }
    }
    sheet
}

/// Puts a picture onto a larger one.
pub(super) fn paste(sheet: &mut RgbImage, tile: &RgbImage, left: usize, top: usize) {
    for (y, row) in tile.pixels.chunks_exact(tile.width * 3).enumerate() {
        let at = ((top + y) * sheet.width + left) * 3;
        sheet.pixels[at..at + row.len()].copy_from_slice(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(side: usize, level: u8) -> RgbImage {
        RgbImage { width: side, height: side, pixels: vec![level; side * side * 3] }
    }

    #[test]
    fn tiles_stand_where_they_belong() {
        let groups = vec![vec![plain(4, 10), plain(2, 20)], vec![plain(4, 30), plain(4, 40)], vec![plain(4, 50)]];
        let sheet = contact_sheet(&groups, 2);
        assert_eq!((sheet.width, sheet.height), (10 + 2 * (10 + 10), 10 + 2 * (4 + 10)));
        let at = |x: usize, y: usize| sheet.pixels[(y * sheet.width + x) * 3];
        assert_eq!([at(10, 10), at(16, 10), at(17, 11), at(30, 13), at(39, 10)], [10, PAPER, 20, 30, 40]);
        assert_eq!([at(0, 0), at(14, 10), at(10, 24), at(30, 24)], [PAPER, PAPER, 50, PAPER]);
        let count = |level| sheet.pixels.iter().filter(|&&value| value == level).count() / 3;
        assert_eq!([10, 20, 30, 40, 50].map(count), [16, 4, 16, 16, 16]);
    }

    #[test]
    fn an_enlargement_repeats_pixels() {
        let tile = RgbImage { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        let large = enlarged(tile.as_ref(), 5);
        assert_eq!((large.width, large.height), (6, 3));
        assert_eq!(&large.pixels[..18], [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6]);
        assert_eq!(enlarged(tile.as_ref(), 1), tile);
    }
}
