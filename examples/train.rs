//! Trains a task from a file of texts with the columns `text` and `label`.
//!
//! ```sh
//! cargo run --release --example train -- models/all-MiniLM-L6-v2 texts.csv runs/my-task
//! ```

use bitfit::settings::Interval;
use bitfit::{Error, Event, MetricsRecord, Result, RunConfig, Summary, Trainer};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [base, texts, run] = arguments.as_slice() else {
        return Err(Error::Usage("expected BASE TEXTS RUN".into()));
    };
    let summary = train(base, texts, run)?;
    println!("{} of {} parameters trained", summary.trainable, summary.all);
    for (metric, value) in summary.best {
        println!("{metric} {value:.4}");
    }
    Ok(())
}

/// Trains three epochs, evaluates after each, and keeps the best state in `run`.
pub fn train(base: &str, texts: &str, run: &str) -> Result<Summary> {
    let mut config = RunConfig::new(base, texts, run);
    config.data.max_length = 32_u64.try_into()?; // The texts are short.
    config.training.num_train_epochs = Some(3_u64.try_into()?);
    config.training.learning_rate = Some(1e-3.try_into()?);
    config.training.eval_strategy = Interval::Epoch;
    Trainer::new(config)?
        .overwrite()
        .on_event(|event| match event {
            Event::Record(MetricsRecord::Evaluation { epoch, metrics, .. }) => {
                println!("epoch {epoch}: {metrics:?}");
            }
            Event::Step { step, total, loss: Some(loss), .. } => {
                println!("step {step} of {total}: loss {loss:.4}");
            }
            _ => {}
        })
        .run()
}
