//! Finds the base and the data: local paths as they are given, and ids of the Hub in its cache,
//! which downloads what it lacks.

use crate::config::{Run, RunConfig};
use crate::error::{Error, Result};
use crate::hub::{self, DownloadProgress, Hub, Repo, RepoType};
use crate::{data, files};
use std::path::{Path, PathBuf};

/// The directory of a base, and its origin.
#[derive(Debug, Clone)]
pub struct Model {
    /// The directory.
    pub dir: PathBuf,
    /// The name: the id on the Hub, or the directory's name.
    pub name: String,
    /// The commit of a model of the Hub; `None` for a local directory.
    pub commit: Option<String>,
    /// The weight file to read. For a model of the Hub, it is the downloaded one, since the
    /// directory may hold others. For a local directory, it is the configured one; `None` for the
    /// preferred one.
    pub weights: Option<String>,
}

/// Files of labelled rows.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// One or more files, in the order in which to read them.
    pub files: Vec<PathBuf>,
    /// The split of a data set on the Hub; `None` for local files.
    pub split: Option<Split>,
}

/// A split of a data set on the Hub.
#[derive(Debug, Clone)]
pub struct Split {
    /// The commit.
    pub commit: String,
    /// The subset's name.
    pub subset: String,
    /// The split's name.
    pub name: String,
}

/// The base and the data of a run.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The base.
    pub model: Model,
    /// Training rows.
    pub train: Labelled,
    /// Evaluation rows; `None` where they are split off the training rows.
    pub eval: Option<Labelled>,
}

impl Sources {
    /// Finds what `run` names, and downloads what the Hub's cache lacks.
    pub fn find(run: &Run, progress: &mut DownloadProgress<'_>) -> Result<Self> {
        let section = run.model();
        let (path, revision) = (&section.model_name_or_path, section.revision.as_deref());
        let model = Model::find(path, revision, section.weights.as_deref(), progress)?;
        let train = Labelled::train(run, progress)?;
        // The branch may move between the two downloads, so the evaluation rows take the commit of
        // the training rows.
        let commit = train.split.as_ref().map(|split| split.commit.clone());
        let eval = Labelled::eval(run, commit.as_deref(), progress)?;
        Ok(Self { model, train, eval })
    }

    /// Writes the commits, subset and splits that were found into `config`.
    pub fn pin(&self, config: &mut RunConfig) {
        config.model.revision.clone_from(&self.model.commit);
        let eval = self.eval.as_ref().and_then(|eval| eval.split.as_ref());
        if let Some(split) = self.train.split.as_ref().or(eval) {
            config.data.revision = Some(split.commit.clone());
            config.data.subset = Some(split.subset.clone());
        }
        config.data.train_split = self.train.split.as_ref().map(|split| split.name.clone());
        config.data.eval_split = eval.map(|split| split.name.clone());
    }
}

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.commit {
            Some(commit) => {
                write!(f, "{}, commit {}", self.name, commit.get(..7).unwrap_or(commit))
            }
            None => write!(f, "{}", self.dir.display()),
        }
    }
}

impl Model {
    /// The base that `path` names: a directory, or else the id of a model on the Hub. `revision`
    /// and `weights` select one of its versions and weight files.
    ///
    /// Errs for a revision of a directory.
    pub fn locate(
        path: &Path,
        revision: Option<&str>,
        weights: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<Self> {
        let id = path.to_str().is_some_and(hub::is_id) && !files::is_there(path)?;
        if let Some(revision) = revision.filter(|_| !id) {
            let found = path.display();
            return Err(Error::Usage(format!(
                "--revision {revision}: {found} is no model of the Hub, which alone has revisions"
            )));
        }
        if let Some(revision) = revision.filter(|revision| !hub::is_revision(revision)) {
            let expected = hub::REVISION;
            return Err(Error::Usage(format!("--revision: found {revision}, expected {expected}")));
        }
        let local = std::path::absolute(path).map_err(Error::io("find", path))?;
        Self::find(if id { path } else { &local }, revision, weights, progress)
    }

    /// The base in the directory `path`, or the Hub's model with that id, of which the weight file
    /// is `weights` or else the preferred one.
    pub fn find(
        path: &Path,
        revision: Option<&str>,
        weights: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<Self> {
        if !RunConfig::is_id(path) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let (name, weights) = (name.unwrap_or_default(), weights.map(str::to_owned));
            return Ok(Self { dir: path.into(), name, commit: None, weights });
        }
        let name = path.to_string_lossy().into_owned();
        let repo = Repo::new(RepoType::Model, &name, revision);
        let snapshot = Hub::from_env()?.model(&repo, weights, progress)?;
        let weights = snapshot.weights().map(str::to_owned);
        Ok(Self { dir: snapshot.folder, name, commit: Some(snapshot.commit), weights })
    }
}

impl Labelled {
    fn train(run: &Run, progress: &mut DownloadProgress<'_>) -> Result<Self> {
        let data = run.data();
        let split = data.train_split.as_deref().or(Some("train"));
        Self::find(run, "data.train", &data.train, split, data.revision.as_deref(), progress)
    }

    /// The evaluation rows that `run` names; `None` where they are split off the training rows. On
    /// the Hub, `commit` takes precedence over `data.revision`.
    pub fn eval(
        run: &Run,
        commit: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<Option<Self>> {
        let data = run.data();
        let revision = commit.or(data.revision.as_deref());
        let split = data.eval_split.as_deref();
        let find = |path: &PathBuf| Self::find(run, "data.eval", path, split, revision, progress);
        data.eval.as_ref().map(find).transpose()
    }

    fn find(
        run: &Run,
        key: &str,
        path: &Path,
        split: Option<&str>,
        revision: Option<&str>,
        progress: &mut DownloadProgress<'_>,
    ) -> Result<Self> {
        if !RunConfig::is_id(path) {
            // Old ids of data sets have no owner, such as `imdb`, so they look like a file's name.
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if hub::is_id(name)
                && !data::has_ending(path)
                && std::fs::symlink_metadata(path).is_err()
            {
                let found = format!("{}, which is not there", path.display());
                let expected = "a file or a folder that is there, or a data set of the Hub: OWNER/NAME, such as stanfordnlp/imdb";
                return Err(run.error(key, &found, expected));
            }
            return Ok(Self { files: vec![path.into()], split: None });
        }
        let repo = Repo::new(RepoType::Dataset, &path.to_string_lossy(), revision);
        let found =
            Hub::from_env()?.dataset(&repo, run.data().subset.as_deref(), split, progress)?;
        let split = Split { commit: found.commit, subset: found.subset, name: found.split };
        Ok(Self { files: found.files, split: Some(split) })
    }
}
