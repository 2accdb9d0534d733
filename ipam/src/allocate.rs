//! Addresses for holders on this host: local, at once, and the same again for the same question.
//!
//! Only what this host owns in its own copy of the ring is given; that copy is exact for it.

use std::net::IpAddr;

use mesh_router::PeerId;

use crate::{
    block::{Block, number},
    held::Holder,
    ipam::Ipam,
    space::SpaceRefusal,
    view::Owner,
};

/// Addresses that may be held on one host. Chosen: 16 times what the largest hosts run, and about
/// 250 MB.
pub const HELD_MAX: usize = 1 << 20;

/// What a holder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Any address of this range.
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
    /// Neither this host nor any other has a free address of the range.
    #[error("every address of {0} is in use or kept by its owner")]
    Exhausted(Block),
    /// The host is giving its addresses away.
    #[error("this host is leaving the mesh")]
    Leaving,
    /// The bound on held addresses is reached.
    #[error("{HELD_MAX} addresses are held on this host, as many as may be")]
    Full,
}

fn refusal_words(refused: Option<&SpaceRefusal>) -> String {
    refused.map_or_else(String::new, |reason| format!(", which refused it: {reason}"))
}

fn asked_words(asked: Option<&PeerId>) -> String {
    asked.map_or_else(
        || "and nobody to ask is known".to_owned(),
        |peer| format!("asked peer {}", peer.short()),
    )
}

impl Ipam {
    /// Gives a holder an address. The same holder with the same wish gets the same address.
    ///
    /// # Errors
    /// [`AllocateError`]. After `NoSpace` a request for space is on its way: try again when the
    /// ring has changed or a timeout was handled.
    pub fn allocate(&mut self, holder: &Holder, wanted: Wanted) -> Result<IpAddr, AllocateError> {
        match wanted {
            Wanted::Any(range) => self.allocate_any(holder, range),
            Wanted::Exact(address) => self.allocate_exact(holder, address),
        }
    }

    fn allocate_any(&mut self, holder: &Holder, range: Block) -> Result<IpAddr, AllocateError> {
        if !self.pools.contains_key(&range) {
            return Err(AllocateError::Outside(range));
        }
        if let Some(address) = self.held.addresses(holder).find(|held| range.contains(*held)) {
            return Ok(address);
        }
        self.may_hold_more()?;
        let family = range.family();
        let pool = self.pools.get_mut(&range).ok_or(AllocateError::Outside(range))?;
        let space = &self.space;
        let next = pool.next(|number| space.is_wanted(family.address(number)));
        let Some(number) = next else {
            return Err(self.shortage(range));
        };
        let address = family.address(number);
        self.held.insert(holder, address);
        self.keep_supplied(&range);
        Ok(address)
    }

    fn allocate_exact(
        &mut self,
        holder: &Holder,
        address: IpAddr,
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
        self.keep_supplied(&range);
        Ok(address)
    }

    fn may_hold_more(&self) -> Result<(), AllocateError> {
        if self.leaving {
            return Err(AllocateError::Leaving);
        }
        if self.held.len() >= HELD_MAX { Err(AllocateError::Full) } else { Ok(()) }
    }

    /// Takes all addresses of a holder from it and returns them. They rest: others are given first.
    pub fn release(&mut self, holder: &Holder) -> Vec<IpAddr> {
        let addresses: Vec<IpAddr> = self.held.addresses(holder).collect();
        for address in &addresses {
            self.release_address(*address);
        }
        addresses
    }

    /// Takes one address from whoever holds it. Returns whether somebody did.
    pub fn release_address(&mut self, address: IpAddr) -> bool {
        if self.held.remove(address).is_none() {
            return false;
        }
        if let Some(range) = self.range_of(address)
            && let Some(pool) = self.pools.get_mut(&range)
        {
            pool.give_back(number(address).1);
        }
        true
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

    /// How many addresses of a range this host could give at once to whoever wants any.
    pub fn free_in(&self, range: &Block) -> u128 {
        let Some(pool) = self.pools.get(range) else { return 0 };
        let aside = self.space.wanted_in(range).filter(|address| pool.has(number(*address).1));
        pool.usable().saturating_sub(aside.count() as u128)
    }
}
