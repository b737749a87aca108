//! The engine: a thread that owns the base, and predicts for all callers in batches of whatever
//! tasks are asked for. `queue` decides what is computed next.

#![deny(clippy::missing_errors_doc)]

mod queue;

use crate::bank::{Bank, BankTask};
use crate::data::{Batch, Windows, worthwhile};
use crate::error::{Error, Result};
use crate::fault;
use crate::native;
use crate::predict::{Input, Prediction};
use crate::tasks::{Asked, Reader, RefusedTask, TaskMap, Tasks, TasksBuilder};
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Device;

pub use queue::{Queue, Taken};

/// Tokens per thread that a batch on the CPU has at most. The callers of larger batches would wait
/// longer.
const TOKENS_PER_THREAD: usize = 256;

/// How often the idle owner thread shows that it is alive, and looks at the base's files.
const BEAT: Duration = Duration::from_secs(1);

/// Without a beat for this long, the owner thread counts as hung.
const HUNG: Duration = Duration::from_secs(5);

/// This many panics within [`PANICS_WITHIN`] end the engine.
const PANICS: usize = 3;
const PANICS_WITHIN: Duration = Duration::from_secs(60);

/// Predicts with many tasks of one base for many threads at once. One thread owns the base, and
/// computes what the callers ask for in batches that mix tasks and callers.
///
/// Clones share the engine, which ends with the last of them.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let texts = folder.path().join("texts.csv");
/// # std::fs::write(&texts, "text,label\n".to_owned() + &"Good.,yes\nBad.,no\n".repeat(8))?;
/// # let run = folder.path().join("tasks/spam");
/// # let mut config = bitfit::RunConfig::new("tests/golden/tiny-bert", &texts, &run);
/// # config.data.max_length = 32_u64.try_into()?;
/// # bitfit::Trainer::new(config)?.run()?;
/// # let dir = folder.path().join("tasks");
/// use bitfit::{Engine, Tasks};
///
/// let engine = Engine::builder(Tasks::builder("tests/golden/tiny-bert")).start()?;
/// engine.load_dir(&dir)?; // dir/spam/delta.safetensors, dir/topic.safetensors, ...
/// let threads: Vec<_> = (0..4)
///     .map(|_| {
///         let engine = engine.clone();
///         std::thread::spawn(move || engine.predict([("spam", "Buy now")]))
///     })
///     .collect();
/// for thread in threads {
///     let predictions = thread.join().unwrap()?;
///     assert_eq!(predictions.len(), 1);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    owner: Arc<Owner>,
}

/// How an [`Engine`] is started.
#[derive(Clone)]
#[must_use = "an EngineBuilder does nothing before `start`"]
pub struct EngineBuilder {
    tasks: TasksBuilder,
    max_batch_tokens: Option<usize>,
    max_queue_rows: usize,
    max_queue: Duration,
    timeout: Duration,
    on_batch: Option<BatchListener>,
    saved: Option<String>,
}

/// Is told of each batch that was computed.
type BatchListener = Arc<dyn Fn(&BatchReport) + Send + Sync>;

/// A batch that was computed.
#[derive(Debug)]
pub struct BatchReport {
    /// The rows, without those that were left out.
    pub rows: usize,
    /// The tokens of these rows.
    pub tokens: usize,
    /// The different tasks of these rows.
    pub tasks: usize,
    /// The time that the batch took.
    pub time: Duration,
}

/// What callers and the owner thread share.
struct Shared {
    reader: Arc<Reader>,
    map: RwLock<TaskMap>,
    state: Mutex<State>,
    /// Notified when something waits, and at the end.
    work: Condvar,
    timeout: Duration,
    budget: usize,
    device: Device,
    on_batch: Option<BatchListener>,
    /// The time since `start` at which the owner thread was last alive, in milliseconds.
    beat: AtomicU64,
    start: Instant,
}

struct State {
    queue: Queue<Job>,
    /// Why the engine computes no more; empty while the last caller has just left.
    end: Option<String>,
}

/// The owner thread. It ends when this is dropped.
struct Owner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A row as a caller asks for it.
pub struct Ask {
    /// The task.
    pub asked: Asked,
    /// The token ids.
    pub tokens: Arc<Windows>,
}

/// A row that waits.
struct Job {
    ask: Ask,
    call: Arc<Call>,
    /// The row's number in its call.
    row: usize,
    since: Instant,
}

/// Rows that were asked for together.
struct Call {
    answer: Box<dyn Fn(usize, RowResult) + Send + Sync>,
    /// Whether the caller waits for no more answers.
    is_over: AtomicBool,
}

/// What a caller holds while the engine has rows of it. Rows that wait are left out once it is
/// dropped.
#[must_use = "dropping a Ticket leaves out its rows"]
pub struct Ticket(Arc<Call>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// The answer to a row.
pub type RowResult = std::result::Result<Answer, RowError>;

/// What the engine computed for a row.
#[derive(Debug)]
pub struct Answer {
    /// The logits of the row's task, `[L]`; all are finite.
    pub logits: Vec<f32>,
    /// The time that the row waited.
    pub waited: Duration,
    /// The time that the row's batch took.
    pub computed: Duration,
}

/// Why a row has no answer.
#[derive(Debug)]
pub enum RowError {
    /// The row waited longer than its deadline.
    Late,
    /// The row's batch, or its logits, failed.
    Failed(Error),
    /// The engine computes no more.
    Ended(String),
}

impl Job {
    fn answer(&self, answer: RowResult) {
        (self.call.answer)(self.row, answer);
    }

    fn is_wanted(&self) -> bool {
        !self.call.is_over.load(Ordering::Relaxed)
    }
}

impl EngineBuilder {
    /// Sets the most tokens of a batch; by default 256 for each thread of the CPU, or 16,384 on a
    /// GPU. A text that is longer is a batch of its own.
    pub fn max_batch_tokens(mut self, tokens: usize) -> Self {
        self.max_batch_tokens = Some(tokens.max(1));
        self
    }

    /// Sets the most rows that wait, 65,536 by default. A call that would exceed them fails, unless
    /// it is the only one.
    pub fn max_queue_rows(mut self, rows: usize) -> Self {
        self.max_queue_rows = rows.max(1);
        self
    }

    /// Sets the longest expected wait at which calls are still taken, 2 seconds by default.
    pub fn max_queue(mut self, wait: Duration) -> Self {
        self.max_queue = wait;
        self
    }

    /// Sets the time after which a row that still waits fails, 30 seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets a listener that is told of each batch.
    pub(crate) fn on_batch(
        mut self,
        listener: impl Fn(&BatchReport) + Send + Sync + 'static,
    ) -> Self {
        self.on_batch = Some(Arc::new(listener));
        self
    }

    /// Adds the head that the base was saved with, as the task `name`.
    pub(crate) fn saved_task(mut self, name: &str) -> Self {
        self.saved = Some(name.to_owned());
        self
    }

    /// Opens the base on a thread of its own.
    ///
    /// # Errors
    ///
    /// As [`TasksBuilder::open`], and a thread that the system refuses.
    pub fn start(self) -> Result<Engine> {
        let (opened, opening) = mpsc::channel();
        let run = move || match self.open() {
            Ok((bank, shared)) => {
                let shared = Arc::new(shared);
                // An error says that who started the engine has gone.
                if opened.send(Ok(shared.clone())).is_ok() {
                    shared.run(&bank);
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("bitfit-engine".into()).spawn(run);
        let thread = thread.map_err(|error| {
            Error::Unanswered(format!("the engine's thread cannot be started: {error}"))
        })?;
        let ended = |_| Error::Bug("the engine's thread ended while it opened the base".into());
        let shared = opening.recv().map_err(ended)??;
        Ok(Engine { owner: Arc::new(Owner { shared, thread: Some(thread) }) })
    }

    /// Opens the base on this thread.
    fn open(self) -> Result<(Bank, Shared)> {
        let (bank, mut map) = self.tasks.open().map(Tasks::into_parts)?;
        if let Some(name) = &self.saved {
            map.insert(name, Arc::new(bank.saved_task()?));
        }
        let device = bank.base().device();
        let queue = Queue::new(self.max_queue_rows, self.max_queue);
        let shared = Shared {
            reader: map.reader().clone(),
            map: RwLock::new(map),
            state: Mutex::new(State { queue, end: None }),
            work: Condvar::new(),
            timeout: self.timeout,
            budget: self.max_batch_tokens.unwrap_or_else(|| usual_budget(device)),
            device,
            on_batch: self.on_batch,
            beat: AtomicU64::new(0),
            start: Instant::now(),
        };
        Ok((bank, shared))
    }
}

impl Engine {
    /// Starts to build an engine over the base of `tasks`, whose batch size is not used.
    pub fn builder(tasks: TasksBuilder) -> EngineBuilder {
        EngineBuilder {
            tasks,
            max_batch_tokens: None,
            max_queue_rows: 65_536,
            max_queue: Duration::from_secs(2),
            timeout: Duration::from_secs(30),
            on_batch: None,
            saved: None,
        }
    }

    /// Loads the tasks of a directory, as [`Tasks::load_dir`] does. Callers of other tasks wait
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read, or that has no tasks.
    pub fn load_dir(&self, dir: impl AsRef<Path>) -> Result<Vec<RefusedTask>> {
        self.map_mut().load_dir(dir.as_ref(), &[], &mut |_, _| Ok(()))
    }

    /// Loads the task file `path` as the task `name`, which replaces a task of this name. Calls
    /// that were made before are answered by the task that was there.
    ///
    /// # Errors
    ///
    /// As [`Tasks::load`].
    pub fn load(&self, name: &str, path: impl AsRef<Path>) -> Result<()> {
        let task = self.owner.shared.reader.read(name, path.as_ref())?;
        self.map_mut().insert(name, Arc::new(task));
        Ok(())
    }

    /// Removes the task `name`, and returns whether it was there. Calls that were made before are
    /// answered.
    pub fn remove(&self, name: &str) -> bool {
        self.map_mut().remove(name)
    }

    /// The names of the tasks, sorted.
    pub fn names(&self) -> Vec<String> {
        self.map().names().map(str::to_owned).collect()
    }

    /// Predicts each input by the task that is named beside it, in order, and waits for the
    /// answers.
    ///
    /// # Errors
    ///
    /// As [`Tasks::predict`]; [`Error::Busy`] if too much waits already; a row that waits longer
    /// than the engine's timeout.
    pub fn predict<N: AsRef<str>, T: Into<Input>>(
        &self,
        rows: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Vec<Prediction>> {
        let rows: Vec<(N, Input)> =
            rows.into_iter().map(|(name, input)| (name, input.into())).collect();
        let shared = &self.owner.shared;
        let deadline = Instant::now() + shared.timeout;
        let asked = self.map().asked_each(&rows)?;
        let tokens = shared.reader.encode_for(&asked, &rows)?;
        let tasks: Vec<Asked> = asked.clone();
        let asks = asked.into_iter().zip(tokens);
        let asks = asks.map(|(asked, tokens)| Ask { asked, tokens: Arc::new(tokens) }).collect();
        let (answers, answered) = mpsc::channel();
        // An error says that the caller has left.
        let answer = move |row, answer| drop(answers.send((row, answer)));
        let ticket = self.submit(asks, deadline, Box::new(answer))?;
        let mut predictions = vec![None; rows.len()];
        // The channel stays open while the ticket is held, so no more answers are waited for.
        for (row, answer) in answered.into_iter().take(rows.len()) {
            let logits = answer.map_err(|error| error.into_error(shared.timeout))?.logits;
            if let (Some(place), Some((_, task))) = (predictions.get_mut(row), tasks.get(row)) {
                let scores = task.task.task_type.scores_of_row(&logits);
                *place = Some(Prediction::new(&task.task, &scores));
            }
        }
        drop(ticket);
        let all: Option<Vec<Prediction>> = predictions.into_iter().collect();
        all.ok_or_else(|| Error::Bug("the engine left a row without an answer".into()))
    }

    /// Puts rows into the queue. `answer` is called once for each row, with its number, on the
    /// owner thread. Rows that still wait when the ticket is dropped are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if too much waits already, and an engine that has ended.
    pub(crate) fn submit(
        &self,
        asks: Vec<Ask>,
        deadline: Instant,
        answer: Box<dyn Fn(usize, RowResult) + Send + Sync>,
    ) -> Result<Ticket> {
        let call = Arc::new(Call { answer, is_over: AtomicBool::new(false) });
        let since = Instant::now();
        let jobs = asks
            .into_iter()
            .enumerate()
            .map(|(row, ask)| (ask.tokens.tokens(), Job { ask, call: call.clone(), row, since }));
        let jobs = jobs.collect();
        {
            let mut state = self.owner.shared.state();
            if let Some(end) = &state.end {
                return Err(Error::Unanswered(format!("the engine has ended: {end}")));
            }
            state.queue.admit(jobs, deadline)?;
        }
        self.owner.shared.work.notify_one();
        Ok(Ticket(call))
    }

    /// Errs if `rows` more rows would not be taken now, however short they are.
    pub(crate) fn check_room(&self, rows: usize) -> Result<()> {
        self.owner.shared.state().queue.check_room(rows, 0)
    }

    /// The rows and tokens that wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.owner.shared.state();
        (state.queue.rows(), state.queue.tokens())
    }

    /// Why nothing is computed any more: the engine has ended, or its thread hangs.
    pub(crate) fn problem(&self) -> Option<String> {
        let shared = &self.owner.shared;
        if let Some(end) = &shared.state().end {
            return Some(end.clone());
        }
        let beat = Duration::from_millis(shared.beat.load(Ordering::Relaxed));
        let silent = shared.start.elapsed().saturating_sub(beat);
        let hangs = || format!("no batch was finished for {:.0} s", silent.as_secs_f64());
        (silent > HUNG).then(hangs)
    }

    /// Why the engine has ended.
    pub(crate) fn end(&self) -> Option<String> {
        self.owner.shared.state().end.clone()
    }

    /// Ends the engine. What waits is answered with an error.
    pub(crate) fn stop(&self, why: &str) {
        self.owner.shared.state().end.get_or_insert_with(|| why.to_owned());
        self.owner.shared.work.notify_one();
    }

    /// The most tokens of a batch.
    pub(crate) fn budget(&self) -> usize {
        self.owner.shared.budget
    }

    /// The device of the base.
    pub(crate) fn device(&self) -> Device {
        self.owner.shared.device
    }

    /// What reads the texts and the task files of the base.
    pub(crate) fn reader(&self) -> &Arc<Reader> {
        &self.owner.shared.reader
    }

    /// The tasks by name.
    pub(crate) fn map(&self) -> RwLockReadGuard<'_, TaskMap> {
        self.owner.shared.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks by name, to be changed.
    pub(crate) fn map_mut(&self) -> RwLockWriteGuard<'_, TaskMap> {
        self.owner.shared.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RowError {
    /// The error of a call with this row, of which `timeout` was the longest wait.
    fn into_error(self, timeout: Duration) -> Error {
        match self {
            Self::Late => Error::Unanswered(format!("no answer within {timeout:?}")),
            Self::Failed(error) => error,
            Self::Ended(end) => Error::Unanswered(format!("the engine has ended: {end}")),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows that the owner thread is alive.
    fn beat(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.beat.store(now, Ordering::Relaxed);
    }

    /// Computes until the engine ends.
    fn run(&self, bank: &Bank) {
        let _end = EndOfThread(self);
        let mut panics = vec![];
        while let Some(Taken { batch, tokens, expired }) = self.wait(bank) {
            expired.iter().for_each(|job| job.answer(Err(RowError::Late)));
            let began = Instant::now();
            let rows = batch.len();
            let tasks: BTreeSet<_> =
                batch.iter().map(|job| Arc::as_ptr(&job.ask.asked.1)).collect();
            let tasks = tasks.len();
            let ended = compute(bank, batch, began, &mut panics);
            let time = began.elapsed();
            self.beat();
            let mut state = self.state();
            // What waits is computed in full batches, which are faster than small ones.
            if 2 * tokens >= self.budget {
                state.queue.computed(tokens, time);
            }
            if let Err(error) = ended {
                state.end = Some(error.to_string());
            }
            drop(state);
            if let Some(listener) = self.on_batch.as_ref().filter(|_| rows > 0) {
                listener(&BatchReport { rows, tokens, tasks, time });
            }
        }
    }

    /// Waits for the next batch; `None` at the end. While nothing waits, looks at the base's files.
    fn wait(&self, bank: &Bank) -> Option<Taken<Job>> {
        let mut state = self.state();
        let mut is_idle = false;
        while state.queue.is_empty() && state.end.is_none() {
            let (waited, out) =
                self.work.wait_timeout(state, BEAT).unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if !out.timed_out() || !state.queue.is_empty() {
                continue;
            }
            drop(state);
            let is_killed = fault::at("engine", || ()).is_err();
            let unchanged = bank.base().info.check_unchanged();
            if !std::mem::replace(&mut is_idle, true) {
                native::release_free_memory();
            }
            state = self.state();
            if let Err(error) = unchanged {
                state.end = Some(error.to_string());
            }
            if is_killed {
                return None;
            }
            self.beat();
        }
        match state.end {
            Some(_) => None,
            None => Some(state.queue.take(Instant::now(), self.budget, Job::is_wanted)),
        }
    }
}

/// Answers what waits with an error when the owner thread ends, also by a panic, so that no caller
/// waits for ever.
struct EndOfThread<'a>(&'a Shared);

impl Drop for EndOfThread<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let end = state.end.get_or_insert_with(|| "its thread has ended".into()).clone();
        let left = state.queue.drain();
        drop(state);
        left.iter().for_each(|job| job.answer(Err(RowError::Ended(end.clone()))));
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // No caller waits for an answer: each has a clone of the engine.
        self.shared.state().end.get_or_insert_default();
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// The most tokens of a batch on `device`.
fn usual_budget(device: Device) -> usize {
    match device.is_cuda() {
        true => worthwhile(device),
        false => TOKENS_PER_THREAD * usize::try_from(tch::get_num_threads()).unwrap_or(1).max(2),
    }
}

/// Answers the rows of a batch, in smaller parts if the device lacks memory. Errs if nothing more
/// can be computed: the base was changed, or batches panic again and again, at the times `panics`.
fn compute(bank: &Bank, batch: Vec<Job>, began: Instant, panics: &mut Vec<Instant>) -> Result<()> {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        let logits = match std::panic::catch_unwind(AssertUnwindSafe(|| logits(bank, &part))) {
            Ok(logits) => logits,
            Err(_) => {
                panics.retain(|panic| panic.elapsed() < PANICS_WITHIN);
                panics.push(Instant::now());
                Err(Error::Bug("a panic while computing a batch".into()))
            }
        };
        let error = match logits {
            Ok(logits) => {
                answer(&part, logits, began);
                continue;
            }
            Err(error) => error,
        };
        let text = error.to_string();
        match native::fewer_at_once(error, part.len(), bank.base().device()) {
            Ok(fewer) => {
                let rest = part.split_off(fewer.min(part.len()));
                parts.extend([rest, part]);
            }
            Err(error) => {
                // A file of the base that was changed is an error of every batch.
                let unchanged = bank.base().info.check_unchanged();
                for job in &part {
                    job.answer(Err(match &unchanged {
                        Ok(()) => RowError::Failed(Error::Unanswered(text.clone())),
                        Err(error) => RowError::Ended(error.to_string()),
                    }));
                }
                unchanged?;
                tracing::error!("a batch failed: {error}");
                if panics.len() >= PANICS {
                    return Err(Error::Unanswered(format!("{PANICS} batches panicked: {error}")));
                }
            }
        }
    }
    Ok(())
}

/// Answers each row of a batch with its logits.
fn answer(part: &[Job], logits: Vec<Vec<f32>>, began: Instant) {
    let computed = began.elapsed();
    for (job, logits) in part.iter().zip(logits) {
        let waited = began.saturating_duration_since(job.since);
        job.answer(match logits.iter().all(|logit| logit.is_finite()) {
            true => Ok(Answer { logits, waited, computed }),
            false => {
                let what = format!("the prediction of the task {}", job.ask.asked.0);
                Err(RowError::Failed(Error::NotFinite(what)))
            }
        });
    }
}

fn logits(bank: &Bank, part: &[Job]) -> Result<Vec<Vec<f32>>> {
    if part.is_empty() {
        return Ok(vec![]);
    }
    let texts = part.iter().map(|job| &*job.ask.tokens);
    let tasks: Vec<&BankTask> = part.iter().map(|job| &*job.ask.asked.1).collect();
    bank.logits(&Batch::of_texts(texts), &tasks)
}
