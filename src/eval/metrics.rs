//! Classification metrics, as scikit-learn defines them.

use std::collections::BTreeMap;

/// `accuracy`, `f1` (of class 1 where there are two classes, the unweighted mean over classes otherwise) and `matthews`.
pub fn classification(
    labels: &[usize],
    predictions: &[usize],
    num_labels: usize,
) -> BTreeMap<String, f64> {
    let mut right = 0.0;
    let (mut true_count, mut guess_count, mut hits) =
        (vec![0.0; num_labels], vec![0.0; num_labels], vec![0.0; num_labels]);
    for (&label, &guess) in labels.iter().zip(predictions) {
        true_count[label] += 1.0;
        guess_count[guess] += 1.0;
        if label == guess {
            right += 1.0;
            hits[label] += 1.0;
        }
    }
    let rows = labels.len() as f64;
    // scikit-learn's zero_division = 0: a class that neither occurs nor is predicted has F1 0, and is not averaged.
    let f1 = |class: usize| ratio(2.0 * hits[class], true_count[class] + guess_count[class]);
    let f1 = if num_labels == 2 {
        f1(1)
    } else {
        let seen: Vec<usize> =
            (0..num_labels).filter(|&c| true_count[c] + guess_count[c] > 0.0).collect();
        ratio(seen.iter().map(|&c| f1(c)).sum(), seen.len() as f64)
    };
    // Gorodkin's multi-class form (2004), of which the binary one is a case.
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let covariance = right * rows - dot(&true_count, &guess_count);
    let spread = (rows * rows - dot(&guess_count, &guess_count))
        * (rows * rows - dot(&true_count, &true_count));
    let metrics = [
        ("accuracy", ratio(right, rows)),
        ("f1", f1),
        ("matthews", ratio(covariance, spread.sqrt())),
    ];
    metrics.map(|(name, value)| (name.to_owned(), value)).into()
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}
