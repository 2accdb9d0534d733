//! The ring's entries: what is replicated, and what of it can be.
//!
//! An entry's version is `(epoch, counter, writer)`: the value's epoch and the write's dot. A block
//! is passed on by its owner alone, who had seen all that was written about it before; so of two
//! entries about one address the later in the token's history always has the greater version.

use mesh_router::{
    PeerId, Register,
    store::{Base, COUNTER_MAX, Entry},
};
use serde::{Deserialize, Serialize};

use crate::{
    block::{Block, Family},
    council::branch::{FORKS_MAX, Fork},
};

/// Entries beyond which this host grants nothing more. Chosen: 100,000 hosts with a block each, and
/// about 10 MB.
pub const ENTRIES_MAX: usize = 1 << 17;
/// Ranges that a mesh may have; each costs a pool and a request of its own.
pub const RANGES_MAX: usize = 16;
/// The greatest epoch: one per removal of a host, and no peer can use them up with one write.
pub const EPOCH_MAX: u64 = u32::MAX as u64;

/// The replicated ring.
pub type Ring = mesh_router::Store<RingRegister>;

/// What the ring's entries are filed under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RingKey {
    /// A range of the mesh: addresses outside every range are none of ours.
    Range(Block),
    /// Who owns a block.
    Block(Block),
    /// The newest decree.
    Epoch,
    /// Whether a peer votes on decrees.
    Elector(PeerId),
    /// That a peer's blocks were taken from it.
    Removed(PeerId),
    /// Below which everything is known. Written by the owner of the first address of the first
    /// range.
    Base,
}

/// What the ring says about a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RingValue {
    /// The block is a range of the mesh.
    Range,
    /// The block belongs to a peer, but for what smaller blocks inside say.
    Owned {
        /// To whom.
        owner: PeerId,
        /// Fence: raised when a dead host's blocks are taken from it.
        epoch: u64,
    },
    /// The block says nothing any more: the blocks around it do.
    Retired {
        /// A block around it that must be known ...
        within: Block,
        /// ... in this version or a greater one; until then nothing is known here.
        at_least: Version,
        /// Fence, as in `Owned`.
        epoch: u64,
    },
    /// How far the mesh's common decisions are.
    Epoch(Epoch),
    /// A peer has a vote, or has none any more.
    Elector {
        /// Whether it has one.
        seated: bool,
        /// Since which decree.
        epoch: u64,
    },
    /// A peer lost its blocks.
    Removed {
        /// Of its own writes these were taken into account, and no later ones will be.
        cut: u64,
        /// By which decree.
        epoch: u64,
    },
    /// See [`Base`].
    Base(Base),
    /// A peer that was removed is back: it knows that it lost its blocks. It says so itself.
    Returned {
        /// As in `Removed`: others may not have heard of the removal yet.
        cut: u64,
        /// Of the decree that removed it.
        epoch: u64,
    },
}

/// How far the mesh's common decisions, the decrees, are: see [`crate::council`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// The number of the newest decree; they are numbered from 1.
    pub number: u64,
    /// The number of the newest decree that removed a peer. Who does not know it yet is not
    /// listened to about the ring.
    pub fence: u64,
    /// Up to this decree it is not remembered whom decrees removed. Who has missed one of them
    /// cannot know any more whether it was removed itself.
    pub forgotten: u64,
    /// How long a host may be away before its blocks may be taken from it without a person's
    /// order, in seconds; zero for never.
    pub lease_seconds: u32,
    /// The first bytes of the id of whoever founded the mesh: another mesh may have the same token.
    pub founding: u32,
    /// The newest forced decrees that led here, the newest first.
    pub forks: [Fork; FORKS_MAX],
}

/// The order of two entries of one key. Two different entries never have the same version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The fence beats all else.
    pub epoch: u64,
    /// The writer's Lamport clock.
    pub counter: u64,
    /// Who wrote it.
    pub writer: PeerId,
}

impl Version {
    /// The version of an entry.
    pub fn of(entry: &Entry<RingValue>) -> Self {
        Self {
            epoch: RingRegister::epoch(&entry.value),
            counter: entry.dot.counter,
            writer: entry.dot.actor,
        }
    }
}

/// The ring as a kind of replicated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingRegister;

impl Register for RingRegister {
    type Key = RingKey;
    type Value = RingValue;

    const SINGLE_WRITER: bool = false;

    fn validate(origin: PeerId, key: &RingKey, value: &RingValue) -> Result<(), String> {
        match (key, value) {
            (RingKey::Range(block), RingValue::Range) => check_range(block),
            (RingKey::Block(_), RingValue::Owned { epoch, .. }) => check_epoch(*epoch),
            (RingKey::Block(block), RingValue::Retired { within, at_least, epoch }) => {
                check_epoch(*epoch)?;
                check_epoch(at_least.epoch)?;
                if within == block || !within.covers(block) {
                    return Err(format!("{block} cannot be retired within {within}"));
                }
                if at_least.counter == 0 || at_least.counter > COUNTER_MAX {
                    return Err(format!("{block} is retired for a version that cannot be"));
                }
                Ok(())
            }
            (RingKey::Epoch, RingValue::Epoch(epoch)) => {
                let forks = epoch.forks.is_sorted_by(|one, next| one >= next);
                let known = epoch.fence.max(epoch.branch().number.into()) <= epoch.number;
                if !forks || !known || epoch.forgotten > epoch.fence {
                    return Err("what is remembered of removals cannot be".to_owned());
                }
                check_epoch(epoch.number)
            }
            (RingKey::Elector(_), RingValue::Elector { epoch, .. })
            | (RingKey::Removed(_), RingValue::Removed { epoch, .. }) => check_epoch(*epoch),
            (RingKey::Removed(peer), RingValue::Returned { epoch, .. }) => {
                if *peer != origin {
                    return Err("only a removed host itself says that it is back".to_owned());
                }
                check_epoch(*epoch)
            }
            (RingKey::Base, RingValue::Base(base)) => {
                if base.upto > COUNTER_MAX || base.decrees > COUNTER_MAX {
                    return Err("the base is beyond every clock".to_owned());
                }
                Ok(())
            }
            _ => Err(format!("{key:?} cannot hold {value:?}")),
        }
    }

    fn prefix(key: &RingKey) -> u128 {
        let (variant, rest) = match key {
            RingKey::Range(block) => (0, block.prefix()),
            RingKey::Block(block) => (1, block.prefix()),
            RingKey::Epoch | RingKey::Elector(_) | RingKey::Removed(_) | RingKey::Base => (2, 0),
        };
        variant << 126 | rest
    }

    fn epoch(value: &RingValue) -> u64 {
        match value {
            RingValue::Range | RingValue::Base(_) => 0,
            RingValue::Epoch(epoch) => epoch.number,
            RingValue::Owned { epoch, .. }
            | RingValue::Retired { epoch, .. }
            | RingValue::Elector { epoch, .. }
            | RingValue::Removed { epoch, .. }
            | RingValue::Returned { epoch, .. } => *epoch,
        }
    }

    fn base_key() -> Option<RingKey> {
        Some(RingKey::Base)
    }

    fn base(value: &RingValue) -> Option<Base> {
        if let RingValue::Base(base) = value { Some(*base) } else { None }
    }

    /// A removal that is forgotten, a seat that was given up, a return, or a retired entry whose
    /// block around it is known, and with an epoch that is known there, too, so that nobody writes
    /// with a lesser one when the entry is gone.
    fn is_waste(value: &RingValue, base: &Base) -> bool {
        match value {
            RingValue::Retired { at_least, epoch, .. } => {
                at_least.counter <= base.of(at_least.writer) && *epoch <= at_least.epoch
            }
            RingValue::Elector { seated, .. } => !seated,
            RingValue::Removed { epoch, .. } | RingValue::Returned { epoch, .. } => {
                *epoch <= base.forgotten
            }
            _ => false,
        }
    }

    fn leans_on(value: &RingValue) -> Option<RingKey> {
        let RingValue::Retired { within, .. } = value else { return None };
        Some(RingKey::Block(*within))
    }
}

fn check_epoch(epoch: u64) -> Result<(), String> {
    if epoch <= EPOCH_MAX {
        return Ok(());
    }
    Err(format!("epoch {epoch} is beyond {EPOCH_MAX}"))
}

/// Whether a block can be a range of a mesh: not so short that it holds half the internet, not so
/// long that nothing is left in it beside the reserved addresses.
///
/// # Errors
/// A sentence that says what is possible.
pub fn check_range(range: &Block) -> Result<(), String> {
    let (shortest, longest) = match range.family() {
        Family::V4 => (8, 29),
        Family::V6 => (16, 120),
    };
    if (shortest..=longest).contains(&range.length()) {
        return Ok(());
    }
    Err(format!("{range} cannot be a range: its length must be from /{shortest} to /{longest}"))
}
