//! What electors and members say to each other.

use std::collections::BTreeSet;

use mesh_router::{PeerId, store::VersionVector};
use serde::{Deserialize, Serialize};

use super::{branch::Fork, decree::Decree};

/// An attempt to decide: a greater one beats a smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ballot {
    /// In the upper half a number that rises with every attempt, in the lower a random one: a
    /// proposer that was started again, or set back, knows nothing of its last attempt, and two
    /// attempts with one ballot would be taken for one.
    pub round: u64,
    /// Whose attempt it is.
    pub proposer: PeerId,
}

impl Ballot {
    /// A ballot greater than all of a round.
    pub(super) fn after(round: u64, proposer: PeerId, dice: u32) -> Self {
        let count = (round >> 32).saturating_add(1).min(u32::MAX.into());
        Self { round: count << 32 | u64::from(dice), proposer }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_attempts_have_one_ballot_also_when_the_first_is_forgotten() {
        let me = PeerId::new([1; 16]);
        let [one, other] = [5, 6].map(|dice| Ballot::after(0, me, dice));
        assert_ne!(one, other);
        let next = Ballot::after(other.round, me, 0);
        assert!(next > one && next > other, "{next:?}");
        let last = Ballot::after(u64::MAX, me, u32::MAX);
        assert_eq!(last.round, u64::MAX, "there is no greater one");
    }
}
