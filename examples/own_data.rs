//! Trains on rows that the program has itself: a text may have several labels, from a list.
//!
//! ```sh
//! cargo run --release --example own_data -- models/all-MiniLM-L6-v2 runs/letters
//! ```
#![allow(clippy::disallowed_methods)] // A rule for bitfit's own files.

use bitfit::{Prediction, Predictor, RunConfig, TaskType, Trainer};
use serde_json::json;
use std::error::Error;
use std::path::Path;

/// A row of the program.
pub struct Letter {
    /// The text.
    pub body: &'static str,
    /// The labels.
    pub about: &'static [&'static str],
}

/// The rows. A real task wants a hundred or more.
pub const LETTERS: [Letter; 4] = [
    Letter { body: "The parcel came late, and it was broken.", about: &["delivery", "quality"] },
    Letter { body: "It never arrived.", about: &["delivery"] },
    Letter { body: "The handle fell off on the first day.", about: &["quality"] },
    Letter { body: "Thank you for the quick answer!", about: &[] },
];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, run] = arguments.as_slice() else {
        return Err("expected BASE RUN".into());
    };
    let rows: Vec<&Letter> = LETTERS.iter().cycle().take(100).collect();
    for prediction in own_data(base, run, &rows)? {
        println!("{:?}", prediction.labels.unwrap_or_default());
    }
    Ok(())
}

/// Trains on `rows` and predicts a new letter. The rows go into a file beside the run, as JSON
/// lines, because a run keeps the place of its data for evaluating and resuming.
pub fn own_data(
    base: &str,
    run: &str,
    rows: &[&Letter],
) -> Result<Vec<Prediction>, Box<dyn Error>> {
    let texts = Path::new(run).with_extension("jsonl");
    let line = |row: &&Letter| json!({"body": row.body, "about": row.about}).to_string() + "\n";
    std::fs::write(&texts, rows.iter().map(line).collect::<String>())?;

    let mut config = RunConfig::new(base, &texts, run);
    config.data.max_length = 32_u64.try_into()?; // The texts are short.
    config.model.task_type = TaskType::MultiLabel;
    config.data.text_column = "body".into();
    config.data.label_column = "about".into();
    Trainer::new(config)?.overwrite().run()?;

    Ok(Predictor::open(run)?.predict(["Where is my parcel?"])?)
}
