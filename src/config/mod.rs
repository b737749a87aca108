//! The run's configuration: [`RunConfig`] as written in TOML, and [`Run`] after checks and
//! defaults.

mod auto;
mod check;
mod device;
mod origin;
mod read;
mod reference;
mod resolve;
mod run_dir;
mod sections;

pub use auto::DataSize;
pub use device::DeviceName;
pub use read::{plain, read_toml, start_of_paths, with_suggestion};
pub use reference::{page, schema, schema_of};
pub use resolve::Run;
pub use run_dir::{CONFIG, config_of};
pub use sections::{
    Balanced, BitfitSection, CalibrationSection, ClassWeights, DataSection, Interval, LongTextMode,
    MethodName, MethodSection, Metric, ModelSection, PoolingChoice, RunConfig, ThresholdGoal,
    TrainingSection,
};

use crate::error::{Error, Result};

/// The values of a section, by key.
fn values(section: &impl serde::Serialize) -> Result<toml::Table> {
    toml::Table::try_from(section).map_err(Error::bug)
}
