//! The events of a comparison.

use super::pace::Pace;
use crate::train::Summary;
use std::path::Path;

/// An event of a comparison.
pub enum CompareEvent<'a> {
    /// A step of a run was taken.
    Step {
        /// The run's name.
        run: &'a str,
        /// The step's number, counted from 1.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// The pace of the comparison.
        pace: &'a Pace,
    },
    /// A run needs no work: it was done before, or failed in an earlier process.
    Skipped {
        /// The pace of the comparison.
        pace: &'a Pace,
    },
    /// A run was resumed.
    Resumed {
        /// The run's name.
        run: &'a str,
        /// The step that it goes on after.
        step: u64,
        /// Steps of the whole run.
        total: u64,
    },
    /// A run is done.
    Done {
        /// The run's name.
        run: &'a str,
        /// The run's directory.
        dir: &'a Path,
        /// The run's summary.
        summary: &'a Summary,
    },
    /// A run failed.
    Failed {
        /// The run's name.
        run: &'a str,
        /// The run's directory.
        dir: &'a Path,
        /// The error message.
        error: &'a str,
    },
}
