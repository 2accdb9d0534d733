//! What this host's copy of the ring says: a pure function of it, computed anew when it changes.
//!
//! The owner of an address is the longest match, with three rules that make a partial copy safe:
//!
//! 1. Only solid blocks are granted, ones that the giver owns wholly: every caller of
//!    `Ipam::write_grant` sees to it.
//! 2. A retired entry names a block around it and that block's version. While the copy lacks it,
//!    the owner there is unknown, and the writer is asked, who knows. Else the entry says nothing.
//! 3. What lies inside a grant is retired before the grant is written, so who has seen the grant
//!    has seen that, and writes with greater versions: `Ipam::write_grant`.
//!
//! ```text
//!   range        |--------------------------------|   unknown, ask the range's writer
//!   A @1         |--------------------------------|   A
//!   B @7                 |---------------|            B
//!   C @9                     |---|                    C
//!   retired @10                      |---|            unknown, if it names a version above B's 7
//!   owner         A A A A B B C C B B U U A A A A
//! ```

use std::{collections::BTreeMap, net::IpAddr};

use mesh_router::{Mutation, PeerId, mutation, store::Entry};

use crate::{
    block::{Block, Family, number},
    intervals::Intervals,
    ring::{Ring, RingKey, RingValue, Version},
};

/// Who owns an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// This peer.
    Peer(PeerId),
    /// Not known here yet; this peer knows.
    Unknown {
        /// Who wrote what is not understood yet.
        ask: PeerId,
    },
    /// In no range of the mesh.
    Outside,
}

impl Owner {
    /// To whom packets go: the owner, or who knows it.
    pub const fn route(self) -> Option<PeerId> {
        match self {
            Self::Peer(peer) | Self::Unknown { ask: peer } => Some(peer),
            Self::Outside => None,
        }
    }
}

/// From here on, up to the next segment, addresses have this owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    family: Family,
    first: u128,
    owner: Owner,
    range: Option<Block>,
}

/// An entry to be retired: the ownership around it names the same owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redundant {
    pub(crate) block: Block,
    pub(crate) within: Block,
}

/// Everything that is derived from one state of the ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Sorted; an address before the first one of its family is outside.
    segments: Vec<Segment>,
    /// Outermost ranges, rising.
    pub(crate) ranges: Vec<Block>,
    /// Blocks whose route differs from that of what is around them.
    pub(crate) routes: Vec<(Block, PeerId)>,
    /// Addresses that each peer owns in each range.
    pub(crate) space: BTreeMap<Block, BTreeMap<PeerId, u128>>,
    /// Addresses of each range whose owner is unknown.
    pub(crate) unknown: BTreeMap<Block, u128>,
    /// What this host owns of each range.
    pub(crate) mine: BTreeMap<Block, Intervals>,
    /// Own entries that say what is said around them.
    pub(crate) redundant: Vec<Redundant>,
    /// Entries that still say something.
    pub(crate) live: usize,
}

impl View {
    pub(crate) fn of(ring: &Ring) -> Self {
        Sweep { ring, levels: Vec::new(), view: Self::default() }.run()
    }

    /// The owner of an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Owner {
        let (family, number) = number(address);
        let next = self
            .segments
            .partition_point(|segment| (segment.family, segment.first) <= (family, number));
        match next.checked_sub(1).map(|index| self.segments[index]) {
            Some(segment) if segment.family == family => segment.owner,
            _ => Owner::Outside,
        }
    }

    /// The range that an address lies in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<Block> {
        let block = Block::single(address);
        let next = self.ranges.partition_point(|range| *range <= block);
        let range = self.ranges[next.checked_sub(1)?];
        range.contains(address).then_some(range)
    }

    /// How many addresses of a range a peer owns.
    pub(crate) fn owned(&self, range: &Block, peer: PeerId) -> u128 {
        self.space.get(range).and_then(|owners| owners.get(&peer)).copied().unwrap_or(0)
    }

    /// Fills what is counted from the segments.
    fn count(&mut self, me: PeerId) {
        for (index, segment) in self.segments.iter().enumerate() {
            let Some(range) = segment.range else { continue };
            let next = self.segments.get(index + 1).filter(|next| next.family == segment.family);
            let last = next.map_or(segment.family.max(), |next| next.first - 1);
            let size = last - segment.first + 1;
            match segment.owner {
                Owner::Peer(peer) => {
                    *self.space.entry(range).or_default().entry(peer).or_default() += size;
                    if peer == me {
                        self.mine.entry(range).or_default().insert(segment.first, last);
                    }
                }
                Owner::Unknown { .. } => *self.unknown.entry(range).or_default() += size,
                Owner::Outside => {}
            }
        }
    }
}

/// One of the nested blocks that the sweep is in.
struct Level {
    block: Block,
    owner: Owner,
    /// The block whose entry names the owner.
    source: Option<Block>,
    range: Option<Block>,
}

/// Goes through ranges and blocks in order, outer before inner.
struct Sweep<'a> {
    ring: &'a Ring,
    levels: Vec<Level>,
    view: View,
}

impl Sweep<'_> {
    fn run(mut self) -> View {
        let mut items: Vec<_> = self
            .ring
            .iter()
            .filter_map(|(key, entry)| match key {
                RingKey::Range(block) => Some((*block, false, entry)),
                RingKey::Block(block) => Some((*block, true, entry)),
                RingKey::Epoch | RingKey::Elector(_) | RingKey::Removed(_) => None,
            })
            .collect();
        items.sort_by_key(|(block, owned, _)| (*block, *owned));
        for (block, owned, entry) in items {
            self.leave_all_but(Some(&block));
            let level = if owned { self.block(block, entry) } else { self.range(block, entry) };
            if let Some(level) = level {
                self.enter(level);
            }
        }
        self.leave_all_but(None);
        self.view.count(self.ring.me());
        self.view
    }

    fn range(&mut self, block: Block, entry: &Entry<RingValue>) -> Option<Level> {
        if self.levels.iter().any(|level| level.range.is_some()) {
            return None;
        }
        self.view.ranges.push(block);
        // An ownership around the range that came before it still holds inside it.
        let around = self.levels.last();
        Some(Level {
            block,
            owner: match around {
                Some(level) if level.owner != Owner::Outside => level.owner,
                _ => Owner::Unknown { ask: entry.dot.actor },
            },
            source: around.and_then(|level| level.source),
            range: Some(block),
        })
    }

    /// What an entry changes; nothing if it says nothing.
    fn block(&mut self, block: Block, entry: &Entry<RingValue>) -> Option<Level> {
        let around = self.levels.last();
        let range = around.and_then(|level| level.range);
        let source = around.and_then(|level| level.source);
        match entry.value {
            RingValue::Owned { owner, .. } => {
                self.view.live += 1;
                let owner = Owner::Peer(owner);
                if let (Some(around), Some(within)) = (around, source)
                    && owner == Owner::Peer(self.ring.me())
                    && around.owner == owner
                {
                    self.view.redundant.push(Redundant { block, within });
                }
                Some(Level { block, owner, source: Some(block), range })
            }
            RingValue::Retired { within, at_least, .. } => {
                let known = self.ring.get(&RingKey::Block(within)).map(Version::of);
                if known >= Some(at_least) || mutation::on(Mutation::ForgetWithin) {
                    return None;
                }
                self.view.live += 1;
                let owner = Owner::Unknown { ask: entry.dot.actor };
                Some(Level { block, owner, source: None, range })
            }
            // What cannot be filed under a block: see `RingRegister::validate`.
            _ => None,
        }
    }

    fn enter(&mut self, level: Level) {
        let around = self.levels.last().and_then(|level| self.route(level));
        if let Some(peer) = self.route(&level)
            && around != Some(peer)
        {
            self.view.routes.push((level.block, peer));
        }
        self.mark(level.block.family(), level.block.first_number(), &level);
        self.levels.push(level);
    }

    fn route(&self, level: &Level) -> Option<PeerId> {
        level.range.and_then(|_| level.owner.route())
    }

    /// Leaves the blocks that do not cover `next`.
    fn leave_all_but(&mut self, next: Option<&Block>) {
        while let Some(level) =
            self.levels.pop_if(|level| next.is_none_or(|next| !level.block.covers(next)))
        {
            let (family, last) = (level.block.family(), level.block.last_number());
            if last == family.max() {
                continue;
            }
            match self.levels.pop() {
                Some(around) => {
                    self.mark(family, last + 1, &around);
                    self.levels.push(around);
                }
                None => self.push(Segment {
                    family,
                    first: last + 1,
                    owner: Owner::Outside,
                    range: None,
                }),
            }
        }
    }

    fn mark(&mut self, family: Family, first: u128, level: &Level) {
        // Who owns what is in no range does not matter.
        let owner = if level.range.is_some() { level.owner } else { Owner::Outside };
        self.push(Segment { family, first, owner, range: level.range });
    }

    fn push(&mut self, segment: Segment) {
        let segments = &mut self.view.segments;
        segments.pop_if(|last| (last.family, last.first) == (segment.family, segment.first));
        let same = segments.last().is_some_and(|last| {
            (last.family, last.owner, last.range) == (segment.family, segment.owner, segment.range)
        });
        if !same {
            segments.push(segment);
        }
    }
}
