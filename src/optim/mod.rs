//! `nn::AdamW` over flat vectors, and its rate over a run.

mod adamw;
mod schedule;

pub use adamw::{AdamW, AdamWSettings, Memory, Snapshot};
pub use schedule::{Course, Schedule};
