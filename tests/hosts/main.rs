//! Real programs on hosts made of network namespaces, judged by what the kernel says.
//!
//! Each test runs in a lab of its own: see `meshwork::lab::testing`. Those that measure time run
//! alone.
#![allow(clippy::disallowed_methods, reason = "real programs run in real time")]

mod lab;
