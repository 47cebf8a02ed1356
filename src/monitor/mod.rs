//! What is watched beside the loss: pure functions of features, which know
//! neither models nor configurations nor devices.

pub mod geometry;
pub mod knn;
