//! `nn::AdamW` over flat vectors, fp16's loss scale, and the learning rate over a run. What needs
//! no steps: linear models that are solved.

mod adamw;
mod linear;
mod loss_scale;
mod schedule;

pub use adamw::{AdamW, AdamWSettings, Moments};
pub use linear::{Features, LinearModel, Link, Solution};
pub use loss_scale::LossScale;
pub use schedule::{LrSchedule, Schedule};
