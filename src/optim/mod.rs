//! `nn::AdamW` over flat vectors.

mod adamw;

pub use adamw::{AdamW, AdamWSettings};
