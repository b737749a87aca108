//! The client of the Hub: takes files from the cache, and downloads what the cache lacks.

use super::cache::Folder;
use super::choose::{self, Choice, NoChoice};
use super::download;
use super::environment::{self, CacheConfig};
use super::remote::{FetchError, Remote};
use super::repo::{CONVERTED, MAIN, Repo, RepoType};
use super::snapshot::{DatasetSplit, DownloadProgress, HubSnapshot};
use crate::data;
use crate::error::{Error, Result};
use crate::weights;
use std::path::Path;

/// The Hub and the cache, configured by the environment variables of huggingface_hub.
pub struct Hub {
    models: CacheConfig,
    datasets: CacheConfig,
    remote: Remote,
}

impl Hub {
    /// Reads the environment, without network access. Errs if no variable says where the cache is,
    /// or if `HF_ENDPOINT` or the token is malformed.
    pub fn from_env() -> Result<Self> {
        Ok(Self {
            models: environment::cache_config(RepoType::Model)?,
            datasets: environment::cache_config(RepoType::Dataset)?,
            remote: Remote::new(&environment::endpoint(), environment::token())?,
        })
    }

    /// Fetches a model's configuration, tokenizer and weights: the file `weights`, or else the
    /// first of the readable formats that the repository has.
    ///
    /// If the Hub cannot be reached or `HF_HUB_OFFLINE` is set, takes the files from the cache.
    /// Errs if they are not there, or if the repository does not exist or lacks a file.
    pub fn model(
        &self,
        repo: &Repo,
        weights: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<HubSnapshot> {
        let fetched = self.fetch(repo, &|files| choose::model(files, weights), progress);
        fetched.map_err(|failure| failure.into_error(repo, self.remote.endpoint()))
    }

    /// Fetches the Parquet files of a data set's split.
    ///
    /// `subset` may be `None` if there is only one subset, or if one is named `default`. Without
    /// `split`, takes `validation` if there is one, else `test`.
    pub fn dataset(
        &self,
        repo: &Repo,
        subset: Option<&str>,
        split: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<DatasetSplit> {
        let choose = |files: &[String]| choose::split(files, subset, split);
        let fetched = self.rows(repo, &choose, progress);
        let snapshot =
            fetched.map_err(|failure| failure.into_error(repo, self.remote.endpoint()))?;
        let place = snapshot.files.first().and_then(|file| data::place_of(file));
        let (subset, split) = place.ok_or_else(|| Error::Bug("a split without a name".into()))?;
        Ok(DatasetSplit {
            files: snapshot.files.iter().map(|file| snapshot.folder.join(file)).collect(),
            commit: snapshot.commit,
            subset,
            split,
        })
    }

    fn cache_config(&self, kind: RepoType) -> &CacheConfig {
        match kind {
            RepoType::Model => &self.models,
            RepoType::Dataset => &self.datasets,
        }
    }

    /// Fetches the Parquet files that `choose` picks. If `main` has none, takes those that the Hub
    /// converted, from the branch [`CONVERTED`].
    fn rows(
        &self,
        repo: &Repo,
        choose: &Choose<'_>,
        progress: &mut DownloadProgress<'_>,
    ) -> Fetched<HubSnapshot> {
        let first = match self.fetch(repo, choose, progress) {
            // The Hub converts the newest commit of `main`, so that the conversion replaces no
            // other revision.
            Err(first) if repo.revision == MAIN => first,
            other => return other,
        };
        let converted = Repo { revision: CONVERTED.into(), ..repo.clone() };
        let problem = match first {
            FetchError::Refused(_) => return Err(first),
            FetchError::Unreached(why) => return self.use_cache(&converted, choose, why),
            FetchError::Lacks(problem) => problem,
        };
        let also = match self.fetch(&converted, choose, progress) {
            Err(FetchError::Lacks(also) | FetchError::Unreached(also)) => also,
            Err(FetchError::Refused(error)) => match *error {
                Error::Hub { problem: also, .. } => also,
                other => return Err(other.into()),
            },
            found => return found,
        };
        let problem = match self.cache_config(repo.kind).offline {
            Some(_) => problem,
            None => format!("{problem} on {MAIN}, and on {CONVERTED}: {also}"),
        };
        Err(FetchError::Lacks(problem))
    }

    fn folder(&self, repo: &Repo) -> Folder {
        Folder::of(repo, &self.cache_config(repo.kind).cache)
    }

    /// Fetches the files that `choose` picks: downloads those that the cache lacks.
    fn fetch(
        &self,
        repo: &Repo,
        choose: &Choose<'_>,
        progress: &mut DownloadProgress<'_>,
    ) -> Fetched<HubSnapshot> {
        repo.check()?;
        let (place, folder) = (self.cache_config(repo.kind), self.folder(repo));
        if let Some(variable) = place.offline {
            let why = format!("{variable} is set");
            return self.cached(repo, choose, &why)?.ok_or_else(|| {
                let (at, cache) = (&repo.revision, place.cache.display());
                FetchError::Lacks(format!("{why}, and revision {at} is not in the cache {cache}"))
            });
        }
        if repo.is_pinned()
            && let Some(snapshot) = self.whole(repo, choose)
        {
            return Ok(snapshot);
        }
        let info = match self.remote.info(repo) {
            Ok(info) => info,
            Err(FetchError::Unreached(why)) => return self.use_cache(repo, choose, why),
            Err(other) => return Err(other),
        };
        let Choice { files: mut names, absent, .. } =
            choose(&info.files).map_err(|unfit| self.unfit(repo, unfit, ""))?;
        let snapshot = folder.snapshot(&info.commit);
        let mut bring = |name: &String| {
            if snapshot.join(name).exists() {
                return Ok(());
            }
            download::download_file(&self.remote, repo, &folder, &info.commit, name, progress)
        };
        names.iter().try_for_each(&mut bring)?;
        let shards = shards(&snapshot, &names)?;
        if let Some(name) = shards.iter().find(|name| !info.files.contains(name)) {
            let index = names.last().map_or("", String::as_str);
            let problem = format!("no file {name}, which {index} lists");
            return Err(repo.problem(self.remote.endpoint(), problem).into());
        }
        shards.iter().try_for_each(bring)?;
        insert(&mut names, shards);
        absent.iter().for_each(|name| folder.note_absent(&info.commit, name));
        if info.commit != repo.revision {
            folder.note_commit(&repo.revision, &info.commit);
        }
        Ok(HubSnapshot { folder: snapshot, commit: info.commit, files: names })
    }

    /// The files of a pinned commit; `None` unless the cache is known to hold all of them.
    fn whole(&self, repo: &Repo, choose: &Choose<'_>) -> Option<HubSnapshot> {
        let (folder, commit) = (self.folder(repo), &repo.revision);
        let snapshot = folder.snapshot(commit);
        let Choice { mut files, absent, certain } = choose(&folder.list(commit)).ok()?;
        let there = |name: &String| snapshot.join(name).exists();
        if !certain
            || !files.iter().all(there)
            || !absent.iter().all(|name| folder.is_absent(commit, name))
        {
            return None;
        }
        let shards = shards(&snapshot, &files).ok()?;
        if !shards.iter().all(there) {
            return None;
        }
        insert(&mut files, shards);
        Some(HubSnapshot { folder: snapshot, commit: commit.clone(), files })
    }

    /// Takes the files from the cache, with a warning, because the Hub cannot be reached. Errs with
    /// `why` if the cache has nothing of the revision.
    fn use_cache(&self, repo: &Repo, choose: &Choose<'_>, why: String) -> Fetched<HubSnapshot> {
        let Some(cached) = self.cached(repo, choose, &why)? else {
            return Err(FetchError::Unreached(why));
        };
        tracing::warn!("{why}; using {} from the cache", repo.id);
        Ok(cached)
    }

    /// Takes the files from the cache; `None` if the cache has nothing of the revision. `why` says
    /// in errors why the network is not used.
    ///
    /// Errs if a chosen file is missing or is a dangling link.
    fn cached(&self, repo: &Repo, choose: &Choose<'_>, why: &str) -> Fetched<Option<HubSnapshot>> {
        let folder = self.folder(repo);
        let commit = folder.commit_of(&repo.revision);
        let snapshot = folder.snapshot(&commit);
        let listed = folder.list(&commit);
        if listed.is_empty() {
            return Ok(None);
        }
        let context = format!("{why}, and in the cache: ");
        let Choice { mut files, .. } =
            choose(&listed).map_err(|unfit| self.unfit(repo, unfit, &context))?;
        let check = |files: &[String]| match files.iter().find(|name| !snapshot.join(name).exists())
        {
            None => Ok(()),
            Some(name) => {
                let path = snapshot.join(name);
                let lacks = if path.is_symlink() { "is a dangling link" } else { "is missing" };
                let problem = format!("{context}{} {lacks}", path.display());
                Err(FetchError::from(repo.problem(self.remote.endpoint(), problem)))
            }
        };
        check(&files)?;
        let shards = shards(&snapshot, &files)?;
        check(&shards)?;
        insert(&mut files, shards);
        Ok(Some(HubSnapshot { folder: snapshot, commit, files }))
    }

    /// The failure for a repository from which `choose` picked nothing.
    fn unfit(&self, repo: &Repo, unfit: NoChoice, context: &str) -> FetchError {
        match unfit {
            NoChoice::NoParquet(problem) => FetchError::Lacks(format!("{context}{problem}")),
            NoChoice::Other(problem) => {
                repo.problem(self.remote.endpoint(), format!("{context}{problem}")).into()
            }
        }
    }
}

/// A function that picks from the files of a commit.
type Choose<'a> = dyn Fn(&[String]) -> std::result::Result<Choice, NoChoice> + 'a;

/// The fetched value, or the reason why there is none.
type Fetched<T> = std::result::Result<T, FetchError>;

/// The shards that the last of `names` lists, if it is an index of sharded weights; else none. The
/// shards lie beside the index.
fn shards(snapshot: &Path, names: &[String]) -> Result<Vec<String>> {
    let Some(index) = names.last().filter(|name| name.ends_with(".index.json")) else {
        return Ok(vec![]);
    };
    let beside = index.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let shards = weights::shards(&snapshot.join(index))?;
    Ok(shards.into_iter().map(|shard| format!("{beside}{shard}")).collect())
}

/// Inserts `shards` before the last of `names`, which is their index.
fn insert(names: &mut Vec<String>, shards: Vec<String>) {
    let last = names.len().saturating_sub(1);
    names.splice(last..last, shards);
}
