//! Finished runs, and the learning rate of the best of them.

use super::grid::GridCell;
use super::record::RunMeasurements;
use crate::train::Summary;

/// A finished run of a grid.
#[derive(Debug, Clone)]
pub struct CellResult {
    /// The cell of the grid.
    pub cell: GridCell,
    /// The run's `summary.json`.
    pub summary: Summary,
    /// The measurements taken after training.
    pub measured: RunMeasurements,
}

impl CellResult {
    /// The task's metric, of the state that `delta.safetensors` holds; `None` if the summary lacks
    /// it.
    pub fn value(&self) -> Option<f64> {
        self.summary.best.get(self.cell.run.metric.name()).copied()
    }
}

/// The learning rate of the best of `results`, the first of ties; `None` if each metric is missing
/// or NaN.
pub fn best_rate<'a>(results: impl IntoIterator<Item = &'a CellResult>) -> Option<Option<f64>> {
    let mut best: Option<(Option<f64>, f64)> = None;
    for result in results {
        let Some(value) = result.value().filter(|value| !value.is_nan()) else { continue };
        let greater = result.cell.run.greater_is_better;
        let better = |before: f64| if greater { value > before } else { value < before };
        if best.is_none_or(|(_, before)| better(before)) {
            best = Some((result.cell.learning_rate, value));
        }
    }
    best.map(|(rate, _)| rate)
}
