//! Who may still give this host something that it asked for: whoever leaves must know that it is
//! told all of it, or it would be nobody's.
//!
//! A request that this host has given up may be answered later: its donor was slow, its disk was
//! full, or it was cut off. A donor answers one peer in order, and says nothing about a later
//! request before its earlier grants are durable. So the answer to the last request of all says
//! that there is nothing else, and of a grant, its arrival.

use std::collections::{BTreeMap, BTreeSet};

use mesh_router::PeerId;

use crate::{block::Block, ipam::Ipam};

/// The last request to each donor that may still have an effect, and what was granted for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(BTreeMap<PeerId, (u64, Option<Block>)>);

impl Asked {
    pub(crate) fn ask(&mut self, donor: PeerId, id: u64) {
        self.0.insert(donor, (id, None));
    }

    pub(crate) fn granted(&mut self, by: PeerId, id: u64, block: Block) {
        if let Some((last, granted)) = self.0.get_mut(&by)
            && *last == id
        {
            *granted = Some(block);
        }
    }

    pub(crate) fn refused(&mut self, by: PeerId, id: u64) {
        if self.0.get(&by).is_some_and(|(last, _)| *last == id) {
            self.0.remove(&by);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Ipam {
    /// Peers that were asked for space and may still give some. Of a donor that owns nothing any
    /// more, all that it ever gave is known.
    pub fn may_give(&self) -> impl Iterator<Item = PeerId> {
        let asked = self.space.asked.0.iter();
        let open = asked.filter(|(donor, (_, granted))| {
            !granted.is_some_and(|block| self.owns(&block)) && self.owns_anything(**donor)
        });
        open.map(|(donor, _)| *donor)
    }

    /// Forgets those who have nothing more to give.
    pub(crate) fn settle_asked(&mut self) {
        let open: BTreeSet<PeerId> = self.may_give().collect();
        self.space.asked.0.retain(|donor, _| open.contains(donor));
    }

    fn owns(&self, block: &Block) -> bool {
        let (first, last) = (block.first_number(), block.last_number());
        self.pool_of(block).is_some_and(|(_, pool)| pool.owned().covers(first, last))
    }
}
