//! Writes TensorBoard event files: scalars, the configuration, and histograms of the biases'
//! changes.
//!
//! A file is a sequence of records: length, checksum of the length, a protocol buffer, checksum of
//! the buffer (`tensorflow/core/lib/io/record_writer.cc`). Each process of a run writes one file. A
//! resumed run first cuts the files to its checkpoint, so that no step is there twice.

mod messages;

use super::events::{Event, Listener, MetricsRecord};
use crate::error::{Error, Result};
use crate::files::{self, FileWriter};
use crate::freeze::Places;
use crate::process;
use messages::{EventProto, HistogramProto, Message, SummaryProto, ValueProto, What};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tch::Tensor;

/// The name of the event files' directory in a run's directory.
pub const FOLDER: &str = "tensorboard";

/// The prefix of the event files' names, by which TensorBoard finds them. TensorBoard reads the
/// files in the order of their names.
const PREFIX: &str = "events.out.tfevents.";

/// The prefix of tags of evaluation metrics.
const EVAL: &str = "eval/";
/// The prefix of tags of histograms of bias changes.
const CHANGE: &str = "bias_change/";

/// A listener that writes `tensorboard/` in a run's directory.
pub struct TensorBoard {
    folder: PathBuf,
    file: Option<FileWriter>,
    /// The step after which the run resumed; `None` for a new run.
    resumed: Option<u64>,
    config: String,
    /// The biases that train, by group: the base's values and the current ones.
    biases: BTreeMap<&'static str, Vec<(Tensor, Tensor)>>,
}

impl TensorBoard {
    /// A listener for the run directory `output_dir`.
    pub fn new(output_dir: &Path) -> Self {
        let folder = output_dir.join(FOLDER);
        Self { folder, file: None, resumed: None, config: String::new(), biases: BTreeMap::new() }
    }

    /// Opens this process's file at the first event after the run's preparation. A run that was not
    /// resumed removes earlier files first.
    fn open(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if self.resumed.is_none() {
            files::remove(&self.folder)?;
        }
        files::create_dir(&self.folder)?;
        // The new name sorts after all earlier files, even if the clock went back.
        let last = event_files(&self.folder)?.into_iter().filter_map(|path| second(&path)).max();
        let second = last.map_or(0, |last| last + 1).max(now() as u64);
        let path =
            self.folder.join(format!("{PREFIX}{second:010}.bitfit.{}.0", std::process::id()));
        self.file = Some(FileWriter::append_new(&path)?);
        self.write(0, What::FileVersion("brain.Event:2".into()))?;
        match self.resumed {
            // A session start makes a running TensorBoard forget the steps that were cut.
            Some(step) => self.write(step + 1, What::SessionLog(messages::SessionLog::start())),
            None => self.summary(0, vec![ValueProto::text("config", indented(&self.config))]),
        }
    }

    fn summary(&mut self, step: u64, value: Vec<ValueProto>) -> Result<()> {
        self.write(step, What::Summary(SummaryProto { value }))
    }

    /// Writes a record without a buffer. A kill then leaves whole records and at most a part of the
    /// last one.
    fn write(&mut self, step: u64, what: What) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = EventProto { wall_time: now(), step, what: Some(what) }.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked(&length));
        record.extend(&event);
        record.extend(masked(&event));
        file.put(&record)
    }

    fn histograms(&self) -> Result<Vec<ValueProto>> {
        let mut values = vec![];
        for (group, biases) in &self.biases {
            let mut changes: Vec<f32> = vec![];
            for (before, now) in biases {
                let change = now.f_detach()?.f_sub(before)?.f_to_device(tch::Device::Cpu)?;
                changes.extend(Vec::<f32>::try_from(change.f_flatten(0, -1)?)?);
            }
            values.push(ValueProto::histogram(
                &format!("{CHANGE}{group}"),
                HistogramProto::of(&changes),
            ));
        }
        Ok(values)
    }
}

impl Listener for TensorBoard {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Prepared(plan) => {
                self.config = plan.resolved.to_toml()?;
                let variables = plan.model.store.variables();
                let places = Places::new(plan.model.config.architecture)?;
                for (name, before) in &plan.initial.biases {
                    let Some(now) = variables.get(name) else { continue };
                    let group = self.biases.entry(places.of(name)?.group.name()).or_default();
                    group.push((before.shallow_clone(), now.shallow_clone()));
                }
                Ok(())
            }
            Event::Resumed { step, evaluation_due, .. } => {
                self.resumed = Some(*step);
                cut(&self.folder, *step, *evaluation_due)
            }
            Event::Caching { .. }
            | Event::Embedding { .. }
            | Event::Step { .. }
            | Event::Evaluating { .. } => self.open(),
            Event::Record(MetricsRecord::Step {
                step,
                epoch,
                loss,
                learning_rate,
                grad_norm,
                tokens_per_second,
            }) => {
                self.open()?;
                let values = [
                    ("train/loss", loss),
                    ("train/learning_rate", learning_rate),
                    ("train/grad_norm", grad_norm),
                    ("train/tokens_per_second", tokens_per_second),
                    ("train/epoch", epoch),
                ];
                self.summary(
                    *step,
                    values.map(|(tag, value)| ValueProto::scalar(tag, *value)).into(),
                )
            }
            Event::Record(MetricsRecord::Evaluation { step, metrics, .. }) => {
                self.open()?;
                let scalar = |(name, value): (&String, &f64)| {
                    ValueProto::scalar(&format!("{EVAL}{name}"), *value)
                };
                let mut values: Vec<ValueProto> = metrics.iter().map(scalar).collect();
                values.extend(self.histograms()?);
                self.summary(*step, values)
            }
            _ => Ok(()),
        }
    }
}

/// Cuts the files to the events up to `step`, for a run that resumes after `step`. With
/// `evaluation_due`, also cuts the evaluation at `step`, which is repeated.
fn cut(folder: &Path, step: u64, evaluation_due: bool) -> Result<()> {
    for path in event_files(folder)? {
        let bytes = files::read(&path)?;
        let later = |event: &EventProto| {
            let at = u64::try_from(event.step).unwrap_or(0);
            let evaluation = event.tags().any(|tag| tag.starts_with(EVAL));
            // A session start has no tags and must not end a file: its step is `step + 1`, but it
            // comes before an evaluation at `step` that was still due.
            let measured = event.tags().next().is_some();
            measured && (at > step || (at == step && evaluation_due && evaluation))
        };
        let (mut length, mut events) = (0, 0);
        for (event, end) in records(&bytes).take_while(|(event, _)| !later(event)) {
            length = end;
            events += usize::from(event.tags().next().is_some());
        }
        if events == 0 {
            files::remove(&path)?;
        } else if length < bytes.len() {
            FileWriter::append(&path)?.cut(length as u64)?;
        }
    }
    Ok(())
}

/// Returns the whole events at the start of a file, each with the offset of its end.
fn records(bytes: &[u8]) -> impl Iterator<Item = (EventProto, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = bytes.get(at..at + 8)?;
        let count = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let start = at + 12;
        let event = bytes.get(start..start.checked_add(count)?)?;
        let end = start + count + 4;
        let whole = bytes.get(at + 8..start)? == masked(length)
            && bytes.get(end - 4..end)? == masked(event);
        at = end;
        if whole { Some((EventProto::decode(event).ok()?, end)) } else { None }
    })
}

/// CRC-32C, masked as in TensorFlow's records, because a CRC over bytes that contain CRCs is weak.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Returns the event files in `folder`, the oldest first; empty if there is no `folder`.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| second(path).is_some());
    found.sort();
    Ok(found)
}

/// Returns the second since 1970 in the name of an event file; `None` for any other name.
fn second(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    process::time_of_day().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Formats `text` as a Markdown code block.
fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
