//! Tasks by name over one base, which predict together in mixed batches.

#![deny(clippy::missing_errors_doc)]

use crate::bank::{Bank, BankTask, TaskPlan};
use crate::base::Base;
use crate::config::DeviceName;
use crate::data::{
    Batch, Encoding, TextSize, Tokenizer, Windows, check_length, fits, has_embeddings, listed,
    nearest, same_tokenizer,
};
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::eval::in_batches;
use crate::models::{Reading, Task};
use crate::native;
use crate::nn::Precision;
use crate::predict::{BATCH_SIZE, Input, Prediction, check_pairs};
use crate::process::unix_seconds;
use crate::sources::Model;
use crate::{escape, sealed, threads};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tch::Device;

/// The most characters of a task's name.
const LONGEST_NAME: usize = 96;

/// The file of a task in a directory of its own, such as a run's.
pub(crate) const DELTA: &str = "delta.safetensors";

/// The number of files that are read before their tasks are made.
const READ_AT_ONCE: usize = 64;

/// Tasks of one base, by name. A batch may mix them in any order: the base's layers compute all of
/// its texts at once, each with the biases of its own task.
///
/// Tasks of the methods bitfit, head, layer_norm, lora and probe fit in; the others change more
/// than a batch can take from each task.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let texts = folder.path().join("texts.csv");
/// # std::fs::write(&texts, "text,label\n".to_owned() + &"Good.,yes\nBad.,no\n".repeat(8))?;
/// # for name in ["spam", "topic"] {
/// #     let run = folder.path().join("tasks").join(name);
/// #     let mut config = bitfit::RunConfig::new("tests/golden/tiny-bert", &texts, &run);
/// #     config.data.max_length = 32_u64.try_into()?;
/// #     bitfit::Trainer::new(config)?.run()?;
/// # }
/// # let dir = folder.path().join("tasks");
/// use bitfit::Tasks;
///
/// let mut tasks = Tasks::open("tests/golden/tiny-bert")?;
/// let refused = tasks.load_dir(&dir)?; // dir/spam/delta.safetensors, dir/topic.safetensors, ...
/// assert!(refused.is_empty());
///
/// let predictions = tasks.predict([("spam", "Buy now"), ("topic", "Goal!"), ("spam", "Hello")])?;
/// assert_eq!(predictions.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tasks {
    bank: Bank,
    map: TaskMap,
    batch_size: usize,
}

/// What reads the texts and the task files of a base. A reader holds no tensors, so that threads
/// can share it.
pub(crate) struct Reader {
    plan: Arc<TaskPlan>,
    tokenizer: Tokenizer,
}

/// The tasks of a base by name.
pub(crate) struct TaskMap {
    reader: Arc<Reader>,
    tasks: BTreeMap<Arc<str>, TaskSlot>,
    /// Why each file that was refused is not a task, by name.
    refused: BTreeMap<String, String>,
}

/// A task of a [`TaskMap`].
pub(crate) struct TaskSlot {
    /// The task's present version.
    pub task: Arc<BankTask>,
    /// How many texts were asked for.
    pub requests: AtomicU64,
    /// When one was asked for last, in seconds since 1970; 0 for never.
    pub last_used: AtomicU64,
}

/// Why a [`TaskMap`] does not let a task predict an input.
#[derive(Debug)]
pub(crate) enum NotAsked {
    /// There is no such task.
    NoTask(String),
    /// The task takes other inputs.
    Input(String),
}

/// A task that a caller asked for, with its name.
pub(crate) type Asked = (Arc<str>, Arc<BankTask>);

/// How [`Tasks`] are opened.
#[derive(Debug, Clone)]
pub struct TasksBuilder {
    base: PathBuf,
    revision: Option<String>,
    weights: Option<String>,
    device: Option<Device>,
    precision: Precision,
    batch_size: usize,
}

/// A file that is not a task of the base.
#[derive(Debug)]
pub struct RefusedTask {
    /// The name that the task would have.
    pub name: String,
    /// The reason, with the file's name.
    pub error: Error,
}

impl TasksBuilder {
    /// Selects a branch, tag or commit of a base on the Hub; `main` by default.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// Selects the base's weight file.
    pub fn weights(mut self, name: impl Into<String>) -> Self {
        self.weights = Some(name.into());
        self
    }

    /// Sets the device; by default the first GPU, or the CPU where there is none.
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Sets the precision of the matrix products; [`Precision::Auto`] by default.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Sets the number of texts in a batch, 32 by default. Batches of short texts have more.
    pub fn batch_size(mut self, texts: usize) -> Self {
        self.batch_size = texts.max(1);
        self
    }

    /// Reads the base and its tokenizer, and downloads them if the base is on the Hub.
    ///
    /// # Errors
    ///
    /// A file that is missing or damaged, and a device that is not there.
    pub fn open(self) -> Result<Tasks> {
        let (revision, weights) = (self.revision.as_deref(), self.weights.as_deref());
        let model = Model::locate(&self.base, revision, weights, &mut |_, _, _| Ok(()))?;
        self.open_model(&model)
    }

    /// Like [`TasksBuilder::open`], of a base that was found.
    pub(crate) fn open_model(self, model: &Model) -> Result<Tasks> {
        let device = match self.device {
            Some(device) => device,
            None => DeviceName::Auto.find()?,
        };
        let (tokenizer, base) = threads::both(
            || Tokenizer::read(&model.dir),
            || Base::read(&model.dir, model.weights.as_deref(), device),
        );
        let (tokenizer, base) = (tokenizer?, base?);
        fits(&model.dir, &tokenizer, &base.info.config)?;
        let bank = Bank::new(base, self.precision)?;
        let reader = Arc::new(Reader { plan: bank.plan().clone(), tokenizer });
        let map = TaskMap { reader, tasks: BTreeMap::new(), refused: BTreeMap::new() };
        Ok(Tasks { bank, map, batch_size: self.batch_size })
    }
}

impl Tasks {
    /// Opens the base in a directory, or on the Hub, without tasks.
    ///
    /// # Errors
    ///
    /// A file of the base that is missing or damaged.
    pub fn open(base: impl Into<PathBuf>) -> Result<Self> {
        Self::builder(base).open()
    }

    /// Starts to open the base in a directory, or on the Hub.
    pub fn builder(base: impl Into<PathBuf>) -> TasksBuilder {
        TasksBuilder {
            base: base.into(),
            revision: None,
            weights: None,
            device: None,
            precision: Precision::default(),
            batch_size: BATCH_SIZE,
        }
    }

    /// Loads the tasks of a directory: `NAME.safetensors`, or `NAME/delta.safetensors` as a run
    /// has it. Hidden files and other names are left alone.
    ///
    /// Returns the tasks that were refused; the others are there.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read, or that has no tasks.
    pub fn load_dir(&mut self, dir: impl AsRef<Path>) -> Result<Vec<RefusedTask>> {
        self.map.load_dir(dir.as_ref(), &[], &mut |_, _| Ok(()))
    }

    /// Like [`Tasks::load_dir`], with `names` alone unless there are none, and with `progress`,
    /// which is told the number of files done and of all.
    pub(crate) fn load_of_dir(
        &mut self,
        dir: &Path,
        names: &[String],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<RefusedTask>> {
        self.map.load_dir(dir, names, progress)
    }

    /// Loads the task file `path` as the task `name`, which replaces a task of this name.
    ///
    /// # Errors
    ///
    /// A name that cannot be a task's, a file that is damaged, and a task that is not the base's or
    /// cannot share a batch.
    pub fn load(&mut self, name: &str, path: impl AsRef<Path>) -> Result<()> {
        let task = self.map.reader.read(name, path.as_ref())?;
        self.map.insert(name, Arc::new(task));
        Ok(())
    }

    /// The names of the tasks, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.map.names()
    }

    /// What the task `name` predicts; `None` if there is no such task.
    pub fn get(&self, name: &str) -> Option<&Task> {
        self.map.get(name).map(|task| &task.task)
    }

    /// The bank, for the thread that computes, and the map, for all threads.
    pub(crate) fn into_parts(self) -> (Bank, TaskMap) {
        (self.bank, self.map)
    }

    /// The directory of the base.
    pub(crate) fn base_dir(&self) -> &Path {
        &self.bank.base().info.dir
    }

    /// Checks that the task `name` is there, and takes `input`: a text or a pair. The error is the
    /// problem.
    pub(crate) fn check(&self, name: &str, input: &Input) -> std::result::Result<(), String> {
        self.map.asked(name, input).map(drop).map_err(NotAsked::into_problem)
    }

    /// Predicts each input by the task that is named beside it, in order.
    ///
    /// # Errors
    ///
    /// A name without a task; a pair where the task is about single texts, or the other way round;
    /// scores that are NaN or infinite.
    pub fn predict<N: AsRef<str>, T: Into<Input>>(
        &self,
        rows: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Vec<Prediction>> {
        let rows: Vec<(N, Input)> =
            rows.into_iter().map(|(name, input)| (name, input.into())).collect();
        let asked = self.map.asked_each(&rows)?;
        let tokens = self.map.reader.encode_for(&asked, &rows)?;
        self.answers(&asked, &tokens.iter().collect::<Vec<_>>())
    }

    /// Predicts each input by each of the tasks `names`. Returns for each input a prediction for
    /// each name, in order. A text is tokenized once for all tasks that read it alike.
    ///
    /// # Errors
    ///
    /// As [`Tasks::predict`].
    pub fn predict_by_each<T: Into<Input>>(
        &self,
        names: &[&str],
        inputs: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let inputs: Vec<Input> = inputs.into_iter().map(Into::into).collect();
        for (input, number) in inputs.iter().zip(1..) {
            let error = |problem| Error::Usage(format!("input {number}: {problem}"));
            names.iter().try_for_each(|name| self.check(name, input).map_err(error))?;
        }
        let named = |name: &&str| self.map.tasks.get_key_value(*name);
        let tasks: Vec<Asked> = names
            .iter()
            .filter_map(named)
            .map(|(name, slot)| (name.clone(), slot.task.clone()))
            .collect();
        let readings: BTreeSet<Reading> =
            tasks.iter().map(|(_, task)| task.task.reading()).collect();
        let mut encoded = BTreeMap::new();
        for reading in readings {
            let texts: Vec<(Reading, &Input)> =
                inputs.iter().map(|input| (reading, input)).collect();
            encoded.insert(reading, self.map.reader.encode(&texts)?);
        }
        let (mut asked, mut tokens) = (vec![], vec![]);
        for row in 0..inputs.len() {
            for (name, task) in &tasks {
                let read = encoded.get(&task.task.reading()).and_then(|texts| texts.get(row));
                tokens.extend(read);
                asked.push((name.clone(), task.clone()));
            }
        }
        let mut answers = self.answers(&asked, &tokens)?.into_iter();
        Ok(inputs.iter().map(|_| answers.by_ref().take(tasks.len()).collect()).collect())
    }

    fn answers(&self, asked: &[Asked], tokens: &[&Windows]) -> Result<Vec<Prediction>> {
        let sizes: Vec<TextSize> = tokens.iter().map(|text| text.size()).collect();
        let device = self.bank.base().device();
        let mut answers = Vec::with_capacity(asked.len());
        in_batches(&sizes, self.batch_size, device, &mut |range| {
            let part = asked.get(range.clone()).unwrap_or_default();
            let texts = tokens.get(range).unwrap_or_default();
            let tasks: Vec<&BankTask> = part.iter().map(|(_, task)| &**task).collect();
            let logits = self.bank.logits(&Batch::of_texts(texts.iter().copied()), &tasks)?;
            for ((name, task), logits) in part.iter().zip(&logits) {
                if logits.iter().any(|logit| !logit.is_finite()) {
                    return Err(Error::NotFinite(format!("the prediction of the task {name}")));
                }
                let scores = task.task.task_type.scores_of_row(logits);
                answers.push(Prediction::new(&task.task, &scores));
            }
            Ok(())
        })?;
        Ok(answers)
    }
}

impl NotAsked {
    /// The problem in words.
    pub fn into_problem(self) -> String {
        match self {
            Self::NoTask(problem) | Self::Input(problem) => problem,
        }
    }
}

impl Reader {
    /// Reads the task file `path`, whose task is to be called `name`.
    pub fn read(&self, name: &str, path: &Path) -> Result<BankTask> {
        check_name(name)?;
        native::on_one_thread(|| self.make(path, &Delta::read(path)?))?
    }

    /// Makes the task of a file's `bytes`. Errors name `path`.
    pub fn of_bytes(&self, path: &Path, bytes: &[u8]) -> Result<BankTask> {
        native::on_one_thread(|| {
            self.make(path, &Delta::of(path, sealed::of_bytes(path, bytes)?)?)
        })?
    }

    fn make(&self, path: &Path, delta: &Delta) -> Result<BankTask> {
        let base = &self.plan.info;
        same_tokenizer(&delta.meta, path, &base.dir, &self.tokenizer)?;
        check_length(&delta.meta, path, &base.config)?;
        self.plan.task(path, delta)
    }

    /// Reads files, each with its task's name. Calls `done` with each task or its error, in order,
    /// and `progress` with the number of files done.
    pub fn read_all(
        &self,
        files: &[(String, PathBuf)],
        progress: &mut dyn FnMut(usize) -> Result<()>,
        done: &mut dyn FnMut(&str, Result<BankTask>),
    ) -> Result<()> {
        for (part, start) in files.chunks(READ_AT_ONCE).zip((0..).step_by(READ_AT_ONCE)) {
            progress(start)?;
            let tasks = threads::map(part, |(name, path)| self.read(name, path));
            part.iter().zip(tasks).for_each(|((name, _), task)| done(name, task));
        }
        progress(files.len())
    }

    /// What a task of the base consists of.
    pub fn plan(&self) -> &TaskPlan {
        &self.plan
    }

    /// The token ids of each row's input, as its task reads it.
    pub fn encode_for<N>(&self, asked: &[Asked], rows: &[(N, Input)]) -> Result<Vec<Windows>> {
        let readings = asked.iter().map(|(_, task)| task.task.reading());
        let texts: Vec<(Reading, &Input)> = readings.zip(rows.iter().map(|(_, row)| row)).collect();
        self.encode(&texts)
    }

    /// The token ids of each input, read as the setting beside it says.
    fn encode(&self, inputs: &[(Reading, &Input)]) -> Result<Vec<Windows>> {
        let tokens = threads::map(inputs, |(reading, input)| self.tokens(input, *reading));
        self.check_tokens(tokens.iter().flat_map(Windows::iter))?;
        Ok(tokens)
    }

    /// The token ids of `input`.
    pub fn tokens(&self, input: &Input, reading: Reading) -> Windows {
        self.tokenizer.encode_as(&input.text, input.text_pair.as_deref(), reading)
    }

    /// Checks that the base has an embedding for each token.
    pub fn check_tokens<'a>(&self, tokens: impl IntoIterator<Item = &'a Encoding>) -> Result<()> {
        let base = &self.plan.info;
        has_embeddings(&base.dir, &base.config, tokens)
    }
}

impl TaskMap {
    /// What reads the texts and the task files of the base.
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// Loads the tasks of a directory: of `names` alone, unless there are none. `progress` is told
    /// the number of files done and of all.
    pub fn load_dir(
        &mut self,
        dir: &Path,
        names: &[String],
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Vec<RefusedTask>> {
        let TaskFiles { mut found, mut wrong } = TaskFiles::of(dir)?;
        if found.is_empty() && wrong.is_empty() {
            let problem = format!("no tasks; expected NAME.safetensors or NAME/{DELTA}");
            return Err(Error::file(dir, problem));
        }
        let is_there = |name: &&String| found.contains_key(*name) || wrong.contains_key(*name);
        if let Some(name) = names.iter().find(|name| !is_there(name)) {
            let all = found.keys().map(String::as_str);
            return Err(Error::file(dir, no_such_task(name, all)));
        }
        if !names.is_empty() {
            found.retain(|name, _| names.contains(name));
            wrong.retain(|name, _| names.contains(name));
        }
        let found: Vec<(String, PathBuf)> = found.into_iter().collect();
        let mut refused: Vec<RefusedTask> =
            wrong.into_iter().map(|(name, error)| self.refuse(&name, error)).collect();
        let reader = self.reader.clone();
        let mut progress = |done| progress(done, found.len());
        reader.read_all(&found, &mut progress, &mut |name, task| match task {
            Ok(task) => self.insert(name, Arc::new(task)),
            Err(error) => refused.push(self.refuse(name, error)),
        })?;
        Ok(refused)
    }

    /// Adds a task, which replaces a task of this name and keeps its counts.
    pub fn insert(&mut self, name: &str, task: Arc<BankTask>) {
        self.refused.remove(name);
        match self.tasks.get_mut(name) {
            Some(slot) => slot.task = task,
            None => {
                let (requests, last_used) = (AtomicU64::new(0), AtomicU64::new(0));
                self.tasks.insert(name.into(), TaskSlot { task, requests, last_used });
            }
        }
    }

    /// Removes a task, and returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.refused.remove(name);
        self.tasks.remove(name).is_some()
    }

    /// Notes why a file is not a task. A task of this name that was loaded before stays.
    pub fn refuse(&mut self, name: &str, error: Error) -> RefusedTask {
        self.refused.insert(name.to_owned(), error.to_string());
        RefusedTask { name: name.to_owned(), error }
    }

    /// Forgets that a file was refused.
    pub fn forget_refused(&mut self, name: &str) {
        self.refused.remove(name);
    }

    /// The names of the tasks, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tasks.keys().map(|name| &**name)
    }

    /// What is wrong with the name of a task that is not there.
    pub fn no_task(&self, name: &str) -> String {
        match self.refused.get(name) {
            Some(why) => format!("task {name:?} was refused: {why}"),
            None => no_such_task(name, self.names()),
        }
    }

    /// The tasks by name.
    pub fn tasks(&self) -> &BTreeMap<Arc<str>, TaskSlot> {
        &self.tasks
    }

    /// Why each file that was refused is not a task, by name.
    pub fn refused(&self) -> &BTreeMap<String, String> {
        &self.refused
    }

    /// The task `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<BankTask>> {
        self.tasks.get(name).map(|slot| &slot.task)
    }

    /// Returns the task of each row, as [`TaskMap::asked`] does.
    pub fn asked_each<N: AsRef<str>>(&self, rows: &[(N, Input)]) -> Result<Vec<Asked>> {
        let asked = rows.iter().zip(1..).map(|((name, input), number)| {
            let asked = self.asked(name.as_ref(), input).map_err(NotAsked::into_problem);
            asked.map_err(|problem| Error::Usage(format!("input {number}: {problem}")))
        });
        asked.collect()
    }

    /// Returns the task `name`, if it takes `input`: a text or a pair. Counts the input.
    pub fn asked(&self, name: &str, input: &Input) -> std::result::Result<Asked, NotAsked> {
        let Some((own, slot)) = self.tasks.get_key_value(name) else {
            return Err(NotAsked::NoTask(self.no_task(name)));
        };
        check_pairs(&slot.task.task, input.text_pair.is_some())
            .map_err(|problem| NotAsked::Input(format!("task {name:?}: {problem}")))?;
        slot.requests.fetch_add(1, Ordering::Relaxed);
        slot.last_used.store(unix_seconds(), Ordering::Relaxed);
        Ok((own.clone(), slot.task.clone()))
    }
}

/// What a task's name is made of.
const NAMES: &str =
    "1 to 96 letters, digits, '.', '_' and '-', of which a letter or digit is first";

/// Whether `name` can be a task's: part of a file's name and of a URL.
fn is_name(name: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    name.len() <= LONGEST_NAME
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(inner)
}

/// A task's name like `name`, for a file that is not in a directory of tasks.
pub(crate) fn task_name(name: &str) -> String {
    let kept = name.chars().map(|letter| match letter.is_ascii_alphanumeric() {
        true => letter,
        false if "._-".contains(letter) => letter,
        false => '-',
    });
    let name: String = kept.skip_while(|letter| !letter.is_ascii_alphanumeric()).collect();
    let name: String = name.chars().take(LONGEST_NAME).collect();
    if name.is_empty() { "task".into() } else { name }
}

/// Errs unless `name` can be a task's.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let found = escape::quoted(&escape::short(name, LONGEST_NAME));
    Err(Error::Usage(format!("task {found}: expected a name of {NAMES}")))
}

/// The files of a directory of tasks.
pub(crate) struct TaskFiles {
    /// The file of each task, by name.
    pub found: BTreeMap<String, PathBuf>,
    /// What is wrong with the other task files, by name.
    pub wrong: BTreeMap<String, Error>,
}

impl TaskFiles {
    /// The files in `dir`.
    pub fn of(dir: &Path) -> Result<Self> {
        if dir.join(DELTA).exists() && dir.join("config.toml").exists() {
            let problem = "the directory of a run; name it with --run, or the directory that it is \
                           in with --tasks";
            return Err(Error::file(dir, problem));
        }
        let (mut found, mut wrong) = (BTreeMap::new(), BTreeMap::new());
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let path = entry.map_err(Error::io("read", dir))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if file.starts_with('.') {
                continue;
            }
            let (name, path) = match file.strip_suffix(".safetensors") {
                Some(name) => (name.to_owned(), path),
                None => (file, path.join(DELTA)),
            };
            let there = std::fs::symlink_metadata(&path).map_err(|error| error.kind());
            if matches!(there, Err(ErrorKind::NotFound | ErrorKind::NotADirectory)) {
                continue;
            }
            if let Err(error) = check_name(&name) {
                wrong.insert(name, Error::file(&path, error.to_string()));
            } else if let Some(other) = found.insert(name.clone(), path.clone()) {
                let problem =
                    format!("a second file of the task {name}: the first is {}", other.display());
                wrong.insert(name, Error::file(&path, problem));
            }
        }
        found.retain(|name, _| !wrong.contains_key(name));
        Ok(Self { found, wrong })
    }
}

/// The most names among which a misspelt one is looked for.
const MOST_COMPARED: usize = 1000;

/// What is wrong with the name of a task that is not among `names`.
fn no_such_task<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let found = escape::quoted(&escape::short(name, LONGEST_NAME));
    let is_short = name.len() <= LONGEST_NAME && names.clone().count() <= MOST_COMPARED;
    let near = if is_short { nearest(name, names.clone()) } else { None };
    match near {
        Some(near) => format!("task {found}: no such task; did you mean {near}?"),
        None => format!("task {found}: no such task; expected one of: {}", listed(names)),
    }
}
