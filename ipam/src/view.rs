//! What this host's copy of the ring says: a pure function of it. When entries change, it is
//! computed anew in their blocks, and nowhere else: no entry says anything outside its block.
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

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    hash::{BuildHasherDefault, DefaultHasher},
    net::IpAddr,
};

use mesh_router::{Mutation, PeerId, mutation, store};

use crate::{
    block::Block,
    intervals::Intervals,
    ring::{Ring, RingKey, RingValue, Version},
    segments::{Segments, Tag},
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

/// An entry to be retired: the ownership around it names the same owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redundant {
    pub(crate) block: Block,
    pub(crate) within: Block,
}

/// Everything that is derived from one state of the ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    segments: Segments,
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
}

impl View {
    /// What the ring says, from scratch, and the own entries that say what is said around them.
    pub(crate) fn of(ring: &Ring) -> (Self, Vec<Redundant>) {
        let mut view = Self { ranges: outermost_ranges(ring), ..Self::default() };
        let redundant = view.update(ring, &Block::everything());
        (view, redundant)
    }

    /// Derives anew what lies in these blocks, of which none covers another: no entry outside has
    /// changed, and no range anywhere.
    pub(crate) fn update(&mut self, ring: &Ring, regions: &[Block]) -> Vec<Redundant> {
        let (mut redundant, mut sums) = (Vec::new(), Sums::default());
        for region in regions {
            self.count(ring.me(), region, false, &mut sums);
            let found = Sweep::of(ring, &self.ranges, region);
            self.segments.splice(region, &found.marks);
            let (from, to) = (
                self.routes.partition_point(|(block, _)| block < region),
                self.routes.partition_point(|(block, _)| *block <= Block::single(region.last())),
            );
            self.routes.splice(from..to, found.routes);
            redundant.extend(found.redundant);
            self.count(ring.me(), region, true, &mut sums);
        }
        self.add(sums);
        redundant
    }

    /// The owner of an address.
    pub(crate) fn owner(&self, address: IpAddr) -> Owner {
        self.segments.owner(address)
    }

    /// The range that an address lies in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<Block> {
        let block = Block::single(address);
        let next = self.ranges.partition_point(|range| *range <= block);
        let range = self.ranges[next.checked_sub(1)?];
        range.contains(address).then_some(range)
    }

    /// The least number of aligned blocks that say who owns what.
    #[cfg(test)]
    pub(crate) fn fragments(&self) -> usize {
        let pieces = self.ranges.iter().flat_map(|range| {
            let family = range.family();
            let pieces = self.segments.inside(range);
            pieces.flat_map(move |(first, last, _)| crate::intervals::blocks(family, first, last))
        });
        pieces.count()
    }

    /// The pieces of a block that lie in ranges: to whom each goes, and its size. Some peers have
    /// several. It looks only at what lies in the block.
    pub(crate) fn pieces(&self, block: &Block) -> impl Iterator<Item = (PeerId, u128)> {
        let pieces = self.segments.inside(block);
        pieces.filter_map(|(first, last, tag)| Some((tag.owner.route()?, last - first + 1)))
    }

    /// How many addresses of a range a peer owns.
    pub(crate) fn owned(&self, range: &Block, peer: PeerId) -> u128 {
        self.space.get(range).and_then(|owners| owners.get(&peer)).copied().unwrap_or(0)
    }

    /// Adds what is counted in a region, or takes it away again.
    fn count(&mut self, me: PeerId, region: &Block, add: bool, sums: &mut Sums) {
        for (first, last, tag) in self.segments.inside(region) {
            let Some(index) = tag.range else { continue };
            let size = last - first + 1;
            let sum = match tag.owner {
                Owner::Peer(peer) => sums.owned.entry((index, peer)).or_default(),
                Owner::Unknown { .. } => sums.unknown.entry(index).or_default(),
                Owner::Outside => continue,
            };
            *sum = if add { sum.wrapping_add(size) } else { sum.wrapping_sub(size) };
            if tag.owner == Owner::Peer(me) {
                let mine = self.mine.entry(self.ranges[index as usize]).or_default();
                if add { mine.insert(first, last) } else { mine.remove(first, last) }
            }
        }
        if add {
            self.mine.retain(|_, mine| mine.total() > 0);
        }
    }

    /// Adds what has changed altogether.
    fn add(&mut self, sums: Sums) {
        for ((range, peer), change) in sums.owned {
            change_by(self.space.entry(self.ranges[range as usize]).or_default(), peer, change);
        }
        for (range, change) in sums.unknown {
            change_by(&mut self.unknown, self.ranges[range as usize], change);
        }
        self.space.retain(|_, owners| !owners.is_empty());
    }
}

/// By how much sums change, modulo 2^128. Who owns each of very many blocks is looked up here, and
/// each owner in the view only once; the order of owners does not matter.
#[derive(Debug, Default)]
struct Sums {
    owned: HashMap<(u32, PeerId), u128, BuildHasherDefault<DefaultHasher>>,
    unknown: BTreeMap<u32, u128>,
}

fn change_by<K: Ord>(sums: &mut BTreeMap<K, u128>, key: K, change: u128) {
    match sums.entry(key) {
        Entry::Vacant(_) if change == 0 => {}
        Entry::Vacant(slot) => drop(slot.insert(change)),
        Entry::Occupied(mut slot) => {
            *slot.get_mut() = slot.get().wrapping_add(change);
            if *slot.get() == 0 {
                slot.remove();
            }
        }
    }
}

/// The ranges that lie in no other, rising.
fn outermost_ranges(ring: &Ring) -> Vec<Block> {
    let mut ranges: Vec<Block> = Vec::new();
    for (key, _) in ring.iter() {
        match key {
            RingKey::Range(block) if ranges.last().is_none_or(|last| !last.covers(block)) => {
                ranges.push(*block);
            }
            RingKey::Range(_) => {}
            _ => break,
        }
    }
    ranges
}

/// One of the nested blocks that the sweep is in.
#[derive(Debug, Clone, Copy)]
struct Level {
    block: Block,
    owner: Owner,
    /// The block whose entry names the owner.
    source: Option<Block>,
    range: Option<u32>,
}

/// Goes through the ranges and blocks around and in a region in order, outer before inner.
struct Sweep<'a> {
    ring: &'a Ring,
    ranges: &'a [Block],
    region: &'a Block,
    levels: Vec<Level>,
    /// How many of the levels lie around the region.
    outer: usize,
    /// From this number on, up to the next mark, addresses are so.
    marks: Vec<(u128, Tag)>,
    routes: Vec<(Block, PeerId)>,
    redundant: Vec<Redundant>,
}

impl<'a> Sweep<'a> {
    fn of(ring: &'a Ring, ranges: &'a [Block], region: &'a Block) -> Self {
        let room = if region.length() == 0 { ring.len() } else { 0 };
        let mut sweep = Self {
            ring,
            ranges,
            region,
            levels: Vec::new(),
            outer: 0,
            marks: Vec::with_capacity(room),
            routes: Vec::with_capacity(room),
            redundant: Vec::new(),
        };
        for length in 0..region.length() {
            sweep.around(Block::at(region.family(), region.first_number(), length));
        }
        sweep.outer = sweep.levels.len();
        sweep.mark(region.first_number());
        sweep.inside();
        sweep
    }

    /// Enters a block around the region, of which nothing is to be told.
    fn around(&mut self, block: Block) {
        let range = self.range(block);
        self.levels.extend(range);
        if let Some(entry) = self.ring.get(&RingKey::Block(block)) {
            let level = self.block(block, entry);
            self.levels.extend(level);
        }
        self.redundant.clear();
    }

    fn inside(&mut self) {
        let ring = self.ring;
        let last = Block::single(self.region.last());
        let mut ranges = self.ranges[self.ranges.partition_point(|range| range < self.region)..]
            .iter()
            .take_while(|range| **range <= last)
            .peekable();
        let blocks = ring.range(RingKey::Block(*self.region)..=RingKey::Block(last));
        for (key, entry) in blocks {
            let RingKey::Block(block) = key else { continue };
            while let Some(range) = ranges.next_if(|range| **range <= *block) {
                self.enter_range(*range);
            }
            self.leave_all_but(Some(block));
            let level = self.block(*block, entry);
            self.enter(level);
        }
        for range in ranges {
            self.enter_range(*range);
        }
        self.leave_all_but(None);
    }

    fn enter_range(&mut self, range: Block) {
        self.leave_all_but(Some(&range));
        let level = self.range(range);
        self.enter(level);
    }

    fn range(&self, block: Block) -> Option<Level> {
        let index = self.ranges.binary_search(&block).ok()?;
        let writer = self.ring.get(&RingKey::Range(block))?.dot.actor;
        // An ownership around the range that came before it still holds inside it.
        let around = self.levels.last();
        Some(Level {
            block,
            owner: match around {
                Some(level) if level.owner != Owner::Outside => level.owner,
                _ => Owner::Unknown { ask: writer },
            },
            source: around.and_then(|level| level.source),
            range: u32::try_from(index).ok(),
        })
    }

    /// What an entry changes; nothing if it says nothing.
    fn block(&mut self, block: Block, entry: &store::Entry<RingValue>) -> Option<Level> {
        let around = self.levels.last();
        let range = around.and_then(|level| level.range);
        let source = around.and_then(|level| level.source);
        match entry.value {
            RingValue::Owned { owner, .. } => {
                let owner = Owner::Peer(owner);
                if let (Some(around), Some(within)) = (around, source)
                    && owner == Owner::Peer(self.ring.me())
                    && around.owner == owner
                {
                    self.redundant.push(Redundant { block, within });
                }
                Some(Level { block, owner, source: Some(block), range })
            }
            RingValue::Retired { within, at_least, .. } => {
                let known = self.ring.get(&RingKey::Block(within)).map(Version::of);
                if known >= Some(at_least) || mutation::on(Mutation::ForgetWithin) {
                    return None;
                }
                let owner = Owner::Unknown { ask: entry.dot.actor };
                Some(Level { block, owner, source: None, range })
            }
            _ => None,
        }
    }

    fn enter(&mut self, level: Option<Level>) {
        let Some(level) = level else { return };
        let around = self.levels.last().and_then(route);
        if let Some(peer) = route(&level)
            && around != Some(peer)
        {
            // Of a range that is a block, too, only whoever owns the block counts.
            self.routes.pop_if(|(block, _)| *block == level.block);
            self.routes.push((level.block, peer));
        }
        self.levels.push(level);
        self.mark(level.block.first_number());
    }

    /// Leaves the blocks inside the region that do not cover `next`.
    fn leave_all_but(&mut self, next: Option<&Block>) {
        while self.levels.len() > self.outer
            && let Some(level) =
                self.levels.pop_if(|level| next.is_none_or(|next| !level.block.covers(next)))
        {
            let last = level.block.last_number();
            if last < self.region.last_number() {
                self.mark(last + 1);
            }
        }
    }

    /// From here on addresses are as the innermost block says.
    fn mark(&mut self, first: u128) {
        // Who owns what is in no range does not matter.
        let inner = self.levels.last().filter(|level| level.range.is_some());
        let tag =
            inner.map_or(Tag::OUTSIDE, |level| Tag { owner: level.owner, range: level.range });
        self.marks.pop_if(|(number, _)| *number == first);
        self.marks.push((first, tag));
    }
}

fn route(level: &Level) -> Option<PeerId> {
    level.range.and_then(|_| level.owner.route())
}
