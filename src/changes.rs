//! The difference between two states of one model: the change of each tensor, by place and layer.

use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::freeze::{ParameterPlace, Places};
use crate::models::Term;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// The change of one tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// The tensor's canonical name.
    pub name: String,
    /// The tensor's group, place in a layer, and layer.
    #[serde(flatten)]
    pub place: ParameterPlace,
    /// The mean absolute difference of the entries, as in the BitFit paper's figure.
    pub mean: f64,
    /// The root mean square of the entries' differences.
    pub rms: f64,
    /// The largest absolute difference of an entry.
    pub largest: f64,
}

/// The changes from one state to another.
#[derive(Debug, Clone, Serialize)]
pub struct Changes {
    /// Changes of the tensors that both states have, by name.
    pub changes: Vec<Change>,
    /// Names of the tensors that only the first state has.
    pub only_first: Vec<String>,
    /// Names of the tensors that only the second state has.
    pub only_second: Vec<String>,
}

impl Changes {
    /// Compares the tensors that both states have. Errs if two of the same name differ in shape.
    pub fn between(first: &BTreeMap<String, Tensor>, second: &Delta) -> Result<Self> {
        let (places, second) = (Places::new(second.meta.architecture()?)?, &second.tensors);
        let mut changes = vec![];
        for (name, a) in first {
            let Some(b) = second.get(name) else { continue };
            if a.size() != b.size() {
                let (a, b) = (a.size(), b.size());
                return Err(Error::Usage(format!(
                    "{name} is {a:?} in the first and {b:?} in the second: heads of tasks with different labels do not compare"
                )));
            }
            let difference = b.f_sub(a)?.f_to_kind(tch::Kind::Double)?;
            changes.push(Change {
                name: name.clone(),
                place: places.of(name)?,
                mean: f64::try_from(difference.f_abs()?.f_mean(tch::Kind::Double)?)?,
                rms: f64::try_from(difference.f_square()?.f_mean(tch::Kind::Double)?)?.sqrt(),
                largest: f64::try_from(difference.f_abs()?.f_max()?)?,
            });
        }
        let names =
            |tensors: &BTreeMap<String, Tensor>| tensors.keys().cloned().collect::<BTreeSet<_>>();
        let (first, second) = (names(first), names(second));
        Ok(Self {
            changes,
            only_first: first.difference(&second).cloned().collect(),
            only_second: second.difference(&first).cloned().collect(),
        })
    }
}

/// Number of the largest changes that are listed.
const LISTED: usize = 10;

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "change of the biases (root mean square), by layer and place")?;
        let [_, terms @ ..] = &Term::ALL;
        let heads =
            ["query", "key", "value", "att.out", "att.norm", "interm.", "output", "out.norm"];
        write!(f, "{:<10}", "layer")?;
        heads.iter().try_for_each(|head| write!(f, " {head:>8}"))?;
        writeln!(f)?;
        let layers: BTreeSet<usize> = self.changes.iter().filter_map(|c| c.place.layer).collect();
        for layer in layers {
            write!(f, "{layer:<10}")?;
            for term in terms {
                let at = |c: &&Change| {
                    let bias = c.name.ends_with(".bias") && !c.place.group.is_added();
                    bias && c.place.layer == Some(layer) && c.place.term == Some(*term)
                };
                match self.changes.iter().find(at) {
                    Some(change) => write!(f, " {:>8.5}", change.rms)?,
                    None => write!(f, " {:>8}", "-")?,
                }
            }
            writeln!(f)?;
        }
        let mut sorted: Vec<&Change> = self.changes.iter().collect();
        sorted.sort_by(|a, b| b.rms.total_cmp(&a.rms));
        let shown = sorted.len().min(LISTED);
        writeln!(f, "\nthe largest {shown} of {}", sorted.len())?;
        writeln!(f, "{:>8} {:>12}  tensor", "rms", "largest")?;
        for change in sorted.iter().take(shown) {
            writeln!(f, "{:>8.5} {:>12.5}  {}", change.rms, change.largest, change.name)?;
        }
        for (which, names) in [("first", &self.only_first), ("second", &self.only_second)] {
            if !names.is_empty() {
                writeln!(f, "\nin the {which} alone: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}
