//! What is agreed on: ring writes of a virtual writer, with their counters.

use std::collections::{BTreeMap, BTreeSet};

use mesh_router::{
    PeerId, Register,
    codec::{self, FRAME_BYTES_MAX},
    store::{COUNTER_MAX, Others, Run},
};
use serde::{Deserialize, Serialize};

use super::branch::{FORCE_JUMP, Fork};
use crate::{
    block::{Block, Family},
    ipam::Ipam,
    ring::{Epoch, RingKey, RingRegister, RingValue, Version},
    view::Owner,
};

/// Who writes decrees: no host, for no key hashes to it.
pub const DECREE: PeerId = PeerId::new([0; 16]);
/// Writes of one decree. Chosen: about 300 KiB, a third of a frame. A host with more fragments is
/// removed in several.
const WRITES_MAX: usize = 8192;
/// The longest decree. Chosen: more than so many writes need, and who has accepted it has as much
/// room again in a row or a frame for what else it has promised.
const BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Removed hosts that are remembered. Chosen: years of machines that die, and 10 KiB.
const REMOVALS_MAX: usize = 256;

/// A batch of ring writes that the mesh agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decree {
    /// The last counter of the decree before.
    after: u64,
    /// The counter before this decree's first: beyond all that its proposer had seen.
    base: u64,
    /// What is written, in the order of counters.
    writes: Vec<(RingKey, RingValue)>,
}

impl Decree {
    /// The counter of its last write. What a peer says may be any number.
    pub fn upto(&self) -> u64 {
        self.base.saturating_add(self.writes.len() as u64)
    }

    /// Whether it can be carried out at all, and kept until then.
    pub(super) fn is_sound(&self) -> bool {
        !self.writes.is_empty()
            && self.writes.len() <= 2 * WRITES_MAX
            && self.after <= self.base
            && self.upto() <= COUNTER_MAX
            && codec::encoded_len(self) <= BYTES_MAX
            && self
                .writes
                .iter()
                .all(|(key, value)| RingRegister::validate(DECREE, key, value).is_ok())
    }

    /// As the delta that brings it.
    pub(super) fn delta(&self) -> Vec<u8> {
        let counters = self.base + 1..;
        let entries =
            counters.zip(&self.writes).map(|(counter, (key, value))| (counter, *key, *value));
        codec::encode(&vec![Run {
            origin: DECREE,
            after: self.after,
            upto: self.upto(),
            others: Others::Unsaid,
            entries: entries.collect(),
        }])
    }
}

/// What a decree is to change.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// Ranges with the owners that share each.
    pub(super) ranges: Vec<(Block, Vec<PeerId>)>,
    /// Whose blocks go to this host.
    pub(super) removed: BTreeSet<PeerId>,
    /// Who votes from then on.
    pub(super) electors: BTreeSet<PeerId>,
    /// The lease; `None` to leave it as it is.
    pub(super) lease_seconds: Option<u32>,
    /// Members that have not answered are not waited for.
    pub(super) hasty: bool,
    /// It is not agreed on.
    pub(super) forced: bool,
}

impl Ipam {
    /// Writes down what a change means for the ring as this host knows it.
    pub(super) fn draft(&self, change: &Change) -> Decree {
        let old = if change.forced { self.position() } else { self.epoch() };
        let number = old.number + if change.forced { FORCE_JUMP } else { 1 };
        let clock = self.ring.clock();
        let mut draft = Draft { number, forced: change.forced, writes: Vec::new() };
        for (range, owners) in &change.ranges {
            draft.found(*range, owners);
        }
        for peer in &change.removed {
            let cut = self.ring.seen(*peer);
            draft.write(RingKey::Removed(*peer), RingValue::Removed { cut, epoch: number });
        }
        self.take_over(&change.removed, &mut draft);
        let seats = self.electors();
        for peer in change.electors.difference(&seats) {
            let seat = RingValue::Elector { seated: true, epoch: number };
            draft.write(RingKey::Elector(*peer), seat);
        }
        for peer in seats.difference(&change.electors) {
            let seat = RingValue::Elector { seated: false, epoch: number };
            draft.write(RingKey::Elector(*peer), seat);
        }
        let fence = if change.removed.is_empty() { old.fence } else { number };
        let forgotten = old.forgotten.max(self.beyond_memory());
        let lease_seconds = change.lease_seconds.unwrap_or(old.lease_seconds);
        let fork_number = u32::try_from(number).unwrap_or(u32::MAX);
        let fork = Fork { number: fork_number, by: first_bytes(self.me()) };
        let forks = if change.forced { old.forked(fork) } else { old.forks };
        let founding = if old.number == 0 { first_bytes(self.me()) } else { old.founding };
        let epoch = Epoch { number, fence, forgotten, lease_seconds, founding, forks };
        draft.write(RingKey::Epoch, RingValue::Epoch(epoch));
        let after = self.ring.vector().get(&DECREE);
        Decree { after, base: clock, writes: draft.writes }
    }

    /// The newest removal that need not be remembered any more; zero for none.
    fn beyond_memory(&self) -> u64 {
        let removals = self.ring.range(RingKey::Removed(DECREE)..).filter_map(|(_, entry)| {
            match entry.value {
                RingValue::Removed { epoch, .. } | RingValue::Returned { epoch, .. } => Some(epoch),
                _ => None,
            }
        });
        let mut removals: Vec<u64> = removals.collect();
        removals.sort_unstable_by(|one, other| other.cmp(one));
        removals.get(REMOVALS_MAX).copied().unwrap_or(0)
    }

    /// Whatever the removed peers own is this host's from then on.
    ///
    /// That is no grant, and need not be of solid blocks: this host knows all that the removed
    /// gave away, and so sees what inside an entry of theirs is not theirs any more.
    fn take_over(&self, removed: &BTreeSet<PeerId>, draft: &mut Draft) {
        let first = RingKey::Block(Block::at(Family::V4, 0, 0));
        let mut taken = BTreeMap::new();
        for (key, entry) in self.ring.range(first..RingKey::Epoch) {
            let RingKey::Block(block) = *key else { continue };
            match entry.value {
                RingValue::Owned { owner, .. } if removed.contains(&owner) => {
                    let shown = self.shown_of(block, removed).into_iter();
                    taken.extend(shown.map(|block| (block, self.epoch_around(&block))));
                }
                // They retired it for a grant that nobody has ever heard of.
                RingValue::Retired { within, at_least, epoch }
                    if removed.contains(&entry.dot.actor)
                        && self.ring.get(&RingKey::Block(within)).map(Version::of)
                            < Some(at_least) =>
                {
                    taken.insert(block, epoch);
                }
                _ => {}
            }
        }
        // What is left over is theirs until the next decree.
        let room = WRITES_MAX.saturating_sub(draft.writes.len());
        for (block, epoch) in taken.into_iter().take(room) {
            let epoch = if draft.forced { draft.number } else { epoch };
            draft.write(RingKey::Block(block), RingValue::Owned { owner: self.me(), epoch });
        }
    }

    /// The blocks to be written so that an entry of a removed peer is taken over: its own, if its
    /// first address is theirs. Else that entry is somebody else's to write, who may do so
    /// meanwhile: then the blocks that make up what no entry inside it speaks of.
    fn shown_of(&self, block: Block, removed: &BTreeSet<PeerId>) -> Vec<Block> {
        match self.owner(block.first()) {
            Owner::Peer(peer) if !removed.contains(&peer) => {
                let mut shown = Vec::new();
                self.show_gaps(block, &mut shown);
                shown
            }
            _ => vec![block],
        }
    }

    /// Of a block that has entries inside: the largest blocks of which none of these speaks.
    fn show_gaps(&self, block: Block, shown: &mut Vec<Block>) {
        let Some((first, second)) = block.halves() else { return };
        for half in [first, second] {
            let entry = self.ring.get(&RingKey::Block(half)).map(|entry| entry.value);
            if matches!(entry, Some(RingValue::Owned { .. })) {
                continue;
            }
            if self.inside(&half).is_empty() {
                shown.push(half);
            } else {
                self.show_gaps(half, shown);
            }
        }
    }

    /// Carries out what was agreed on.
    pub(super) fn carry_out(&mut self, decree: &Decree) {
        let taken = self.absorb(&decree.delta());
        debug_assert!(taken.is_ok(), "a sound decree can be carried out: {taken:?}");
    }

    /// Does what was not agreed on, in this host's own name.
    pub(super) fn carry_out_alone(&mut self, decree: &Decree) {
        for (key, value) in &decree.writes {
            self.ring.write(*key, *value);
        }
        self.refresh();
    }

    /// The decree that founds a mesh of this host alone, in its own name: nobody else can write.
    pub(crate) fn found_council(&mut self, lease_seconds: u32) {
        let me = self.me();
        self.ring.write(RingKey::Elector(me), RingValue::Elector { seated: true, epoch: 1 });
        let founding = first_bytes(me);
        let epoch = Epoch { number: 1, lease_seconds, founding, ..Epoch::default() };
        self.ring.write(RingKey::Epoch, RingValue::Epoch(epoch));
    }
}

/// The first four bytes of an id, which is random: zero is as good as impossible.
fn first_bytes(peer: PeerId) -> u32 {
    peer.as_bytes().iter().take(4).fold(0, |all, byte| all << 8 | u32::from(*byte))
}

/// A decree that is being written.
struct Draft {
    number: u64,
    forced: bool,
    writes: Vec<(RingKey, RingValue)>,
}

impl Draft {
    fn write(&mut self, key: RingKey, value: RingValue) {
        self.writes.push((key, value));
    }

    /// A new range, shared by its owners.
    fn found(&mut self, range: Block, owners: &[PeerId]) {
        self.write(RingKey::Range(range), RingValue::Range);
        for (block, owner) in shares(range, owners) {
            self.write(RingKey::Block(block), RingValue::Owned { owner, epoch: 0 });
        }
    }
}

/// A range in equal blocks, as many as there are owners or the next power of two. Each owner gets
/// one or two that lie side by side; two halves of one block are one. Where there are more owners
/// than addresses, some get none.
fn shares(range: Block, owners: &[PeerId]) -> Vec<(Block, PeerId)> {
    let mut parts = vec![range];
    while parts.len() < owners.len() && (parts.len() as u128) < range.size() {
        let halves = |block: &Block| block.halves().map_or(vec![*block], |(a, b)| vec![a, b]);
        parts = parts.iter().flat_map(halves).collect();
    }
    let (parts_len, owners_len) = (parts.len(), owners.len());
    let owner_of = |index: usize| owners[index * owners_len / parts_len];
    let mut shared: Vec<(Block, PeerId)> =
        parts.into_iter().enumerate().map(|(index, part)| (part, owner_of(index))).collect();
    merge_pairs(&mut shared);
    shared
}

/// Makes one block of two halves of the same owner.
fn merge_pairs(shared: &mut Vec<(Block, PeerId)>) {
    let all: BTreeMap<Block, PeerId> = shared.drain(..).collect();
    for (block, owner) in all {
        if let Some((last, before)) = shared.last().copied()
            && before == owner
            && last.length() == block.length()
            && let Ok(parent) = Block::containing(last.first(), last.length() - 1)
            && parent.covers(&block)
        {
            shared.pop();
            shared.push((parent, owner));
        } else {
            shared.push((block, owner));
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_router::{Replica, Time, store::Cursor};

    use super::*;
    use crate::{
        council::Upheaval,
        ring::EPOCH_MAX,
        space::{SpaceMessage, SpaceRequest},
    };

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 16])
    }

    #[test]
    fn shares_make_up_the_range_and_are_about_equal() {
        let range: Block = "10.32.0.0/12".parse().unwrap();
        for count in 1..=9 {
            let owners: Vec<PeerId> = (1..=count).map(peer).collect();
            let shares = shares(range, &owners);
            let total: u128 = shares.iter().map(|(block, _)| block.size()).sum();
            assert_eq!(total, range.size());
            let of = |owner: &PeerId| -> u128 {
                let own = shares.iter().filter(|(_, of)| of == owner);
                own.map(|(block, _)| block.size()).sum()
            };
            let (least, most) =
                (owners.iter().map(of).min().unwrap(), owners.iter().map(of).max().unwrap());
            assert!(least > 0 && most <= 2 * least, "{count}: {least}..{most}");
        }
        let owners: Vec<PeerId> = (1..=9).map(peer).collect();
        let smallest = shares("10.32.0.0/29".parse().unwrap(), &owners);
        assert_eq!(smallest.len(), 8, "one owner has none: {smallest:?}");
    }

    #[test]
    fn the_longest_decree_that_a_host_drafts_can_be_accepted() {
        let key = |n| RingKey::Block(Block::at(Family::V6, n << 64, 64));
        let value = RingValue::Owned { owner: peer(0xff), epoch: EPOCH_MAX };
        let mut writes: Vec<_> = (0..WRITES_MAX as u128).map(|n| (key(n), value)).collect();
        let seats = (0..=255).map(|n| RingKey::Elector(peer(n)));
        writes
            .extend(seats.map(|key| (key, RingValue::Elector { seated: true, epoch: EPOCH_MAX })));
        let base = COUNTER_MAX - writes.len() as u64;
        assert!(Decree { after: base, base, writes }.is_sound());
    }

    /// Brings a host up to date with another.
    fn tell(from: &Ipam, to: &mut Ipam) {
        let mut cursor = Cursor::at(to.store().announced());
        loop {
            let delta = from.delta(&cursor, &|_| true, 0);
            if delta.bytes.is_empty() {
                return;
            }
            assert!(to.apply(&delta.bytes).unwrap());
            cursor = delta.cursor;
        }
    }

    #[test]
    fn who_carries_out_its_own_removal_takes_notice() {
        let mut host = Ipam::new(peer(1));
        host.found(&["10.32.0.0/12".parse().unwrap()]).unwrap();
        host.look_for_own_removal();
        assert_eq!(host.take_upheaval(), None);
        // What others had accepted has to be carried out first, whoever asks for what.
        let removed = BTreeSet::from([peer(1)]);
        let electors = BTreeSet::from([peer(2)]);
        let change = Change { removed, electors, ..Change::default() };
        host.carry_out(&host.draft(&change));
        assert_eq!(host.take_upheaval(), None, "nobody else may know it yet");
        host.look_for_own_removal();
        assert_eq!(host.take_upheaval(), Some(Upheaval::Removed));
        host.store_mut().begin_recall();
        host.look_for_own_removal();
        assert_eq!(host.take_upheaval(), None, "it asks already");
    }

    /// Makes a host grant a chunk; returns it.
    fn grant(from: &mut Ipam, to: PeerId) -> u64 {
        let (address, seen, own) = (None, 0, 0);
        let range = from.ranges()[0];
        let request =
            SpaceRequest { id: 1, range, address, seen, own, urgent: true, held_by: None };
        from.handle_message(to, SpaceMessage::Request(request), Time::ZERO);
        persist(from);
        from.owned_by(to)
    }

    fn persist(host: &mut Ipam) {
        let store = host.store_mut();
        store.mark_durable(store.own_counter());
    }

    /// Found by seed 80035253 of `default`.
    #[test]
    fn no_base_is_put_forward_by_who_lacks_what_a_removed_host_had_given() {
        let [mut keeper, mut giver, mut taker] = [1, 2, 3].map(|n| Ipam::new(peer(n)));
        keeper.found(&["10.32.0.0/12".parse().unwrap()]).unwrap();
        let electors = BTreeSet::from([peer(1), peer(2)]);
        keeper.carry_out(&keeper.draft(&Change { electors, ..Change::default() }));
        grant(&mut keeper, peer(2));
        tell(&keeper, &mut giver);
        let given = grant(&mut giver, peer(3));
        tell(&giver, &mut taker);
        assert!(given > 0);

        let (removed, electors) = (BTreeSet::from([peer(2)]), BTreeSet::from([peer(1)]));
        let decree = taker.draft(&Change { removed, electors, ..Change::default() });
        taker.carry_out(&decree);
        keeper.carry_out(&decree);
        assert_eq!(keeper.owned_by(peer(2)), 0);
        assert_eq!(keeper.base_needs(), None, "others would drop what it does not know");
        tell(&taker, &mut keeper);
        assert_eq!(keeper.base_needs(), Some(BTreeSet::from([peer(3)])));
        assert_eq!(keeper.owned_by(peer(3)), taker.owned_by(peer(3)));
    }

    /// Found by simulation: an entry that says nothing any more is whose its first address is, who
    /// made it its own while the removal was decided.
    #[test]
    fn a_removal_writes_no_entry_that_another_may_write_meanwhile() {
        let range: Block = "10.32.0.0/12".parse().unwrap();
        let (half, other) = range.halves().unwrap();
        let (quarter, last) = other.halves().unwrap();
        for hidden in [false, true] {
            let mut hosts = [1, 2, 3].map(|n| Ipam::new(peer(n)));
            let [giver, first, proposer] = &mut hosts;
            giver.found(&[range]).unwrap();
            giver.write_grant(half, peer(2));
            giver.write_grant(quarter, peer(3));
            if hidden {
                giver.write_grant(last, peer(3));
            }
            persist(giver);
            tell(giver, first);
            tell(giver, proposer);
            let (removed, electors) = (BTreeSet::from([peer(1)]), BTreeSet::from([peer(2)]));
            let decree = proposer.draft(&Change { removed, electors, ..Change::default() });
            assert_eq!(first.tidy(), hidden, "it makes the range its own meanwhile");
            first.carry_out(&decree);
            proposer.carry_out(&decree);
            let owned = [first.owned_by(peer(2)), proposer.owned_by(peer(3))];
            assert_eq!(owned, [1 << 19, 1 << 19]);
            persist(first);
            tell(first, proposer);
            assert_eq!(proposer.routes(), first.routes());
        }
    }

    #[test]
    fn a_host_with_more_blocks_than_a_decree_has_writes_is_removed_by_several() {
        let [mut giver, mut proposer] = [1, 2].map(|n| Ipam::new(peer(n)));
        giver.found(&["10.32.0.0/12".parse().unwrap()]).unwrap();
        let fragments = WRITES_MAX as u128 + 100;
        for n in 0..fragments {
            let address = (10 << 24) + (32 << 16) + 32 * n;
            giver.write_grant(Block::at(Family::V4, address, 28), peer(3));
        }
        giver.refresh();
        persist(&mut giver);
        tell(&giver, &mut proposer);
        let (mut left, by_giver) = (vec![], giver.owned_by(peer(1)));
        for _ in 0..3 {
            left.push(proposer.owned_by(peer(3)));
            let (removed, electors) = (BTreeSet::from([peer(3)]), BTreeSet::from([peer(1)]));
            let decree = proposer.draft(&Change { removed, electors, ..Change::default() });
            assert!(decree.is_sound());
            proposer.carry_out(&decree);
            giver.carry_out(&decree);
        }
        assert_eq!(left[0], 16 * fragments as u64);
        assert!(left[1] > 0 && left[1] < left[0] / 50, "{left:?}");
        assert_eq!(left[2], 0);
        assert_eq!(giver.owned_by(peer(1)), by_giver);
        assert_eq!(giver.owned_by(peer(2)), left[0]);
        assert_eq!(giver.routes(), proposer.routes());
    }

    /// It joined through the dead host, which was back and did not know that it had been removed.
    /// Found by simulation: two hosts owned an address.
    #[test]
    fn a_joiner_that_heard_of_a_removed_host_what_nobody_knew_starts_over() {
        let mut dead = Ipam::new(peer(1));
        dead.found(&["10.32.0.0/12".parse().unwrap()]).unwrap();
        grant(&mut dead, peer(2));
        let [mut remover, mut before] = [2, 5].map(|n| Ipam::new(peer(n)));
        for host in [&mut remover, &mut before] {
            tell(&dead, host);
        }
        grant(&mut dead, peer(3));
        let removed = BTreeSet::from([peer(1)]);
        let change = Change { removed, electors: [peer(2)].into(), ..Change::default() };
        remover.carry_out(&remover.draft(&change));
        for host in [&mut dead, &mut remover, &mut before] {
            persist(host);
        }
        let tainted = Some(Upheaval::Tainted(peer(1)));
        for (told_by, upheaval) in [(Some(&dead), tainted), (Some(&before), None), (None, None)] {
            let mut joiner = Ipam::new(peer(4));
            joiner.store_mut().begin_recall();
            if let Some(first) = told_by {
                tell(first, &mut joiner);
            }
            assert_eq!(joiner.take_upheaval(), None);
            tell(&remover, &mut joiner);
            assert_eq!(joiner.take_upheaval(), upheaval);
        }
    }

    #[test]
    fn old_removals_are_forgotten_and_who_missed_them_starts_over() {
        let mut keeper = Ipam::new(peer(1));
        keeper.found(&["10.32.0.0/12".parse().unwrap()]).unwrap();
        let mut hosts = [(10, Some(Upheaval::Forgotten)), (200, None)]
            .map(|(until, upheaval)| (until, Ipam::new(peer(until)), upheaval));
        let rounds = u8::try_from(REMOVALS_MAX - 1).unwrap();
        for n in 0..rounds {
            let id = |kind: u8| PeerId::new([[n; 8], [kind; 8]].concat().try_into().unwrap());
            let removed = BTreeSet::from([id(1), id(2)]);
            let electors = keeper.electors();
            let change = Change { removed, electors, ..Change::default() };
            keeper.carry_out(&keeper.draft(&change));
            let store = keeper.store_mut();
            store.mark_durable(store.own_counter());
            for (until, host, _) in &mut hosts {
                if n < *until {
                    tell(&keeper, host);
                }
            }
        }
        while keeper.advance_base(&BTreeMap::new()) {
            let store = keeper.store_mut();
            store.mark_durable(store.own_counter());
            keeper.refresh();
        }
        let remembered = |ipam: &Ipam| {
            ipam.store().iter().filter(|(key, _)| matches!(key, RingKey::Removed(_))).count()
        };
        assert!((REMOVALS_MAX..REMOVALS_MAX + 4).contains(&remembered(&keeper)));
        for (until, host, upheaval) in &mut hosts {
            assert_eq!(host.take_upheaval(), None);
            tell(&keeper, host);
            assert_eq!(remembered(host), remembered(&keeper));
            assert_eq!(host.take_upheaval(), *upheaval, "knew {until} of {rounds} removals");
        }
    }
}
