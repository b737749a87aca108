//! Work on several threads, or on fewer where the system gives no more: a limit of threads is no reason to end.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;

/// What `work` makes of each of `items`, in their order.
pub fn map<'a, T: Sync, R: Send>(
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync + Send,
) -> Vec<R> {
    match pool() {
        Some(pool) => pool.install(|| items.par_iter().map(work).collect()),
        None => items.iter().map(work).collect(),
    }
}

/// A thread for each processor (or `RAYON_NUM_THREADS`), or as many as there can be.
fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let build = || {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        // Zero is rayon's own number.
        let fewer = std::iter::successors(Some(processors / 2), |threads| Some(threads / 2));
        let mut numbers = std::iter::once(0).chain(fewer.take_while(|threads| *threads > 1));
        numbers.find_map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().ok())
    };
    POOL.get_or_init(build).as_ref()
}

/// What `work` makes of each of `items`, each on a thread of its own: for a few items that take long.
pub fn each<T: Sync, R: Send>(items: &[T], work: &(impl Fn(&T) -> R + Sync)) -> Vec<R> {
    let Some((first, rest)) = items.split_first() else { return vec![] };
    if rest.is_empty() {
        return vec![work(first)];
    }
    let (first, rest) = both(|| work(first), || each(rest, work));
    std::iter::once(first).chain(rest).collect()
}

/// What `first`, on a thread of its own, and `second` give; without a thread, one after the other.
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
