//! A grid of runs, read from a file: tasks x arms x learning rates x seeds over one run
//! configuration.

use crate::bounds::Positive;
use crate::config::{
    BitfitSection, DataSection, MethodSection, ModelSection, Run, RunConfig, TrainingSection,
    plain, read_toml, schema_of, start_of_paths, with_suggestion,
};
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A grid: `[compare]`, `[[task]]`, `[[arm]]`, and sections of a run configuration for all runs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GridFile {
    /// The report's title and directory, and the base, seeds and learning rates of the runs.
    compare: CompareSection,
    /// The tasks, each with keys for its runs; by default one task, that of the configuration.
    #[serde(default)]
    task: Vec<TaskSection>,
    /// The arms to compare, each with keys for its runs.
    #[serde(default)]
    arm: Vec<ArmSection>,
    #[serde(default)]
    #[schemars(with = "ModelSection")]
    model: toml::Table,
    #[serde(default)]
    #[schemars(with = "MethodSection")]
    method: toml::Table,
    #[serde(default)]
    #[schemars(with = "BitfitSection")]
    bitfit: toml::Table,
    #[serde(default)]
    #[schemars(with = "DataSection")]
    data: toml::Table,
    #[serde(default)]
    #[schemars(with = "TrainingSection")]
    training: toml::Table,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CompareSection {
    /// The report's heading; by default the file's name.
    title: Option<String>,
    /// The directory of the runs and the report.
    output_dir: PathBuf,
    /// The configuration that all runs start from.
    base: Option<PathBuf>,
    /// The seeds of each arm's runs.
    seeds: Vec<u64>,
    /// Whether to choose the learning rate on the first seed; other seeds run at the best only.
    tune: bool,
    /// The learning rates of arms that have none of their own.
    learning_rates: Vec<f64>,
    /// The arm that the others are tested against; by default the first.
    reference: Option<String>,
}

impl Default for CompareSection {
    fn default() -> Self {
        Self {
            title: None,
            output_dir: PathBuf::new(),
            base: None,
            seeds: vec![1, 2, 3],
            tune: false,
            learning_rates: vec![],
            reference: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TaskSection {
    /// The task's name.
    name: String,
    /// The configuration that the task's runs start from, instead of `compare.base`.
    base: Option<PathBuf>,
    /// Keys for the task's runs, as `"SECTION.KEY" = VALUE`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    set: toml::Table,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ArmSection {
    /// The arm's name.
    name: String,
    /// Keys for the arm's runs, as `"SECTION.KEY" = VALUE`.
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    set: toml::Table,
    /// The arm's learning rates, instead of `compare.learning_rates`.
    learning_rates: Option<Vec<f64>>,
}

/// The JSON schema of a grid file.
pub fn schema() -> Value {
    let mut schema = schema_of::<GridFile>("The grid of a bitfit comparison");
    let sections = schema.get_mut("properties").and_then(Value::as_object_mut);
    // A section may lack a required key: the base, or the `set` of a task or an arm, may have it.
    for (name, section) in sections.into_iter().flatten() {
        if let Some(section) = section.as_object_mut().filter(|_| name != "compare") {
            section.shift_remove("required");
        }
    }
    if let Some(root) = schema.as_object_mut() {
        root.insert("required".into(), serde_json::json!(["compare", "arm"]));
    }
    schema
}

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
    /// For each task, its own base, if it has one, and the keys that it sets.
    task_layers: Vec<(Option<RunConfig>, Layer)>,
    /// The run configuration's sections in the grid file, which apply to every run.
    common: Layer,
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
    layer: Layer,
}

/// Keys with their values, and the place where they were written.
#[derive(Debug, Clone)]
struct Layer {
    place: String,
    values: Vec<(String, toml::Value)>,
}

/// A run of the grid.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Index of the task in [`Grid::tasks`].
    pub task: usize,
    /// Index of the arm in [`Grid::arms`].
    pub arm: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// The seed.
    pub seed: u64,
    /// The run, whose output directory is below the grid's.
    pub run: Run,
}

/// The key that an arm's `learning_rates` set.
const RATE: &str = "training.learning_rate";

/// Keys that the grid sets itself, each with what to use instead.
const OURS: [(&str, &str); 2] = [
    ("training.output_dir", "compare.output_dir, below which every run has its own"),
    ("training.seed", "compare.seeds"),
];

impl Grid {
    /// Reads the grid file `path` and checks the configuration of every run. Overrides of `compare`
    /// keys apply to the grid, all others to every run.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let file: GridFile = match overrides.iter().any(|text| of_grid(text)) {
            false => read_toml(path)?,
            // Reads the file once without the overrides, so that an error in the file names its
            // line.
            true => {
                read_toml::<GridFile>(path)?;
                overridden(read_toml(path)?, overrides)?
            }
        };
        let folder = start_of_paths(path)?;
        let error = |key: &str, found: &dyn std::fmt::Display, expected: &str| Error::Config {
            path: path.to_owned(),
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.to_owned(),
        };
        let compare = file.compare;
        if compare.output_dir.as_os_str().is_empty() {
            return Err(error("compare.output_dir", &"nothing", "a path"));
        }
        // As for every key, a path in the file is relative to the file's directory, and a path in
        // `--set` to the working directory.
        let from = |key: &str, path: &Path| -> Result<PathBuf> {
            let key = format!("compare.{key}");
            let given = |text: &String| text.split('=').next().unwrap_or_default().trim() == key;
            match overrides.iter().any(given) {
                true => std::path::absolute(path).map_err(Error::io("find", path)),
                false => Ok(plain(&folder.join(path))),
            }
        };
        let output_dir = from("output_dir", &compare.output_dir)?;
        let distinct = compare.seeds.iter().collect::<BTreeSet<_>>().len() == compare.seeds.len();
        if compare.seeds.is_empty() || !distinct {
            let found = format!("{:?}", compare.seeds);
            return Err(error("compare.seeds", &found, "one or more different numbers"));
        }
        let base = compare.base.as_deref().map(|base| RunConfig::read(&from("base", base)?, &[]));
        let base = base.transpose()?.unwrap_or_default();
        let sections = [
            ("model", file.model),
            ("method", file.method),
            ("bitfit", file.bitfit),
            ("data", file.data),
            ("training", file.training),
        ];
        let mut common = Layer { place: path.display().to_string(), values: vec![] };
        for (section, table) in sections {
            common
                .values
                .extend(table.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
        }
        common.free()?;
        let mut tasks = vec![];
        let mut task_layers = vec![];
        for task in file.task {
            let layer = Layer::new(path, "task", &task.name, task.set)?;
            let own = task.base.as_deref().map(|base| RunConfig::read(&folder.join(base), &[]));
            let own = own.transpose()?;
            task_layers.push((own, layer));
            tasks.push(task.name);
        }
        if tasks.is_empty() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            task_layers.push((None, Layer { place: String::new(), values: vec![] }));
            tasks.push(name);
        }
        let mut arms = vec![];
        for arm in file.arm {
            let learning_rates = arm.learning_rates.unwrap_or(compare.learning_rates.clone());
            let good = learning_rates.iter().all(|rate| *rate > 0.0 && rate.is_finite());
            let shown: BTreeSet<String> =
                learning_rates.iter().map(|rate| rate_name(*rate)).collect();
            if !good || shown.len() != learning_rates.len() {
                let (key, found) =
                    (format!("arm {:?}: learning_rates", arm.name), format!("{learning_rates:?}"));
                return Err(error(&key, &found, "different positive numbers"));
            }
            let layer = Layer::new(path, "arm", &arm.name, arm.set)?;
            if !learning_rates.is_empty() && layer.values.iter().any(|(key, _)| key == RATE) {
                let key = format!("arm {:?}: set.{RATE}", arm.name);
                return Err(error(&key, &"a rate", "either it or learning_rates"));
            }
            arms.push(Arm { name: arm.name, learning_rates, layer });
        }
        let rated = |arm: &&Arm| !arm.learning_rates.is_empty();
        let fixed = |layer: &Layer| layer.values.iter().any(|(key, _)| key == RATE);
        for (name, (_, layer)) in tasks.iter().zip(&task_layers) {
            if let Some(arm) = arms.iter().find(rated).filter(|_| fixed(layer)) {
                let key = format!("task {name:?}: set.{RATE}");
                let expected = format!("none, as the arm {:?} has learning_rates", arm.name);
                return Err(error(&key, &"a rate", &expected));
            }
        }
        if fixed(&common) && !arms.is_empty() && arms.iter().all(|arm| rated(&arm)) {
            return Err(error(RATE, &"a rate", "none, as every arm has learning_rates"));
        }
        if arms.is_empty() {
            return Err(error("arm", &"none", "one [[arm]] or more, each with a name"));
        }
        let names = arms.iter().map(|arm| &arm.name).collect::<Vec<_>>();
        for (key, names) in [("task.name", tasks.iter().collect()), ("arm.name", names.clone())] {
            let mut slugs = BTreeSet::new();
            for name in names {
                let slug = slug(name);
                if slug.is_empty() || !slugs.insert(slug) {
                    let expected = "names with letters or digits, which differ in these";
                    return Err(error(key, &format!("{name:?}"), expected));
                }
            }
        }
        let reference = match &compare.reference {
            None => 0,
            Some(name) => names.iter().position(|arm| *arm == name).ok_or_else(|| {
                let names = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
                error("compare.reference", &format!("{name:?}"), &names.join(", "))
            })?,
        };
        let given: Vec<String> = overrides.iter().filter(|text| !of_grid(text)).cloned().collect();
        for text in &given {
            let key = text.split('=').next().unwrap_or_default().trim();
            let ours = OURS.iter().find(|(ours, _)| *ours == key).map(|(_, instead)| *instead);
            let rated = arms.iter().any(|arm| rated(&arm));
            let ours =
                ours.or((key == RATE && rated).then_some("compare.learning_rates, or an arm's"));
            if let Some(instead) = ours {
                return Err(Error::Usage(format!("--set {text}: the grid decides it: {instead}")));
            }
        }
        let grid = Self {
            path: path.to_owned(),
            title: compare.title.unwrap_or_else(|| {
                path.file_stem().unwrap_or_default().to_string_lossy().replace(['-', '_'], " ")
            }),
            output_dir,
            seeds: compare.seeds,
            tune: compare.tune,
            tasks,
            arms,
            reference,
            folder,
            base,
            task_layers,
            common,
            given,
        };
        // Configures every run now, so that an error in any is reported before the first run
        // begins.
        for task in 0..grid.tasks.len() {
            let mut metric = None;
            for arm in 0..grid.arms.len() {
                let cells = grid.cells(task, arm)?;
                for cell in cells {
                    let its = (cell.run.metric, cell.run.greater_is_better);
                    if *metric.get_or_insert(its) != its {
                        let key = format!("{}: training.metric_for_best_model", grid.place(&cell));
                        return Err(error(
                            &key,
                            &its.0.name(),
                            "one metric for all arms of a task",
                        ));
                    }
                }
            }
        }
        Ok(grid)
    }

    /// All runs of an arm on a task: the first seed at every rate, then each other seed at every
    /// rate. If [`Grid::tunes`], the caller keeps only the best rate of the other seeds.
    pub fn cells(&self, task: usize, arm: usize) -> Result<Vec<Cell>> {
        let missing = || Error::Bug("a run outside of its grid".into());
        let rates = self.arms.get(arm).ok_or_else(missing)?.learning_rates.iter();
        let mut rates: Vec<Option<f64>> = rates.map(|rate| Some(*rate)).collect();
        if rates.is_empty() {
            rates.push(None);
        }
        let pairs = self.seeds.iter().flat_map(|seed| rates.iter().map(move |rate| (*rate, *seed)));
        pairs.map(|(rate, seed)| self.cell(task, arm, rate, seed)).collect()
    }

    fn cell(&self, task: usize, arm: usize, rate: Option<f64>, seed: u64) -> Result<Cell> {
        let missing = || Error::Bug("a run outside of its grid".into());
        let (own, task_layer) = self.task_layers.get(task).ok_or_else(missing)?;
        let its = self.arms.get(arm).ok_or_else(missing)?;
        let mut config = own.clone().unwrap_or_else(|| self.base.clone());
        for layer in [&self.common, task_layer, &its.layer] {
            for (key, value) in &layer.values {
                config.set(key, value, &self.folder).map_err(|message| Error::Toml {
                    path: self.path.clone(),
                    message: format!("{}{key}: {message}", layer.prefix(&self.path)),
                })?;
            }
        }
        let mut config = config.with(&self.given, &self.path)?;
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
        let name = format!("lr-{}-seed-{seed}", rate_name(learning_rate));
        let dir = run.output_dir().join(name);
        let run = run.with_output_dir(dir);
        Ok(Cell { task, arm, learning_rate, seed, run })
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

    /// A run's name, as shown to people.
    pub fn place(&self, cell: &Cell) -> String {
        let arm = self.arms.get(cell.arm).map_or("", |arm| &arm.name);
        let rate = rate_name(cell.learning_rate);
        let task = match self.tasks.get(cell.task).filter(|_| self.tasks.len() > 1) {
            Some(task) => format!("{task}, "),
            None => String::new(),
        };
        format!("{task}{arm}, learning rate {rate}, seed {}", cell.seed)
    }
}

impl Layer {
    /// The keys in `set` of the arm or task `name`, written as `"training.seed" = 1` or as tables.
    fn new(path: &Path, kind: &str, name: &str, set: toml::Table) -> Result<Self> {
        let mut values = vec![];
        for (key, value) in set {
            match value {
                toml::Value::Table(table) if !key.contains('.') => values.extend(
                    table.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)),
                ),
                value => values.push((key, value)),
            }
        }
        let layer = Self { place: format!("{}: {kind} {name:?}: set.", path.display()), values };
        layer.free()?;
        Ok(layer)
    }

    /// Errs if the layer sets a key that the grid sets itself.
    fn free(&self) -> Result<()> {
        for (key, _) in &self.values {
            if let Some((_, instead)) = OURS.iter().find(|(ours, _)| ours == key) {
                let place = self.place.trim_end_matches("set.").trim_end_matches(": ");
                return Err(Error::Usage(format!(
                    "{place}: {key}: the grid decides it: {instead}"
                )));
            }
        }
        Ok(())
    }

    /// The place where the layer was written, without the file name `path`.
    fn prefix(&self, path: &Path) -> &str {
        let place = self.place.strip_prefix(&path.display().to_string()).unwrap_or(&self.place);
        place.trim_start_matches(": ")
    }
}

/// Whether an override is for the grid itself.
fn of_grid(text: &str) -> bool {
    text.trim_start().starts_with("compare.")
}

/// The grid file with the overrides of its section `compare`.
fn overridden(mut table: toml::Table, overrides: &[String]) -> Result<GridFile> {
    let mut file = None;
    for text in overrides.iter().filter(|text| of_grid(text)) {
        let usage = |message: &str| Error::Usage(format!("--set {text}: {message}"));
        let (key, written) = text.split_once('=').ok_or_else(|| usage("expected KEY=VALUE"))?;
        let name = key.trim().trim_start_matches("compare.").to_owned();
        let parsed = toml::from_str::<toml::Table>(&format!("value = {written}"));
        let value = parsed.ok().and_then(|mut parsed| parsed.remove("value"));
        let value = value.unwrap_or_else(|| toml::Value::String(written.trim().to_owned()));
        let section = table.get_mut("compare").and_then(toml::Value::as_table_mut);
        section.ok_or_else(|| usage("the file has no section compare"))?.insert(name, value);
        let read: std::result::Result<GridFile, toml::de::Error> = table.clone().try_into();
        file = Some(read.map_err(|e| usage(&with_suggestion(e.message())))?);
    }
    file.ok_or_else(|| Error::Bug("no override of the grid".into()))
}

/// A learning rate in scientific notation: `4e-4` for `0.0004`.
pub fn rate_name(rate: f64) -> String {
    format!("{rate:e}")
}

/// A name as part of a file name: lower-case letters, digits and dashes.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars().flat_map(char::to_lowercase) {
        if letter.is_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}
