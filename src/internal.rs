//! What the tests, the fuzz targets and the programs need of the private modules. No part of the
//! library's face: it changes without notice.

#![allow(missing_docs)]

pub mod bank {
    pub use crate::bank::{Bank, BankTask, TaskPlan};
}
pub mod base {
    pub use crate::base::Base;
}
pub mod bounds {
    pub use crate::bounds::{Count, Positive};
}
pub mod checkpoint {
    pub use crate::checkpoint::{Checkpoint, steps};
}
#[cfg(feature = "cli")]
pub mod cli {
    pub use crate::cli::main;
}
#[cfg(feature = "compare")]
pub mod compare {
    pub use crate::compare::{CompareOptions, Grid, compare, left, render, schema};
}
pub mod config {
    pub use crate::config::{DataSize, Interval, Run, RunConfig, TrainingSection, schema};
}
pub mod cuda {
    pub use crate::cuda::{device_count, image};
}
pub mod data {
    pub use crate::data::{
        Batch, Columns, Dataset, DropoutKeys, Encoding, Example, LabelColumns, Labels, MIN_LENGTH,
        Row, Sampler, TOKENIZER_FILES, Target, TextSize, Tokenizer, Windows, draw, epoch_order,
        has_embeddings, read, read_with_original, settings, silence_parquet_panics, split_by_class,
    };
}
pub mod delta {
    pub use crate::delta::{Delta, Meta, start_from};
}
pub mod engine {
    pub use crate::engine::{Queue, Taken};
}
pub mod error {
    pub use crate::error::{Error, Result};
}
pub mod escape {
    pub use crate::escape::{code, json, line, quoted, shell, text};
}
pub mod eval {
    pub use crate::eval::{
        ClassificationReport, Constant, ConstantAnswer, ConstantTest, ConstantVerdict, MATRIX,
        MultiLabel, Objective, Reliability, classification, in_batches, inverse_temperature,
        regression, thresholds,
    };
}
pub mod files {
    pub use crate::files::hex;
}
pub mod freeze {
    pub use crate::freeze::{
        FreezePlan, Group, Layers, Layout, Parameter, Places, StepCost, Switches,
    };
}
pub mod hub {
    pub use crate::hub::{Hub, Repo, RepoType};
}
pub mod lock {
    pub use crate::lock::Lock;
}
pub mod methods {
    pub use crate::methods::{AdapterConfig, AdapterPlacement, LoraConfig, Method, ProbeConfig};
}
pub mod models {
    pub use crate::models::{
        ARCHITECTURES, Architecture, Classifier, ConfigKeys, Dropouts, EmbeddingNames, HeadSpec,
        KeyVerdict, LayerNames, LongTexts, ModelConfig, Name, Reading, Shaping, Spec, TargetScale,
        Task, TaskType, Term, WindowSettings, by_model_type, classify, declared_pooling,
    };
}
pub mod native {
    pub use crate::native::{
        Dropped, Nvrtc, bias_activation, check_product, check_product_by, cpu_level, cpu_levels,
        dropout, has_kernels, kept_product, on_one_thread, peak_gpu_mib, product, product_by,
        profile_report, profile_start, profile_stop, residual_norm,
    };
}
pub mod nn {
    pub use crate::nn::{
        Activation, Attention, Bias, Dropout, NonLinearity, PackedRows, Pooling, Precision,
        Projected, TaskRow, TaskRows, Weight, WindowPooling, to_rows,
    };
}
pub mod numbers {
    pub use crate::numbers::thousands;
}
pub mod optim {
    pub use crate::optim::{
        AdamW, AdamWSettings, Features, LinearModel, Link, LossScale, LrSchedule, Schedule,
        Solution,
    };
}
pub mod predict {
    pub use crate::predict::{Input, Mistake, Prediction, Predictor};
}
pub mod process {
    pub use crate::process::{peak_rss_mib, process_age};
}
#[cfg(feature = "serve")]
pub mod serve {
    pub use crate::serve::parse_in_each_shape;
}
pub mod sealed {
    pub use crate::sealed::{Contents, checksum, read, to_bytes};
}
pub mod sources {
    pub use crate::sources::Sources;
}
pub mod stats {
    pub use crate::stats::{Course, Discordant, Spread, holm, paired_t};
}
pub mod task_model {
    pub use crate::task_model::TaskModel;
}
pub mod tasks {
    pub use crate::tasks::Tasks;
}
pub mod train {
    pub use crate::train::{
        Actions, Event, Evidence, Listener, Manifest, MetricsRecord, ModelPlan, Policy, RawRows,
        Session, TensorBoard,
    };
    pub mod watch {
        pub use crate::train::watch::{NonFinite, Watch};
    }
}
#[cfg(feature = "compare")]
pub mod tune {
    pub use crate::tune::{Budget, TuneEvent, TuneOptions, TuneResult, TuneVerdict, tune};
}
pub mod weights {
    pub use crate::weights::Weights;
}
