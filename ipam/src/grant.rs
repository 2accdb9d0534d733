//! Ring writes of an owner: passing a block on, and taking back an entry that nobody needs.

use mesh_router::{Mutation, PeerId, mutation};

use crate::{
    block::Block,
    ipam::Ipam,
    ring::{RingKey, RingValue, Version},
    view::Owner,
};

impl Ipam {
    /// Writes that a block belongs to a peer and retires the entries inside. The block must be
    /// solid: wholly this host's own, with no address held.
    ///
    /// The retirements are written first, naming the grant to come. Who has seen the grant then
    /// writes with a greater counter than all of them; in the other order a receiver that passes a
    /// part on, having heard the grant only, would lose against the late retirement of that part.
    pub(crate) fn write_grant(&mut self, block: Block, owner: PeerId) {
        debug_assert!(
            self.is_spare(&block)
                || owner == self.me()
                || mutation::on(Mutation::GrantFragments)
                || mutation::on(Mutation::GrantHeld),
            "{block} is not solid"
        );
        let inside = self.inside(&block);
        // A greater epoch anywhere about this block would beat the grant, so it is taken over.
        let epoch =
            self.epoch_around(&block).max(inside.iter().map(|old| old.1).max().unwrap_or(0));
        let writer = self.me();
        let clock = self.ring.clock();
        let late = mutation::on(Mutation::RetireLate);
        let retirements = if late { 0 } else { inside.len() as u64 };
        let grant = Version { epoch, counter: clock + retirements + 1, writer };
        if late {
            self.ring.write(RingKey::Block(block), RingValue::Owned { owner, epoch });
        }
        for (inner, _) in inside {
            let value = RingValue::Retired { within: block, at_least: grant, epoch };
            self.ring.write(RingKey::Block(inner), value);
        }
        if !late {
            let dot = self.ring.write(RingKey::Block(block), RingValue::Owned { owner, epoch });
            assert_eq!(dot.counter, grant.counter, "the retirements name another grant");
        }
    }

    /// Puts a larger block in the place of an own one at its beginning: smaller entries say who
    /// owns the rest of it. In the order of [`Ipam::write_grant`].
    pub(crate) fn widen(&mut self, block: Block, larger: Block) {
        let epoch = self.epoch_around(&block);
        let counter = self.ring.clock() + 2;
        let grant = Version { epoch, counter, writer: self.me() };
        let value = RingValue::Retired { within: larger, at_least: grant, epoch };
        self.ring.write(RingKey::Block(block), value);
        let value = RingValue::Owned { owner: self.me(), epoch };
        let dot = self.ring.write(RingKey::Block(larger), value);
        assert_eq!(dot.counter, counter, "the retirement names another grant");
    }

    /// Whether a block is solid: wholly this host's own, with no address held.
    pub(crate) fn is_spare(&self, block: &Block) -> bool {
        let (first, last) = (block.first_number(), block.last_number());
        self.held.between(block.first(), block.last()).next().is_none()
            && self
                .pools
                .iter()
                .any(|(range, pool)| range.covers(block) && pool.owned().covers(first, last))
    }

    /// The live entries inside a block, itself excepted, with their epochs.
    pub(crate) fn inside(&self, block: &Block) -> Vec<(Block, u64)> {
        let Some((half, _)) = block.halves() else { return Vec::new() };
        let keys = RingKey::Block(half)..=RingKey::Block(Block::single(block.last()));
        let entries = self.ring.range(keys);
        entries
            .filter_map(|(key, entry)| match (key, entry.value) {
                (RingKey::Block(block), RingValue::Owned { epoch, .. }) => Some((*block, epoch)),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn epoch_around(&self, block: &Block) -> u64 {
        let around = (0..=block.length()).filter_map(|length| {
            let block = Block::at(block.family(), block.first_number(), length);
            self.ring.get(&RingKey::Block(block))
        });
        around.map(|entry| Version::of(entry).epoch).max().unwrap_or(0)
    }

    /// Whether a block's entry is this host's to write: it owns the block's first address. So the
    /// writes to each key are in the order in which that address was passed on, and nobody relies
    /// on an entry that another may write.
    pub(crate) fn keeps(&self, block: &Block) -> bool {
        self.owner(block.first()) == Owner::Peer(self.me())
    }

    /// Takes back an entry that says what the one around it says, or nothing that is seen.
    pub(crate) fn retire(&mut self, block: Block, within: Block) {
        let epoch = self.epoch_around(&block);
        let around = self.ring.get(&RingKey::Block(within));
        let around = around.expect("the block around is in the ring").clone();
        let mut at_least = Version::of(&around);
        if let RingValue::Owned { owner, epoch: lesser } = around.value
            && lesser < epoch
            && self.keeps(&within)
        {
            // The fence of what goes must be known around it.
            let value = RingValue::Owned { owner, epoch };
            let dot = self.ring.write(RingKey::Block(within), value);
            at_least = Version { epoch, counter: dot.counter, writer: dot.actor };
        }
        self.ring.write(RingKey::Block(block), RingValue::Retired { within, at_least, epoch });
    }
}
