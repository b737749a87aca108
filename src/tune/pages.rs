//! The pages of a tuning: `report.md` and `report.html`, with the same contents.

use super::keys::shown;
use super::result::{QUARTERS, RUNGS, TuneResult};
use super::splits::Splits;
use super::state::{State, Tried};
use crate::compare::{ReportTable, escaped, html_table, markdown_table, opening, spread};
use crate::error::Result;
use crate::escape::markdown;
use crate::files;
use crate::stats::Spread;
use std::path::Path;

/// The name of the Markdown page.
pub const MARKDOWN: &str = "report.md";

/// The name of the HTML page.
pub const HTML: &str = "report.html";

/// Writes the pages into `dir`.
pub fn write(
    dir: &Path,
    title: &str,
    result: &TuneResult,
    state: &State,
    splits: &Splits,
) -> Result<()> {
    let mut sections = vec![("Candidates", "numbers", candidates(result, state, splits))];
    if splits.all.len() > 1 {
        sections.push(("Split by split, at the end", "numbers", by_split(state, splits)));
    }
    sections.push(("The candidates' keys", "words", keys(state)));
    let summary = result.sentences().join(" ");
    let notes = notes(result, splits);
    let mut text = format!("# {}\n\n{}\n", markdown(title), markdown(&summary));
    let mut page = opening(title, &summary);
    for (heading, class, table) in sections {
        let Some(table) = table.unless_empty() else { continue };
        text += &format!("\n## {heading}\n\n{}", markdown_table(&table));
        page += &format!("<h2>{heading}</h2>\n{}", html_table(&table, class));
    }
    text += "\n## How this was measured\n\n";
    page += "<h2>How this was measured</h2>\n<ul>\n";
    for note in notes {
        text += &format!("- {}\n", markdown(&note));
        page += &format!("<li>{}</li>\n", escaped(&note));
    }
    page += &format!(
        "</ul>\n<footer><p>Measured with bitfit {}. The numbers are in tune.json.</p></footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    files::replace_with(&dir.join(MARKDOWN), text.as_bytes())?;
    files::replace_with(&dir.join(HTML), page.as_bytes())
}

/// Each candidate with its score after each rung.
fn candidates(result: &TuneResult, state: &State, splits: &Splits) -> ReportTable {
    let metric = &result.metric;
    let head = ["candidate", "a quarter", "half", "the end", "what came of it"];
    let mut table = ReportTable::new(&head);
    if let Some(first) = table.head.get_mut(1) {
        *first = format!("{metric} after a quarter of the steps");
    }
    for (place, tried) in state.candidates.iter().enumerate() {
        let score = |rung: usize| match tried.scores(rung, splits.all.len()) {
            Some(scores) => {
                let scores: Option<Vec<f64>> = scores.iter().copied().collect();
                scores.and_then(|scores| Spread::of(&scores)).map_or("NaN".into(), |it| spread(&it))
            }
            None => String::new(),
        };
        let scores = (0..RUNGS).map(score);
        let mut row = vec![tried.name.clone()];
        row.extend(scores);
        row.push(outcome(tried, place == result.place, splits.all.len()));
        table.push(row);
    }
    table
}

/// What came of a candidate.
fn outcome(tried: &Tried, is_best: bool, splits: usize) -> String {
    let reached = (0..RUNGS).rev().find(|&rung| tried.scores(rung, splits).is_some());
    let share = reached.and_then(|rung| QUARTERS.get(rung));
    match (&tried.failed, share) {
        (Some(problem), _) => format!("failed: {problem}"),
        _ if is_best => "the best".into(),
        (None, None) => "not measured: the budget ended".into(),
        (None, Some(4)) => "ran to the end".into(),
        (None, Some(_)) if tried.dropped => "dropped".into(),
        (None, Some(_)) => "the budget ended".into(),
    }
}

/// The scores at the end on each split.
fn by_split(state: &State, splits: &Splits) -> ReportTable {
    let count = splits.all.len();
    let mut table = ReportTable::new(&["candidate"]);
    table.head.extend((1..=count).map(|split| format!("split {split}")));
    for tried in &state.candidates {
        let Some(scores) = tried.scores(RUNGS - 1, count) else { continue };
        let shown = |score: &Option<f64>| score.map_or("NaN".into(), |it| format!("{it:.4}"));
        let mut row = vec![tried.name.clone()];
        row.extend(scores.iter().map(shown));
        table.push(row);
    }
    table
}

/// The keys that each candidate changes.
fn keys(state: &State) -> ReportTable {
    let mut table = ReportTable::new(&["candidate", "keys"]);
    for tried in state.candidates.iter().filter(|tried| !tried.keys.is_empty()) {
        table.push(vec![tried.name.clone(), shown(&tried.keys).join("; ")]);
    }
    table
}

/// How the scores were measured.
fn notes(result: &TuneResult, splits: &Splits) -> Vec<String> {
    let mut notes = vec![
        splits.describe(),
        "Candidates train to a quarter of their steps; the better half of them go on to a half, and the better half of these to the end. The configuration as it is always runs to the end.".into(),
        "Each run is evaluated after each quarter of its steps, and does not stop early. A score is the best evaluation so far, or the last one with load_best_model_at_end = false.".into(),
        "The best of many scores is a little optimistic: expect slightly lower values on other rows. Rows that were held out here say nothing more about the tuned configuration; measure it on rows of its own.".into(),
    ];
    notes.push(match (&result.difference, result.noise) {
        (Some(Spread { sd: Some(_), .. }), _) => "A value with ± is the mean over the splits and the sample standard deviation (n − 1). A difference from the configuration is taken split by split, and counts if it exceeds its standard deviation.".into(),
        (_, Some(_)) => "With one split, a difference from the configuration counts if it exceeds the standard error of the metric as a share of the held-out rows.".into(),
        _ => "With one split of this metric, nothing says how much of a difference is chance; --folds K measures it.".into(),
    });
    notes
}
