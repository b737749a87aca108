//! The Hugging Face Hub: models and data sets by their id, downloaded once into the standard cache that every program which speaks
//! to the Hub shares.
//!
//! `models--OWNER--NAME/` holds `blobs/HASH`, `snapshots/COMMIT/FILE` linking to them, `refs/BRANCH` naming a commit, and
//! `.no_exist/COMMIT/FILE` for what a commit is known not to have.

mod bar;
mod choose;
mod remote;

pub use bar::Bar;

use crate::data;
use crate::error::{Error, Result};
use crate::files;
use choose::Choice;
use remote::{Failure, Remote};
use std::path::{Path, PathBuf};

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl Kind {
    /// As in the Hub's API and in its cache.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// As in addresses of pages and files.
    fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "data set",
        }
    }
}

/// A repository of the Hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// What it holds.
    pub kind: Kind,
    /// `name` or `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// The branch that is meant where no revision is named.
pub const MAIN: &str = "main";

/// Where the Hub keeps a data set's rows as Parquet when its authors' own files are of another kind.
const CONVERTED: &str = "refs/convert/parquet";

impl Repo {
    /// At `revision`, or the newest of the branch `main`.
    pub fn new(kind: Kind, id: &str, revision: Option<&str>) -> Self {
        Self { kind, id: id.into(), revision: revision.unwrap_or(MAIN).into() }
    }

    /// Whether the revision is a commit, whose files never change.
    fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }

    fn problem(&self, endpoint: &str, problem: impl Into<String>) -> Error {
        let address = format!("{endpoint}/{}{}", self.kind.prefix(), self.id);
        Error::Hub { address, problem: problem.into() }
    }
}

/// Whether a text can be a repository's id: `name` or `owner/name`, of letters, digits, `-`, `_` and `.`.
pub fn is_id(text: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split('/').count() <= 2 && text.split('/').all(good)
}

/// Hears how much of a file is there: its name, bytes so far, bytes in all. An error ends the download; what is there is kept.
pub type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) -> Result<()> + 'a;

/// Files of a repository at a commit, in the cache.
#[derive(Debug)]
pub struct Snapshot {
    /// The folder that they are in.
    pub folder: PathBuf,
    /// The commit.
    pub commit: String,
    /// Those that were asked for, by their paths below the folder.
    files: Vec<String>,
}

/// The rows of one split of a data set.
#[derive(Debug)]
pub struct Split {
    /// Its Parquet files, in order.
    pub files: Vec<PathBuf>,
    /// The commit.
    pub commit: String,
    /// The subset's name.
    pub subset: String,
    /// The split's name.
    pub split: String,
}

/// The Hub and the cache, as the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`,
/// `HF_HUB_OFFLINE`.
pub struct Hub {
    cache: PathBuf,
    offline: bool,
    remote: Remote,
}

impl Hub {
    /// Reads the environment; nothing is asked of the network yet.
    pub fn from_env() -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let cache =
                cache.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let cache = variable("HF_HUB_CACHE").map(PathBuf::from);
        let Some(cache) = cache.or_else(|| Some(home.as_ref()?.join("hub"))) else {
            let problem = "where downloads are kept is not known; set HF_HOME, or HOME";
            return Err(Error::Usage(problem.into()));
        };
        let token_file = variable("HF_TOKEN_PATH").map(PathBuf::from);
        let token_file = token_file.or_else(|| Some(home.as_ref()?.join("token")));
        let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file?).ok());
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self {
            cache,
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
            remote: Remote::new(&endpoint, token)?,
        })
    }

    /// A model's configuration, tokenizer and weights: the file named, or the first of the formats that can be read.
    pub fn model(
        &self,
        repo: &Repo,
        weights: Option<&str>,
        progress: &mut Progress<'_>,
    ) -> Result<Snapshot> {
        self.fetch(repo, &|files| choose::model(files, weights), progress)
    }

    /// The Parquet files of a data set's split.
    ///
    /// `subset` must be named where there are several. Without a `split` it is `validation` where there is one, and else `test`.
    pub fn dataset(
        &self,
        repo: &Repo,
        subset: Option<&str>,
        split: Option<&str>,
        progress: &mut Progress<'_>,
    ) -> Result<Split> {
        let choose = |files: &[String]| choose::split(files, subset, split);
        let fetched = self.fetch(repo, &choose, progress);
        let converted = Repo { revision: CONVERTED.into(), ..repo.clone() };
        let snapshot = match fetched {
            // Another branch may stand in for main, whose newest it was made of, and for no other revision.
            Err(Error::Hub { address, problem })
                if repo.revision == MAIN && (problem == choose::NO_PARQUET || self.offline) =>
            {
                let and = |error: Error| match error {
                    Error::Hub { problem: also, .. } if !self.offline => {
                        let problem = format!("{problem} on main, and on {CONVERTED}: {also}");
                        Error::Hub { address, problem }
                    }
                    Error::Hub { .. } => Error::Hub { address, problem },
                    other => other,
                };
                self.fetch(&converted, &choose, progress).map_err(and)?
            }
            other => other?,
        };
        let place = snapshot.files.first().and_then(|file| data::place_of(file));
        let (subset, split) = place.ok_or_else(|| Error::Bug("a split without a name".into()))?;
        Ok(Split {
            files: snapshot.files.iter().map(|file| snapshot.folder.join(file)).collect(),
            commit: snapshot.commit,
            subset,
            split,
        })
    }

    /// The files that `choose` picks, downloaded where the cache does not have them.
    fn fetch(
        &self,
        repo: &Repo,
        choose: &dyn Fn(&[String]) -> std::result::Result<Choice, String>,
        progress: &mut Progress<'_>,
    ) -> Result<Snapshot> {
        let folder = self.folder(repo);
        if self.offline {
            return self.cached(repo, choose, "HF_HUB_OFFLINE is set");
        }
        if repo.is_pinned()
            && let Some(snapshot) = self.whole(repo, choose)
        {
            return Ok(snapshot);
        }
        let info = match self.remote.info(repo) {
            Ok(info) => info,
            // Without a network what is there is as good as new.
            Err(Failure::Unreached(why)) => {
                let Ok(cached) = self.cached(repo, choose, &why) else {
                    return Err(Failure::Unreached(why).about(repo, self.remote.endpoint()));
                };
                tracing::warn!("{why}; {} is taken from the cache", repo.id);
                return Ok(cached);
            }
            Err(Failure::Refused(error)) => return Err(*error),
        };
        let Choice { files: names, absent, .. } =
            choose(&info.files).map_err(|problem| repo.problem(self.remote.endpoint(), problem))?;
        let snapshot = folder.join("snapshots").join(&info.commit);
        for name in &names {
            if !snapshot.join(name).exists() {
                let locks = self.cache.join(".locks").join(self.folder_name(repo));
                self.remote.download(repo, &folder, &locks, &info.commit, name, progress)?;
            }
        }
        for name in absent {
            let mark = folder.join(".no_exist").join(&info.commit).join(name);
            if !mark.exists() {
                files::create_dir(mark.parent().unwrap_or(&folder))?;
                files::replace_with(&mark, b"")?;
            }
        }
        if info.commit != repo.revision {
            let reference = folder.join("refs").join(&repo.revision);
            files::create_dir(reference.parent().unwrap_or(&folder))?;
            files::replace_with(&reference, info.commit.as_bytes())?;
        }
        Ok(Snapshot { folder: snapshot, commit: info.commit, files: names })
    }

    /// The files of a pinned commit, if the cache is known to hold all of them.
    fn whole(
        &self,
        repo: &Repo,
        choose: &dyn Fn(&[String]) -> std::result::Result<Choice, String>,
    ) -> Option<Snapshot> {
        let folder = self.folder(repo);
        let snapshot = folder.join("snapshots").join(&repo.revision);
        let choice = choose(&list(&snapshot)).ok()?;
        let lacks =
            |name: &String| folder.join(".no_exist").join(&repo.revision).join(name).exists();
        (choice.certain && choice.absent.iter().all(lacks)).then_some(Snapshot {
            folder: snapshot,
            commit: repo.revision.clone(),
            files: choice.files,
        })
    }

    /// The files as the cache has them, be they all or not; `why` nothing is asked of the network.
    fn cached(
        &self,
        repo: &Repo,
        choose: &dyn Fn(&[String]) -> std::result::Result<Choice, String>,
        why: &str,
    ) -> Result<Snapshot> {
        let folder = self.folder(repo);
        let reference = std::fs::read_to_string(folder.join("refs").join(&repo.revision));
        let commit =
            reference.map_or_else(|_| repo.revision.clone(), |text| text.trim().to_owned());
        let snapshot = folder.join("snapshots").join(&commit);
        let files = list(&snapshot);
        let problem = if files.is_empty() {
            let (at, cache) = (&repo.revision, self.cache.display());
            format!("{why}, and revision {at} is not in the cache {cache}")
        } else {
            match choose(&files) {
                Ok(choice) => {
                    return Ok(Snapshot { folder: snapshot, commit, files: choice.files });
                }
                // As it is, for who tries another branch after it.
                Err(problem) if problem == choose::NO_PARQUET => problem,
                Err(problem) => format!("{why}, and in the cache: {problem}"),
            }
        };
        Err(repo.problem(self.remote.endpoint(), problem))
    }

    fn folder_name(&self, repo: &Repo) -> String {
        format!("{}--{}", repo.kind.plural(), repo.id.replace('/', "--"))
    }

    fn folder(&self, repo: &Repo) -> PathBuf {
        self.cache.join(self.folder_name(repo))
    }
}

/// The files below a folder, by their paths in it, sorted; links that lead nowhere are left out.
fn list(folder: &Path) -> Vec<String> {
    fn below(folder: &Path, prefix: &str, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match std::fs::metadata(entry.path()) {
                Ok(found) if found.is_dir() => below(&entry.path(), &format!("{name}/"), files),
                Ok(_) => files.push(name),
                Err(_) => {}
            }
        }
    }
    let mut files = vec![];
    below(folder, "", &mut files);
    files.sort();
    files
}
