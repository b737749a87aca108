//! The queue of what waits to be computed: admission, fair order, deadlines. The queue reads no
//! clock and computes nothing.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Tokens that a request may give to a batch before the next request's turn. A request of thousands
/// of rows then delays a single row by a batch or two.
const TURN: usize = 256;

/// The weight of the newest batch in the mean number of tokens per second.
const NEWEST: f64 = 0.2;

/// The requests that wait, in fair order: each gives up to [`TURN`] tokens in its turn.
#[derive(Debug)]
pub struct Queue<T> {
    requests: VecDeque<Request<T>>,
    rows: usize,
    tokens: usize,
    most_rows: usize,
    longest_wait: Duration,
    /// Tokens that were computed per second; `None` before the first batch.
    rate: Option<f64>,
}

#[derive(Debug)]
struct Request<T> {
    rows: VecDeque<Row<T>>,
    /// The tokens of these rows.
    tokens: usize,
    deadline: Instant,
}

#[derive(Debug)]
struct Row<T> {
    tokens: usize,
    item: T,
}

/// What leaves the queue at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken<T> {
    /// The rows of the next batch.
    pub batch: Vec<T>,
    /// The number of tokens of the batch.
    pub tokens: usize,
    /// The rows whose deadline has passed.
    pub expired: Vec<T>,
}

impl<T> Queue<T> {
    /// Makes a queue of at most `most_rows` rows, which takes no request that would wait longer
    /// than `longest_wait`.
    pub fn new(most_rows: usize, longest_wait: Duration) -> Self {
        let requests = VecDeque::new();
        Self { requests, rows: 0, tokens: 0, most_rows, longest_wait, rate: None }
    }

    /// Takes a request of `rows`, each with its number of tokens, or refuses it whole.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if too many rows wait, or if what the others compute before the request's
    /// last turn would take too long.
    pub fn admit(&mut self, rows: Vec<(usize, T)>, deadline: Instant) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let tokens = rows.iter().map(|(tokens, _)| tokens).sum();
        self.check_room(rows.len(), tokens)?;
        self.rows += rows.len();
        self.tokens += tokens;
        let rows = rows.into_iter().map(|(tokens, item)| Row { tokens, item }).collect();
        self.requests.push_back(Request { rows, tokens, deadline });
        Ok(())
    }

    /// Refuses a request of `rows` rows with `tokens` tokens as [`Queue::admit`] would.
    ///
    /// # Errors
    ///
    /// As [`Queue::admit`].
    pub fn check_room(&self, rows: usize, tokens: usize) -> Result<()> {
        // A large request delays a small one by a turn, not by all of its tokens.
        let turns = tokens.div_ceil(TURN).max(1).saturating_mul(TURN);
        let before: usize = self.requests.iter().map(|other| other.tokens.min(turns)).sum();
        let wait = self.rate.map_or(0.0, |rate| before as f64 / rate);
        // A request that is alone always fits.
        if self.rows > 0 && self.rows + rows > self.most_rows
            || wait > self.longest_wait.as_secs_f64()
        {
            return Err(Error::Busy { rows: self.rows, seconds: wait });
        }
        Ok(())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The number of rows that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of tokens that wait.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Takes the next batch: at most `budget` tokens, but one row at least. Rows for which `wanted`
    /// is false are dropped.
    pub fn take(&mut self, now: Instant, budget: usize, wanted: impl Fn(&T) -> bool) -> Taken<T> {
        let mut taken = Taken { batch: vec![], tokens: 0, expired: vec![] };
        while let Some(mut request) = self.requests.pop_front() {
            let (mut turn, mut is_full) = (0, false);
            while let Some(row) = request.rows.front() {
                let tokens = row.tokens;
                let is_late = now >= request.deadline;
                let is_left_out = is_late || !wanted(&row.item);
                if !is_left_out {
                    is_full = !taken.batch.is_empty() && taken.tokens + tokens > budget;
                    if is_full || turn > 0 && turn + tokens > TURN {
                        break;
                    }
                }
                let Some(row) = request.rows.pop_front() else { break };
                (self.rows, self.tokens) = (self.rows - 1, self.tokens - tokens);
                request.tokens -= tokens;
                if !is_left_out {
                    taken.batch.push(row.item);
                    (taken.tokens, turn) = (taken.tokens + tokens, turn + tokens);
                } else if is_late {
                    taken.expired.push(row.item);
                }
            }
            if !request.rows.is_empty() {
                // Who could not begin a turn is first in the next batch.
                match is_full && turn == 0 {
                    true => self.requests.push_front(request),
                    false => self.requests.push_back(request),
                }
            }
            if is_full {
                break;
            }
        }
        taken
    }

    /// Notes that a batch of `tokens` tokens took `time`.
    pub fn computed(&mut self, tokens: usize, time: Duration) {
        let newest = tokens as f64 / time.as_secs_f64().max(1e-9);
        let rate = self.rate.map_or(newest, |rate| (1.0 - NEWEST) * rate + NEWEST * newest);
        self.rate = Some(rate);
    }

    /// Takes everything that waits.
    pub fn drain(&mut self) -> Vec<T> {
        (self.rows, self.tokens) = (0, 0);
        let rows = self.requests.drain(..).flat_map(|request| request.rows);
        rows.map(|row| row.item).collect()
    }
}
