//! A grid of runs, read from a file: tasks x arms x learning rates x seeds over one run
//! configuration.

use super::format::{rate_name, slug};
use super::grid_file::{ArmSection, CompareSection, GridFile, TaskSection, is_of_grid, key_of};
use super::report::FailedRun;
use crate::bounds::Positive;
use crate::config::{MethodName, Run, RunConfig, plain, start_of_paths};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A grid, with the configuration of every run checked.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The grid file.
    pub path: PathBuf,
    /// The report's heading.
    pub title: String,
    /// The directory of the runs and the report.
    pub output_dir: PathBuf,
    /// The seeds of each arm's runs.
    pub seeds: Vec<u64>,
    /// Whether to choose the learning rate on the first seed; other seeds run at the best only.
    pub tune: bool,
    /// The tasks' names, in the file's order.
    pub tasks: Vec<String>,
    /// The arms, in the file's order.
    pub arms: Vec<Arm>,
    /// Index of the arm that the others are tested against.
    pub reference: usize,
    folder: PathBuf,
    base: RunConfig,
    /// What each task sets, in the order of `tasks`.
    task_layers: Vec<TaskLayer>,
    /// The run configuration's sections in the grid file, which apply to every run.
    common: KeyLayer,
    /// The `--set` overrides of run keys, which apply to every run.
    given: Vec<String>,
}

/// An arm: one of the configurations to compare.
#[derive(Debug, Clone)]
pub struct Arm {
    /// The arm's name.
    pub name: String,
    /// The arm's learning rates; empty if the configuration sets the rate.
    pub learning_rates: Vec<f64>,
    layer: KeyLayer,
}

/// What a task sets.
#[derive(Debug, Clone, Default)]
struct TaskLayer {
    /// The configuration that the task's runs start from, instead of the grid's.
    base: Option<RunConfig>,
    layer: KeyLayer,
}

/// Keys with their values, and the part of the grid file that sets them.
#[derive(Debug, Clone, Default)]
struct KeyLayer {
    owner: Owner,
    values: Vec<(String, toml::Value)>,
}

/// The part of a grid file that sets keys of runs.
#[derive(Debug, Clone, Default)]
enum Owner {
    /// The run configuration's sections, which apply to every run.
    #[default]
    Sections,
    /// `set` of the task of this name.
    Task(String),
    /// `set` of the arm of this name.
    Arm(String),
}

/// A run of the grid.
#[derive(Debug, Clone)]
pub struct GridCell {
    /// Index of the task in [`Grid::tasks`].
    pub task: usize,
    /// Index of the arm in [`Grid::arms`].
    pub arm: usize,
    /// The learning rate; `None` if the arm's method takes no steps.
    pub learning_rate: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// The run, whose output directory is below the grid's.
    pub run: Run,
}

/// The key that an arm's `learning_rates` set.
const RATE: &str = "training.learning_rate";

/// Keys that the grid sets itself, each with what to use instead.
const OURS: [(&str, &str); 2] = [
    ("training.output_dir", "compare.output_dir, below which every run has its own directory"),
    ("training.seed", "compare.seeds"),
];

/// A grid file that is being read.
struct GridSource<'a> {
    path: &'a Path,
    folder: PathBuf,
    overrides: &'a [String],
}

impl Grid {
    /// Reads the grid file `path` and checks the configuration of every run. Overrides of `compare`
    /// keys apply to the grid, all others to every run.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let file = GridFile::read(path, overrides)?;
        let source = GridSource { path, folder: start_of_paths(path)?, overrides };
        let output_dir = source.output_dir(&file.compare)?;
        source.check_seeds(&file.compare.seeds)?;
        let base = file.compare.base.as_deref();
        let base = base.map(|base| RunConfig::read(&source.own_path("base", base)?, &[]));
        let base = base.transpose()?.unwrap_or_default();
        let common = source.common(&file)?;
        let (tasks, task_layers) = source.tasks(file.task)?;
        let arms = source.arms(file.arm, &file.compare.learning_rates)?;
        source.check_rates(&common, &task_layers, &arms)?;
        if arms.is_empty() {
            return Err(source.error("arm", &"none", "one [[arm]] or more, each with a name"));
        }
        source.check_names("task.name", tasks.iter())?;
        source.check_names("arm.name", arms.iter().map(|arm| &arm.name))?;
        let reference = source.reference(file.compare.reference.as_deref(), &arms)?;
        let given = source.given(&arms)?;
        let grid = Self {
            path: path.to_owned(),
            title: file.compare.title.unwrap_or_else(|| stem(path).replace(['-', '_'], " ")),
            output_dir,
            seeds: file.compare.seeds,
            tune: file.compare.tune,
            tasks,
            arms,
            reference,
            base,
            task_layers,
            common,
            given,
            folder: source.folder.clone(),
        };
        grid.check_runs(&source)?;
        Ok(grid)
    }

    /// Configures every run, so that an error in any is reported before the first run begins.
    fn check_runs(&self, source: &GridSource<'_>) -> Result<()> {
        for task in 0..self.tasks.len() {
            let mut metric = None;
            for arm in 0..self.arms.len() {
                for cell in self.cells(task, arm)? {
                    let its = (cell.run.metric, cell.run.greater_is_better);
                    if *metric.get_or_insert(its) != its {
                        let key = format!("{}: training.metric_for_best_model", self.place(&cell));
                        let expected = "one metric for all arms of a task";
                        return Err(source.error(&key, &its.0.name(), expected));
                    }
                }
            }
        }
        Ok(())
    }

    /// All runs of an arm on a task: the first seed at every rate, then each other seed at every
    /// rate. If [`Grid::tunes`], the caller keeps only the best rate of the other seeds.
    pub fn cells(&self, task: usize, arm: usize) -> Result<Vec<GridCell>> {
        let missing = || Error::Bug("a run outside of its grid".into());
        let rates = self.arms.get(arm).ok_or_else(missing)?.learning_rates.iter();
        let mut rates: Vec<Option<f64>> = rates.map(|rate| Some(*rate)).collect();
        if rates.is_empty() {
            rates.push(None);
        }
        let pairs = self.seeds.iter().flat_map(|seed| rates.iter().map(move |rate| (*rate, *seed)));
        pairs.map(|(rate, seed)| self.cell(task, arm, rate, seed)).collect()
    }

    fn cell(&self, task: usize, arm: usize, rate: Option<f64>, seed: u64) -> Result<GridCell> {
        let missing = || Error::Bug("a run outside of its grid".into());
        let TaskLayer { base, layer } = self.task_layers.get(task).ok_or_else(missing)?;
        let its = self.arms.get(arm).ok_or_else(missing)?;
        let mut config = base.clone().unwrap_or_else(|| self.base.clone());
        let apply = |config: &mut RunConfig, layer: &KeyLayer| {
            layer.values.iter().try_for_each(|(key, value)| {
                config.set(key, value, &self.folder).map_err(|message| Error::Toml {
                    path: self.path.clone(),
                    message: format!("{}: {message}", layer.name_of(key)),
                })
            })
        };
        [&self.common, layer].into_iter().try_for_each(|layer| apply(&mut config, layer))?;
        let written = config.training.learning_rate.is_some();
        apply(&mut config, &its.layer)?;
        let mut config = config.with(&self.given, &self.path)?;
        if config.method.name.takes_steps() {
            // All arms have one schedule, whichever sets a rate of its own.
            config.training.settle_schedule(written);
        } else {
            // What the file says of steps is for the other arms, unless this arm says it itself.
            let steps = config.training.of_steps()?;
            config.training = config.training.without_steps();
            apply(&mut config, &its.layer.only(|key| steps.iter().any(|(of, _)| of == key)))?;
        }
        let rate = rate.map(Positive::try_from).transpose()?;
        config.training.learning_rate = rate.or(config.training.learning_rate);
        config.training.seed = seed;
        config.training.output_dir = self.arm_dir(task, arm);
        let run = Run::new(config, &self.path, &self.given).map_err(|error| match error {
            Error::Config { path, key, found, expected } => {
                let task = self.tasks.get(task).map_or("", String::as_str);
                let key = format!("task {task:?}, arm {:?}: {key}", its.name);
                Error::Config { path, key, found, expected }
            }
            other => other,
        })?;
        // The rate is known only now: if no key sets it, the method's default applies.
        let learning_rate = run.learning_rate();
        let name = match learning_rate {
            Some(rate) => format!("lr-{}-seed-{seed}", rate_name(rate)),
            None => format!("seed-{seed}"),
        };
        let dir = run.output_dir().join(name);
        let run = run.with_output_dir(dir);
        Ok(GridCell { task, arm, learning_rate, seed, run })
    }

    /// The directory of an arm's runs on a task.
    fn arm_dir(&self, task: usize, arm: usize) -> PathBuf {
        let task = self.tasks.get(task).map(|name| slug(name)).unwrap_or_default();
        let arm = self.arms.get(arm).map(|arm| slug(&arm.name)).unwrap_or_default();
        self.output_dir.join("runs").join(task).join(arm)
    }

    /// Number of runs of an arm on one task.
    pub fn count(&self, arm: usize) -> usize {
        let rates = self.arms.get(arm).map_or(1, |arm| arm.learning_rates.len().max(1));
        if self.tunes(arm) { rates + self.seeds.len() - 1 } else { rates * self.seeds.len() }
    }

    /// Whether the arm's learning rate is chosen on the first seed.
    pub fn tunes(&self, arm: usize) -> bool {
        self.tune && self.arms.get(arm).is_some_and(|arm| arm.learning_rates.len() > 1)
    }

    /// Number of runs in the grid.
    pub fn total(&self) -> usize {
        (0..self.arms.len()).map(|arm| self.count(arm)).sum::<usize>() * self.tasks.len()
    }

    /// The failure of `cell` with the error message `problem`.
    pub fn failure(&self, cell: &GridCell, problem: String) -> FailedRun {
        FailedRun {
            task: self.tasks.get(cell.task).cloned().unwrap_or_default(),
            arm: self.arms.get(cell.arm).map(|arm| arm.name.clone()).unwrap_or_default(),
            learning_rate: cell.learning_rate,
            seed: cell.seed,
            problem,
        }
    }

    /// Whether `failure` is that of `cell`.
    pub fn is_of(&self, failure: &FailedRun, cell: &GridCell) -> bool {
        let arm = self.arms.get(cell.arm).map(|arm| &arm.name);
        (self.tasks.get(cell.task), arm) == (Some(&failure.task), Some(&failure.arm))
            && (failure.learning_rate, failure.seed) == (cell.learning_rate, cell.seed)
    }

    /// A run's name, as shown to people.
    pub fn place(&self, cell: &GridCell) -> String {
        let arm = self.arms.get(cell.arm).map_or("", |arm| &arm.name);
        let rate = cell.learning_rate.map(|rate| format!("learning rate {}, ", rate_name(rate)));
        let task = match self.tasks.get(cell.task).filter(|_| self.tasks.len() > 1) {
            Some(task) => format!("{task}, "),
            None => String::new(),
        };
        format!("{task}{arm}, {}seed {}", rate.unwrap_or_default(), cell.seed)
    }
}

impl GridSource<'_> {
    fn error(&self, key: &str, found: &dyn Display, expected: &str) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// The absolute path of `compare.KEY`. As for every key, a path in the file is relative to the
    /// file's directory, and a path in `--set` to the working directory.
    fn own_path(&self, key: &str, path: &Path) -> Result<PathBuf> {
        let key = format!("compare.{key}");
        match self.overrides.iter().any(|text| key_of(text) == key) {
            true => std::path::absolute(path).map_err(Error::io("find", path)),
            false => Ok(plain(&self.folder.join(path))),
        }
    }

    fn output_dir(&self, compare: &CompareSection) -> Result<PathBuf> {
        if compare.output_dir.as_os_str().is_empty() {
            return Err(self.error("compare.output_dir", &"nothing", "a path"));
        }
        self.own_path("output_dir", &compare.output_dir)
    }

    fn check_seeds(&self, seeds: &[u64]) -> Result<()> {
        let distinct = seeds.iter().collect::<BTreeSet<_>>().len() == seeds.len();
        if seeds.is_empty() || !distinct {
            let found = format!("{seeds:?}");
            return Err(self.error("compare.seeds", &found, "one or more different numbers"));
        }
        Ok(())
    }

    /// The keys of the run configuration's sections in the grid file.
    fn common(&self, file: &GridFile) -> Result<KeyLayer> {
        let sections = [
            ("model", &file.model),
            ("method", &file.method),
            ("bitfit", &file.bitfit),
            ("data", &file.data),
            ("training", &file.training),
        ];
        let values = sections.into_iter().flat_map(|(section, table)| {
            table.iter().map(move |(key, value)| (format!("{section}.{key}"), value.clone()))
        });
        KeyLayer { owner: Owner::Sections, values: values.collect() }.checked(self.path)
    }

    /// The names of the tasks, and what each sets. A file without a task has one, by the file's
    /// name.
    fn tasks(&self, tasks: Vec<TaskSection>) -> Result<(Vec<String>, Vec<TaskLayer>)> {
        if tasks.is_empty() {
            return Ok((vec![stem(self.path)], vec![TaskLayer::default()]));
        }
        let read = |task: TaskSection| {
            let layer = KeyLayer::new(Owner::Task(task.name.clone()), task.set);
            let layer = layer.checked(self.path)?;
            let base = task.base.map(|base| RunConfig::read(self.folder.join(base), &[]));
            Ok((task.name, TaskLayer { base: base.transpose()?, layer }))
        };
        tasks.into_iter().map(read).collect()
    }

    fn arms(&self, arms: Vec<ArmSection>, learning_rates: &[f64]) -> Result<Vec<Arm>> {
        let read = |ArmSection { name, set, learning_rates: own }: ArmSection| {
            let layer = KeyLayer::new(Owner::Arm(name.clone()), set).checked(self.path)?;
            let learning_rates = match own {
                None if layer.takes_no_steps() => vec![],
                own => own.unwrap_or_else(|| learning_rates.to_vec()),
            };
            let good = learning_rates.iter().all(|rate| *rate > 0.0 && rate.is_finite());
            let shown: BTreeSet<String> =
                learning_rates.iter().map(|rate| rate_name(*rate)).collect();
            if !good || shown.len() != learning_rates.len() {
                let key = format!("arm {name:?}: learning_rates");
                let found = format!("{learning_rates:?}");
                return Err(self.error(&key, &found, "different positive numbers"));
            }
            if !learning_rates.is_empty() && layer.sets_rate() {
                let expected = "no rate here, because the arm has learning_rates";
                return Err(self.error(&layer.name_of(RATE), &"a rate", expected));
            }
            Ok(Arm { name, learning_rates, layer })
        };
        arms.into_iter().map(read).collect()
    }

    /// Errs if the file fixes the learning rate of arms that have `learning_rates`.
    fn check_rates(
        &self,
        common: &KeyLayer,
        task_layers: &[TaskLayer],
        arms: &[Arm],
    ) -> Result<()> {
        let has_rates = |arm: &&Arm| !arm.learning_rates.is_empty();
        for TaskLayer { layer, .. } in task_layers {
            if let Some(arm) = arms.iter().find(has_rates).filter(|_| layer.sets_rate()) {
                let expected =
                    format!("no rate here, because the arm {:?} has learning_rates", arm.name);
                return Err(self.error(&layer.name_of(RATE), &"a rate", &expected));
            }
        }
        if common.sets_rate() && !arms.is_empty() && arms.iter().all(|arm| has_rates(&arm)) {
            let expected = "no rate here, because every arm has learning_rates";
            return Err(self.error(RATE, &"a rate", expected));
        }
        Ok(())
    }

    /// Errs if two names are equal as directories.
    fn check_names<'a>(&self, key: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
        let mut slugs = BTreeSet::new();
        for name in names {
            let slug = slug(name);
            if slug.is_empty() || !slugs.insert(slug) {
                let expected = "names that contain letters or digits, and differ in them";
                return Err(self.error(key, &format!("{name:?}"), expected));
            }
        }
        Ok(())
    }

    /// Index of the arm that the others are tested against.
    fn reference(&self, name: Option<&str>, arms: &[Arm]) -> Result<usize> {
        let Some(name) = name else { return Ok(0) };
        arms.iter().position(|arm| arm.name == name).ok_or_else(|| {
            let names = arms.iter().map(|arm| format!("{:?}", arm.name)).collect::<Vec<_>>();
            self.error("compare.reference", &format!("{name:?}"), &names.join(", "))
        })
    }

    /// The overrides that apply to every run.
    fn given(&self, arms: &[Arm]) -> Result<Vec<String>> {
        let given = self.overrides.iter().filter(|text| !is_of_grid(text));
        let has_rates = arms.iter().any(|arm| !arm.learning_rates.is_empty());
        for text in given.clone() {
            let key = key_of(text);
            let rates = (key == RATE && has_rates).then_some("compare.learning_rates, or an arm's");
            if let Some(instead) = instead_of(key).or(rates) {
                return Err(Error::Usage(format!(
                    "--set {text}: the grid sets this key; use {instead}"
                )));
            }
        }
        Ok(given.cloned().collect())
    }
}

impl KeyLayer {
    /// The keys in `set` of an arm or a task, written as `"training.seed" = 1` or as tables.
    fn new(owner: Owner, set: toml::Table) -> Self {
        let mut values = vec![];
        for (key, value) in set {
            match value {
                toml::Value::Table(table) if !key.contains('.') => values.extend(
                    table.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)),
                ),
                value => values.push((key, value)),
            }
        }
        Self { owner, values }
    }

    /// The layer; errs if it sets a key that the grid sets itself.
    fn checked(self, path: &Path) -> Result<Self> {
        for (key, _) in &self.values {
            if let Some(instead) = instead_of(key) {
                let (path, key) = (path.display(), self.name_of(key));
                return Err(Error::Usage(format!(
                    "{path}: {key}: the grid sets this key; use {instead}"
                )));
            }
        }
        Ok(self)
    }

    /// The layer with those keys that `keep` says.
    fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let values = self.values.iter().filter(|(key, _)| keep(key)).cloned();
        Self { owner: self.owner.clone(), values: values.collect() }
    }

    /// Whether the layer sets a method that takes no steps.
    fn takes_no_steps(&self) -> bool {
        let method = self.values.iter().rev().find(|(key, _)| key == "method.name");
        let method = method.and_then(|(_, value)| value.clone().try_into::<MethodName>().ok());
        method.is_some_and(|method| !method.takes_steps())
    }

    fn sets_rate(&self) -> bool {
        self.values.iter().any(|(key, _)| key == RATE)
    }

    /// The key as messages name it, with the part of the file that sets it.
    fn name_of(&self, key: &str) -> String {
        match &self.owner {
            Owner::Sections => key.to_owned(),
            Owner::Task(name) => format!("task {name:?}: set.{key}"),
            Owner::Arm(name) => format!("arm {name:?}: set.{key}"),
        }
    }
}

/// The key to use instead of one that the grid sets itself.
fn instead_of(key: &str) -> Option<&'static str> {
    OURS.iter().find(|(ours, _)| *ours == key).map(|(_, instead)| *instead)
}

/// The file's name without its ending.
fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
