//! What electors and members say to each other.

use std::collections::BTreeSet;

use mesh_router::{PeerId, store::VersionVector};
use serde::{Deserialize, Serialize};

use super::{branch::Fork, decree::Decree};

/// An attempt to decide: a greater one beats a smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// Rises with every attempt.
    pub round: u32,
    /// Whose attempt it is.
    pub proposer: PeerId,
}

/// A message about the decree with the number `epoch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouncilMessage {
    /// Which decree, on which branch.
    pub epoch: u64,
    /// See [`super::branch`].
    pub branch: Fork,
    /// Which attempt.
    pub ballot: Ballot,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Promise to listen to no smaller ballot.
    Prepare {
        /// So many hosts found the mesh; zero if it stands.
        founders: u16,
        /// Promise to take no news of these from those who have not promised it.
        removing: BTreeSet<PeerId>,
    },
    /// Promised.
    Promise {
        /// What was accepted before, and in which ballot.
        accepted: Option<(Ballot, Decree)>,
        /// What the sender has of the ring.
        seen: VersionVector,
        /// Whom an elector knows as members: each has to be asked.
        members: BTreeSet<PeerId>,
        /// The sender may have forgotten what it once promised.
        abstains: bool,
    },
    /// Accept this decree.
    Accept(Decree),
    /// Accepted.
    Accepted,
    /// A greater ballot was promised.
    Overtaken {
        /// That one.
        by: Ballot,
    },
    /// The sender founds with so many hosts.
    Differs {
        /// Zero if it founds nothing.
        founders: u16,
    },
    /// The attempt was given up before anybody was asked to accept anything.
    GivenUp,
    /// The sender bars somebody for long, and cannot have this decree made itself, whatever it is.
    Stuck,
}
