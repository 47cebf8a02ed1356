//! Views of images: what is drawn at random, and the engine that renders it.
//!
//! `recipe` draws the parameters of one view from torchvision's distributions;
//! `cpu` renders them with torchvision's semantics on PIL images, op by op;
//! `tensor` renders batches of them with tensor operations on any device;
//! `eval` holds the transforms of evaluation and supervised training. The rest
//! are the operations: `resample` over `filter`'s weights, `color`, `hue`, `blur`.
//!
//! A new operation, after the colour jitter, is four changes:
//! 1. its file here: its row ([`Op`]: how it is drawn, what each engine does) and
//!    what it does on the CPU and to a tensor; nothing may be drawn at probability 0;
//! 2. below, `mod` and its place in [`OPS`], at the end;
//! 3. `config/parts.rs`: its fields of `Augmentation`, with `serde(default)` and
//!    in `Default`;
//! 4. `native/cuda/kernels/view_color.cuh`: its case, for the fused kernel.
//!
//! That makes it drawn, rendered by every engine, shown by `preview --parameters`,
//! stored, and compared on resume. A flag for it is what any flag is (`cli`).
//!
//! Knows neither files nor labels. Images come in as `[height, width, 3]` u8 and
//! leave as `[size, size, 3]` u8; the training device divides them by 255.

pub mod blur;
pub mod color;
pub mod cpu;
pub mod eval;
mod filter;
pub mod hue;
mod op;
pub mod recipe;
mod resample;
#[cfg(all(test, target_arch = "x86_64"))]
mod same_bits;
pub mod tensor;

pub use crate::config::{EvalTransform, Filter};
pub use blur::BLUR;
pub use color::GRAYSCALE;
pub use cpu::Renderer;
pub use op::{Canvas, Op};
pub use recipe::{CropBox, Jitter, JitterOp, ViewParameters, draw};
pub use tensor::{Plan, Planner, Products, TensorRenderer, upload};

/// The operations after the colour jitter, in their order. A view of a seed stays what it is as long as new ones come last.
pub const OPS: [&Op; OP_COUNT] = [&GRAYSCALE, &BLUR];
/// A number of its own: a type that has it is named in other crates, which do not see into `OPS`.
pub const OP_COUNT: usize = 2;
