//! From a resolved configuration to everything that the loop needs.

use crate::base::{Base, BaseFiles};
use crate::config::{Run, RunConfig};
use crate::data::{self, Columns, Example, Labels, Row, Tokenizer};
use crate::delta::{self, Delta, Meta};
use crate::error::{Error, Result};
use crate::freeze::FreezePlan;
use crate::optim::AdamW;
use crate::predict::{examples, fits};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A run, ready for its first step.
pub struct Prepared {
    /// The model, frozen but for what trains.
    pub base: Base,
    /// What trains.
    pub plan: FreezePlan,
    /// Its optimizer.
    pub optimizer: AdamW,
    /// The classes.
    pub labels: Labels,
    /// Training examples, in the file's order.
    pub train: Vec<Example>,
    /// Evaluation examples.
    pub eval: Vec<Example>,
    /// The tokenizer, whose files go into the run directory.
    pub tokenizer: Tokenizer,
    /// The configuration, every key.
    pub resolved: RunConfig,
    meta: Meta,
    /// Every tensor that may differ from the base.
    differs: BTreeSet<String>,
}

impl Prepared {
    /// Reads base and data side by side, builds the model and freezes it. Writes nothing.
    pub fn new(run: &Run) -> Result<Self> {
        let section = &run.config.model;
        let dir = &section.model_name_or_path;
        let (files, rows) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| BaseFiles::read(dir, section.weights.as_deref()));
            let rows = Rows::read(run, &run.columns())
                .and_then(|rows| Ok((rows.encode(run, dir)?, rows.labels)));
            let files = reader.join().unwrap_or_else(|_| {
                Err(Error::Bug("the thread that reads the base panicked".into()))
            });
            // A missing base is reported before what the tokenizer made of it.
            Ok::<_, Error>((files?, rows?))
        })?;
        let (encoded, labels) = rows;
        let Encoded { tokenizer, train, eval } = encoded;
        run.check_model(&files.config)?;
        fits(dir, &tokenizer, &files, train.iter().chain(&eval).map(|example| &example.tokens))?;
        let dropouts = run.dropouts(&files.config);
        let mut base = files.build(labels.names.len(), Some(dropouts), run.device)?;
        base.initialize(run.config.training.seed)?;
        let mut differs: BTreeSet<String> = base.new.iter().cloned().collect();
        if let Some(path) = &section.init_delta {
            differs.extend(delta::start_from(path, &labels.names, &mut base)?);
        }
        let plan = run.plan(&base)?;
        plan.apply(&mut base.store)?;
        differs.extend(plan.trainable().map(|p| p.name.clone()));
        let optimizer = AdamW::new(&base.store, &plan, &run.adamw)?;
        optimizer.check_bound(&base.store)?;
        let meta = Meta {
            architecture: base.config.architecture.class().into(),
            base_name: dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            base_fingerprint: base.fingerprint.clone(),
            tokenizer_fingerprint: tokenizer.fingerprint.clone(),
            task_type: "classification".into(),
            labels: labels.names.clone(),
            max_length: run.config.data.max_length,
            freeze_plan: plan.trainable().map(|p| p.name.clone()).collect(),
            metrics: BTreeMap::new(),
        };
        let resolved = run.resolved(&labels.names, dropouts);
        Ok(Self { base, plan, optimizer, labels, train, eval, tokenizer, resolved, meta, differs })
    }

    /// The task as it is now.
    pub fn delta(&self, metrics: &BTreeMap<String, f64>) -> Result<Delta> {
        self.optimizer.check_finite()?;
        Delta::take(
            &self.base,
            &self.differs,
            Meta { metrics: metrics.clone(), ..self.meta.clone() },
        )
    }
}

/// What is printed before the first step.
impl std::fmt::Display for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (base, labels) = (&self.base, &self.labels);
        let file = base.file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(
            f,
            "base         {} ({file}), fingerprint {}",
            base.dir.display(),
            &base.fingerprint[..16]
        )?;
        let (train, eval, count) = (self.train.len(), self.eval.len(), labels.names.len());
        writeln!(
            f,
            "data         {train} training rows, {eval} evaluation rows, {count} labels: {labels}"
        )?;
        match base.device() {
            tch::Device::Cuda(index) => writeln!(f, "device       cuda:{index}")?,
            _ => writeln!(f, "device       cpu, {} threads", tch::get_num_threads())?,
        }
        write!(f, "{}", self.plan.counts())
    }
}

/// Rows of both sets, before tokenizing.
pub struct Rows {
    /// For training.
    pub train: Vec<Row>,
    /// For evaluation.
    pub eval: Vec<Row>,
    /// The classes.
    pub labels: Labels,
}

struct Encoded {
    tokenizer: Tokenizer,
    train: Vec<Example>,
    eval: Vec<Example>,
}

impl Rows {
    /// Reads the data, finds the classes, and splits an evaluation set off where there is none.
    pub fn read(run: &Run, columns: &Columns) -> Result<Self> {
        let section = &run.config.data;
        let mut train = data::read(&section.train, columns)?;
        let labels = run.label_names().map_or_else(
            || Labels::from_rows(&section.train, &train),
            |names| Ok(Labels { names }),
        )?;
        let eval = match &section.eval {
            Some(path) => data::read(path, columns)?,
            None => {
                let (keep, take) = data::split_by_class(
                    &labels.number(&train)?,
                    section.eval_fraction,
                    run.config.training.seed,
                );
                let pick =
                    |rows: &[usize]| rows.iter().map(|&i| train[i].clone()).collect::<Vec<_>>();
                let eval = pick(&take);
                train = pick(&keep);
                if eval.is_empty() || train.is_empty() {
                    let problem = "too few rows to split an evaluation set off; expected two or more of a class, or data.eval";
                    return Err(Error::data(&section.train, None, problem));
                }
                eval
            }
        };
        Ok(Self { train, eval, labels })
    }

    fn encode(&self, run: &Run, dir: &Path) -> Result<Encoded> {
        let tokenizer = Tokenizer::read(dir)?;
        let encode = |rows| examples(&tokenizer, rows, &self.labels, run.config.data.max_length);
        let (train, eval) = (encode(&self.train)?, encode(&self.eval)?);
        if let Some(first) = train.first().map(|e| e.label)
            && train.iter().all(|e| e.label == first)
        {
            let problem = format!(
                "one class only, {:?}; a classifier needs rows of two or more",
                self.labels.names[first]
            );
            return Err(Error::data(&run.config.data.train, None, problem));
        }
        Ok(Encoded { tokenizer, train, eval })
    }
}
