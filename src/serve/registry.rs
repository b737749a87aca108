//! The directory of tasks: which files there are, what was read of them, and what the engine has.
//!
//! ```text
//! DIR -> files -> those that changed are read and checked -> the engine's map, one entry at a time
//! ```

use super::metrics::Metrics;
use super::problem::{Answered, Problem};
use crate::bank::BankTask;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::escape;
use crate::files::{self, FileWriter};
use crate::native::{MappedValues, Values};
use crate::process::unix_seconds;
use crate::tasks::{DELTA, TaskFiles, check_name};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A file that was written to within this number of seconds may be written to again without another
/// time: it is read again at the next look.
const SETTLED: i64 = 2;

/// The directory of tasks of an engine.
pub struct TaskDir {
    engine: Engine,
    metrics: Arc<Metrics>,
    dir: PathBuf,
    tiers: Tiers,
    state: Mutex<State>,
}

/// Where the tasks' values are kept.
#[derive(Debug, Clone)]
pub struct Tiers {
    /// The most bytes in memory. More tasks are in files without a name.
    pub memory: u64,
    /// The directory of these files.
    pub cache_dir: PathBuf,
}

/// What is known of the directory.
#[derive(Default)]
struct State {
    /// The files that were read, by task.
    known: BTreeMap<String, KnownFile>,
    /// The bytes of the tasks in memory and in files.
    bytes: [u64; 2],
    /// Whether the last look failed.
    is_lost: bool,
}

impl State {
    /// Notes what is known of the file of the task `name`; `None` if it is gone.
    fn set(&mut self, name: &str, file: Option<KnownFile>) {
        let kept = file.as_ref().and_then(|file| file.kept);
        let before = match file {
            Some(file) => self.known.insert(name.into(), file),
            None => self.known.remove(name),
        };
        if let Some((place, bytes)) = before.and_then(|file| file.kept) {
            *self.bytes_in(place) -= bytes;
        }
        if let Some((place, bytes)) = kept {
            *self.bytes_in(place) += bytes;
        }
    }

    /// The bytes of the tasks in a place.
    fn bytes_in(&mut self, place: Place) -> &mut u64 {
        let [memory, file] = &mut self.bytes;
        match place {
            Place::Memory => memory,
            Place::File => file,
        }
    }
}

/// A file that was read.
struct KnownFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Where the task's values are, and their bytes; `None` if the file was refused.
    kept: Option<(Place, u64)>,
}

/// Where a task's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory,
    File,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    file: (u64, u64),
}

/// What a look at the directory found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Tasks that are new, or have another version.
    pub loaded: usize,
    /// Files that were refused.
    pub refused: usize,
    /// Tasks whose files are gone.
    pub removed: usize,
}

/// What a task must be for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Anything, or nothing.
    Any,
    /// Not there.
    Absent,
    /// There, in whatever version.
    There,
    /// There, in this version.
    Version(String),
}

/// Is told of the files done and of all.
pub type Progress<'a> = dyn FnMut(usize, usize) + Send + 'a;

impl TaskDir {
    /// Takes a directory, and reads nothing yet.
    pub fn new(engine: Engine, metrics: Arc<Metrics>, dir: &Path, tiers: Tiers) -> Self {
        let state = Mutex::default();
        Self { engine, metrics, dir: dir.to_owned(), tiers, state }
    }

    /// Looks at the directory, and reads what is new. A task whose file is now refused goes on in
    /// its last version.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read; all tasks stay.
    pub fn look(&self, progress: &mut Progress<'_>) -> Result<Look> {
        let began = Instant::now();
        let mut state = self.state();
        let TaskFiles { found, wrong } = match TaskFiles::of(&self.dir) {
            Ok(files) => files,
            Err(error) => {
                if !std::mem::replace(&mut state.is_lost, true) && !state.known.is_empty() {
                    tracing::error!("{error}; the tasks that are loaded stay");
                }
                return Err(error);
            }
        };
        state.is_lost = false;
        let mut look = Look { removed: self.forget(&mut state, &found, &wrong), ..Look::default() };
        for (name, error) in wrong {
            look.refused += usize::from(self.refuse(&name, error));
        }
        let mut stamps = BTreeMap::new();
        let mut changed = vec![];
        for (name, path) in found {
            let stamp = Stamp::of(&path);
            let known = state.known.get(&name);
            if known
                .is_none_or(|known| known.path != path || known.stamp != stamp || stamp.is_none())
            {
                stamps.insert(name.clone(), stamp);
                changed.push((name, path));
            }
        }
        let reader = self.engine.reader().clone();
        let paths: BTreeMap<String, PathBuf> = changed.iter().cloned().collect();
        let all = changed.len();
        let mut told = |done| -> Result<()> {
            progress(done, all);
            Ok(())
        };
        reader.read_all(&changed, &mut told, &mut |name, task| {
            let path = paths.get(name).cloned().unwrap_or_default();
            let stamp = stamps.get(name).copied().flatten().filter(Stamp::is_settled);
            match task.and_then(|task| self.keep(&mut state, name, task)) {
                Ok((is_new, kept)) => {
                    look.loaded += usize::from(is_new);
                    state.set(name, Some(KnownFile { path, stamp, kept: Some(kept) }));
                }
                Err(error) => {
                    // What failed outside of the file is tried again.
                    let stamp = stamp.filter(|_| !matches!(error, Error::Io { .. }));
                    look.refused += usize::from(self.refuse(name, error));
                    let kept = state.known.get(name).and_then(|known| known.kept);
                    state.set(name, Some(KnownFile { path, stamp, kept }));
                }
            }
        })?;
        self.count(&state, &look, began);
        Ok(look)
    }

    /// Removes the tasks whose files are gone. Returns their number.
    fn forget(
        &self,
        state: &mut State,
        found: &BTreeMap<String, PathBuf>,
        wrong: &BTreeMap<String, Error>,
    ) -> usize {
        let is_gone = |name: &&String| !found.contains_key(*name) && !wrong.contains_key(*name);
        let gone: Vec<String> = state.known.keys().filter(is_gone).cloned().collect();
        let mut removed = 0;
        for name in gone {
            state.set(&name, None);
            if self.engine.remove(&name) {
                tracing::info!("task {name} is removed: its file is gone");
                removed += 1;
            }
        }
        // A refused name that was never a file of a task, such as one with a space.
        let mut map = self.engine.map_mut();
        let refused: Vec<String> = map.refused().keys().filter(is_gone).cloned().collect();
        refused.iter().for_each(|name| map.forget_refused(name));
        removed
    }

    /// Makes `task` the engine's, unless that has this version. Returns whether it is new, and
    /// where its values are.
    fn keep(
        &self,
        state: &mut State,
        name: &str,
        mut task: BankTask,
    ) -> Result<(bool, (Place, u64))> {
        let present = self.engine.map().get(name).map(|task| task.version.clone());
        let kept = state.known.get(name).and_then(|known| known.kept);
        if let (Some(version), Some(kept)) = (&present, kept)
            && *version == task.version
        {
            self.engine.map_mut().forget_refused(name);
            return Ok((false, kept));
        }
        let (plan, bytes) = (self.engine.reader().plan(), task.bytes as u64);
        let place = match *state.bytes_in(Place::Memory) + bytes <= self.tiers.memory {
            true => Place::Memory,
            false => {
                task.move_to(plan, |values| in_file(&self.tiers.cache_dir, values))?;
                Place::File
            }
        };
        let version = task.version.clone();
        self.engine.map_mut().insert(name, Arc::new(task));
        match present {
            Some(old) => tracing::info!("task {name}: version {version} replaces {old}"),
            None => tracing::debug!("task {name}: version {version}"),
        }
        Ok((true, (place, bytes)))
    }

    /// Notes why a file is not a task. Returns whether that is news.
    fn refuse(&self, name: &str, error: Error) -> bool {
        let mut map = self.engine.map_mut();
        let is_known = map.refused().get(name).is_some_and(|known| *known == error.to_string());
        let refused = map.refuse(name, error);
        if !is_known {
            let goes_on = match map.get(name) {
                Some(task) => format!("; version {} goes on", task.version),
                None => String::new(),
            };
            let shown = escape::line(name);
            tracing::warn!("task {shown} is refused: {}{goes_on}", refused.error);
        }
        !is_known
    }

    fn count(&self, state: &State, look: &Look, began: Instant) {
        let (loaded, refused) = {
            let map = self.engine.map();
            (map.tasks().len(), map.refused().len())
        };
        self.metrics.set_tasks(loaded, refused, state.bytes);
        for (outcome, count) in
            [("loaded", look.loaded), ("refused", look.refused), ("removed", look.removed)]
        {
            self.metrics.task_loads.with_label_values(&[outcome]).inc_by(count as u64);
        }
        if *look != Look::default() {
            self.metrics.task_load_seconds.observe(began.elapsed().as_secs_f64());
            let Look { loaded, refused, removed } = look;
            tracing::info!("tasks: {loaded} loaded, {refused} refused, {removed} removed");
        }
    }

    /// Writes `bytes` as the file of the task `name`, and makes it the engine's. Returns whether
    /// the task is new.
    pub fn put(&self, name: &str, bytes: &[u8], if_match: &IfMatch) -> Answered<bool> {
        check_name(name).map_err(Problem::invalid)?;
        let mut state = self.state();
        let known = state.known.get(name).map(|known| known.path.clone());
        let path = self.file_of(name, known, "replaced")?;
        let present = self.check_version(name, if_match)?;
        let task = self.engine.reader().of_bytes(&path, bytes).map_err(Problem::invalid)?;
        files::replace_with(&path, bytes).map_err(Problem::failed)?;
        let stamp = Stamp::of(&path).filter(Stamp::is_settled);
        let began = Instant::now();
        let (is_new, kept) = self.keep(&mut state, name, task)?;
        tracing::info!("task {name} was put");
        state.set(name, Some(KnownFile { path, stamp, kept: Some(kept) }));
        self.count(&state, &Look { loaded: usize::from(is_new), ..Look::default() }, began);
        Ok(present.is_none())
    }

    /// Removes the task `name` and its file.
    pub fn delete(&self, name: &str, if_match: &IfMatch) -> Answered<()> {
        let mut state = self.state();
        let known = state.known.get(name).map(|known| known.path.clone());
        if known.is_none() {
            let names = self.engine.map();
            return Err(Problem::no_task(names.no_task(name)));
        }
        let path = self.file_of(name, known, "deleted")?;
        self.check_version(name, if_match)?;
        files::remove(&path).map_err(Problem::failed)?;
        tracing::info!("task {name} was deleted");
        state.set(name, None);
        self.engine.remove(name);
        self.count(&state, &Look { removed: 1, ..Look::default() }, Instant::now());
        Ok(())
    }

    /// The file of a task, whose present one is `known`, that a client may change.
    fn file_of(&self, name: &str, known: Option<PathBuf>, done: &str) -> Answered<PathBuf> {
        let own = self.dir.join(format!("{name}.safetensors"));
        if known.is_some_and(|path| path != own) {
            return Err(Problem::conflict(format!(
                "task {name}: its file is {name}/{DELTA}, of a run, which is not {done} over HTTP"
            )));
        }
        // Through a link another directory would be written to, and a pipe would never be ready.
        match std::fs::symlink_metadata(&own) {
            Ok(there) if !there.is_file() => Err(Problem::conflict(format!(
                "task {name}: {name}.safetensors is a link, a directory or no file, which is not \
                 {done} over HTTP"
            ))),
            _ => Ok(own),
        }
    }

    /// Checks that the task `name` has the version that `if_match` asks for. Returns its version.
    fn check_version(&self, name: &str, if_match: &IfMatch) -> Answered<Option<Box<str>>> {
        let present = self.engine.map().get(name).map(|task| task.version.clone());
        let (is_right, expected) = match if_match {
            IfMatch::Any => (true, "any"),
            IfMatch::Absent => (present.is_none(), "no such task"),
            IfMatch::There => (present.is_some(), "any version"),
            IfMatch::Version(version) => (present.as_deref() == Some(version), version.as_str()),
        };
        let found = present.as_deref().unwrap_or("no such task");
        let problem = || format!("task {name}: found {found}, and the request expects {expected}");
        if is_right { Ok(present) } else { Err(Problem::precondition(problem())) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes `values` to a file without a name in `dir`, and maps it.
fn in_file(dir: &Path, values: &[f32]) -> Result<Values> {
    let mut file = FileWriter::unnamed(dir)?;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    file.write_all(&bytes).map_err(Error::io("write a task (--cache-dir) to", dir))?;
    Ok(MappedValues::new(file.file(), dir, values.len())?.into())
}

impl Stamp {
    /// The stamp of the file at `path`; `None` if it cannot be read.
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        Some(Self {
            size: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
            file: (about.dev(), about.ino()),
        })
    }

    fn is_settled(&self) -> bool {
        let latest = self.modified.0.max(self.changed.0);
        i64::try_from(unix_seconds()).is_ok_and(|now| latest + SETTLED < now)
    }
}
