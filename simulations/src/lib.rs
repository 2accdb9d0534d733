//! A seeded world of many Meshwork nodes: links, disks, kernels, faults, workloads and checkers.
//!
//! The real pure node runs here, driven as `meshwork::node::event` says; only what is around it is
//! made up. Everything follows from a seed: the same seed gives the same trace, byte for byte.
//!
//! * [`scenario`]: what a run is made of; [`named`]: those that are built in.
//!   [`dice`]: the only source of chance. `queue`: the clock.
//! * [`world`]: the run itself. `host`, `disk`, `kernel`, `net`: what a node is driven by.
//! * `plan`: which fault and which operation comes when. `operate`: carrying them out.
//! * `fate`: what befalls machines beyond a crash.
//! * `ledger`: who was promised which address. [`check`]: what must hold, one file each.
//! * [`run`]: many seeds. [`report`], [`plot`]: results.
//!
//! Deliberately absent: threads inside a run, clocks, sockets, files.
#![forbid(unsafe_code)]

mod carry;
pub mod check;
pub mod dice;
mod disk;
mod ending;
mod fate;
mod host;
mod kernel;
mod ledger;
mod machine;
pub mod named;
mod net;
mod operate;
mod plan;
pub mod plot;
mod queue;
pub mod report;
pub mod run;
pub mod scenario;
mod trace;
pub mod world;
