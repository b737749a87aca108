//! From a request's rows to their answers:
//!
//! ```text
//! rows (task, text) -> tasks pinned (name -> version) -> token ids -> the queue -> answers
//! ```

use super::metrics::{Metrics, Outcome};
use super::problem::Problem;
use super::registry::TaskDir;
use super::scores::{ScoreFunction, Scores};
use crate::bank::BankTask;
use crate::data::Windows;
use crate::engine::{Ask, Engine, RowError, RowResult, Ticket};
use crate::models::Reading;
use crate::predict::{Input, Prediction};
use crate::tasks::{Asked, NotAsked, Reader};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Texts of at most this many bytes together are tokenized where the request is read: another
/// thread would take longer to begin.
const AT_ONCE: usize = 2048;

/// What requests share.
pub struct Service {
    /// Computes.
    pub engine: Engine,
    /// The directory of tasks; `None` for one task of a run or of a base.
    pub dir: Option<TaskDir>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Limits of requests.
    pub limits: Limits,
    /// The task of requests that name none.
    pub default_task: Option<String>,
    /// The threads that tokenize.
    pub tokenizing: ThreadPool,
    /// What runs, for `GET /info`.
    pub about: About,
    /// When the server started, in seconds since 1970.
    pub started: u64,
}

/// Limits of requests.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most rows of a request: its texts, times their tasks.
    pub max_rows: usize,
    /// The most bytes of a body.
    pub max_body: usize,
    /// The time after which a request fails.
    pub request_timeout: Duration,
    /// The longest expected wait at which requests are taken.
    pub max_queue: Duration,
    /// The most rows that wait.
    pub max_queue_rows: usize,
}

/// What runs.
#[derive(Debug, Clone)]
pub struct About {
    /// The base's name: its directory's, or its id on the Hub.
    pub base: String,
    /// The precision of the products.
    pub precision: String,
    /// libtorch's version.
    pub libtorch: String,
}

/// A row that a client asks for: a text by a task.
#[derive(Debug, Clone)]
pub struct RowAsk {
    /// The task's name.
    pub task: String,
    /// The text or the pair, which rows may share.
    pub input: Arc<Input>,
    /// Whether a text that is too long may be cut.
    pub truncate: bool,
    /// The list and the number in the request, for messages.
    pub place: (&'static str, usize),
}

impl RowAsk {
    /// The problem of this row, with its place.
    fn problem(&self, problem: impl Into<Problem>) -> Problem {
        let (list, number) = self.place;
        problem.into().at(format_args!("{list}[{number}]"))
    }
}

/// The answer to a row.
#[derive(Debug)]
pub struct Scored {
    /// The task's name.
    pub name: Arc<str>,
    /// The version that answered.
    pub task: Arc<BankTask>,
    /// The logits, `[L]`.
    pub logits: Vec<f32>,
    /// The number of tokens computed.
    pub tokens: usize,
    /// Whether the text was cut.
    pub is_cut: bool,
}

/// The answer to a row, or why there is none.
pub type Scoring = Result<Scored, Problem>;

/// How long the parts of a request took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Tokenizing.
    pub tokenize: Duration,
    /// The longest wait of a row.
    pub queue: Duration,
    /// The longest time of a row's batch.
    pub compute: Duration,
}

/// A row that is ready to be computed.
struct Ready {
    asked: Asked,
    tokens: Arc<Windows>,
}

/// Rows that are being computed. The answers are read in the order of the rows.
pub struct Asking {
    service: Arc<Service>,
    rows: Vec<Option<Pending>>,
    next: usize,
    /// The answers that came, by the number of their row.
    answers: mpsc::UnboundedReceiver<(usize, RowResult)>,
    deadline: Instant,
    timing: Timing,
    /// Rows that were submitted and have not been answered.
    left: usize,
    _ticket: Option<Ticket>,
}

/// A row of an [`Asking`].
enum Pending {
    /// Computed, or about to be.
    Waiting(Ready, Option<RowResult>),
    Refused(Problem),
}

impl Service {
    /// Puts rows into the queue. Unless `is_partial`, one row that cannot be answered is an error
    /// of all.
    pub async fn ask(
        self: &Arc<Self>,
        rows: Vec<RowAsk>,
        is_partial: bool,
        deadline: Instant,
    ) -> Result<Asking, Problem> {
        let count = rows.len();
        let refused = |problem: Problem| {
            self.metrics.count_rows(Outcome::Refused, count);
            problem
        };
        if count > self.limits.max_rows {
            let most = self.limits.max_rows;
            let problem = format!("{count} rows; at most {most} in a request (--max-rows)");
            return Err(refused(Problem::invalid(problem)));
        }
        // Before any work is done for the request, and again when it is queued.
        self.engine.check_room(count).map_err(|error| refused(error.into()))?;
        let (pinned, rows) = self.pinned(rows);
        if !is_partial && let Some(problem) = pinned.iter().find_map(|row| row.as_ref().err()) {
            return Err(refused(problem.clone()));
        }
        let began = Instant::now();
        let ready = self.tokenized(rows, pinned).await?;
        let tokenize = began.elapsed();
        self.metrics.tokenize_seconds.observe(tokenize.as_secs_f64());
        if !is_partial && let Some(problem) = ready.iter().find_map(|row| row.as_ref().err()) {
            return Err(refused(problem.clone()));
        }
        let (sender, answers) = mpsc::unbounded_channel();
        let (mut asks, mut numbers, mut pending) = (vec![], vec![], vec![]);
        for (number, row) in ready.into_iter().enumerate() {
            pending.push(Some(match row {
                Ok(ready) => {
                    asks.push(Ask { asked: ready.asked.clone(), tokens: ready.tokens.clone() });
                    numbers.push(number);
                    Pending::Waiting(ready, None)
                }
                Err(problem) => Pending::Refused(problem),
            }));
        }
        let left = asks.len();
        let answer = Box::new(move |row: usize, answer| {
            // An error says that the client has left.
            let _ = sender.send((numbers.get(row).copied().unwrap_or(usize::MAX), answer));
        });
        let ticket = self.engine.submit(asks, deadline, answer);
        let ticket = ticket.map_err(|error| refused(error.into()))?;
        self.metrics.count_rows(Outcome::Refused, count - left);
        let timing = Timing { tokenize, ..Timing::default() };
        let (service, _ticket) = (self.clone(), Some(ticket));
        Ok(Asking { service, rows: pending, next: 0, answers, deadline, timing, left, _ticket })
    }

    /// The task of each row, of the version that is there now.
    fn pinned(&self, rows: Vec<RowAsk>) -> (Vec<Result<Asked, Problem>>, Vec<RowAsk>) {
        let map = self.engine.map();
        let pinned = rows.iter().map(|row| {
            let asked = map.asked(&row.task, &row.input);
            asked.map_err(|problem| match problem {
                NotAsked::NoTask(_) => row.problem(problem),
                NotAsked::Input(_) => {
                    let task = &row.task;
                    row.problem(Problem::invalid(match row.input.text_pair {
                        Some(_) => format!("text_pair: given, and the task {task} takes one text"),
                        None => format!("text_pair: missing; the task {task} takes two texts"),
                    }))
                }
            })
        });
        let pinned = pinned.collect();
        drop(map);
        (pinned, rows)
    }

    /// Tokenizes the rows' texts, each once for all tasks that read it alike.
    async fn tokenized(
        &self,
        rows: Vec<RowAsk>,
        pinned: Vec<Result<Asked, Problem>>,
    ) -> Result<Vec<Result<Ready, Problem>>, Problem> {
        let bytes: usize = rows.iter().map(|row| row.input.text.len()).sum();
        let reader = self.engine.reader().clone();
        if bytes <= AT_ONCE {
            return Ok(ready(&reader, &rows, pinned, false));
        }
        let (sender, receiver) = oneshot::channel();
        self.tokenizing.spawn(move || {
            // An error says that the client has left.
            let _ = sender.send(ready(&reader, &rows, pinned, true));
        });
        receiver.await.map_err(|_| Problem::failed("a panic while tokenizing"))
    }
}

/// The rows with their token ids, which all threads of the present pool make if `in_pool`.
fn ready(
    reader: &Reader,
    rows: &[RowAsk],
    pinned: Vec<Result<Asked, Problem>>,
    in_pool: bool,
) -> Vec<Result<Ready, Problem>> {
    // A text and how it is read.
    let mut places = HashMap::new();
    let mut texts: Vec<(&Input, Reading)> = vec![];
    let place_of: Vec<usize> = rows
        .iter()
        .zip(&pinned)
        .map(|(row, asked)| match asked {
            Ok((_, task)) => {
                let reading = task.task.reading();
                *places.entry((Arc::as_ptr(&row.input), reading)).or_insert_with(|| {
                    texts.push((&row.input, reading));
                    texts.len() - 1
                })
            }
            Err(_) => 0,
        })
        .collect();
    let encode = |&(input, reading): &(&Input, Reading)| {
        let tokens = reader.tokens(input, reading);
        reader.check_tokens(tokens.iter()).map_err(Problem::invalid)?;
        Ok(Arc::new(tokens))
    };
    let encoded: Vec<Result<Arc<Windows>, Problem>> = match in_pool {
        true => texts.par_iter().map(encode).collect(),
        false => texts.iter().map(encode).collect(),
    };
    let rows = rows.iter().zip(place_of).zip(pinned);
    rows.map(|((row, place), asked)| {
        let asked = asked?;
        let missing = || Err(Problem::failed("a row without tokens. This is a bug."));
        let tokens = encoded.get(place).cloned().unwrap_or_else(missing)?;
        if tokens.is_cut && !row.truncate {
            let (name, task) = (&asked.0, &asked.1.task);
            let windows = match task.long_texts.most_windows() {
                1 => String::new(),
                most => format!("{most} windows of "),
            };
            return Err(row.problem(Problem::invalid(format!(
                "the text has more than the {windows}{} tokens that the task {name} takes; \
                 \"truncate\": true cuts it",
                task.max_length
            ))));
        }
        asked.1.touch();
        Ok(Ready { asked, tokens })
    })
    .collect()
}

impl Asking {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Waits for the next row's answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Scoring> {
        let number = self.next;
        self.next += 1;
        loop {
            match self.rows.get_mut(number)?.take() {
                Some(Pending::Refused(problem)) => return Some(Err(problem)),
                Some(Pending::Waiting(ready, Some(answer))) => return Some(scored(ready, answer)),
                Some(waiting) => self.rows.get_mut(number)?.replace(waiting),
                None => return Some(Err(Problem::failed("a row that was answered twice"))),
            };
            let deadline = tokio::time::Instant::from_std(self.deadline);
            match tokio::time::timeout_at(deadline, self.answers.recv()).await {
                Ok(Some((row, answer))) => self.came(row, answer),
                Ok(None) => return Some(Err(Problem::failed("the engine left a row"))),
                Err(_) => return Some(Err(Problem::late())),
            }
        }
    }

    /// Waits for all answers. The first row without one is the error.
    pub async fn all(mut self) -> Result<(Vec<Scored>, Timing), Problem> {
        let mut all = Vec::with_capacity(self.len());
        while let Some(row) = self.next().await {
            all.push(row?);
        }
        Ok((all, self.timing))
    }

    /// Waits for all answers, and why each other row has none.
    pub async fn each(mut self) -> (Vec<Scoring>, Timing) {
        let mut each = Vec::with_capacity(self.len());
        while let Some(row) = self.next().await {
            each.push(row);
        }
        (each, self.timing)
    }

    fn came(&mut self, row: usize, answer: RowResult) {
        self.left = self.left.saturating_sub(1);
        let metrics = &self.service.metrics;
        match &answer {
            Ok(answer) => {
                self.timing.queue = self.timing.queue.max(answer.waited);
                self.timing.compute = self.timing.compute.max(answer.computed);
                metrics.queue_seconds.observe(answer.waited.as_secs_f64());
                metrics.count_rows(Outcome::Ok, 1);
            }
            Err(RowError::Late) => metrics.count_rows(Outcome::Expired, 1),
            Err(_) => metrics.count_rows(Outcome::Failed, 1),
        }
        if let Some(Some(Pending::Waiting(_, place))) = self.rows.get_mut(row) {
            *place = Some(answer);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.left > 0 {
            let outcome = match Instant::now() >= self.deadline {
                true => Outcome::Expired,
                false => Outcome::Dropped,
            };
            self.service.metrics.count_rows(outcome, self.left);
        }
    }
}

fn scored(ready: Ready, answer: RowResult) -> Scoring {
    let Ready { asked: (name, task), tokens } = ready;
    let logits = answer?.logits;
    Ok(Scored { name, task, logits, tokens: tokens.tokens(), is_cut: tokens.is_cut })
}

impl Scored {
    /// The scores that `function` makes.
    pub fn scores(&self, function: ScoreFunction) -> Result<Scores<'_>, Problem> {
        let scores = function.scores(&self.task.task, &self.logits);
        scores.map_err(|problem| problem.at(format_args!("task {}", self.name)))
    }

    /// The prediction by the scores that the task was trained with.
    pub fn prediction(&self) -> Prediction {
        let scores = self.task.task.task_type.scores_of_row(&self.logits);
        Prediction::new(&self.task.task, &scores)
    }
}
