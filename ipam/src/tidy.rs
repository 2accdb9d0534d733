//! Keeping the ring short: entries that nobody needs are taken back, and what was taken back goes.
//!
//! An entry is written by the owner of its block's first address and by nobody else. A host that
//! owns all of a block makes it one entry ([`Ipam::tidy`]); one that smaller ones hide is retired,
//! if the one around it is the same host's; else, if the next one inside is this host's and begins
//! where it does, it says from then on what that one said. Then no owner's largest aligned block
//! shows two entries: there are fewer than twice as many as these blocks.
//!
//! Retired entries go when the base passes them ([`mesh_router::store::Base`]). Only owners write,
//! so the base is the least of what all owners promised, put forward by whoever owns the first
//! address of the first range. A host that owns nothing in the copy of somebody who knows all of
//! every owner's writes below a number can have made none below it that is not known: its space
//! would have come from one of those writes. Or it lost its space by a decree: then all that the
//! decree took into account of it has to be known, too.

use std::collections::{BTreeMap, BTreeSet};

use mesh_router::{PeerId, store::Base};
use serde::{Deserialize, Serialize};

use crate::{
    block::Block,
    council::DECREE,
    ipam::Ipam,
    ring::{RingKey, RingValue},
    view::Owner,
};

/// Ring entries beyond which no base is put forward: what goes with it has to fit into one frame.
/// Chosen: 60 bytes each in half a frame.
pub const WHOLE_ENTRIES_MAX: usize = 1 << 13;
/// Blocks and entries that are tidied at once.
const TIDY_MAX: usize = 64;

/// What an owner promises about its writes to the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Every later write of it, and every one that it has not announced, has a greater counter.
    pub above: u64,
    /// The counter of its newest announced write.
    pub announced: u64,
}

impl Ipam {
    /// What this host can promise for ever. `idle`: all that it has seen is on its disk.
    pub fn promise(&self, idle: bool) -> Option<Promise> {
        let announced = self.ring.durable_counter();
        let all = idle && announced == self.ring.own_counter();
        let above = if all { self.ring.clock() } else { announced };
        (!self.ring.is_recalling()).then_some(Promise { above, announced })
    }

    /// Whose promises are needed for a new base, if there is something to be gained by it and it
    /// is this host's to put it forward.
    pub fn base_needs(&self) -> Option<BTreeSet<PeerId>> {
        let first = self.view.ranges.first()?;
        let mine = self.keeps(first) && !self.leaving && !self.ring.is_recalling();
        let whole = self.view.unknown.is_empty() && self.knows_the_removed() && !self.has_gaps();
        if !mine || !whole || self.ring.len() > WHOLE_ENTRIES_MAX {
            return None;
        }
        let clock = self.ring.clock();
        if self.ring.gain(&self.base_at(clock, clock)) == 0 {
            return None;
        }
        let owners = self.view.space.values().flat_map(BTreeMap::keys);
        Some(owners.copied().filter(|peer| *peer != self.me()).collect())
    }

    /// Whether this host has seen what removed hosts had written: it took no news of them while
    /// the removal was being decided.
    fn knows_the_removed(&self) -> bool {
        self.ring.range(RingKey::Removed(DECREE)..).all(|(key, entry)| match (key, entry.value) {
            (
                RingKey::Removed(peer),
                RingValue::Removed { cut, .. } | RingValue::Returned { cut, .. },
            ) => self.ring.seen(*peer) >= cut,
            _ => true,
        })
    }

    /// Puts the base forward as far as the promises of the others go. Returns whether it did.
    pub fn advance_base(&mut self, promises: &BTreeMap<PeerId, Promise>) -> bool {
        let Some(needs) = self.base_needs() else { return false };
        let mut upto = self.ring.clock();
        for peer in needs {
            match promises.get(&peer) {
                Some(promise) if promise.announced <= self.ring.seen(peer) => {
                    upto = upto.min(promise.above);
                }
                _ => return false,
            }
        }
        let base = self.base_at(upto, self.ring.seen(DECREE));
        if upto <= self.ring.base().upto || self.ring.gain(&base) == 0 {
            return false;
        }
        self.ring.write(RingKey::Base, RingValue::Base(base));
        self.refresh();
        true
    }

    fn base_at(&self, upto: u64, decrees: u64) -> Base {
        Base { upto, decrees, forgotten: self.epoch().forgotten }
    }

    /// Makes this host's entries as few as they can be, some at a time. Returns whether anything
    /// was written.
    pub fn tidy(&mut self) -> bool {
        let may = !self.leaving && !self.ring.is_recalling() && !self.has_gaps();
        if !may || self.ring.len() >= crate::ring::ENTRIES_MAX {
            return false;
        }
        let before = self.ring.own_counter();
        let blocks: Vec<Block> = self.owned_blocks();
        let crowded: Vec<Block> =
            blocks.into_iter().filter(|block| !self.inside(block).is_empty()).collect();
        for block in crowded.into_iter().take(TIDY_MAX) {
            self.unite(block);
        }
        let hidden: Vec<Block> = self.hidden().collect();
        let mut tidied = 0;
        // Inner ones first.
        for block in hidden.into_iter().rev() {
            tidied += usize::from(self.show(block));
            if tidied == TIDY_MAX {
                break;
            }
        }
        let wrote = self.ring.own_counter() != before;
        if wrote {
            self.refresh();
        }
        wrote
    }

    /// Makes one entry of all that lie in a block that is wholly this host's own; none, if the
    /// block around says so already.
    fn unite(&mut self, block: Block) {
        match self.said_around(&block, block.length() + 1) {
            Some((within, owner)) if owner == self.me() && self.keeps(&within) => {
                for (inner, _) in self.inside(&block) {
                    self.retire(inner, within);
                }
            }
            _ => self.write_grant(block, self.me()),
        }
    }

    /// Does away with an entry that smaller ones hide, or gives it something to say. Only in
    /// favour of this host itself: a view that lacks the smaller entries reads what is around, and
    /// must not find there somebody who would believe it. Returns whether it could.
    fn show(&mut self, hidden: Block) -> bool {
        let me = self.me();
        if let Some((within, owner)) = self.said_around(&hidden, hidden.length())
            && owner == me
            && self.keeps(&within)
        {
            self.retire(hidden, within);
            return true;
        }
        // What is this host's own at the block's beginning is said by the block itself, unless
        // another's lies between.
        let single = Block::single(hidden.first());
        let Some((first, owner)) = self.said_around(&single, single.length() + 1) else {
            return false;
        };
        let next = self.said_around(&first, first.length()).map(|(around, _)| around);
        let may = owner == me && next == Some(hidden);
        if may {
            self.widen(first, hidden);
        }
        may
    }

    /// The smallest block that covers this one, has a length below `below` and an owner.
    fn said_around(&self, block: &Block, below: u8) -> Option<(Block, PeerId)> {
        (0..below).rev().find_map(|length| {
            let around = Block::at(block.family(), block.first_number(), length);
            match self.ring.get(&RingKey::Block(around))?.value {
                RingValue::Owned { owner, .. } => Some((around, owner)),
                _ => None,
            }
        })
    }

    /// Entries that are this host's to write and that smaller ones hide wholly.
    fn hidden(&self) -> impl Iterator<Item = Block> {
        let keys = self.ring.iter().filter_map(|(key, entry)| match (key, entry.value) {
            (RingKey::Block(block), RingValue::Owned { .. }) => Some(*block),
            _ => None,
        });
        keys.filter(|block| self.is_hidden(block) && self.keeps(block))
    }

    fn is_hidden(&self, block: &Block) -> bool {
        let Some((half, _)) = block.halves() else { return false };
        let mut next = block.first_number();
        let keys = RingKey::Block(half)..=RingKey::Block(Block::single(block.last()));
        for (key, entry) in self.ring.range(keys) {
            let (RingKey::Block(inner), RingValue::Owned { .. }) = (key, entry.value) else {
                continue;
            };
            if inner.first_number() > next {
                return false;
            }
            if inner.last_number() >= block.last_number() {
                return true;
            }
            next = next.max(inner.last_number() + 1);
        }
        false
    }

    /// Who puts bases forward.
    pub fn base_keeper(&self) -> Option<PeerId> {
        match self.owner(self.view.ranges.first()?.first()) {
            Owner::Peer(peer) => Some(peer),
            _ => None,
        }
    }
}
