//! Branches: what is decided by force, without the others, begins a chain of decrees of its own.
//!
//! A forced decree asks nobody. So others, who have not heard of it, may go on deciding, or be
//! forced, too. All decrees have one virtual writer, and those of two branches have the same dots:
//! rings of two branches cannot be merged. Of two branches the one with the greater newest fork
//! stands, everywhere. Who is on the other throws its ring away and is told it anew, and asks for
//! the addresses that it holds one by one, as if it had been removed.
//!
//! ```text
//!   1 -- 2 -- 3 -- 4 -- 5             who knows 4 is on another branch than who knows 65538
//!         \
//!          65538 -- 65539 -- 65540    forced when 2 was the newest: who knows 2 just goes on here
//! ```

use serde::{Deserialize, Serialize};

use crate::ring::Epoch;

/// How far a forced decree's number is beyond the last, so that it beats whatever another side of
/// a cut decided meanwhile.
pub(super) const FORCE_JUMP: u64 = 1 << 16;
/// Forks that a ring names. Chosen: who has missed more of them is told the ring anew.
pub const FORKS_MAX: usize = 3;

/// A forced decree; the default for none. The greater one stands.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Fork {
    /// Its number.
    pub number: u32,
    /// The first bytes of the id of whoever made it.
    pub by: u32,
}

/// A place in the chains of decrees, or in those that removed somebody: a branch, and a number.
pub(crate) type Point = (Fork, u64);

impl Epoch {
    /// The fork that began this branch.
    pub fn branch(&self) -> Fork {
        self.forks[0]
    }

    /// The newest decree that is known.
    pub(crate) fn decided(&self) -> Point {
        (self.branch(), self.number)
    }

    /// The newest removal that is known. Whoever knows a greater one does not listen.
    pub(crate) fn removed(&self) -> Point {
        (self.branch(), self.fence)
    }

    /// The forks once another was made.
    pub(super) fn forked(&self, fork: Fork) -> [Fork; FORKS_MAX] {
        let mut forks = [fork; FORKS_MAX];
        forks[1..].copy_from_slice(&self.forks[..FORKS_MAX - 1]);
        forks
    }

    /// Whether all that another knows to be decided was known where this branch began, or is of
    /// this branch. With more forks than are named: no.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        if other.number == 0 || other.branch() == self.branch() {
            return true;
        }
        // The list goes on with none; where it is full, what came before is not known.
        let known = self.forks.iter().position(|fork| *fork == other.branch());
        let next = known.and_then(|known| known.checked_sub(1)).map(|next| self.forks[next]);
        next.is_some_and(|next| other.number + FORCE_JUMP <= u64::from(next.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forced(before: &Epoch, by: u32) -> Epoch {
        let number = before.number + FORCE_JUMP;
        let fork = Fork { number: u32::try_from(number).unwrap(), by };
        Epoch { number, fence: number, forks: before.forked(fork), ..*before }
    }

    fn later(before: &Epoch, decrees: u64) -> Epoch {
        Epoch { number: before.number + decrees, ..*before }
    }

    #[test]
    fn who_knew_no_more_than_a_fork_goes_on_there_and_who_did_does_not() {
        let old = later(&Epoch::default(), 7);
        let fork = later(&forced(&old, 1), 3);
        assert!(fork.continues(&old) && fork.continues(&later(&Epoch::default(), 2)));
        assert!(!fork.continues(&later(&old, 1)), "that was decided by others");
        assert!(!old.continues(&fork), "it lacks the fork");
        let other = forced(&later(&old, 1), 2);
        assert!(!other.continues(&fork) && !fork.continues(&other));
        assert!(other.removed() > fork.removed(), "the later fork stands");
        let third = forced(&fork, 3);
        assert!(third.continues(&fork) && third.continues(&old));
        assert!(!third.continues(&later(&fork, 1)) && !third.continues(&other));
    }

    #[test]
    fn who_missed_more_forks_than_are_named_is_told_anew() {
        let old = later(&Epoch::default(), 7);
        let branches = (1..=4).scan(old, |last, by| {
            *last = later(&forced(last, by), 1);
            Some(*last)
        });
        let branches: Vec<Epoch> = branches.collect();
        assert!(branches[1].continues(&old) && branches[3].continues(&branches[1]));
        assert!(!branches[3].continues(&branches[0]) && !branches[2].continues(&old));
        assert!(branches[3].continues(&Epoch::default()), "who knows nothing has nothing wrong");
    }
}
