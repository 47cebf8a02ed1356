//! The recipes, a room each, and what both of them need: pre-training (`pretrain`) and the evaluations
//! (`evaluate`), each a visible `for epoch { for batch }`.

mod diverged;
pub mod encoder_file;
pub mod encoder_source;
pub mod evaluate;
pub mod facts;
pub mod features;
pub mod labelled;
pub mod pretrain;
pub mod ranks;
pub mod readable;
pub mod shortage;
mod stop;

pub use stop::{Stop, StopRequested};
