//! Predicts with several tasks of one base at once. Each text names its task, and a batch may mix
//! them.
//!
//! ```sh
//! cargo run --release --example many_tasks -- models/all-MiniLM-L6-v2 tasks spam "Buy now" topic "Goal!"
//! ```

use bitfit::{Error, Prediction, Result, Tasks};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, tasks, rest @ ..] = arguments.as_slice() else {
        return Err(Error::Usage("expected BASE TASKS [TASK TEXT]...".into()));
    };
    let rows: Vec<(&str, &str)> =
        rest.as_chunks().0.iter().map(|[task, text]| (task.as_str(), text.as_str())).collect();
    for ((task, text), prediction) in rows.iter().zip(many_tasks(base, tasks, &rows)?) {
        println!("{task}: {} ({text})", prediction.label.unwrap_or_default());
    }
    Ok(())
}

/// Predicts each text by the task that is named beside it. The directory `tasks` has a file
/// `NAME.safetensors`, or a run `NAME/delta.safetensors`, for each task of `base`.
pub fn many_tasks(base: &str, tasks: &str, rows: &[(&str, &str)]) -> Result<Vec<Prediction>> {
    let mut bank = Tasks::open(base)?;
    for refused in bank.load_dir(tasks)? {
        eprintln!("left out: {}", refused.error);
    }
    bank.predict(rows.iter().copied())
}
