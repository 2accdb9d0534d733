//! The router: who the peers are, what they know, and how to reach them.
//!
//! PURE: no clock, no randomness, no socket, no file and no thread. Time and a random number
//! generator come in as arguments; effects go out as values. The crate is the base of `mesh-ipam`
//! and `mesh-dns`, which keep their data in its [`Store`].
//!
//! * [`id`]: who is who; [`time`]: the caller's clock as a value; [`codec`]: the one binary codec.
//! * [`store`]: a keyed register CRDT with dots, version vectors and deltas; ring, zone and
//!   membership are three of them.
#![forbid(unsafe_code)]

pub mod codec;
pub mod id;
pub mod store;
pub mod time;

pub use id::{MeshId, PeerId};
pub use store::{Register, Run, Store};
pub use time::Time;
