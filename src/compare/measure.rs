//! Measurements of a finished run: its predictions on the evaluation rows, and how far its biases
//! moved.

use super::record::{RunFacts, RunMeasurements};
use super::report::Moved;
use crate::base::Base;
use crate::changes::Changes;
use crate::config::{CONFIG, Run, RunConfig};
use crate::data::Target;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::eval;
use crate::files;
use crate::models::TaskType;
use crate::native;
use crate::predict::{Input, Prediction, Predictor};
use crate::sources::Model;
use crate::train::RawRows;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// The biases of the bases read so far, by directory and weight file.
#[derive(Default)]
pub struct Biases(BTreeMap<(PathBuf, Option<String>), BTreeMap<String, Tensor>>);

impl Biases {
    fn of(&mut self, dir: &Path, weights: Option<&str>) -> Result<&BTreeMap<String, Tensor>> {
        let key = (dir.to_owned(), weights.map(str::to_owned));
        if !self.0.contains_key(&key) {
            let base = Base::read(dir, weights, Device::Cpu)?;
            let mut biases = BTreeMap::new();
            for (name, tensor) in base.tensors().iter().filter(|(name, _)| name.ends_with(".bias"))
            {
                biases.insert(name.clone(), tensor.f_detach_copy()?);
            }
            base.info.check_unchanged()?;
            self.0.insert(key.clone(), biases);
        }
        self.0.get(&key).ok_or_else(|| Error::Bug("a base without biases".into()))
    }
}

/// Measures a finished run: its predictions on the evaluation rows, and the change of its biases.
pub fn measure(
    run: &Run,
    facts: RunFacts,
    memory_is_its_own: bool,
    biases: &mut Biases,
) -> Result<RunMeasurements> {
    let run = as_it_was_run(run)?;
    let section = run.model();
    let mut quietly = |_: &str, _: u64, _: Option<u64>| Ok(());
    let (base, revision) = (&section.model_name_or_path, section.revision.as_deref());
    let model = Model::find(base, revision, section.weights.as_deref(), &mut quietly)?;
    let (weights, delta) = (model.weights.as_deref(), run.delta_path());
    let dir = run.output_dir();
    let predictor = Predictor::load(&model.dir, weights, Some(&delta), dir, run.device)?
        .with_precision(run.training().precision)?
        .with_batch_size(run.training().per_device_eval_batch_size.size());
    native::allow_tf32(run.training().tf32)?;
    let declared = predictor.meta.task.labels_declared;
    let rows = RawRows::read_eval(&run, &run.columns(), declared, &mut quietly)?;
    let labels = predictor.labels();
    let targets = labels.targets(section.task_type, &rows)?;
    let inputs: Vec<Input> = rows.into_iter().map(Input::from).collect();
    let guesses = guesses(&run, &predictor, &inputs)?;
    let changes = Changes::between(biases.of(&model.dir, weights)?, &Delta::read(&delta)?)?;
    let moved = changes.changes.iter().filter_map(|change| {
        Some(Moved { term: change.place.term?, layer: change.place.layer, mean: change.mean })
    });
    let right = || targets.iter().zip(&guesses).map(|(t, g)| if t == g { '1' } else { '0' });
    Ok(RunMeasurements {
        facts,
        delta_bytes: std::fs::metadata(&delta).map_err(Error::io("read", &delta))?.len(),
        rows_fingerprint: fingerprint(&inputs, &targets),
        right: (section.task_type != TaskType::Regression).then(|| right().collect()),
        confusion: (section.task_type == TaskType::Classification)
            .then(|| confusion(&targets, &guesses, &labels.names))
            .flatten(),
        moved: moved.collect(),
        memory_is_its_own,
    })
}

/// The run by the configuration in its directory, where revisions of the Hub are resolved.
fn as_it_was_run(run: &Run) -> Result<Run> {
    let path = run.output_dir().join(CONFIG);
    let mut config = RunConfig::read(&path, &[])?;
    config.training.device = run.training().device;
    Run::new(config, &path, &[])
}

/// The predictions for `inputs`.
fn guesses(run: &Run, predictor: &Predictor, inputs: &[Input]) -> Result<Vec<Target>> {
    let (labels, task) = (predictor.labels(), run.model().task_type);
    let numbers = labels.names.iter().zip(0..).map(|(name, i)| (name.as_str(), i)).collect();
    let mut guesses: Vec<Target> = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(predictor.rows_at_once()) {
        let predictions = predictor.predict(inputs.iter().cloned())?;
        guesses.extend(predictions.iter().map(|prediction| guess(prediction, task, &numbers)));
    }
    Ok(guesses)
}

fn fingerprint(inputs: &[Input], targets: &[Target]) -> String {
    let mut hash = Sha256::new();
    for (Input { text, text_pair }, target) in inputs.iter().zip(targets) {
        hash.update(format!("{:?} {}\n", (text, text_pair), written(target)));
    }
    files::hex(&hash.finalize())
}

fn confusion(targets: &[Target], guesses: &[Target], labels: &[String]) -> Option<Vec<Vec<u64>>> {
    let class = |target: &Target| if let Target::Class(class) = target { *class } else { 0 };
    let classes = |of: &[Target]| of.iter().map(class).collect::<Vec<_>>();
    eval::ClassificationReport::classification(&classes(targets), &classes(guesses), labels)
        .confusion
}

/// A target as text for the fingerprint of the rows. The labels of a multi-label row are written as
/// one flag for each label of the task.
fn written(target: &Target) -> String {
    match target.flags() {
        Some(flags) => format!("Labels({flags:?})"),
        None => format!("{target:?}"),
    }
}

/// The prediction as a target. `numbers` maps label names to class indices.
fn guess(prediction: &Prediction, task: TaskType, numbers: &HashMap<&str, u32>) -> Target {
    let number = |name: &String| numbers.get(name.as_str()).copied();
    match task {
        TaskType::Classification => {
            let class = prediction.label.as_ref().and_then(number);
            Target::Class(class.map_or(usize::MAX, |class| class as usize))
        }
        TaskType::MultiLabel => {
            let has = prediction.labels.iter().flatten().filter_map(number).collect();
            Target::Labels { present: has, num_labels: numbers.len() }
        }
        TaskType::Regression => Target::Number(prediction.score.unwrap_or_default()),
    }
}
