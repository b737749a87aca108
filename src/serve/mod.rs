//! The HTTP server: the engine's tasks for any number of clients.
//!
//! ```text
//! listen -> http -> routes -> api: JSON -> rows -> service: tasks, tokens -> the engine
//!                             api: JSON <- answers <-------------------------'
//! registry: a directory of tasks -> the engine's map of names
//! ```

mod api;
mod http;
mod keys;
mod listen;
mod metrics;
mod openapi;
mod page;
mod problem;
mod registry;
mod routes;
mod scores;
mod server;
mod service;
mod table;
mod warm_up;

#[doc(hidden)]
pub use api::parse_in_each_shape;
pub use http::ConnectionLimits;
pub use listen::Address;
pub use openapi::document;
pub use registry::Tiers;
pub use server::{ServeSettings, Served, serve};
pub use service::{About, Limits};
