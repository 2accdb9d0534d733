//! The router: who the peers are, what they know, and how to reach them.
//!
//! PURE: no clock, no randomness, no socket, no file and no thread. Time and a random number
//! generator come in as arguments; effects go out as values. The crate is the base of `mesh-ipam`
//! and `mesh-dns`, which keep their data in its [`Store`].
//!
//! * [`id`], [`time`], [`codec`]: identities, the caller's clock as a value, the one binary codec.
//! * [`store`]: a keyed-register CRDT with dots, version vectors and deltas; membership, ring and
//!   zone are three of them. [`replica`]: what replication sees of one.
//! * [`member`], [`topology`]: what hosts say of themselves, and the shortest paths that follow.
//! * [`link`], [`frame`], [`neighbour`], [`dialer`]: links, what goes over them, what the other end
//!   has, and whom to dial next.
//! * [`router`]: the state machine that composes these. [`mutation`]: deliberate bugs, for tests.
#![forbid(unsafe_code)]

pub mod codec;
pub mod dialer;
pub mod frame;
pub mod id;
#[cfg(any(test, feature = "laws"))]
pub mod laws;
pub mod link;
pub mod member;
pub mod mutation;
pub mod neighbour;
pub mod replica;
pub mod router;
pub mod store;
pub mod time;
mod told;
pub mod topology;

pub use id::{MeshId, PeerId};
pub use mutation::Mutation;
pub use neighbour::Replicas;
pub use replica::{Kind, Replica};
pub use router::{Effect, Router};
pub use store::{Register, Run, Store};
pub use time::Time;
