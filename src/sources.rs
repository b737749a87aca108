//! Where the base and the data are: files and directories as they are named, ids of the Hub in its cache.

use crate::config::{Run, RunConfig};
use crate::data;
use crate::error::Result;
use crate::hub::{self, Hub, Kind, Progress, Repo};
use std::path::{Path, PathBuf};

/// A base directory.
#[derive(Debug, Clone)]
pub struct Model {
    /// The directory.
    pub dir: PathBuf,
    /// What it is called: its id, or the directory's name.
    pub name: String,
    /// Of a model of the Hub, the commit.
    pub commit: Option<String>,
    /// The weight file to read, where it is named or the Hub's: its repositories may have others beside it.
    pub weights: Option<String>,
}

/// Files of labelled rows.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// One or more, to be read one after the other.
    pub files: Vec<PathBuf>,
    /// Where they come from on the Hub.
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

/// All that a run reads.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The base.
    pub model: Model,
    /// Training rows.
    pub train: Labelled,
    /// Evaluation rows, where they are not taken from the training rows.
    pub eval: Option<Labelled>,
}

impl Sources {
    /// Finds what `run` names; what is not here yet is downloaded.
    pub fn find(run: &Run, progress: &mut Progress<'_>) -> Result<Self> {
        let section = &run.config.model;
        let (path, revision) = (&section.model_name_or_path, section.revision.as_deref());
        let model = Model::find(path, revision, section.weights.as_deref(), progress)?;
        let train = Labelled::train(run, progress)?;
        // Of the same commit, though the branch may move on meanwhile.
        let commit = train.split.as_ref().map(|split| split.commit.clone());
        let eval = Labelled::eval(run, commit.as_deref(), progress)?;
        Ok(Self { model, train, eval })
    }

    /// `config`, with the commits that were found.
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
    /// The directory `path`, or the Hub's model of that id with its `weights` file.
    pub fn find(
        path: &Path,
        revision: Option<&str>,
        weights: Option<&str>,
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        if !RunConfig::is_id(path) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let (name, weights) = (name.unwrap_or_default(), weights.map(str::to_owned));
            return Ok(Self { dir: path.into(), name, commit: None, weights });
        }
        let name = path.to_string_lossy().into_owned();
        let repo = Repo::new(Kind::Model, &name, revision);
        let snapshot = Hub::from_env()?.model(&repo, weights, progress)?;
        let weights = snapshot.weights().map(str::to_owned);
        Ok(Self { dir: snapshot.folder, name, commit: Some(snapshot.commit), weights })
    }
}

impl Labelled {
    fn train(run: &Run, progress: &mut Progress<'_>) -> Result<Self> {
        let data = &run.config.data;
        let split = data.train_split.as_deref().or(Some("train"));
        Self::find(run, "data.train", &data.train, split, data.revision.as_deref(), progress)
    }

    /// The evaluation rows that `run` names; of the data set's `commit`, where it is known.
    pub fn eval(
        run: &Run,
        commit: Option<&str>,
        progress: &mut Progress<'_>,
    ) -> Result<Option<Self>> {
        let data = &run.config.data;
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
        progress: &mut Progress<'_>,
    ) -> Result<Self> {
        if !RunConfig::is_id(path) {
            // As data sets of the Hub were called once: `imdb`.
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
        let repo = Repo::new(Kind::Dataset, &path.to_string_lossy(), revision);
        let found =
            Hub::from_env()?.dataset(&repo, run.config.data.subset.as_deref(), split, progress)?;
        let split = Split { commit: found.commit, subset: found.subset, name: found.split };
        Ok(Self { files: found.files, split: Some(split) })
    }
}
