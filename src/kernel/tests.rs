//! The real kernel, in fresh network namespaces, and asked itself what it holds.

mod datapath;
mod repair;
mod rig;
mod wiring;
