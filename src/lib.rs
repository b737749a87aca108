//! Fine-tunes BERT text classifiers by training only their biases and the new head (BitFit,
//! Ben-Zaken et al., ACL 2022), and by the methods that BitFit is compared with.
//!
//! The modules in reading order; each uses only those before it: [`escape`], [`numbers`],
//! [`error`], [`bounds`], `random`, [`process`], [`threads`], [`native`], `fault`, [`lock`],
//! [`files`], [`nn`],
//! [`models`], [`weights`], [`sealed`], [`base`], [`task_model`], [`freeze`], [`methods`],
//! [`delta`], [`bank`], [`changes`], [`data`], [`hub`], [`optim`], [`eval`], [`config`],
//! [`sources`], [`predict`], [`tasks`], [`export`], [`checkpoint`], [`train`], [`compare`],
//! [`cli`].

// `eprintln!` and `println!` panic when the stream is closed; files::say and files::tell do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]
// The build with all features shows what nothing uses.
#![cfg_attr(
    not(all(feature = "cli", feature = "compare", feature = "hub", feature = "parquet")),
    allow(dead_code)
)]

pub mod bank;
pub mod base;
pub mod bounds;
pub mod changes;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "compare")]
pub mod compare;
pub mod config;
pub mod data;
pub mod delta;
pub mod error;
pub mod escape;
pub mod eval;
pub mod export;
mod fault;
pub mod files;
pub mod freeze;
pub mod hub;
pub mod lock;
pub mod methods;
pub mod models;
pub mod native;
pub mod nn;
pub mod numbers;
pub mod optim;
pub mod predict;
pub mod process;
mod random;
pub mod sealed;
pub mod sources;
pub mod task_model;
pub mod tasks;
pub mod threads;
pub mod train;
pub mod weights;
