//! meshd: the loop that drives the node, and what it needs to start and stop.
//!
//! * [`config`]: flags, environment and file. [`handle`]: how the API asks the loop.
//! * `clock`: the one place that reads a clock for the node. `driver`: outputs carried out.
//! * `keepsake`: what lets a host whose state was damaged join its mesh again.
//! * [`start`]: everything in the right order; the loop itself.

mod clock;
pub mod config;
mod driver;
pub mod handle;
mod keepsake;
pub mod log;
pub mod start;
