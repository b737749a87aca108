//! The Hugging Face Hub: downloads models and data sets by their id into the standard cache, which
//! all programs that use the Hub share.
//!
//! The files in reading order; each imports only from those before it: `repo`, `snapshot`,
//! `environment`, `remote`, `cache`, `choose`, `download`, `client`, `absent`.

#[cfg(not(feature = "hub"))]
mod absent;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod choose;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod environment;
#[cfg(feature = "hub")]
mod remote;
mod repo;
mod snapshot;

#[cfg(not(feature = "hub"))]
pub use absent::Hub;
#[cfg(feature = "hub")]
pub use client::Hub;
pub use repo::{REVISION, Repo, RepoType, is_id, is_revision};
pub use snapshot::DownloadProgress;
