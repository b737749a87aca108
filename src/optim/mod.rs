//! `nn::AdamW` over flat vectors, fp16's loss scale, and the learning rate over a run.

mod adamw;
mod loss_scale;
mod schedule;

pub use adamw::{AdamW, AdamWSettings, Moments};
pub use loss_scale::LossScale;
pub use schedule::{LrSchedule, Schedule};
