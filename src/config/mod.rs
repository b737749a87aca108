//! The run's configuration: [`RunConfig`] as written in TOML, and [`Run`] after checks and
//! defaults.

mod read;
mod reference;
mod resolve;
mod sections;

pub use read::{plain, read_toml, start_of_paths, with_suggestion};
pub use reference::{page, schema, schema_of};
pub use resolve::{Run, device};
pub use sections::{
    Balanced, BitfitSection, ClassWeights, DataSection, Interval, MethodName, MethodSection,
    Metric, ModelSection, RunConfig, TrainingSection,
};
