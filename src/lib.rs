//! Fine-tunes BERT, DistilBERT and RoBERTa text classifiers by training only their biases and the
//! new head: BitFit ([Ben-Zaken et al., ACL 2022](https://arxiv.org/abs/2106.10199)), on libtorch.
//! The base stays frozen and is shared by all tasks; a task is one small file, `delta.safetensors`,
//! of 0.4 MB for BERT-base.
//!
//! # Train
//!
//! A [`RunConfig`] names a base, labelled texts and a directory for the run. A [`Trainer`] trains,
//! and tells of its [`Event`]s.
//!
//! ```
//! use bitfit::{Event, RunConfig, Trainer};
//!
//! # let folder = tempfile::tempdir()?;
//! # let texts = folder.path().join("texts.csv");
//! # let run = folder.path().join("run");
//! # let rows = "It never arrived.,complaint\nThank you!,praise\n".repeat(8);
//! # std::fs::write(&texts, format!("text,label\n{rows}"))?;
//! // A base on the Hub works as well, such as "google-bert/bert-base-uncased".
//! let mut config = RunConfig::new("tests/golden/tiny-bert", &texts, &run);
//! config.data.max_length = 32_u64.try_into()?;
//! config.training.learning_rate = Some(1e-3.try_into()?);
//!
//! let summary = Trainer::new(config)?
//!     .on_event(|event| {
//!         if let Event::Step { step, total, .. } = event {
//!             println!("step {step} of {total}");
//!         }
//!     })
//!     .run()?;
//! println!("{} of {} parameters trained", summary.trainable, summary.all);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Predict
//!
//! A [`Predictor`] opens a run, or a base and a task's file.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let (texts, run) = (folder.path().join("texts.csv"), folder.path().join("run"));
//! # std::fs::write(&texts, "text,label\n".to_owned() + &"Good.,yes\nBad.,no\n".repeat(8))?;
//! # let mut config = bitfit::RunConfig::new("tests/golden/tiny-bert", &texts, &run);
//! # config.data.max_length = 32_u64.try_into()?;
//! # bitfit::Trainer::new(config)?.run()?;
//! use bitfit::Predictor;
//!
//! let predictor = Predictor::open(run)?;
//! for prediction in predictor.predict(["It never arrived.", "Thank you!"])? {
//!     println!("{} {:.3}", prediction.label.unwrap_or_default(), prediction.score.unwrap_or(0.0));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Many tasks
//!
//! [`Tasks`] hold any number of tasks of one base. A batch may mix them: the base computes all
//! texts at once, each with the biases of its own task.
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let (texts, dir) = (folder.path().join("texts.csv"), folder.path().join("tasks"));
//! # std::fs::write(&texts, "text,label\n".to_owned() + &"Good.,yes\nBad.,no\n".repeat(8))?;
//! # for name in ["spam", "topic"] {
//! #     let mut config = bitfit::RunConfig::new("tests/golden/tiny-bert", &texts, dir.join(name));
//! #     config.data.max_length = 32_u64.try_into()?;
//! #     bitfit::Trainer::new(config)?.run()?;
//! # }
//! use bitfit::Tasks;
//!
//! let mut tasks = Tasks::open("tests/golden/tiny-bert")?;
//! tasks.load_dir(dir)?; // NAME.safetensors, or NAME/delta.safetensors, for each task
//! tasks.predict([("spam", "Buy now"), ("topic", "Goal!")])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! All are on by default. A library needs none of them:
//!
//! ```toml
//! bitfit = { version = "0.1", default-features = false }
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the programs `bitfit` and `bitfit-train` |
//! | `compare` | comparisons of methods (`bitfit compare`), and `bitfit tune` |
//! | `hub` | bases and data sets by their ids on the Hugging Face Hub |
//! | `parquet` | texts from `.parquet` files, and tables of predictions as such files |
//! | `serve` | the HTTP server of many tasks (`bitfit serve`, with `cli`) |
//!
//! Without a feature, what needs it is an error that names the feature.
//!
//! # libtorch
//!
//! Building needs libtorch 2.13.0 for C++; `LIBTORCH` names its directory.
//! `scripts/download_libtorch.sh` of the repository downloads it, for CPUs or with CUDA. A program
//! finds it at run time by `LD_LIBRARY_PATH=$LIBTORCH/lib`, or by an rpath that the program's own
//! `build.rs` sets. `tch` is re-exported for [`Device`] and tensors.
//!
//! # More
//!
//! In the repository, `examples/` has programs to start from: `train`, `predict`, `many_tasks` and
//! `own_data`. `docs/` explains methods, every key of a configuration, formats of files, speed and
//! memory, reliability, and the commands.

// The modules in reading order; each uses only those before it: `escape`, `numbers`, `error`,
// `bounds`, `random`, `stats`, `process`, `threads`, `native`, `fault`, `lock`, `files`, `cuda`,
// `nn`, `models`, `weights`, `sealed`, `base`, `task_model`, `freeze`, `methods`, `delta`,
// `changes`, `data`, `bank`, `hub`, `optim`, `eval`, `config`, `sources`, `predict`, `tasks`,
// `engine`, `serve`, `export`, `checkpoint`, `train`, `compare`, `tune`, `cli`, `internal`.

// `eprintln!` and `println!` panic when the stream is closed; files::say and files::tell do not.
#![deny(clippy::print_stderr, clippy::print_stdout)]
// Maintainers read `cargo doc --document-private-items`, where such links work.
#![allow(rustdoc::private_intra_doc_links)]
// The build with all features shows what nothing uses.
#![cfg_attr(
    not(all(
        feature = "cli",
        feature = "compare",
        feature = "hub",
        feature = "parquet",
        feature = "serve"
    )),
    allow(dead_code, unused_imports)
)]

mod bank;
mod base;
mod bounds;
mod changes;
mod checkpoint;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "compare")]
mod compare;
mod config;
mod cuda;
mod data;
mod delta;
mod engine;
mod error;
mod escape;
mod eval;
mod export;
mod fault;
mod files;
mod freeze;
mod hub;
mod lock;
mod methods;
mod models;
mod native;
mod nn;
mod numbers;
mod optim;
mod predict;
mod process;
mod random;
mod sealed;
#[cfg(feature = "serve")]
mod serve;
mod sources;
mod stats;
mod task_model;
mod tasks;
mod threads;
mod train;
#[cfg(feature = "compare")]
mod tune;
mod weights;

#[doc(hidden)]
pub mod internal;

pub use config::{
    BitfitSection, CalibrationSection, DataSection, MethodSection, ModelSection, RunConfig,
    TrainingSection,
};
pub use engine::{Engine, EngineBuilder};
pub use error::{Error, Result};
pub use eval::{Constant, ConstantAnswer, ConstantTest, ConstantVerdict};
pub use models::{Task, TaskType};
pub use nn::{Pooling, Precision};
pub use predict::{Input, Prediction, Predictor, PredictorBuilder};
pub use tasks::{RefusedTask, Tasks, TasksBuilder};
pub use tch::{self, Device};
pub use train::{Calibration, Event, MetricsRecord, ModelPlan, Summary, Trainer};

/// The types of a [`RunConfig`]'s keys.
pub mod settings {
    pub use crate::bounds::{
        Count, Fraction, Integer, Names, NonEmpty, NonNegative, OutOfBounds, Positive, Probability,
        ProbeC, ReductionFactor, Share,
    };
    pub use crate::config::{
        Balanced, ClassWeights, DeviceName, Interval, LongTextMode, MethodName, Metric,
        PoolingChoice, ThresholdGoal,
    };
    pub use crate::methods::{AdapterConfig, LoraBias, Rank};
    pub use crate::models::{LongTexts, Term, WindowSettings};
    pub use crate::nn::{NonLinearity, WindowPooling};
    pub use crate::optim::LrSchedule;
}
