//! The GPU's kernels without a GPU: run on the CPU as they are (`kernels/emulation.cpp`), and compiled for every GPU.

mod support;

#[path = "kernels/batch_norm.rs"]
mod batch_norm;
#[path = "kernels/case.rs"]
mod case;
#[path = "kernels/compile.rs"]
mod compile;
#[path = "kernels/emulation.rs"]
mod emulation;
#[path = "kernels/encoder.rs"]
mod encoder;
#[path = "support/pictures.rs"]
mod pictures;
#[path = "kernels/schedules.rs"]
mod schedules;
#[path = "kernels/views.rs"]
mod views;
