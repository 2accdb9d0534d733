//! The ring as replication sees it: its deltas say how far their sender is with the mesh's
//! decrees.

use std::collections::BTreeSet;

use mesh_router::{
    Mutation, PeerId, Replica, codec, mutation,
    replica::{Intervals, Source},
    store::{COUNTER_MAX, Cursor, CvRDT, Delta, ORIGINS_MAX, RunError, VersionVector},
};
use serde::{Deserialize, Serialize};

use crate::{Epoch, Ipam};

/// What comes before the runs of a delta.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The newest decree that the sender knows. Whoever knows of a later removal does not listen:
    /// what is said here may be of a host that has lost its blocks.
    pub(crate) epoch: Epoch,
    /// Whose news the sender takes only from those who bar them, too.
    pub(crate) barring: BTreeSet<PeerId>,
    /// Up to where there is more that may be older than what is told here: the delta was cut, or
    /// the sender's own view has gaps. Empty for none.
    pub(crate) more: VersionVector,
}

impl Replica for Ipam {
    fn source(&self) -> &dyn Source {
        self.store()
    }

    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta {
        let mut delta = self.store().delta(since, wanted, budget);
        if !delta.bytes.is_empty() {
            delta.bytes = self.with_head(&delta.bytes, delta.more);
        }
        delta
    }

    fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>> {
        Some(self.with_head(&self.store().delta_of(lacking, budget)?, false))
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        let undecodable = || RunError::Codec("a ring delta without a head".to_owned());
        let (length, rest) = bytes.split_first_chunk().ok_or_else(undecodable)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (head, runs) = rest.split_at_checked(length).ok_or_else(undecodable)?;
        let head: Head = codec::decode(head).map_err(|error| RunError::Codec(error.to_string()))?;
        let beyond = head.more.dots.values().any(|counter| *counter > COUNTER_MAX);
        if beyond || head.more.dots.len() > ORIGINS_MAX {
            return Err(RunError::Codec("a head that names more than there can be".to_owned()));
        }
        let heeds = !mutation::on(Mutation::ForgetFence);
        if heeds && head.epoch.removed() < self.newest_removal() {
            return Ok(false);
        }
        let ours = self.epoch().founding;
        if ours != 0 && head.epoch.founding != 0 && ours != head.epoch.founding {
            return Ok(false);
        }
        let merges = mutation::on(Mutation::MergeBranches);
        if !merges && !head.epoch.continues(&self.position()) {
            self.fork(&head.epoch);
            return Ok(false);
        }
        self.absorb_from(runs, &head)
    }
}

impl Ipam {
    /// A delta as others take it.
    fn with_head(&self, runs: &[u8], cut: bool) -> Vec<u8> {
        let epoch = self.position();
        let mut more = if self.has_gaps() { self.gaps.clone() } else { VersionVector::default() };
        if cut {
            more.merge(self.store().announced());
        }
        let head = codec::encode(&Head { epoch, barring: self.promised_bars(), more });
        let length = u32::try_from(head.len()).expect("a head is smaller than a frame");
        [&length.to_le_bytes()[..], &head, runs].concat()
    }

    /// Up to here something is missing that may be older than what is told.
    pub(crate) fn note_gaps(&mut self, more: &VersionVector) {
        if !more.dots.is_empty() {
            self.gaps.merge(more.clone());
            self.gaps_changed = true;
        }
    }

    /// Nothing is missing any more.
    pub(crate) fn settle_gaps(&mut self) {
        if !self.gaps.dots.is_empty() && !self.has_gaps() {
            self.gaps = VersionVector::default();
            self.gaps_changed = true;
        }
    }

    /// What is to be on disk with the ring, if it has changed: up to where something is missing
    /// that may be older than what is known. Empty for nothing.
    pub fn changed_gaps(&mut self) -> Option<&VersionVector> {
        std::mem::take(&mut self.gaps_changed).then_some(&self.gaps)
    }

    /// What was on disk. Before anything else.
    pub fn restore_gaps(&mut self, gaps: VersionVector) {
        self.gaps = gaps;
    }

    /// Whether what is known here may lack something that is older than the rest. What is this
    /// host's own is so, whatever it lacks. But it must not write what relies on knowing what lies
    /// between two entries: an entry that it retires for one around it, or passes on with one, may
    /// lie in one of somebody else's that is still to come. (Found by simulation: a host retired
    /// the grant of an address that it held, seed 700000270 of `cut`.)
    pub(crate) fn has_gaps(&self) -> bool {
        self.lacking().next().is_some() && !mutation::on(Mutation::TidyGaps)
    }

    /// Whose writes are missing that may be older than what is known here.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = PeerId> {
        let lacks = |(origin, counter): &(&PeerId, &u64)| {
            self.ring.seen(**origin) < **counter && !self.is_removed(**origin)
        };
        self.gaps.dots.iter().filter(lacks).map(|(origin, _)| *origin)
    }
}

#[cfg(test)]
mod tests {
    use mesh_router::Time;

    use super::*;
    use crate::{Block, Holder, Owner, Wanted};

    fn block(text: &str) -> Block {
        Block::from(text.parse::<ipnetwork::IpNetwork>().unwrap())
    }

    /// Takes what another has of these origins; there is more.
    fn tell(from: &mut Ipam, to: &mut Ipam, origins: &[PeerId]) {
        let counter = from.store().own_counter();
        from.store_mut().mark_durable(counter);
        let since = Cursor::at(to.store().vector().clone());
        let delta = from.store().delta_cut(&since, |origin| origins.contains(&origin), usize::MAX);
        let bytes = from.with_head(&delta.bytes, true);
        assert!(to.apply(&bytes).unwrap());
    }

    #[test]
    fn a_head_that_names_more_than_there_can_be_is_refused() {
        let mut ipam = Ipam::new(PeerId::new([1; 16]));
        let origin = |n: u32| PeerId::new([n.to_be_bytes(); 4].concat().try_into().unwrap());
        let dots = |count: u32, counter| (1..=count).map(|n| (origin(n), counter)).collect();
        let mut taken = |count: u32, counter| {
            ipam.gaps = VersionVector { dots: dots(count, counter) };
            let bytes = ipam.with_head(&codec::encode(&Vec::<()>::new()), false);
            ipam.gaps = VersionVector::default();
            ipam.apply(&bytes).is_ok()
        };
        let most = u32::try_from(ORIGINS_MAX).unwrap();
        assert!(taken(most, COUNTER_MAX));
        assert!(!taken(most + 1, 1) && !taken(1, COUNTER_MAX + 1));
    }

    #[test]
    fn what_lies_between_two_entries_and_is_still_to_come_is_reckoned_with() {
        let [a, b, c] = [1, 2, 3].map(|n| PeerId::new([n; 16]));
        let [mut first, mut second, mut third] = [a, b, c].map(Ipam::new);
        first.found(&[block("10.0.0.0/28")]).unwrap();
        for address in ["10.0.0.8/32", "10.0.0.9/32"] {
            first.write_grant(block(address), b);
        }
        first.refresh();
        tell(&mut first, &mut second, &[a]);
        assert!(second.tidy(), "it makes one entry of its two");
        second.write_grant(block("10.0.0.8/32"), c);
        second.refresh();
        tell(&mut second, &mut third, &[a, b]);
        third.write_grant(block("10.0.0.8/32"), a);
        third.refresh();

        // The first hears that it has the address back, and not yet of what lies around it.
        tell(&mut third, &mut first, &[c]);
        let address = "10.0.0.8".parse().unwrap();
        let holder = Holder { container: "c1".into(), interface: "eth0".into() };
        first.allocate(&holder, Wanted::Exact(address), Time::ZERO).unwrap();
        assert!(first.has_gaps());
        first.refresh();
        assert!(!first.tidy());
        assert_eq!(first.give_all(b), Err(crate::GiveError::Gaps));
        tell(&mut third, &mut first, &[a, b, c]);
        assert!(!first.has_gaps(), "it has all");
        assert_eq!(first.owner(address), Owner::Peer(a));
        assert_eq!(first.conflicts(), []);
        assert!(first.release(&holder, &[], Time::ZERO).contains(&address));
        first.check_invariants();
    }
}
