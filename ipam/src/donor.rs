//! Answering requests for space: the donor's half.
//!
//! There is no table of answered requests: whether a request was answered is in the ring itself,
//! also after a restart. A live own grant to the requester that it had not seen when it
//! asked is the answer. If the grant is gone from the ring, its receiver has written since, and the
//! request is known to be old by that.

use mesh_router::{Mutation, PeerId, Time, mutation};

use crate::{
    ask::words,
    block::{Block, number},
    ipam::Ipam,
    ring::{ENTRIES_MAX, RingKey, RingValue},
    space::{SpaceMessage, SpaceRefusal, SpaceRequest},
};

/// A chunk's share below which nothing is given to one that is not in need: crumbs would only make
/// the ring long.
const CRUMB: u128 = 8;

impl Ipam {
    pub(crate) fn on_request(&mut self, from: PeerId, request: &SpaceRequest, now: Time) {
        if from == self.me() {
            return;
        }
        let id = request.id;
        let served = self.serve(from, request);
        let whole = self.pools.contains_key(&request.range);
        let free = if whole { self.free_in(&request.range) } else { 0 };
        let free = u64::try_from(free).unwrap_or(u64::MAX);
        let (reply, durable) = match served {
            Ok(block) => (SpaceMessage::Granted { id, block, free }, self.ring.own_counter()),
            Err(reason) => (SpaceMessage::Refused { id, reason, free }, 0),
        };
        if let (
            SpaceMessage::Refused { reason: SpaceRefusal::Taken { .. }, .. },
            Some(address),
            Some(holder),
        ) = (&reply, request.address, &request.held_by)
        {
            self.contest(address, from, holder.clone(), now);
        }
        self.space.send(from, reply, durable);
    }

    fn serve(&mut self, from: PeerId, request: &SpaceRequest) -> Result<Block, SpaceRefusal> {
        if self.is_fenced(from) || self.pool_of(&request.range).is_none() {
            return Err(SpaceRefusal::NotReady);
        }
        let again = mutation::on(Mutation::GrantTwice);
        if let Some(block) = self.granted_before(from, request).filter(|_| !again) {
            return Ok(block);
        }
        if self.ring.vector().get(&from) > request.own && !again {
            return Err(SpaceRefusal::Stale);
        }
        if self.has_gaps() {
            return Err(SpaceRefusal::NotReady);
        }
        if self.leaving {
            return Err(SpaceRefusal::Leaving);
        }
        if self.ring.len() >= ENTRIES_MAX {
            return Err(SpaceRefusal::Full);
        }
        let block = widened(self.choose(request)?, &request.range);
        self.write_grant(block, from);
        self.refresh();
        Ok(block)
    }

    /// The grant that answers this request, if it was made already.
    fn granted_before(&self, from: PeerId, request: &SpaceRequest) -> Option<Block> {
        self.ring.keys_of(self.me()).find_map(|key| {
            let RingKey::Block(block) = key else { return None };
            let entry = self.ring.get(key)?;
            let theirs = matches!(entry.value, RingValue::Owned { owner, .. } if owner == from);
            let wanted = match request.address {
                Some(address) => block.contains(address),
                None => request.range.covers(block),
            };
            (theirs && wanted && entry.dot.counter > request.seen).then_some(*block)
        })
    }

    fn choose(&self, request: &SpaceRequest) -> Result<Block, SpaceRefusal> {
        let (range, pool) = self.pool_of(&request.range).ok_or(SpaceRefusal::NotReady)?;
        if let Some(address) = request.address {
            let block = Block::single(address);
            if let Some(holder) = self.held.holder(address)
                && !mutation::on(Mutation::GrantHeld)
            {
                return Err(SpaceRefusal::Taken { holder: words(holder) });
            }
            if !pool.owned().contains(number(address).1) || self.is_reserved(&range, address) {
                return Err(SpaceRefusal::NotOwner);
            }
            let held = mutation::on(Mutation::GrantHeld);
            return if self.is_spare(&block) || held {
                Ok(block)
            } else {
                Err(SpaceRefusal::NothingFree)
            };
        }
        // Half is kept, and so much that this host need not ask in its turn, or two would pass the
        // same addresses to and fro. In need the last address may go, also one that rests.
        let has = pool.count_in(&request.range, request.urgent, u128::MAX);
        let most = if request.urgent {
            has.div_ceil(2)
        } else {
            (has / 2).min(has.saturating_sub(self.low_water(&request.range)))
        };
        let chunk = self.chunk(&request.range);
        let block = pool.spare(&request.range, chunk.length(), most, request.urgent);
        let least = if request.urgent { 1 } else { chunk.size() / CRUMB };
        block.filter(|block| block.size() >= least).ok_or(SpaceRefusal::NothingFree)
    }
}

/// The block itself; a deliberate bug takes the one around it.
fn widened(block: Block, range: &Block) -> Block {
    let around = Block::at(block.family(), block.first_number(), block.length().saturating_sub(1));
    let widen = mutation::on(Mutation::GrantFragments) && range.covers(&around);
    if widen { around } else { block }
}
