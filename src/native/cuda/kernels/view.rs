//! Views of images, one launch a batch (`view.cpp`).

use crate::native::outcome;
use std::ffi::c_char;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// 32-bit words that describe a view, before the numbers of its operations (`view_layout.h`).
pub const WORDS: usize = 30;

unsafe extern "C" {
    #[cfg(test)]
    fn flatnce_view_words() -> usize;
    fn flatnce_render_views(
        images: *const C_tensor,
        rows: *const C_tensor,
        descriptions: *const C_tensor,
        side: i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Views u8 `[V, side, side, 3]` of images u8 `[N, H, W, 3]`, as `descriptions` i32 `[V, words]` says: view v of image
/// `rows[v]` (i64 `[V]`), or, without rows, of image v, which is `side` pixels a side and cropped and resized already.
///
/// Errors: what libtorch or the driver says.
pub fn render_views(
    images: &Tensor,
    rows: Option<&Tensor>,
    descriptions: &Tensor,
    side: i64,
) -> Result<Tensor, TchError> {
    let rows = rows.map_or(std::ptr::null(), Tensor::as_ptr);
    let mut out = std::ptr::null_mut();
    // SAFETY: live tensors or null where that may be; `out` outlives the call.
    let message = unsafe { flatnce_render_views(images.as_ptr(), rows, descriptions.as_ptr(), side, &mut out) };
    outcome(message)?;
    // SAFETY: without a message a tensor of C++'s `new`, which is now this one's.
    Ok(unsafe { Tensor::from_ptr(out) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_view_has_as_many_words_here_as_there() {
        // SAFETY: it takes nothing and gives a constant.
        assert_eq!(super::WORDS, unsafe { super::flatnce_view_words() });
    }
}
