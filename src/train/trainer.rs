//! The trainer: a run of a configuration that a program makes.

#![deny(clippy::missing_errors_doc)]

use super::events::{Event, Listener, Listeners};
use super::{MetricsFile, Start, Summary, TensorBoard, train};
use crate::config::{Run, RunConfig};
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Trains a task and writes its run directory, as the command `bitfit-train` does.
///
/// ```
/// use bitfit::{Event, RunConfig, Trainer};
///
/// # let folder = tempfile::tempdir()?;
/// # let (texts, run) = (folder.path().join("texts.csv"), folder.path().join("run"));
/// let rows = "It never arrived.,complaint\nThank you!,praise\n".repeat(8);
/// std::fs::write(&texts, format!("text,label\n{rows}"))?;
///
/// let mut config = RunConfig::new("tests/golden/tiny-bert", &texts, &run);
/// config.data.max_length = 32_u64.try_into()?;
/// config.training.learning_rate = Some(2e-3.try_into()?);
/// config.training.num_train_epochs = Some(2_u64.try_into()?);
///
/// let mut steps = 0;
/// let summary = Trainer::new(config)?
///     .on_event(|event| {
///         if let Event::Step { step, .. } = event {
///             steps = *step;
///         }
///     })
///     .run()?;
/// assert_eq!(summary.steps, steps);
/// assert!(run.join("delta.safetensors").exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a Trainer does nothing before `run`"]
pub struct Trainer<'a> {
    run: Run,
    start: Start,
    listeners: Vec<Box<dyn Listener + 'a>>,
    stop: Arc<AtomicBool>,
}

impl<'a> Trainer<'a> {
    /// Checks `config`. Relative paths start from the working directory. A base or data that does
    /// not exist there is an id of the Hub.
    ///
    /// # Errors
    ///
    /// A value that is not allowed, by its key.
    pub fn new(config: RunConfig) -> Result<Self> {
        let run = Run::in_code(config)?;
        let dir = run.output_dir();
        let listeners: Vec<Box<dyn Listener + 'a>> =
            vec![Box::new(MetricsFile::new(dir, false)), Box::new(TensorBoard::new(dir))];
        Ok(Self { run, start: Start::Fresh, listeners, stop: Arc::default() })
    }

    /// Resumes the run in the output directory from its newest checkpoint. A directory without a
    /// run gets a new one.
    pub fn resume(mut self) -> Self {
        self.start = Start::Resume;
        self
    }

    /// Replaces the run in the output directory. Without this or [`Trainer::resume`], such a run is
    /// an error.
    pub fn overwrite(mut self) -> Self {
        self.start = Start::Overwrite;
        self
    }

    /// Calls `listener` with every event of the run, after the listeners before it.
    pub fn on_event(mut self, mut listener: impl FnMut(&Event<'_>) + 'a) -> Self {
        self.listeners.push(Box::new(move |event: &Event<'_>| {
            listener(event);
            Ok(())
        }));
        self
    }

    /// Ends the run after its step once `stop` is set, say by a signal or by a listener. The state
    /// is saved, and [`Trainer::resume`] continues from it.
    pub fn stop_flag(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = stop;
        self
    }

    /// Trains, and returns the result and the cost of the run.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`](crate::Error::Interrupted) if the stop flag ended the run; its
    /// message says what was saved. [`Error::Ended`](crate::Error::Ended) if an error ended a run
    /// that had begun; it says what is kept. Errors before that name the file of the base, the data
    /// or the output directory that is wrong.
    pub fn run(self) -> Result<Summary> {
        train(&self.run, self.start, &mut Listeners(self.listeners), &self.stop)
    }
}
