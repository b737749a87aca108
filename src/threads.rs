//! Runs work on several threads, or on fewer if the system refuses some: a limit of threads must
//! not end a run.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// Applies `work` to each of `items` on the shared thread pool. Returns the results in the order of
/// `items`.
pub fn map<'a, T: Sync, R: Send>(
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync + Send,
) -> Vec<R> {
    match pool() {
        Some(pool) => pool.install(|| items.par_iter().map(work).collect()),
        None => items.iter().map(work).collect(),
    }
}

/// The shared thread pool, with one thread per processor (or `RAYON_NUM_THREADS`), or a half, a
/// quarter, ... of the processors if the system refuses more. `None` if every attempt fails.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let build = || {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // With zero, rayon chooses the number.
        let fewer = std::iter::successors(Some(processors / 2), |threads| Some(threads / 2));
        let mut numbers = std::iter::once(0).chain(fewer.take_while(|threads| *threads > 1));
        numbers.find_map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().ok())
    };
    POOL.get_or_init(build).as_ref()
}

/// Applies `work` to each of `items`, each on its own thread: for a few items that take long.
/// Returns the results in the order of `items`.
pub fn each<T: Sync, R: Send>(items: &[T], work: &(impl Fn(&T) -> R + Sync)) -> Vec<R> {
    let Some((first, rest)) = items.split_first() else { return vec![] };
    if rest.is_empty() {
        return vec![work(first)];
    }
    let (first, rest) = both(|| work(first), || each(rest, work));
    std::iter::once(first).chain(rest).collect()
}

/// Runs `first` on a new thread and `second` on this one, or one after the other if no thread can
/// be started. Returns both results.
pub fn both<A: Send, B>(first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let Ok(thread) = std::thread::Builder::new().spawn_scoped(scope, &first) else {
            return (first(), second());
        };
        let second = second();
        let first = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (first, second)
    })
}
