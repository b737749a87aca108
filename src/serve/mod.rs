//! Predicting for many callers at once: one thread computes, in batches of whatever tasks are asked
//! for.
//!
//! `queue` decides what is computed next, and `engine` computes. The rest is the HTTP server, with
//! the feature `serve`:
//!
//! ```text
//! listen -> http -> routes -> api: JSON -> rows -> service: tasks, tokens -> engine
//!                             api: JSON <- answers <-------------------------'
//! registry: a directory of tasks -> the engine's map of names
//! ```

#[cfg(feature = "serve")]
mod api;
mod engine;
#[cfg(feature = "serve")]
mod http;
#[cfg(feature = "serve")]
mod keys;
#[cfg(feature = "serve")]
mod listen;
#[cfg(feature = "serve")]
mod metrics;
#[cfg(feature = "serve")]
mod openapi;
#[cfg(feature = "serve")]
mod page;
#[cfg(feature = "serve")]
mod problem;
mod queue;
#[cfg(feature = "serve")]
mod registry;
#[cfg(feature = "serve")]
mod routes;
#[cfg(feature = "serve")]
mod scores;
#[cfg(feature = "serve")]
mod server;
#[cfg(feature = "serve")]
mod service;
#[cfg(feature = "serve")]
mod table;
#[cfg(feature = "serve")]
mod warm_up;

#[cfg(feature = "serve")]
#[doc(hidden)]
pub use api::parse_in_each_shape;
pub use engine::{Engine, EngineBuilder};
#[cfg(feature = "serve")]
pub use http::ConnectionLimits;
#[cfg(feature = "serve")]
pub use listen::Address;
#[cfg(feature = "serve")]
pub use openapi::document;
#[doc(hidden)]
pub use queue::{Queue, Taken};
#[cfg(feature = "serve")]
pub use registry::Tiers;
#[cfg(feature = "serve")]
pub use server::{ServeSettings, Served, serve};
#[cfg(feature = "serve")]
pub use service::{About, Limits};
