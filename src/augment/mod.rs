//! Views of images: what is drawn at random, and the engine that renders it.
//!
//! `recipe` draws the parameters of one view from torchvision's distributions;
//! `cpu` renders them with torchvision's semantics on PIL images, op by op;
//! `tensor` renders batches of them with tensor operations on any device;
//! `eval` holds the transforms of evaluation and supervised training. The rest
//! are the operations: `resample` over `filter`'s weights, `color`, `hue`, `blur`.
//!
//! Knows neither files nor labels. Images come in as `[height, width, 3]` u8 and
//! leave as `[size, size, 3]` u8; the training device divides them by 255.

pub mod blur;
pub mod color;
pub mod cpu;
pub mod eval;
mod filter;
pub mod hue;
pub mod recipe;
mod resample;
#[cfg(all(test, target_arch = "x86_64"))]
mod same_bits;
pub mod tensor;

pub use cpu::Renderer;
pub use crate::config::{EvalTransform, Filter};
pub use recipe::{CropBox, Jitter, JitterOp, ViewParameters, draw};
pub use tensor::{Plan, Planner, Products, TensorRenderer, upload};
