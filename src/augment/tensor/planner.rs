//! Turns drawn parameters into plans, on the host.

use super::plan::Plan;
use crate::augment::recipe::ViewParameters;

/// Makes plans for a [`super::TensorRenderer`].
#[derive(Clone, Copy, Debug)]
pub struct Planner {
    pub(super) size_px: usize,
    pub(super) blur_kernel_px: usize,
    pub(super) chunk_bytes: usize,
    /// For the kernel that renders whole views.
    pub(super) packs: bool,
}

impl Planner {
    /// What [`super::TensorRenderer::views`] needs: whole views (V of them) of `width` x `height` images.
    ///
    /// # Panics
    /// If a crop is empty or leaves the image.
    pub fn views(&self, views: &[ViewParameters], width: usize, height: usize) -> Plan {
        for ViewParameters { crop, .. } in views {
            assert!(
                crop.width > 0
                    && crop.height > 0
                    && crop.left + crop.width <= width
                    && crop.top + crop.height <= height,
                "{crop:?} is not inside a {width} x {height} image"
            );
        }
        self.plan(views, true, self.chunk_views(width, height))
    }

    /// What [`super::TensorRenderer::colors`] needs: the rest of views that are cropped, resized and flipped.
    pub fn colors(&self, views: &[ViewParameters]) -> Plan {
        self.plan(views, false, self.chunk_views(0, 0))
    }

    fn plan(&self, views: &[ViewParameters], resizes: bool, chunk_views: usize) -> Plan {
        if self.packs {
            return Plan::packed(views, self.size_px, self.blur_kernel_px);
        }
        Plan::new(views, self.size_px, self.blur_kernel_px, resizes, chunk_views)
    }

    /// Views of `width` x `height` images that a chunk holds.
    fn chunk_views(&self, width: usize, height: usize) -> usize {
        let side = self.size_px;
        // float64 while resizing: image, both passes, both matrices, and weights of about four taps ten times over.
        let between = (height * side).max(width * side);
        let taps = 4 + width.max(height).div_ceil(side) * 2;
        let resizing = 8 * (3 * (width * height + between + side * side) + 2 * side * (width.max(height) + 10 * taps));
        // float32 while colouring: three planes four times, single planes 16 times.
        let coloring = 4 * side * side * (3 * 4 + 16);
        (self.chunk_bytes / resizing.max(coloring)).max(1)
    }
}
