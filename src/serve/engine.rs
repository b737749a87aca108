//! The engine: a thread that owns the base and computes for all callers.

#![deny(clippy::missing_errors_doc)]

use super::queue::{Queue, Taken};
use crate::bank::{Bank, BankTask};
use crate::data::{Batch, Encoding, worthwhile};
use crate::error::{Error, Result};
use crate::native;
use crate::predict::{Input, Prediction};
use crate::tasks::{Asked, Reader, RefusedTask, TaskMap, Tasks, TasksBuilder};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Device;

/// Tokens per thread that a batch on the CPU has at most. The callers of larger batches would wait
/// longer.
const TOKENS_PER_THREAD: usize = 256;

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
#[derive(Debug, Clone)]
#[must_use = "an EngineBuilder does nothing before `start`"]
pub struct EngineBuilder {
    tasks: TasksBuilder,
    max_batch_tokens: Option<usize>,
    max_queue_rows: usize,
    max_queue: Duration,
    timeout: Duration,
}

/// What callers and the owner thread share.
struct Shared {
    reader: Arc<Reader>,
    map: RwLock<TaskMap>,
    state: Mutex<State>,
    /// Notified when something waits, and at the end.
    work: Condvar,
    timeout: Duration,
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

/// A row that waits.
struct Job {
    tokens: Encoding,
    asked: Asked,
    call: Arc<Call>,
    /// The row's number in its call.
    row: usize,
}

/// A call of [`Engine::predict`].
struct Call {
    answers: mpsc::Sender<(usize, Result<Prediction>)>,
    /// Whether the caller waits for no more answers.
    is_over: AtomicBool,
}

impl Job {
    fn answer(&self, answer: Result<Prediction>) {
        if answer.is_err() {
            // The call fails as a whole.
            self.call.is_over.store(true, Ordering::Relaxed);
        }
        // An error says that the caller has left.
        let _ = self.call.answers.send((self.row, answer));
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

    /// Opens the base on a thread of its own.
    ///
    /// # Errors
    ///
    /// As [`TasksBuilder::open`], and a thread that the system refuses.
    pub fn start(self) -> Result<Engine> {
        let (opened, opening) = mpsc::channel();
        let (tasks, budget) = (self.tasks, self.max_batch_tokens);
        let queue = Queue::new(self.max_queue_rows, self.max_queue);
        let timeout = self.timeout;
        let run = move || {
            let (bank, map) = match tasks.open().map(Tasks::into_parts) {
                Ok(parts) => parts,
                Err(error) => return drop(opened.send(Err(error))),
            };
            let shared = Arc::new(Shared {
                reader: map.reader().clone(),
                map: RwLock::new(map),
                state: Mutex::new(State { queue, end: None }),
                work: Condvar::new(),
                timeout,
            });
            let budget = budget.unwrap_or_else(|| usual_budget(bank.base().device()));
            // An error says that who started the engine has gone.
            if opened.send(Ok(shared.clone())).is_ok() {
                shared.run(&bank, budget);
            }
        };
        let thread = std::thread::Builder::new().name("bitfit-engine".into()).spawn(run);
        let thread = thread.map_err(|error| {
            Error::Unanswered(format!("the engine's thread cannot be started: {error}"))
        })?;
        let ended = |_| Error::Bug("the engine's thread ended while it opened the base".into());
        let shared = opening.recv().map_err(ended)??;
        Ok(Engine { owner: Arc::new(Owner { shared, thread: Some(thread) }) })
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
        self.map_mut().insert(name, task);
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
        let (answers, answered) = mpsc::channel();
        let call = Arc::new(Call { answers, is_over: AtomicBool::new(false) });
        let jobs = self.jobs(&rows, &call)?;
        {
            let mut state = shared.state();
            if let Some(end) = &state.end {
                return Err(Error::Unanswered(format!("the engine has ended: {end}")));
            }
            state.queue.admit(jobs, deadline)?;
        }
        shared.work.notify_one();
        let mut predictions = vec![None; rows.len()];
        // The channel closes when no row of the call is left anywhere.
        drop(call);
        for (row, answer) in answered {
            if let Some(place) = predictions.get_mut(row) {
                *place = Some(answer?);
            }
        }
        let all: Option<Vec<Prediction>> = predictions.into_iter().collect();
        all.ok_or_else(|| Error::Bug("the engine left a row without an answer".into()))
    }

    /// The rows as the queue takes them, each with its number of tokens.
    fn jobs<N: AsRef<str>>(
        &self,
        rows: &[(N, Input)],
        call: &Arc<Call>,
    ) -> Result<Vec<(usize, Job)>> {
        let asked = self.map().asked_each(rows)?;
        let tokens = self.owner.shared.reader.encode_for(&asked, rows)?;
        let jobs = asked.into_iter().zip(tokens).enumerate().map(|(row, (asked, tokens))| {
            (tokens.ids.len(), Job { tokens, asked, call: call.clone(), row })
        });
        Ok(jobs.collect())
    }

    fn map(&self) -> std::sync::RwLockReadGuard<'_, TaskMap> {
        self.owner.shared.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn map_mut(&self) -> std::sync::RwLockWriteGuard<'_, TaskMap> {
        self.owner.shared.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes until the engine ends.
    fn run(&self, bank: &Bank, budget: usize) {
        let _end = EndOfThread(self);
        loop {
            let taken = {
                let mut state = self.state();
                while state.queue.is_empty() && state.end.is_none() {
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.end.is_some() {
                    return;
                }
                state.queue.take(Instant::now(), budget, Job::is_wanted)
            };
            let Taken { batch, tokens, expired } = taken;
            for job in expired {
                job.answer(Err(Error::Unanswered(format!("no answer within {:?}", self.timeout))));
            }
            let began = Instant::now();
            let ended = compute(bank, batch);
            let mut state = self.state();
            if tokens > 0 {
                state.queue.computed(tokens, began.elapsed());
            }
            if let Err(error) = ended {
                state.end = Some(error.to_string());
            }
        }
    }
}

/// Answers what waits with an error when the owner thread ends, also by a panic, so that no caller
/// waits for ever.
struct EndOfThread<'a>(&'a Shared);

impl Drop for EndOfThread<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let end = state.end.get_or_insert_with(|| "its thread has panicked".into()).clone();
        for job in state.queue.drain() {
            job.answer(Err(Error::Unanswered(format!("the engine has ended: {end}"))));
        }
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
/// can be computed, as when the base was changed.
fn compute(bank: &Bank, batch: Vec<Job>) -> Result<()> {
    let mut parts = vec![batch];
    while let Some(mut part) = parts.pop() {
        let scores = match std::panic::catch_unwind(AssertUnwindSafe(|| scores(bank, &part))) {
            Ok(scores) => scores,
            Err(_) => Err(Error::Bug("a panic while computing a batch".into())),
        };
        match scores {
            Ok(scores) => {
                for (job, scores) in part.iter().zip(scores) {
                    let (name, task) = &job.asked;
                    job.answer(match scores.iter().all(|score| score.is_finite()) {
                        true => Ok(Prediction::new(&task.task, &scores)),
                        false => {
                            Err(Error::NotFinite(format!("the prediction of the task {name}")))
                        }
                    });
                }
            }
            Err(error) => {
                let text = error.to_string();
                match native::fewer_at_once(error, part.len(), bank.base().device()) {
                    Ok(fewer) => {
                        let rest = part.split_off(fewer.min(part.len()));
                        parts.extend([rest, part]);
                    }
                    Err(error) => {
                        part.iter()
                            .for_each(|job| job.answer(Err(Error::Unanswered(text.clone()))));
                        // A file of the base that was changed is an error of every batch.
                        bank.base().info.check_unchanged()?;
                        tracing::error!("a batch failed: {error}");
                    }
                }
            }
        }
    }
    Ok(())
}

fn scores(bank: &Bank, part: &[Job]) -> Result<Vec<Vec<f32>>> {
    if part.is_empty() {
        return Ok(vec![]);
    }
    let texts = part.iter().map(|job| &job.tokens);
    let (packed, _) = Batch::new(texts).to_device(bank.base().device())?;
    let tasks: Vec<&BankTask> = part.iter().map(|job| &*job.asked.1).collect();
    bank.scores(packed, &tasks)
}
