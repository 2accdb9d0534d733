//! Meshwork: a container network with no centre.
//!
//! The root library holds the pure [`node`], which composes router, ring and zone, and the only
//! places with IO: everything behind the feature `io`. ARCHITECTURE.md is the map.

pub mod api;
pub mod node;

#[cfg(feature = "io")]
pub mod cli;
#[cfg(feature = "io")]
pub mod daemon;
#[cfg(feature = "io")]
pub mod kernel;
#[cfg(feature = "io")]
pub mod lab;
#[cfg(feature = "io")]
pub mod resolver;
#[cfg(feature = "io")]
pub mod storage;
#[cfg(feature = "io")]
pub mod transport;
