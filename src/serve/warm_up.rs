//! The first batches, before any client asks: oneDNN compiles code for every new shape of a
//! product, which takes up to some milliseconds each.

use crate::data::Encoding;
use crate::engine::{Ask, Engine};
use crate::tasks::Asked;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// No batch begins after this time.
const LONGEST: Duration = Duration::from_secs(2);

/// The step of the numbers of tokens: what batches are padded to a multiple of.
const STEP: usize = 16;

/// The most tokens: larger batches take long, and their sizes are further apart.
const MOST: usize = 1024;

/// The numbers of rows that the last layer is padded to.
const ROWS: [usize; 13] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96];

/// Computes batches of most sizes, largest first, by one or two of the tasks. Errors are left to
/// the first client.
pub fn warm_up(engine: &Engine) {
    let tasks: Vec<Asked> = {
        let map = engine.map();
        let slots = map.tasks().iter().take(2);
        slots.map(|(name, slot)| (name.clone(), slot.task.clone())).collect()
    };
    let config = &engine.reader().plan().info.config;
    let longest = usize::try_from(config.max_length()).unwrap_or(STEP).max(STEP);
    let (began, budget) = (Instant::now(), engine.budget().min(MOST));
    let sizes = (1..=budget / STEP).rev().map(|size| size * STEP);
    for (tokens, rows) in sizes.zip(ROWS.into_iter().cycle()) {
        if tasks.is_empty() || began.elapsed() > LONGEST {
            return;
        }
        let rows = rows.max(tokens.div_ceil(longest)).min(tokens / 2);
        let length = |row: usize| tokens / rows + usize::from(row < tokens % rows);
        let texts = (0..rows).map(|row| Encoding { ids: vec![0; length(row)], first: length(row) });
        let asks = texts.zip(tasks.iter().cycle());
        let asks =
            asks.map(|(text, asked)| Ask { asked: asked.clone(), tokens: Arc::new(text.into()) });
        let (sender, receiver) = mpsc::channel();
        let answer = Box::new(move |_, _| {
            let _ = sender.send(());
        });
        let Ok(ticket) = engine.submit(asks.collect(), began + 5 * LONGEST, answer) else { return };
        receiver.into_iter().take(rows).for_each(drop);
        drop(ticket);
    }
}
