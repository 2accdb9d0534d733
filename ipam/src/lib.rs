//! The ring: which host owns which block of addresses, and who holds which address on this host.
//!
//! PURE: no clock, no randomness, no socket, no file and no thread. [`Ipam`] is driven by values:
//!
//! ```text
//!   ring deltas --absorb--> ring ==derive==> view --> owner(), routes()
//!                            ^                |
//!                          grant            pools --> allocate(), release()
//!                            ^                |
//!   SpaceMessage --> donor --+               ask --> SpaceMessage
//! ```
//!
//! * [`block`]: CIDR prefixes; `intervals`: sets of addresses.
//! * [`ring`]: the replicated entries; [`view`]: what they say, and why a partial copy is safe.
//! * [`held`], [`pool`], [`allocate`]: who holds what here, what is free, giving and taking back.
//! * [`space`], [`ask`], `donor`: asking peers for space ahead of need, and answering. `asked`: who
//!   may still answer. `ask/shortage`: who has any, and what is said when nobody has.
//! * [`council`]: what the mesh decides together, by Paxos.
#![forbid(unsafe_code)]

pub mod allocate;
pub mod ask;
mod asked;
pub mod block;
pub mod council;
mod donor;
mod grant;
pub mod held;
mod intervals;
pub mod ipam;
mod pool;
mod resting;
pub mod ring;
mod segments;
pub mod space;
pub mod tidy;
pub mod view;

#[cfg(test)]
mod tests;

pub use allocate::{AllocateError, Wanted};
pub use block::{Block, BlockError, Family};
pub use held::Holder;
pub use ipam::{Conflict, FoundError, GiveError, Ipam};
pub use ring::{Epoch, Ring, RingKey, RingRegister, RingValue, Version};
pub use space::{SpaceMessage, SpaceRefusal, SpaceRequest, Waiting};
pub use tidy::Promise;
pub use view::Owner;
mod replica;
