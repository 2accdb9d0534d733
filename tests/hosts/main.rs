//! Real programs on hosts made of network namespaces, judged by what the kernel says.
//!
//! Each test runs in a lab of its own: see `meshwork::lab::testing`. Those that measure time run
//! alone. `cargo test --test hosts -- traffic` runs one file's.
#![allow(clippy::disallowed_methods, reason = "real programs run in real time")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod addresses;
mod api;
mod chaos;
mod council;
mod demo;
mod fixture;
mod joining;
mod lab;
mod names;
mod plugin;
mod refusals;
mod relay;
mod repairs;
mod state;
mod timing;
mod traffic;
