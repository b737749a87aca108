//! A report of how well a model predicts each class.

use super::metrics::{ClassCounts, MultiLabel, count_classes, pairs, ratio};
use crate::escape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::{fmt, iter};

/// Precision, recall and F1 of each class, as in scikit-learn's `classification_report`. `Display`
/// prints the same table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassificationReport {
    /// All classes in the order of their numbers, including those that do not occur.
    pub classes: Vec<ClassReport>,
    /// The scores of all decisions together, for a multi-label task. With one label a row, all
    /// three scores would be the accuracy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_avg: Option<Average>,
    /// The unweighted mean over `classes`. Unlike the metric `f1_macro`, this mean includes the
    /// classes that do not occur.
    pub macro_avg: Average,
    /// The mean over `classes`, weighted by support.
    pub weighted_avg: Average,
    /// The confusion matrix, with one label a row and at most [`MATRIX`] classes. Rows are true
    /// classes, columns are predicted ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Vec<Vec<u64>>>,
    /// The nonzero cells of the confusion matrix, with more than [`MATRIX`] classes: true class,
    /// predicted class, number of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion_cells: Option<Vec<(usize, usize, u64)>>,
}

/// The largest number of classes for which the whole confusion matrix is kept. The matrix grows
/// with the square of the classes, so with more classes only the nonzero cells are kept.
pub const MATRIX: usize = 200;

/// The scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassReport {
    /// The class's name.
    pub label: String,
    /// The share of the rows predicted as this class that truly have it.
    pub precision: f64,
    /// The share of the rows with this class that are predicted as it.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// The number of rows that truly have this class.
    pub support: u64,
}

/// Scores over all classes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Average {
    /// The average precision.
    pub precision: f64,
    /// The average recall.
    pub recall: f64,
    /// The average F1.
    pub f1: f64,
    /// The support of all classes together.
    pub support: u64,
}

impl ClassificationReport {
    /// The report of a task with one label a row. Rows with a class that has no name are left out.
    pub fn classification(
        labels: &[usize],
        predictions: &[usize],
        names: &[String],
    ) -> ClassificationReport {
        let mut cells: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for pair in pairs(labels, predictions, names.len()) {
            *cells.entry(pair).or_default() += 1;
        }
        let mut report =
            ClassificationReport::of(&count_classes(labels, predictions, names.len()), names);
        if names.len() > MATRIX {
            let cell = |((label, guess), count)| (label, guess, count);
            report.confusion_cells = Some(cells.into_iter().map(cell).collect());
        } else {
            let cell = |label, guess| cells.get(&(label, guess)).copied().unwrap_or(0);
            let row = |label| (0..names.len()).map(|guess| cell(label, guess)).collect();
            report.confusion = Some((0..names.len()).map(row).collect());
        }
        report
    }

    /// The report of a multi-label task. Labels without a name are left out.
    pub fn multi_label(found: &MultiLabel, names: &[String]) -> ClassificationReport {
        let counts = &found.counts;
        let all: ClassCounts = counts.iter().sum();
        let micro_avg = Average {
            precision: all.precision(),
            recall: all.recall(),
            f1: all.f1(),
            support: all.support,
        };
        ClassificationReport {
            micro_avg: Some(micro_avg),
            ..ClassificationReport::of(counts, names)
        }
    }

    fn of(counts: &[ClassCounts], names: &[String]) -> ClassificationReport {
        let average = |weight: fn(&ClassCounts) -> f64| {
            let whole = counts.iter().map(weight).sum();
            let mean = |score: fn(&ClassCounts) -> f64| {
                ratio(counts.iter().map(|c| weight(c) * score(c)).sum(), whole)
            };
            Average {
                precision: mean(ClassCounts::precision),
                recall: mean(ClassCounts::recall),
                f1: mean(ClassCounts::f1),
                support: counts.iter().map(|c| c.support).sum(),
            }
        };
        let class = |(name, counts): (&String, &ClassCounts)| ClassReport {
            label: name.clone(),
            precision: counts.precision(),
            recall: counts.recall(),
            f1: counts.f1(),
            support: counts.support,
        };
        ClassificationReport {
            classes: names.iter().zip(counts).map(class).collect(),
            micro_avg: None,
            macro_avg: average(|_| 1.0),
            weighted_avg: average(|counts| counts.support as f64),
            confusion: None,
            confusion_cells: None,
        }
    }
}

impl fmt::Display for ClassificationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        let labels: Vec<String> = self.classes.iter().map(|c| cut(&c.label, 30)).collect();
        let width = longest(labels.iter()).max("weighted avg".len());
        let row = |f: &mut fmt::Formatter<'_>, name: &str, scores: [f64; 3], support: u64| {
            let [precision, recall, f1] = scores;
            write!(f, "\n{name:>width$}  {precision:>9.4} {recall:>9.4} {f1:>9.4} {support:>9}")
        };
        write!(
            f,
            "{:>width$}  {:>9} {:>9} {:>9} {:>9}",
            "", "precision", "recall", "f1", "support"
        )?;
        for (label, class) in labels.iter().zip(&self.classes) {
            row(f, label, [class.precision, class.recall, class.f1], class.support)?;
        }
        writeln!(f)?;
        if self.micro_avg.is_none() {
            // The mean of the recalls, weighted by support, is the accuracy.
            let Average { recall, support, .. } = self.weighted_avg;
            write!(f, "\n{:>width$}  {:>9} {:>9} {recall:>9.4} {support:>9}", "accuracy", "", "")?;
        }
        let averages = [
            ("micro avg", self.micro_avg.as_ref()),
            ("macro avg", Some(&self.macro_avg)),
            ("weighted avg", Some(&self.weighted_avg)),
        ];
        for (name, average) in averages {
            if let Some(average) = average {
                let scores = [average.precision, average.recall, average.f1];
                row(f, name, scores, average.support)?;
            }
        }

        match &self.confusion {
            _ if self.micro_avg.is_none() && self.classes.len() > SHOWN => {
                write!(f, "\n\nconfusion matrix: more than {SHOWN} classes; --json prints it")
            }
            Some(rows) if !rows.is_empty() => {
                f.write_str("\n\nconfusion matrix (rows: true label, columns: predicted)")?;
                // Columns are in the order of the rows, so short names are clear enough.
                let heads = self.classes.iter().map(|c| cut(&c.label, 9)).collect();
                let text = |row: &Vec<u64>| row.iter().map(u64::to_string).collect();
                let lines: Vec<Vec<String>> =
                    iter::once(heads).chain(rows.iter().map(text)).collect();
                let cell = longest(lines.iter().flatten());
                for (name, cells) in
                    iter::once("").chain(labels.iter().map(String::as_str)).zip(lines)
                {
                    let cells: String =
                        cells.iter().map(|text| format!(" {text:>cell$}")).collect();
                    let line = format!("{name:>width$} {cells}");
                    // An empty name in the header would leave spaces at the end of the line.
                    write!(f, "\n{}", line.trim_end())?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Returns `label` with at most `length` characters, without any that move the cursor. A label that
/// is cut ends in an ellipsis.
fn cut(label: &str, length: usize) -> String {
    let label = escape::line(label);
    if label.chars().count() <= length {
        return label;
    }
    label.chars().take(length - 1).chain(['…']).collect()
}

/// The length of the longest of `texts`, in characters.
fn longest<'a>(texts: impl Iterator<Item = &'a String>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}
