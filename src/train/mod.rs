//! The recipes: each a visible `for epoch { for batch }`.

pub mod accuracy;
mod architecture;
pub mod classifier;
pub mod early_stop;
pub mod encoder_source;
pub mod evaluate;
pub mod feature_cache;
pub mod features;
pub mod finetune;
pub mod fit;
pub mod linear_eval;
mod losses;
mod online_knn;
pub mod outcome;
pub mod penalty;
pub mod pretrain;
pub mod readable;
mod restore;
mod saver;
mod session;
mod similarities;
mod standardise;
mod sweep;
mod tally;
mod temperature;
pub mod trial;
mod warnings;
