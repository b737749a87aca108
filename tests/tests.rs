//! The one test binary: each would link libtorch anew.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
// Tests make files as they like.
#![allow(clippy::disallowed_methods)]

mod bank;
mod calibration;
mod common;
mod compare;
mod config;
mod data;
mod delta;
mod documents;
mod doubts;
mod engine;
mod examples;
mod export;
mod faults;
mod formats;
mod freeze;
mod golden;
mod gpu;
mod hub;
mod levels;
mod long_texts;
mod made;
mod methods;
mod metrics;
mod models;
mod native;
mod policy;
mod pooling;
mod probe;
mod properties;
mod readme;
mod resume;
mod rooms;
mod serve;
mod sparing;
mod standin;
mod tables;
mod tasks;
mod terminal;
mod threads;
mod tokenize;
mod tracking;
mod training;
mod tune;
mod weights;
