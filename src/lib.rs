//! Contrastive pre-training of image encoders: SimCLR (InfoNCE) and FlatCLR
//! (FlatNCE, arXiv 2107.01152) over libtorch.
//!
//! Four floors; a module uses only floors below its own (`tests/layers.rs`):
//! F3 `train`, F2 `loader`, F1 `data` `augment` `model` `loss` `optim` `monitor`
//! `report` `run_dir` `checkpoint`, F0 `torch_file` `state` `config` `device`
//! `durable` `pixels` `rng`. `cli` sits on top of all.

pub mod augment;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod device;
pub mod durable;
pub mod loader;
pub mod loss;
pub mod model;
pub mod monitor;
pub mod optim;
pub mod pixels;
pub mod report;
pub mod rng;
pub mod run_dir;
pub mod state;
pub mod torch_file;
pub mod train;
