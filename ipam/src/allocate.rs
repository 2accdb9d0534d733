//! Addresses for holders on this host: local, at once, and the same again for the same question.
//!
//! Only what this host owns in its own copy of the ring is given; that copy is exact for it.

use std::{net::IpAddr, sync::Arc};

use mesh_router::{PeerId, Time};

use crate::{
    ask::ASKS_MAX,
    block::{Block, Family, number},
    held::Holder,
    ipam::Ipam,
    pool::Pool,
    ring::RingKey,
    space::SpaceRefusal,
    view::Owner,
};

/// Addresses that may be held on one host. Chosen: 16 times what the largest hosts run, and about
/// 250 MB.
pub const HELD_MAX: usize = 1 << 20;

/// What a holder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Any address of this range, or part of a range.
    Any(Block),
    /// This address.
    Exact(IpAddr),
}

/// Why no address was given. Nothing is held that was not held before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// No range of the mesh has it.
    #[error("{0} is in no range of the mesh")]
    Outside(Block),
    /// It is never given to anybody.
    #[error("{0} is reserved: it is the first or last address of its range, or an anycast address")]
    Reserved(IpAddr),
    /// Somebody else on this host has it.
    #[error("{address} is held on this host by {holder}")]
    Taken {
        /// Which.
        address: IpAddr,
        /// By whom.
        holder: Holder,
    },
    /// Another peer owns it. Ask for it with [`Ipam::want_exact`].
    #[error("{address} belongs to peer {}{}", owner.short(), refusal_words(refused.as_ref()))]
    Elsewhere {
        /// Which.
        address: IpAddr,
        /// Its owner, or the peer who knows.
        owner: PeerId,
        /// What came of asking for it: final, ask again only for a new request.
        refused: Option<SpaceRefusal>,
    },
    /// This host owns no free address of the range; peers are being asked.
    #[error("no free address of {range} on this host yet, {}", asked_words(asked.as_ref()))]
    NoSpace {
        /// Which range.
        range: Block,
        /// Who is being asked at this moment.
        asked: Option<PeerId>,
    },
    /// Neither this host nor any other has a free address of these ranges.
    #[error("every address of {} is in use or kept by its owner", block_words(.0))]
    Exhausted(Vec<Block>),
    /// The host is giving its addresses away.
    #[error("this host is leaving the mesh")]
    Leaving,
    /// Another peer owns it, and as many addresses are being asked for as may be.
    #[error("{0} belongs to another peer, and {ASKS_MAX} addresses are being asked for already")]
    Busy(IpAddr),
    /// The bound on held addresses is reached.
    #[error("{HELD_MAX} addresses are held on this host, as many as may be")]
    Full,
}

fn refusal_words(refused: Option<&SpaceRefusal>) -> String {
    refused.map_or_else(String::new, |reason| format!(", which refused it: {reason}"))
}

fn block_words(blocks: &[Block]) -> String {
    blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn asked_words(asked: Option<&PeerId>) -> String {
    asked.map_or_else(
        || "and nobody to ask is known".to_owned(),
        |peer| format!("asked peer {}", peer.short()),
    )
}

impl Ipam {
    /// Gives a holder an address. The same holder with the same wish gets the same address. One
    /// that rests is given only when it was asked for by itself, or when others were asked for
    /// space in vain.
    ///
    /// # Errors
    /// [`AllocateError`]. After `NoSpace` a request for space is on its way: try again when the
    /// ring has changed or a timeout was handled.
    pub fn allocate(
        &mut self,
        holder: &Holder,
        wanted: Wanted,
        now: Time,
    ) -> Result<IpAddr, AllocateError> {
        match wanted {
            Wanted::Any(part) => self.allocate_any(holder, part, now),
            Wanted::Exact(address) => self.allocate_exact(holder, address, now),
        }
    }

    /// Gives a holder an address of a family, out of its oldest range that has any: others come
    /// when nobody could give space in those before. Else as [`Ipam::allocate`].
    ///
    /// # Errors
    /// [`AllocateError`]; `Exhausted` names all ranges of the family.
    pub fn allocate_of(
        &mut self,
        holder: &Holder,
        family: Family,
        now: Time,
    ) -> Result<IpAddr, AllocateError> {
        let ranges = self.ranges_of(family);
        let here = |held: &IpAddr| ranges.iter().any(|range| range.contains(*held));
        if let Some(address) = self.held.addresses(holder).find(here) {
            return Ok(address);
        }
        let mut waits = None;
        for range in &ranges {
            match self.allocate_any(holder, *range, now) {
                Err(AllocateError::Exhausted(_)) => {}
                Err(error @ AllocateError::NoSpace { .. }) if self.nobody_gave(range) => {
                    waits.get_or_insert(error);
                }
                result => return result,
            }
        }
        Err(waits.unwrap_or(AllocateError::Exhausted(ranges)))
    }

    fn allocate_any(
        &mut self,
        holder: &Holder,
        part: Block,
        now: Time,
    ) -> Result<IpAddr, AllocateError> {
        let Some(range) = self.range_around(&part) else {
            return Err(AllocateError::Outside(part));
        };
        if let Some(address) = self.held.addresses(holder).find(|held| part.contains(*held)) {
            return Ok(address);
        }
        self.may_hold_more()?;
        let family = range.family();
        let pool = self.pools.get_mut(&range).ok_or(AllocateError::Outside(part))?;
        pool.ripen(now);
        let space = &self.space;
        let next = pool.next(&part, |number| space.is_wanted(family.address(number)));
        let number = match next {
            Some(number) => number,
            None => self.last_resort(&range, part, now)?,
        };
        let address = family.address(number);
        self.held.insert(holder, address);
        self.keep_supplied(&range, now);
        if part != range {
            self.keep_supplied(&part, now);
        }
        Ok(address)
    }

    /// Nothing is free: others are asked, and only when that comes to nothing, an address is taken
    /// that still rests. Being out of addresses is worse.
    fn last_resort(
        &mut self,
        range: &Block,
        part: Block,
        now: Time,
    ) -> Result<u128, AllocateError> {
        let error = self.shortage(part, now);
        let in_vain =
            matches!(error, AllocateError::Exhausted(_)) || self.asked_in_vain(&part, now);
        let (space, family) = (&self.space, range.family());
        let pool = self.pools.get_mut(range).filter(|_| in_vain);
        pool.and_then(|pool| {
            pool.next_resting(&part, |number| space.is_wanted(family.address(number)))
        })
        .ok_or(error)
    }

    /// The mesh's range that a block lies in.
    pub(crate) fn range_around(&self, part: &Block) -> Option<Block> {
        self.view.ranges.iter().find(|range| range.covers(part)).copied()
    }

    /// That range and its pool.
    pub(crate) fn pool_of(&self, part: &Block) -> Option<(Block, &Pool)> {
        self.pools.iter().find(|(range, _)| range.covers(part)).map(|(range, pool)| (*range, pool))
    }

    /// The ranges of a family, the one that was founded or added first before all others: in this
    /// order addresses are given by default.
    pub fn ranges_of(&self, family: Family) -> Vec<Block> {
        let ranges = self.view.ranges.iter().filter(|range| range.family() == family);
        let mut ranges: Vec<Block> = ranges.copied().collect();
        let age = |range: &Block| self.ring.get(&RingKey::Range(*range)).map(|entry| entry.dot);
        ranges.sort_by_key(|range| age(range).map(|dot| (dot.counter, dot.actor)));
        ranges
    }

    /// Whether a block lies in one of the mesh's ranges.
    pub fn is_inside(&self, part: &Block) -> bool {
        self.range_around(part).is_some()
    }

    /// The address in a range, or part of one, that one of these held last, if nobody has it since
    /// and nobody has claimed it.
    pub fn former(&self, holders: &[Holder], part: &Block) -> Option<IpAddr> {
        let (_, pool) = self.pool_of(part)?;
        let address = part.family().address(pool.former(holders, part)?);
        (!self.space.is_wanted(address)).then_some(address)
    }

    fn allocate_exact(
        &mut self,
        holder: &Holder,
        address: IpAddr,
        now: Time,
    ) -> Result<IpAddr, AllocateError> {
        let Some(range) = self.range_of(address) else {
            return Err(AllocateError::Outside(Block::single(address)));
        };
        match self.held.holder(address) {
            Some(present) if present == holder => return Ok(address),
            Some(present) => {
                return Err(AllocateError::Taken { address, holder: present.clone() });
            }
            None => {}
        }
        if self.is_reserved(&range, address) {
            return Err(AllocateError::Reserved(address));
        }
        self.may_hold_more()?;
        let owner = match self.owner(address) {
            Owner::Peer(owner) if owner == self.me() => None,
            Owner::Peer(owner) | Owner::Unknown { ask: owner } => Some(owner),
            Owner::Outside => return Err(AllocateError::Outside(Block::single(address))),
        };
        if let Some(owner) = owner {
            let refused = self.space.answer_for(address).cloned();
            return Err(AllocateError::Elsewhere { address, owner, refused });
        }
        let pool = self.pools.get_mut(&range).expect("each range has a pool");
        let taken = pool.take(number(address).1);
        assert!(taken, "{address} is owned, not held and not free");
        self.held.insert(holder, address);
        self.space.forget(address);
        self.keep_supplied(&range, now);
        Ok(address)
    }

    fn may_hold_more(&self) -> Result<(), AllocateError> {
        if self.leaving {
            return Err(AllocateError::Leaving);
        }
        if self.held.len() >= HELD_MAX { Err(AllocateError::Full) } else { Ok(()) }
    }

    /// Takes all addresses of a holder from it and returns them. They rest until a time: others
    /// are given first. Until then, and as long as nobody else got them, [`Ipam::former`] knows
    /// them as the holder's and as its other names'.
    pub fn release(&mut self, holder: &Holder, names: &[Holder], until: Time) -> Vec<IpAddr> {
        let addresses: Vec<IpAddr> = self.held.addresses(holder).collect();
        if addresses.is_empty() {
            return addresses;
        }
        let holders: Vec<Arc<Holder>> =
            std::iter::once(holder).chain(names).cloned().map(Arc::new).collect();
        for address in &addresses {
            self.held.remove(*address);
            if let Some(range) = self.range_of(*address)
                && let Some(pool) = self.pools.get_mut(&range)
            {
                pool.give_back(number(*address).1, until, holders.clone());
            }
        }
        addresses
    }

    /// Makes another the holder of a held address. Returns whether anybody held it.
    pub fn hand_over(&mut self, address: IpAddr, to: &Holder) -> bool {
        let was_held = self.held.remove(address).is_some();
        if was_held {
            self.held.insert(to, address);
        }
        was_held
    }

    /// Who holds an address on this host.
    pub fn holder_of(&self, address: IpAddr) -> Option<&Holder> {
        self.held.holder(address)
    }

    /// Puts back what a holder held, read from disk: before anything is allocated. An address that
    /// is somebody else's by now is held all the same, and is one of [`Ipam::conflicts`]. One that
    /// another holder has here is left out.
    pub fn restore(&mut self, holder: &Holder, addresses: &[IpAddr]) {
        for address in addresses {
            if self.held.holder(*address).is_some() {
                continue;
            }
            self.held.insert(holder, *address);
            if let Some(range) = self.range_of(*address)
                && let Some(pool) = self.pools.get_mut(&range)
            {
                pool.take(number(*address).1);
                pool.skip_to(number(*address).1);
            }
        }
    }

    /// Puts addresses to rest that were released before a restart, unless somebody holds them or
    /// they are not this host's any more: see [`Ipam::release`].
    pub fn rest_again(&mut self, addresses: &[IpAddr], holders: Vec<Holder>, until: Time) {
        let holders: Vec<Arc<Holder>> = holders.into_iter().map(Arc::new).collect();
        for address in addresses {
            let number = number(*address).1;
            if let Some(range) = self.range_of(*address)
                && let Some(pool) = self.pools.get_mut(&range)
                && pool.take(number)
            {
                pool.skip_to(number);
                pool.give_back(number, until, holders.clone());
            }
        }
    }

    /// Every held address with its holder, rising.
    pub fn held(&self) -> impl Iterator<Item = (IpAddr, &Holder)> {
        self.held.iter()
    }

    /// How many addresses are held.
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// The addresses of a holder, rising.
    pub fn addresses_of(&self, holder: &Holder) -> impl Iterator<Item = IpAddr> {
        self.held.addresses(holder)
    }

    /// How many addresses of a range, or part of one, this host could give if need be, those that
    /// rest included.
    pub fn free_in(&self, range: &Block) -> u128 {
        self.count_in(range, true)
    }

    /// How many of them do not rest; of a part of a range counted up to its low-water mark.
    pub(crate) fn ready_in(&self, range: &Block) -> u128 {
        self.count_in(range, false)
    }

    fn count_in(&self, part: &Block, resting: bool) -> u128 {
        let Some((_, pool)) = self.pool_of(part) else { return 0 };
        let aside = self.space.wanted_in(part).filter(|address| pool.has(number(*address).1));
        let aside = aside.count() as u128;
        let enough = if resting { u128::MAX } else { self.low_water(part).saturating_add(aside) };
        pool.count_in(part, resting, enough).saturating_sub(aside)
    }
}
