//! The local API: HTTP/1.1 with JSON on a unix socket, under `/v1/`.
//!
//! [`types`] and [`attach`] are the bodies, shared by meshd, meshctl and mesh-cni; [`target`] and
//! [`token`] are the two texts in them that have a grammar. `client` asks, `server` answers by
//! asking the daemon's loop, `openapi` describes and `metrics` counts. [`spool`] keeps the detaches
//! that nobody could be asked for. Nothing here decides anything about a mesh: that is the node's.

pub mod attach;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "io")]
mod listener;
#[cfg(feature = "io")]
pub mod metrics;
#[cfg(feature = "io")]
pub mod openapi;
#[cfg(feature = "io")]
mod pending;
#[cfg(feature = "io")]
mod reject;
#[cfg(feature = "io")]
mod routes;
#[cfg(feature = "io")]
pub mod server;
pub mod spool;
pub mod target;
pub mod token;
pub mod types;
