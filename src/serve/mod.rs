//! Predicting for many callers at once: one thread computes, in batches of whatever tasks are asked
//! for.

mod engine;
mod queue;

pub use engine::{Engine, EngineBuilder};
#[doc(hidden)]
pub use queue::{Queue, Taken};
