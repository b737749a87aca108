//! Mistakes of a first configuration that the data show: each is a warning that says what would
//! help.

use super::data::RunData;
use crate::config::Run;
use crate::data::{Target, Windows, listed};
use crate::models::TaskType;
use std::collections::HashSet;

/// The fewest evaluation rows of which a metric says something.
const FEW: usize = 30;

/// The share of evaluation rows that may be among the training rows by chance: short texts repeat.
const REPEATED: f64 = 0.2;

/// The learning rate from which AdamW leaves no pretrained weight what it was.
const HIGH_RATE: f64 = 0.1;

/// Warns of each mistake that `run` and its `data` show.
pub fn warn(run: &Run, data: &RunData) {
    let found = [
        evaluates_on_training(run, data),
        few_evaluation_rows(run, data),
        classes_of_one_row(run, data),
        high_rate(run),
    ];
    found.into_iter().flatten().for_each(|doubt| tracing::warn!("{doubt}"));
}

/// Evaluation rows that the model learns by heart.
fn evaluates_on_training(run: &Run, data: &RunData) -> Option<String> {
    let known: HashSet<&Windows> = data.train.iter().map(|example| &example.tokens).collect();
    let (of, again) = (data.eval.len(), data.eval.iter());
    let again = again.filter(|example| known.contains(&example.tokens)).count();
    if (again as f64) <= REPEATED * of as f64 {
        return None;
    }
    let (path, advice) = match &run.data().eval {
        Some(path) => (
            path,
            "evaluate on other rows, or leave out data.eval and a tenth of the training rows is held out",
        ),
        None => (&run.data().train, "the same texts occur again and again in the file"),
    };
    Some(format!(
        "{}: {again} of {of} evaluation rows are training rows too, so the metrics do not say how \
         the model does on other texts; {advice}",
        path.display()
    ))
}

fn few_evaluation_rows(run: &Run, data: &RunData) -> Option<String> {
    let count = data.eval.len();
    let rows = if count == 1 { "row is" } else { "rows are" };
    let more = match run.data().eval {
        Some(_) => "more rows in data.eval",
        None => "data.eval, or a larger data.eval_fraction",
    };
    (count < FEW).then(|| {
        format!(
            "{count} evaluation {rows} few: each is {:.0} % of the score; {more} would tell more",
            100.0 / count.max(1) as f64
        )
    })
}

/// Classes that cannot be learned and evaluated.
fn classes_of_one_row(run: &Run, data: &RunData) -> Option<String> {
    if run.model().task_type != TaskType::Classification {
        return None;
    }
    let mut count = vec![0_usize; data.labels.names.len()];
    for example in data.train.iter().chain(&data.eval) {
        if let Target::Class(class) = &example.target {
            count.get_mut(*class).into_iter().for_each(|count| *count += 1);
        }
    }
    let alone = data.labels.names.iter().zip(&count).filter(|(_, count)| **count == 1);
    let alone: Vec<&str> = alone.map(|(name, _)| name.as_str()).collect();
    let first = alone.first()?;
    Some(match alone.len() {
        1 => format!(
            "the label {first:?} has one row, from which it can hardly be learned; add rows of it, \
             or leave it out"
        ),
        several => format!(
            "{several} labels have one row each ({}), from which they can hardly be learned; add \
             rows of them, or leave them out",
            listed(alone.into_iter())
        ),
    })
}

fn high_rate(run: &Run) -> Option<String> {
    let (rate, usual) = run.learning_rate().zip(run.method.learning_rate())?;
    (rate >= HIGH_RATE).then(|| {
        format!(
            "training.learning_rate = {rate}: AdamW moves every value by about this much in each \
             step, so that nothing pretrained is left; {} learns at about {usual:e}",
            run.method.name()
        )
    })
}
