//! The rows that decide between candidates: one held-out set, or several splits of the training
//! rows.

use crate::config::{DataSize, Run, RunConfig};
use crate::data::Sampler;
use crate::error::Result;
use crate::sources::Sources;
use crate::train::{Policy, RunData};

/// Fewest rows of which a single split decides.
const FEW: usize = 1000;

/// Number of splits of fewer rows.
const SPLITS: u64 = 3;

/// Share of few rows that each split holds out, where the configuration has the default share.
const FRACTION: f64 = 0.2;

/// The default of `data.eval_fraction`.
const DEFAULT_FRACTION: f64 = 0.1;

/// The share of an epoch's time that a pass over the rows takes without the backward pass.
const FORWARD: f64 = 1.0 / 3.0;

/// How rows are held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The file `data.eval` decides.
    EvalFile,
    /// The split of the configuration decides.
    Own,
    /// Several splits of `data.train`, with the seeds 1 to `count`; each holds out `fraction`.
    Several { count: u64, fraction: f64 },
}

/// One split: its rows, in numbers.
#[derive(Debug, Clone)]
pub struct Split {
    /// The seed of the split; `None` for the configuration's own rows.
    seed: Option<u64>,
    /// The size of the training data.
    pub size: DataSize,
    /// Number of held-out rows.
    pub held_out: usize,
    /// The fingerprint of all rows.
    pub fingerprint: String,
    /// Number of training rows of each label.
    pub rows_by_label: Vec<usize>,
    /// Number of tokens of each training row.
    lengths: Vec<usize>,
}

/// The splits of a tuning.
#[derive(Debug, Clone)]
pub struct Splits {
    /// How rows are held out.
    pub rule: Rule,
    /// The splits.
    pub all: Vec<Split>,
    /// The size of the data that a run of the configuration itself trains on.
    pub size: DataSize,
}

impl Splits {
    /// Reads the rows of `run` and decides how they are held out. `folds` is the number of splits
    /// that a user asked for.
    pub fn read(run: &Run, sources: &Sources, folds: Option<u64>) -> Result<Self> {
        let own = Split::read(run, sources, None)?;
        let has_file = run.data().eval.is_some();
        let rows = own.size.rows + if has_file { 0 } else { own.held_out };
        let fraction = run.data().eval_fraction;
        let wider = rows < FEW && fraction == DEFAULT_FRACTION;
        let fraction = if wider { FRACTION } else { fraction };
        let rule = match folds {
            Some(count) => Rule::Several { count, fraction },
            None if has_file => Rule::EvalFile,
            None if rows < FEW => Rule::Several { count: SPLITS, fraction },
            None => Rule::Own,
        };
        let size = own.size;
        let Rule::Several { count, .. } = rule else {
            return Ok(Self { rule, all: vec![own], size });
        };
        let split = |seed| {
            let config = rule.apply(run.written().clone(), Some(seed))?;
            let run = run.again(config)?;
            let sources = Sources { eval: None, ..sources.clone() };
            Split::read(&run, &sources, Some(seed))
        };
        let all = (1..=count).map(split).collect::<Result<_>>()?;
        Ok(Self { rule, all, size })
    }

    /// The configuration with the rows of `split`.
    pub fn apply(&self, config: RunConfig, split: &Split) -> Result<RunConfig> {
        self.rule.apply(config, split.seed)
    }

    /// How rows are held out, as a sentence.
    pub fn describe(&self) -> String {
        let held_out = self.all.first().map_or(0, |split| split.held_out);
        match self.rule {
            Rule::EvalFile => format!(
                "The {held_out} rows of data.eval decide, as they do for the best state of a run; --folds K holds out training rows instead."
            ),
            Rule::Own => {
                format!("The {held_out} held-out rows of one split of the training rows decide.")
            }
            Rule::Several { count, fraction } => format!(
                "The mean over {count} splits of the training rows decides, each of which holds out {:.0} % of the rows ({held_out}), class by class.",
                100.0 * fraction
            ),
        }
    }
}

impl Rule {
    fn apply(self, mut config: RunConfig, seed: Option<u64>) -> Result<RunConfig> {
        let (Self::Several { fraction, .. }, Some(seed)) = (self, seed) else { return Ok(config) };
        let data = &mut config.data;
        (data.eval, data.eval_split) = (None, None);
        if !RunConfig::is_id(&data.train) {
            (data.revision, data.subset) = (None, None);
        }
        (data.eval_fraction, data.seed) = (fraction, Some(seed));
        Ok(config)
    }
}

impl Split {
    fn read(run: &Run, sources: &Sources, seed: Option<u64>) -> Result<Self> {
        let data = RunData::read(run, sources)?;
        Ok(Self {
            seed,
            size: data.size(),
            held_out: data.eval.len(),
            rows_by_label: data.rows_by_label(),
            lengths: data.lengths(),
            fingerprint: data.fingerprint,
        })
    }

    /// Number of steps of a run of `run` on the rows of this split.
    pub fn steps(&self, run: &Run) -> Result<u64> {
        Ok(self.policy(run)?.total.max(1))
    }

    /// How long a run of `run` takes on the rows of this split, in epochs of training.
    pub fn epochs(&self, run: &Run) -> Result<f64> {
        let policy = self.policy(run)?;
        let share = if run.method.takes_steps() { 1.0 } else { FORWARD };
        Ok(share * policy.epoch(policy.total.max(1)))
    }

    fn policy(&self, run: &Run) -> Result<Policy> {
        let run = run.clone().with_data(self.size)?;
        let training = run.training();
        let sampler = Sampler {
            lengths: self.lengths.clone(),
            seed: training.seed,
            shuffle: run.data().shuffle,
            step: training.batch_size().times(training.gradient_accumulation_steps.size()),
        };
        Ok(Policy::of(&run, &sampler))
    }
}
