//! The record that a comparison keeps of each run, in the run's directory: `compare.json`.

use crate::base::Base;
use crate::changes::Changes;
use crate::config::{CONFIG, Run, RunConfig};
use crate::data::Target;
use crate::delta::Delta;
use crate::error::{Error, Result};
use crate::eval;
use crate::files;
use crate::models::TaskType;
use crate::models::Term;
use crate::predict::{Input, Prediction, Predictor};
use crate::sources::Model;
use crate::train::{ModelPlan, RawRows};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

const NAME: &str = "compare.json";

/// The contents of `compare.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The configuration as TOML, without the output directory. Equal text means the same run.
    config: String,
    /// `None` until the run is done.
    finished: Option<Finished>,
}

/// Measurements of a finished run, in addition to its `summary.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    /// What the run was made from.
    pub facts: Facts,
    /// Size of `delta.safetensors`, in bytes.
    pub delta_bytes: u64,
    /// SHA-256 of the texts and targets of the evaluation rows. Predictions are paired only if the
    /// fingerprints are equal.
    pub rows_fingerprint: String,
    /// One character for each evaluation row, `1` if the prediction is right, else `0`; `None` for
    /// regression.
    pub right: Option<String>,
    /// Confusion matrix: rows are true classes, columns predicted ones. `None` for tasks other than
    /// classification, and for many classes.
    pub confusion: Option<Vec<Vec<u64>>>,
    /// How far each of the encoder's biases moved.
    pub moved: Vec<Moved>,
    /// Whether the process that finished the run trained no other, and took enough of its steps to
    /// measure memory and step time.
    pub memory_is_its_own: bool,
}

/// What a run was made from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The base's name.
    pub base: String,
    /// Size of the base's weight file, in bytes.
    pub base_bytes: u64,
    /// Number of training rows.
    pub train_rows: usize,
    /// Number of evaluation rows.
    pub eval_rows: usize,
    /// Label names.
    pub labels: Vec<String>,
    /// Fingerprint of the base's weights; `None` if an older version wrote the file.
    #[serde(default)]
    pub base_fingerprint: Option<String>,
    /// Fingerprint of the training and evaluation rows, in their order; `None` if an older version
    /// wrote the file.
    #[serde(default)]
    pub data_fingerprint: Option<String>,
}

/// The mean change of a bias.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// The bias's place in a layer.
    pub term: Term,
    /// The layer, counted from 0; `None` for the embeddings' LayerNorm.
    pub layer: Option<usize>,
    /// The mean of |after - before| over the bias's entries.
    pub mean: f64,
}

/// The status of a run of the grid.
pub enum Standing {
    /// The run has not begun, or has not finished.
    Open,
    /// The run is done.
    Done(Box<Finished>),
    /// The directory holds a run of another configuration.
    Other,
}

impl Facts {
    /// The facts of a run before its first step.
    pub fn of(plan: &ModelPlan) -> Self {
        let base = &plan.model.base;
        Self {
            base: plan.source.name.clone(),
            base_bytes: std::fs::metadata(&base.file).map_or(0, |file| file.len()),
            train_rows: plan.data.train.len(),
            eval_rows: plan.data.eval.len(),
            labels: plan.data.labels.names.clone(),
            base_fingerprint: Some(base.fingerprint.clone()),
            data_fingerprint: Some(plan.data.fingerprint.clone()),
        }
    }
}

/// The configuration as TOML, without the output directory.
fn asked(run: &Run) -> Result<String> {
    let mut config = run.written().clone();
    config.training.output_dir = PathBuf::new();
    config.to_toml()
}

/// The status of `run`, from its `compare.json`. Errs if that file cannot be parsed.
pub fn standing(run: &Run) -> Result<Standing> {
    let path = run.output_dir().join(NAME);
    if !files::is_there(&path)? {
        return Ok(Standing::Open);
    }
    let kept: Kept = serde_json::from_str(&files::read_text(&path)?).map_err(|e| {
        Error::file(
            &path,
            format!(
                "not what a comparison keeps of a run: {e}; remove it, and the run is done again"
            ),
        )
    })?;
    Ok(match kept.finished {
        _ if kept.config != asked(run)? => Standing::Other,
        Some(finished) => Standing::Done(Box::new(finished)),
        None => Standing::Open,
    })
}

/// Writes the `compare.json` of `run`. `finished` is `None` while the run goes on.
pub fn keep(run: &Run, finished: Option<Finished>) -> Result<()> {
    let dir = run.output_dir();
    files::create_dir(dir)?;
    let kept = Kept { config: asked(run)?, finished };
    let text = serde_json::to_string(&kept).map_err(Error::bug)? + "\n";
    files::replace_with(&dir.join(NAME), text.as_bytes())
}

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
    facts: Facts,
    memory_is_its_own: bool,
    biases: &mut Biases,
) -> Result<Finished> {
    let dir = run.output_dir();
    let path = dir.join(CONFIG);
    let mut config = RunConfig::read(&path, &[])?;
    config.training.device = run.training().device;
    let run = Run::new(config, &path, &[])?;
    let (section, task) = (run.model(), run.model().task_type);
    let mut quietly = |_: &str, _: u64, _: Option<u64>| Ok(());
    let (base, revision) = (&section.model_name_or_path, section.revision.as_deref());
    let model = Model::find(base, revision, section.weights.as_deref(), &mut quietly)?;
    let weights = model.weights.as_deref();
    let delta = run.delta_path();
    let predictor = Predictor::load(&model.dir, weights, Some(&delta), dir, run.device)?
        .with_precision(run.training().precision)?
        .with_batch_size(run.training().per_device_eval_batch_size.size());
    let declared = predictor.meta.task.labels_declared;
    let rows = RawRows::read_eval(&run, &run.columns(), declared, &mut quietly)?;
    let labels = predictor.labels();
    let targets = labels.targets(task, &rows)?;
    let inputs: Vec<Input> = rows.into_iter().map(Input::from).collect();
    let mut hash = Sha256::new();
    for (Input { text, text_pair }, target) in inputs.iter().zip(&targets) {
        hash.update(format!("{:?} {}\n", (text, text_pair), written(target)));
    }
    let numbers = labels.names.iter().zip(0..).map(|(name, i)| (name.as_str(), i)).collect();
    let mut guesses: Vec<Target> = Vec::with_capacity(inputs.len());
    for inputs in inputs.chunks(predictor.rows_at_once()) {
        let predictions = predictor.predict(inputs.iter().cloned())?;
        guesses.extend(predictions.iter().map(|prediction| guess(prediction, task, &numbers)));
    }
    let right = || targets.iter().zip(&guesses).map(|(t, g)| if t == g { '1' } else { '0' });
    let class = |target: &Target| if let Target::Class(class) = target { *class } else { 0 };
    let classes = |of: &[Target]| of.iter().map(class).collect::<Vec<_>>();
    let confusion = (task == TaskType::Classification)
        .then(|| {
            eval::Report::classification(&classes(&targets), &classes(&guesses), &labels.names)
        })
        .and_then(|report| report.confusion);
    let changes = Changes::between(biases.of(&model.dir, weights)?, &Delta::read(&delta)?)?;
    let moved = changes.changes.iter().filter_map(|change| {
        Some(Moved { term: change.place.term?, layer: change.place.layer, mean: change.mean })
    });
    Ok(Finished {
        facts,
        delta_bytes: std::fs::metadata(&delta).map_err(Error::io("read", &delta))?.len(),
        rows_fingerprint: files::hex(&hash.finalize()),
        right: (task != TaskType::Regression).then(|| right().collect()),
        confusion,
        moved: moved.collect(),
        memory_is_its_own,
    })
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
            Target::Labels { has, of: numbers.len() }
        }
        TaskType::Regression => Target::Number(prediction.score.unwrap_or_default()),
    }
}
