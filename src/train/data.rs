//! The data of a run: its rows as written, and the same rows as token ids.

use super::long_texts;
use crate::bounds::Count;
use crate::config::{DataSize, Run};
use crate::data::{
    self, Columns, Example, Labels, Row, RowOrigin, Sampler, Target, Tokenizer, examples,
};
use crate::error::{Error, Result};
use crate::files;
use crate::hub::DownloadProgress;
use crate::models::{TargetScale, TaskType};
use crate::sources::{Labelled, Sources};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The fewest rows on which a temperature says more than chance.
const FEWEST_TO_CALIBRATE: usize = 50;

/// The rows of both data sets, before tokenizing.
pub struct RawRows {
    /// Training rows.
    pub train: Vec<Row>,
    /// Evaluation rows.
    pub eval: Vec<Row>,
    /// Rows for the calibration.
    pub calibration: Vec<Row>,
    /// The names of the classes.
    pub labels: Labels,
}

/// The tokenized rows of both data sets.
pub struct RunData {
    /// Training examples, in the file's order.
    pub train: Vec<Example>,
    /// Evaluation examples.
    pub eval: Vec<Example>,
    /// Examples for the calibration, which neither train nor evaluate.
    pub calibration: Vec<Example>,
    /// The names of the classes.
    pub labels: Labels,
    /// The tokenizer, whose files go into the run directory.
    pub tokenizer: Tokenizer,
    /// SHA-256 over the token ids and targets of all rows.
    pub fingerprint: String,
    /// The file and line of each training row.
    places: Vec<RowOrigin>,
}

impl RunData {
    /// Reads the rows of `run`, finds the classes, and tokenizes the rows.
    pub fn read(run: &Run, sources: &Sources) -> Result<Self> {
        RawRows::read(run, &run.columns(), sources)?.encode(run, &sources.model.dir)
    }

    /// The number of tokens of each training row.
    pub fn lengths(&self) -> Vec<usize> {
        self.train.iter().map(|example| example.tokens.tokens()).collect()
    }

    /// The number of windows of each training row.
    pub fn windows(&self) -> Vec<usize> {
        self.train.iter().map(|example| example.tokens.count()).collect()
    }

    /// The mean number of tokens of the windows of training rows.
    pub fn mean_window(&self) -> f64 {
        let windows = self.windows().iter().sum::<usize>().max(1);
        self.lengths().iter().sum::<usize>() as f64 / windows as f64
    }

    /// The mean number of tokens of the training rows.
    pub fn mean_length(&self) -> f64 {
        self.lengths().iter().sum::<usize>() as f64 / self.train.len().max(1) as f64
    }

    /// The numbers of rows, and their length.
    pub fn size(&self) -> DataSize {
        let (rows, eval_rows) = (self.train.len(), self.eval.len());
        DataSize { rows, eval_rows, mean_length: self.mean_length() }
    }

    /// What the targets are standardized by, if `run` asks for it.
    pub fn target_scale(&self, run: &Run) -> Option<TargetScale> {
        run.training().standardize_target.filter(|asked| *asked)?;
        let number = |example: &Example| match example.target {
            Target::Number(number) => Some(number),
            _ => None,
        };
        let targets: Vec<f32> = self.train.iter().filter_map(number).collect();
        Some(TargetScale::of(&targets))
    }

    /// Returns the sampler, which decides the rows of each step.
    pub fn sampler(&self, run: &Run) -> Sampler {
        let training = run.training();
        Sampler {
            lengths: self.lengths(),
            seed: training.seed,
            shuffle: run.data().shuffle,
            step: training.batch_size().times(training.gradient_accumulation_steps.size()),
        }
    }

    /// The number of training rows with each label.
    pub fn rows_by_label(&self) -> Vec<usize> {
        let mut having = vec![0; self.labels.names.len()];
        let mut count =
            |class: usize| having.get_mut(class).into_iter().for_each(|count| *count += 1);
        for example in &self.train {
            match &example.target {
                Target::Class(class) => count(*class),
                Target::Labels { present, .. } => {
                    present.iter().for_each(|&class| count(class as usize))
                }
                Target::Number(_) => {}
            }
        }
        having
    }

    /// Returns the files and lines of training rows, for messages: `train.tsv:3, 17; more.tsv:4`.
    pub fn places(&self, rows: &[usize]) -> String {
        let mut by_file: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
        for place in rows.iter().filter_map(|&row| self.places.get(row)) {
            by_file.entry(&place.path).or_default().extend(place.line.map(|line| line.to_string()));
        }
        let file = |(path, lines): (&Path, Vec<String>)| match lines.is_empty() {
            true => path.display().to_string(),
            false => format!("{}:{}", path.display(), lines.join(", ")),
        };
        by_file.into_iter().map(file).collect::<Vec<_>>().join("; ")
    }
}

impl RawRows {
    /// Reads the data and finds the classes. Splits off an evaluation set if none is configured,
    /// and draws the configured numbers of samples.
    pub fn read(run: &Run, columns: &Columns, sources: &Sources) -> Result<Self> {
        let (section, task) = (run.data(), run.model().task_type);
        let table = data::read_all(&sources.train.files, columns)?;
        let labels = run.label_names().map_or_else(
            || Labels::of(task, &section.train, &table, section.skip_bad_rows),
            |names| Ok(Labels { names, declared: true }),
        )?;
        let mut train = table.rows;
        settle(run, &section.train, task, &labels, &mut train)?;
        let seed = run.data_seed();
        let mut eval = match (&sources.eval, &section.eval) {
            (Some(found), Some(path)) => {
                let mut eval = data::read_all(&found.files, columns)?.rows;
                settle(run, path, task, &labels, &mut eval)?;
                eval
            }
            _ => {
                let classes = classes(task, &labels, &train)?;
                let (keep, take) = data::split_by_class(&classes, section.eval_fraction, seed);
                let eval = pick(&train, &take);
                train = pick(&train, &keep);
                if eval.is_empty() || train.is_empty() {
                    let problem = "too few rows to split off an evaluation set; expected two or more rows of a class, or data.eval";
                    return Err(Error::data(&section.train, None, problem));
                }
                eval
            }
        };
        draw(run, "train_samples", &mut train, section.train_samples, task, &labels)?;
        draw(run, "eval_samples", &mut eval, section.eval_samples, task, &labels)?;
        let calibration = take_for_calibration(run, &mut train, task, &labels)?;
        Ok(Self { train, eval, calibration, labels })
    }

    /// Reads the evaluation rows of a resolved run. `declared` is [`Labels::declared`] for the
    /// configured label names.
    ///
    /// Without `data.eval`, reads all data and splits the evaluation set off again.
    pub fn read_eval(
        run: &Run,
        columns: &Columns,
        declared: bool,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<Vec<Row>> {
        let (section, task) = (run.data(), run.model().task_type);
        let (Some(path), Some(names)) = (&section.eval, run.label_names()) else {
            return Ok(Self::read(run, columns, &Sources::find(run, progress)?)?.eval);
        };
        let found = Labelled::eval(run, None, progress)?;
        let mut rows =
            data::read_all(&found.map(|rows| rows.files).unwrap_or_default(), columns)?.rows;
        let labels = Labels { names, declared };
        settle(run, path, task, &labels, &mut rows)?;
        draw(run, "eval_samples", &mut rows, section.eval_samples, task, &labels)?;
        Ok(rows)
    }

    /// Tokenizes the rows with the tokenizer in `dir`. Errs if all training rows have one class.
    fn encode(self, run: &Run, dir: &Path) -> Result<RunData> {
        let tokenizer = Tokenizer::read(dir)?;
        let (task, reading) = (run.model().task_type, run.data().reading());
        let encode = |rows| examples(&tokenizer, rows, task, &self.labels, reading);
        let (train, eval) = (encode(&self.train)?, encode(&self.eval)?);
        let calibration = encode(&self.calibration)?;
        for (what, rows, examples) in
            [("training", &self.train, &train), ("evaluation", &self.eval, &eval)]
        {
            long_texts::say(what, &tokenizer, reading, rows, examples);
        }
        if let Some(Target::Class(first)) = train.first().map(|e| &e.target)
            && train.iter().all(|e| e.target == Target::Class(*first))
        {
            let only = self.labels.names.get(*first).map_or("", String::as_str);
            return Err(Labels::one_class(&run.data().train, only));
        }
        let mut sets = vec![&train, &eval];
        sets.extend(Some(&calibration).filter(|rows| !rows.is_empty()));
        let fingerprint = fingerprint(&sets);
        let places = self.train.into_iter().map(|row| row.place).collect();
        Ok(RunData {
            train,
            eval,
            calibration,
            labels: self.labels,
            tokenizer,
            fingerprint,
            places,
        })
    }
}

/// SHA-256 over the rows' token ids and targets, in order.
fn fingerprint(sets: &[&Vec<Example>]) -> String {
    let mut hash = Sha256::new();
    for examples in sets {
        hash.update(examples.len().to_le_bytes());
        for example in *examples {
            let Example { tokens, target } = example;
            for window in tokens.iter() {
                hash.update(window.ids.len().to_le_bytes());
                hash.update(window.first.to_le_bytes());
                window.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
            match target {
                Target::Class(class) => hash.update(class.to_le_bytes()),
                // One byte for each label of the task.
                Target::Labels { .. } => {
                    let flags = target.flags().unwrap_or_default();
                    hash.update(flags.into_iter().map(u8::from).collect::<Vec<_>>());
                }
                Target::Number(number) => hash.update(number.to_le_bytes()),
            }
        }
    }
    files::hex(&hash.finalize())
}

/// Replaces the labels of `rows` by the names of their classes. A row with any other label is an
/// error, or is left out with `data.skip_bad_rows`.
fn settle(
    run: &Run,
    path: &Path,
    task: TaskType,
    labels: &Labels,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let (reader, before) = (labels.reader(task, rows), rows.len());
    if !run.data().skip_bad_rows {
        return rows.iter_mut().try_for_each(|row| reader.replace_by_names(row));
    }
    let mut first = None;
    rows.retain_mut(|row| match reader.replace_by_names(row) {
        Ok(()) => true,
        Err(error) => {
            first.get_or_insert(error);
            false
        }
    });
    if let Some(error) = first {
        let skipped = before - rows.len();
        tracing::warn!(
            "{}: {skipped} rows left out because of their labels (data.skip_bad_rows); the first: {error}",
            path.display()
        );
    }
    if rows.is_empty() {
        return Err(Error::data(
            path,
            None,
            "every row has an error; expected at least one row without",
        ));
    }
    Ok(())
}

/// Draws `samples` of the rows, each class in proportion. Keeps all rows if `samples` is `None` or,
/// with a warning, if `samples` is larger than their number.
fn draw(
    run: &Run,
    key: &str,
    rows: &mut Vec<Row>,
    samples: Option<Count>,
    task: TaskType,
    labels: &Labels,
) -> Result<()> {
    let Some(samples) = samples.map(Count::size) else { return Ok(()) };
    if samples > rows.len() {
        tracing::warn!(
            "data.{key} = {samples}, but there are only {} rows; all of them are used",
            rows.len()
        );
        return Ok(());
    }
    *rows = pick(rows, &data::draw(&classes(task, labels, rows)?, samples, run.data_seed()));
    Ok(())
}

/// Takes the rows for the calibration from `train`, class by class; none without a calibration.
fn take_for_calibration(
    run: &Run,
    train: &mut Vec<Row>,
    task: TaskType,
    labels: &Labels,
) -> Result<Vec<Row>> {
    let Some(section) = run.calibration() else { return Ok(vec![]) };
    let count = labels.names.len();
    if let Some(goal) = section.thresholds
        && task == TaskType::Classification
        && count != 2
    {
        let goal = format!("{goal:?}").to_lowercase();
        let found = format!("{goal:?} with {count} classes");
        let expected = "two classes, or task_type = \"multi_label\"; of several classes the most likely is given";
        return Err(run.error("calibration.thresholds", &found, expected));
    }
    let classes = classes(task, labels, train)?;
    let (keep, take) = data::split_by_class(&classes, section.fraction.get(), run.data_seed());
    if take.len() < FEWEST_TO_CALIBRATE || keep.is_empty() {
        let (found, of) = (take.len(), train.len());
        let found = format!("{}, which are {found} of {of} rows", section.fraction);
        let expected =
            format!("a share with {FEWEST_TO_CALIBRATE} rows or more; fewer would fit chance");
        return Err(run.error("calibration.fraction", &found, &expected));
    }
    let taken = pick(train, &take);
    *train = pick(train, &keep);
    Ok(taken)
}

/// Returns the class of each row, 0 for all rows if the task is no classification.
fn classes(task: TaskType, labels: &Labels, rows: &[Row]) -> Result<Vec<usize>> {
    let class = |target| if let Target::Class(class) = target { class } else { 0 };
    Ok(labels.targets(task, rows)?.into_iter().map(class).collect())
}

fn pick(rows: &[Row], numbers: &[usize]) -> Vec<Row> {
    numbers.iter().filter_map(|&row| rows.get(row).cloned()).collect()
}
