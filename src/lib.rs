//! x
pub mod error;
pub mod native;
