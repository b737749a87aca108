//! The events of a tuning.

use super::result::TuneResult;

/// An event of a tuning.
pub enum TuneEvent<'a> {
    /// A file of the Hub is being downloaded.
    Downloading {
        /// The file's name.
        file: &'a str,
        /// Bytes downloaded so far.
        done: u64,
        /// The file's size in bytes, if known.
        total: Option<u64>,
    },
    /// The candidates are known.
    Planned {
        /// Number of candidates.
        candidates: usize,
        /// Number of splits that each is measured on.
        splits: usize,
        /// How rows are held out.
        held_out: &'a str,
    },
    /// A step of a run was taken.
    Step {
        /// The candidate's name.
        candidate: &'a str,
        /// The step's number, counted from 1.
        step: u64,
        /// Steps of the whole run.
        total: u64,
        /// Share of the budget that is used.
        done: f64,
        /// The time left.
        left: Option<String>,
    },
    /// A candidate was measured.
    Measured {
        /// The candidate's name.
        candidate: &'a str,
        /// Share of the candidate's steps that are taken.
        share: f64,
        /// The mean over the splits; `None` for NaN.
        mean: Option<f64>,
        /// The score on each split.
        scores: &'a [Option<f64>],
    },
    /// Other candidates were better, so this one does not go on.
    Dropped {
        /// The candidate's name.
        candidate: &'a str,
    },
    /// A candidate failed.
    Failed {
        /// The candidate's name.
        candidate: &'a str,
        /// The error message.
        error: &'a str,
    },
    /// The tuning is finished, and its files are written.
    Finished {
        /// What was found.
        result: &'a TuneResult,
    },
}
