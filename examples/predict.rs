//! Predicts the labels of texts with a trained task.
//!
//! ```sh
//! cargo run --release --example predict -- runs/my-task "It never arrived." "Thank you!"
//! ```

use bitfit::{Error, Prediction, Predictor, Result};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((run, texts)) = arguments.split_first() else {
        return Err(Error::Usage("expected RUN TEXT...".into()));
    };
    for (text, prediction) in texts.iter().zip(predict(run, texts)?) {
        let (label, score) = (prediction.label.unwrap_or_default(), prediction.score);
        println!("{label} ({:.3}): {text}", score.unwrap_or_default());
    }
    Ok(())
}

/// Predicts `texts` with the task of the directory `run`, which also says where its base is.
pub fn predict(run: &str, texts: &[String]) -> Result<Vec<Prediction>> {
    Predictor::open(run)?.predict(texts)
}
