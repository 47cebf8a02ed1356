//! The recipes: each a visible `for epoch { for batch }`.

pub mod pretrain;
mod session;
mod tally;
