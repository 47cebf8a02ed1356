//! The tensor engine: renders a batch of views with tensor operations, on whatever device the tensors are.
//!
//! Same parameters, same pixels as the CPU engine ([`super::Renderer`]): resampling, flips, colours and greyscale have its
//! bits, because every intermediate number is an integer that float32 or float64 holds exactly, or goes through the same
//! float32 operations in the same order; blur adds in another order, so a blurred level may round the other way (by 1).
//!
//! Nothing here waits for the device: what the host knows (which views are jittered in which order, which are blurred)
//! decides the shapes, and all of it goes up in one copy a batch ([`Plan`]). Every view costs its own operations only:
//! views are sorted by the place of the hue among their four colour operations, so that the operations before it run on
//! the first rows, those after it on the last. About 220 operations a chunk, whatever the number of views; one where the
//! fused kernels are on (`native::cuda::kernels`), whose pixels are the CPU engine's, blur included.
//!
//! | file | what |
//! |---|---|
//! | `plan` | parameters of a batch, sorted and cut into chunks, as one array of numbers |
//! | `weights` | resampling weights from crop boxes |
//! | `resize` | the two passes of resampling, as products with matrices |
//! | `packed` | the parameters for the kernel that renders whole views, instead of all below and the chunks |
//! | `color`, `hue`, `blur` | the operations on levels `[V, S, 3, S]`: rows of planes |

mod blur;
mod color;
mod hue;
mod packed;
mod plan;
mod resize;
mod weights;

pub use plan::{Plan, Planner};
pub use weights::Products;

use super::OPS;
use crate::native::cuda::kernels;
use blur::Blur;
use color::Colors;
use hue::Hue;
use plan::{Chunk, Numbers};
use tch::{Device, Kind, Tensor};

/// Memory that the chunk under way may take on a GPU, in bytes, about.
const DEVICE_CHUNK_BYTES: usize = 1 << 30;
/// The same on the CPU, where a chunk should stay in the caches.
const CPU_CHUNK_BYTES: usize = 16 << 20;

/// Renders batches of views on one device.
#[derive(Debug)]
pub struct TensorRenderer {
    device: Device,
    size_px: usize,
    blur_kernel_px: usize,
    chunk_bytes: usize,
    products: Products,
    pub(super) colors: Colors,
    hue: Hue,
    pub(super) blur: Blur,
}

impl TensorRenderer {
    /// For views of `size_px` pixels a side; `blur_kernel_px` is odd (`Augmentation::blur_kernel_px`).
    pub fn new(device: Device, size_px: usize, blur_kernel_px: u32) -> Self {
        let chunk_bytes = if device == Device::Cpu { CPU_CHUNK_BYTES } else { DEVICE_CHUNK_BYTES };
        let blur_kernel_px = blur_kernel_px as usize;
        TensorRenderer {
            device,
            size_px,
            blur_kernel_px,
            chunk_bytes,
            products: Products::for_device(device),
            colors: Colors::new(device, size_px),
            hue: Hue::new(device),
            blur: Blur::new(device, size_px, blur_kernel_px),
        }
    }

    /// The same renderer with chunks of about so many bytes. No pixel depends on it.
    pub fn with_chunk_bytes(self, chunk_bytes: usize) -> Self {
        TensorRenderer { chunk_bytes, ..self }
    }

    /// The same renderer with its resampling computed in another way. No pixel depends on it.
    pub fn with_products(self, products: Products) -> Self {
        TensorRenderer { products, ..self }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn size_px(&self) -> usize {
        self.size_px
    }

    /// What makes plans for this renderer; any thread may have it.
    pub fn planner(&self) -> Planner {
        Planner {
            size_px: self.size_px,
            blur_kernel_px: self.blur_kernel_px,
            chunk_bytes: self.chunk_bytes,
            packs: kernels::enabled(self.device),
        }
    }

    /// Renders whole views: view v is of image `rows[v]`.
    ///
    /// `images` is u8 `[N, H, W, 3]`, `rows` i64 `[V]`, both on the renderer's device, H and W those of the plan. Gives u8
    /// `[V, S, S, 3]` there.
    ///
    /// # Panics
    /// If shapes and plan do not fit together.
    pub fn views(&self, images: &Tensor, rows: &Tensor, plan: &Plan) -> Tensor {
        let _guard = tch::no_grad_guard();
        assert_eq!(rows.size(), [plan.views() as i64], "one image for each view");
        if let Some(made) = self.render_whole(images, Some(rows), plan) {
            return made;
        }
        let numbers = Numbers::upload(plan, self.device);
        self.render(plan, &numbers, |chunk, places| {
            let sources = images.index_select(0, &rows.index_select(0, places)); // [v, H, W, 3]
            resize::resize(&sources, chunk, &numbers, self.size_px, self.products)
        })
    }

    /// The rest of a view: `resized` is u8 `[V, S, S, 3]` on the renderer's device, cropped, resized and flipped as the
    /// plan's parameters say. Gives u8 `[V, S, S, 3]`.
    ///
    /// # Panics
    /// If shapes and plan do not fit together.
    pub fn colors(&self, resized: &Tensor, plan: &Plan) -> Tensor {
        let _guard = tch::no_grad_guard();
        let side = self.size_px as i64;
        assert_eq!(resized.size(), [plan.views() as i64, side, side, 3], "views as the plan has them");
        if let Some(made) = self.render_whole(resized, None, plan) {
            return made;
        }
        let numbers = Numbers::upload(plan, self.device);
        self.render(plan, &numbers, |_, places| {
            let chosen = resized.index_select(0, places); // [v, S, S, 3]
            planes(&chosen, Kind::Float)
        })
    }

    /// By the kernel, if the plan is for it.
    fn render_whole(&self, images: &Tensor, rows: Option<&Tensor>, plan: &Plan) -> Option<Tensor> {
        let descriptions = Tensor::from_slice(plan.descriptions()?);
        let words = packed::words(self.blur_kernel_px) as i64;
        let descriptions = upload(&descriptions, self.device).view([plan.views() as i64, words]);
        let made = kernels::render_views(&images.contiguous(), rows, &descriptions, self.size_px as i64);
        // As tch does: `native::caught` makes an error of it.
        Some(made.unwrap())
    }

    /// Makes levels f32 `[v, S, 3, S]` of each chunk, colours and blurs them, and puts them where they belong.
    fn render(&self, plan: &Plan, numbers: &Numbers, levels: impl Fn(&Chunk, &Tensor) -> Tensor) -> Tensor {
        let side = self.size_px as i64;
        let out = Tensor::empty([plan.views() as i64, side, side, 3], (Kind::Uint8, self.device));
        for chunk in plan.chunks() {
            let places = numbers.integers(chunk.places);
            let mut levels = levels(chunk, &places);
            self.colors.jitter(&mut levels, chunk, numbers, &self.hue);
            for (op, listed) in OPS.iter().zip(&chunk.ops).filter(|(_, listed)| listed.views.len > 0) {
                let list = numbers.integers(listed.views);
                let chosen = levels.index_select(0, &list); // [n, S, 3, S]
                // Without numbers there are no rows to tell apart.
                let width = (op.most_numbers)(self.blur_kernel_px).max(1);
                let changed = (op.tensor)(self, &chosen, &numbers.table(listed.numbers, width).to_kind(Kind::Float));
                let _ = levels.index_copy_(0, &list, &changed.expand_as(&chosen));
            }
            let interleaved = levels.permute([0, 1, 3, 2]).to_kind(Kind::Uint8); // [v, S, S, 3]
            let _ = out.shallow_clone().index_copy_(0, &places, &interleaved);
        }
        out
    }
}

/// Interleaved u8 images `[v, H, W, 3]` as rows of planes `[v, H, 3, W]` of another kind, contiguous.
fn planes(images: &Tensor, kind: Kind) -> Tensor {
    let size = images.size();
    let mut planes = Tensor::empty([size[0], size[1], 3, size[2]], (kind, images.device()));
    planes.copy_(&images.permute([0, 1, 3, 2]));
    planes
}

/// A tensor of the host on the device, without waiting: through pinned memory, in the order of the device's own work. On
/// the CPU the tensor itself.
pub fn upload(host: &Tensor, device: Device) -> Tensor {
    if device == Device::Cpu {
        return host.shallow_clone();
    }
    // Not `pin_memory`: that warns of its own argument, which tch cannot leave out.
    host.internal_pin_memory(device).to_device_(device, host.kind(), true, false)
}
