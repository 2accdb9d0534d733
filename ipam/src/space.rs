//! What peers say to each other about space, and how much of it they deal in.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use mesh_router::{PeerId, Time};
use serde::{Deserialize, Serialize};

use crate::{
    allocate::Wanted,
    block::{Block, Family},
    ipam::Ipam,
};

/// What peers say to each other about space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpaceMessage {
    /// Give me a block, or one address.
    Request(SpaceRequest),
    /// It is in the ring.
    Granted {
        /// Of the request.
        id: u64,
        /// What was granted.
        block: Block,
        /// What the donor has free of the range now; zero when a part of one was asked for.
        free: u64,
    },
    /// Nothing was granted.
    Refused {
        /// Of the request.
        id: u64,
        /// Why.
        reason: SpaceRefusal,
        /// As above.
        free: u64,
    },
}

/// A request for space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceRequest {
    /// The requester's number for it.
    pub id: u64,
    /// In which range, or part of one.
    pub range: Block,
    /// Only this address is wanted; else a chunk.
    pub address: Option<IpAddr>,
    /// The donor's writes that the requester has seen: a grant after it is the answer to this.
    pub seen: u64,
    /// The requester's own writes: a donor that has seen more knows that the request is old.
    pub own: u64,
    /// A holder waits for it: even a little helps.
    pub urgent: bool,
    /// The requester holds the address already, for this holder: it lost the block around it.
    pub held_by: Option<String>,
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SpaceRefusal {
    /// Nothing could be spared.
    #[error("it has no free space to spare")]
    NothingFree,
    /// The address is held.
    #[error("the address is held there by {holder}")]
    Taken {
        /// By whom, in words.
        holder: String,
    },
    /// The address is not the donor's.
    #[error("it does not own the address")]
    NotOwner,
    /// The donor has seen more of the requester's writes than the request carries.
    #[error("the request was overtaken")]
    Stale,
    /// The donor does not know the range, or not all of it yet.
    #[error("it does not know all of the range yet")]
    NotReady,
    /// The donor is leaving the mesh.
    #[error("it is leaving the mesh")]
    Leaving,
    /// The donor's ring is at its bound.
    #[error("its ring is full")]
    Full,
    /// The donor did not answer in time.
    #[error("it did not answer in time")]
    Silent,
}

/// A request under way, for status and refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is wanted.
    pub wanted: Wanted,
    /// Who is being asked now.
    pub asked: Option<PeerId>,
    /// Since when anything was asked of anybody.
    pub since: Option<Time>,
    /// Who refused last, and why.
    pub refused: Option<(PeerId, SpaceRefusal)>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Any(range) => write!(f, "space in {range}")?,
            Wanted::Exact(address) => write!(f, "{address}")?,
        }
        match self.asked {
            Some(peer) => write!(f, ": asked peer {}", peer.short())?,
            None => write!(f, ": nobody to ask at the moment")?,
        }
        match &self.refused {
            Some((peer, reason)) => write!(f, "; peer {} said: {reason}", peer.short()),
            None => Ok(()),
        }
    }
}

/// The prefix length of the chunks that a range with so many owners is given out in: 256 of them
/// for IPv4 (/12 in /20), 65,536 for IPv6 (/48 in /64), and four for each owner if that is more;
/// but at least 16 addresses each while the range has four chunks.
pub fn chunk_length(range: &Block, owners: usize) -> u8 {
    let (more, longest) = match range.family() {
        Family::V4 => (8, 28),
        Family::V6 if range.length() <= 56 => (16, 64),
        Family::V6 => (8, 124),
    };
    let four_each = (owners.max(1) * 4).next_power_of_two().ilog2();
    let more = u8::try_from(four_each).map_or(more, |four_each| four_each.max(more));
    // A part of a range may be as small as one address.
    (range.length() + more).min(longest).max(range.length() + 2).min(range.family().bits())
}

impl Ipam {
    /// Free addresses of a range below which more is asked for: a quarter of a chunk.
    pub fn low_water(&self, range: &Block) -> u128 {
        (self.chunk(range).size() / 4).max(1)
    }

    /// A block of the size of a range's chunks.
    pub(crate) fn chunk(&self, range: &Block) -> Block {
        let owners = self.view.space.get(range).map_or(0, BTreeMap::len);
        Block::at(range.family(), 0, chunk_length(range, owners))
    }
}
