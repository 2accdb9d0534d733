//! A host's part in the mesh's addresses: its copy of the ring and what it does with what it owns.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use mesh_router::{
    PeerId, Time,
    store::{RunError, VersionVector},
};

use crate::{
    ask::Space,
    block::{Block, number},
    council::Council,
    held::{Held, Holder},
    intervals::Intervals,
    pool::{Pool, is_reserved},
    ring::{ENTRIES_MAX, RANGES_MAX, Ring, RingKey, RingValue, Version, check_range},
    space::SpaceRefusal,
    view::{Owner, Redundant, View},
};

/// Changed blocks that the view is derived anew in one by one. Chosen: each moves what lies behind
/// it, and by then all that is as much work as deriving everything.
const PATCHES_MAX: usize = 64;
/// Claims of held addresses that are under way at once.
const CLAIMS_AT_ONCE: usize = 64;
/// Addresses that are remembered as held by somebody else, too, and for how long after that was
/// said last: twice as long as a claim is pursued.
const CONTESTED_MAX: usize = 4096;
const CONTEST_MEMORY: Duration = Duration::from_secs(60);

/// The addresses of one host of a mesh.
///
/// Ring writes (grants, retirements) are in [`Ipam::store`]'s changes for the disk; answers that
/// depend on them are held back until [`mesh_router::Store::mark_durable`] covers them. Addresses
/// that are held are the caller's to keep on disk.
#[derive(Debug)]
pub struct Ipam {
    pub(crate) ring: Ring,
    /// Always what the ring says now.
    pub(crate) view: View,
    /// Up to which of the ring's changes the view says it.
    viewed: u64,
    pub(crate) held: Held,
    /// One for each range.
    pub(crate) pools: BTreeMap<Block, Pool>,
    pub(crate) space: Space,
    pub(crate) council: Council,
    /// Addresses held here that a peer holds, too: who, for whom, and when it last said so.
    pub(crate) contested: BTreeMap<IpAddr, (PeerId, String, Time)>,
    /// Everything was given away: nothing is asked for any more and nothing is given.
    pub(crate) leaving: bool,
    /// Up to where the ring has more than this host was told so far: see [`Ipam::has_gaps`].
    pub(crate) gaps: VersionVector,
    /// Whether that has changed since it was last asked for.
    pub(crate) gaps_changed: bool,
}

/// Why a mesh was not founded. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundError {
    /// The ring has entries: this host is in a mesh.
    #[error("this host has a ring already: it is in a mesh")]
    Founded,
    /// Nothing to found.
    #[error("a mesh needs at least one range and may have {RANGES_MAX}, not {0}")]
    Count(usize),
    /// Not a range.
    #[error("{0}")]
    Range(String),
    /// Two ranges share addresses.
    #[error("the ranges {0} and {1} overlap")]
    Overlap(Block, Block),
}

/// Why this host's blocks were not given away. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GiveError {
    /// Addresses are held here, which others would then hand out.
    #[error("{count} addresses are still held here, {address} by {holder}: release them first")]
    Held {
        /// How many.
        count: usize,
        /// One of them.
        address: IpAddr,
        /// Its holder.
        holder: Holder,
    },
    /// The heir is this host.
    #[error("a host cannot leave its addresses to itself")]
    Oneself,
    /// The ring is still being told.
    #[error("this host has been told only a part of the ring so far")]
    Gaps,
    /// The heir is being removed from the mesh, or was.
    #[error("the heir is being removed from the mesh")]
    Fenced,
    /// The ring is at its bound.
    #[error("the ring has {ENTRIES_MAX} entries, as many as it may")]
    Full,
}

/// An address that is held here although the ring says that somebody else owns it. It is shown to
/// people; nothing is taken from anybody for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub address: IpAddr,
    /// Who holds it on this host.
    pub holder: Holder,
    /// Whose it is.
    pub owner: Owner,
    /// On which other host it is held, and by whom, if that is known.
    pub elsewhere: Option<(PeerId, String)>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is held here by {} and ", self.address, self.holder)?;
        if let Some((peer, holder)) = &self.elsewhere {
            return write!(f, "on peer {} by {holder}", peer.short());
        }
        match self.owner {
            Owner::Peer(peer) => write!(f, "belongs to peer {}", peer.short()),
            Owner::Unknown { ask } => write!(f, "its owner is known to peer {} only", ask.short()),
            Owner::Outside => write!(f, "is in no range of the mesh"),
        }
    }
}

impl Ipam {
    /// A host that knows nothing yet.
    pub fn new(me: PeerId) -> Self {
        Self {
            ring: Ring::new(me),
            view: View::default(),
            viewed: 0,
            held: Held::default(),
            pools: BTreeMap::new(),
            space: Space::default(),
            council: Council::default(),
            contested: BTreeMap::new(),
            leaving: false,
            gaps: VersionVector::default(),
            gaps_changed: false,
        }
    }

    /// Who this host is.
    pub fn me(&self) -> PeerId {
        self.ring.me()
    }

    /// The replicated ring.
    pub fn store(&self) -> &Ring {
        &self.ring
    }

    /// The replicated ring, to restore rows, mark writes durable, drain changes. After restoring,
    /// call [`Ipam::refresh`]; take deltas with [`Ipam::absorb`], never here.
    pub fn store_mut(&mut self) -> &mut Ring {
        &mut self.ring
    }

    /// Takes a delta of the ring. Returns whether every run in it was taken.
    ///
    /// # Errors
    /// As [`mesh_router::Store::apply`]; nothing is taken then.
    pub fn absorb(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        let returned = self.own_return();
        let all = self.ring.apply(bytes)?;
        if returned.is_some() && self.ring.get(&RingKey::Removed(self.me())).is_none() {
            self.council.unheard_return = returned;
        }
        if self.ring.change_mark() != self.viewed {
            self.refresh();
        }
        Ok(all)
    }

    /// Throws the ring away, to be told it anew; what is held stays held, and promises stay made.
    pub fn reset_ring(&mut self) {
        self.keep_removal(Default::default());
        self.ring = Ring::new(self.me());
        self.viewed = u64::MAX;
        self.view = View::default();
        self.space.reset();
        self.council.reset();
        self.leaving = false;
        self.gaps = VersionVector::default();
        self.pools.clear();
        self.refresh();
        self.apply_bars();
    }

    /// Derives what follows from the ring, as far as it has changed; everything, after rows were
    /// restored.
    pub fn refresh(&mut self) {
        self.ring.settle_base();
        self.settle_gaps();
        self.return_again();
        let mut redundant = self.derive();
        redundant.retain(|found| self.keeps(&found.block) && self.keeps(&found.within));
        if !redundant.is_empty() && !self.ring.is_recalling() && !self.has_gaps() {
            for redundant in redundant {
                self.retire(redundant.block, redundant.within);
            }
            self.derive();
        }
        self.settle();
        self.check_invariants();
    }

    /// Brings view and pools up to date; returns own entries that say what is said around them.
    fn derive(&mut self) -> Vec<Redundant> {
        let changed = changed_blocks(&self.ring, self.viewed);
        self.viewed = self.ring.change_mark();
        let (regions, redundant) = match changed {
            Some(regions) => {
                let redundant = self.view.update(&self.ring, &regions);
                (regions, redundant)
            }
            None => {
                let (view, redundant) = View::of(&self.ring);
                self.view = view;
                (Block::everything().to_vec(), redundant)
            }
        };
        for region in regions {
            self.supply_pools(&region);
        }
        redundant
    }

    /// Gives the pools what the view says about a region.
    fn supply_pools(&mut self, region: &Block) {
        let none = Intervals::default();
        for range in self.view.ranges.iter().filter(|range| range.overlaps(region)) {
            let owned = self.view.mine.get(range).unwrap_or(&none);
            let pool = self.pools.entry(*range).or_insert_with(|| Pool::new(*range));
            let family = range.family();
            let first = region.first_number().max(range.first_number());
            let last = region.last_number().min(range.last_number());
            pool.set_owned((first, last), owned, |first, last| {
                let held = self.held.between(family.address(first), family.address(last));
                held.map(|address| number(address).1)
            });
        }
    }

    /// Founds a mesh without a lease: these are its ranges, and this host owns all of them.
    ///
    /// # Errors
    /// [`FoundError`]; nothing was written.
    pub fn found(&mut self, ranges: &[Block]) -> Result<(), FoundError> {
        self.found_leased(ranges, 0)
    }

    /// The same with a lease: see [`crate::Epoch`].
    ///
    /// # Errors
    /// [`FoundError`]; nothing was written.
    pub fn found_leased(&mut self, ranges: &[Block], lease_seconds: u32) -> Result<(), FoundError> {
        if !self.ring.is_empty() {
            return Err(FoundError::Founded);
        }
        Self::check_ranges(ranges)?;
        let owner = self.me();
        for range in ranges {
            self.ring.write(RingKey::Range(*range), RingValue::Range);
            self.ring.write(RingKey::Block(*range), RingValue::Owned { owner, epoch: 0 });
        }
        self.found_council(lease_seconds);
        self.refresh();
        Ok(())
    }

    /// Whether these can be a mesh's ranges.
    ///
    /// # Errors
    /// [`FoundError`].
    pub fn check_ranges(ranges: &[Block]) -> Result<(), FoundError> {
        if ranges.is_empty() || ranges.len() > RANGES_MAX {
            return Err(FoundError::Count(ranges.len()));
        }
        for (index, range) in ranges.iter().enumerate() {
            check_range(range).map_err(FoundError::Range)?;
            if let Some(other) = ranges[..index].iter().find(|other| other.overlaps(range)) {
                return Err(FoundError::Overlap(*other, *range));
            }
        }
        Ok(())
    }

    /// The mesh's ranges, rising.
    pub fn ranges(&self) -> &[Block] {
        &self.view.ranges
    }

    /// The range that an address lies in.
    pub fn range_of(&self, address: IpAddr) -> Option<Block> {
        self.view.range_of(address)
    }

    /// Who owns an address.
    pub fn owner(&self, address: IpAddr) -> Owner {
        self.view.owner(address)
    }

    /// Every block whose route differs from that of what is around it, and to whom it goes: the
    /// owner, or the peer who knows. This host's own blocks are among them.
    pub fn routes(&self) -> &[(Block, PeerId)] {
        &self.view.routes
    }

    /// The largest aligned blocks that this host owns wholly, rising.
    pub fn owned_blocks(&self) -> Vec<Block> {
        let pools = self.pools.iter();
        pools.flat_map(|(range, pool)| pool.owned().blocks(range.family())).collect()
    }

    /// How many addresses of a range a peer owns.
    pub fn owned_in(&self, range: &Block, peer: PeerId) -> u128 {
        self.view.owned(range, peer)
    }

    /// How many IPv4 addresses a peer owns.
    pub fn owned_by(&self, peer: PeerId) -> u64 {
        let v4 = self.view.ranges.iter().filter(|range| range.first().is_ipv4());
        let sum: u128 = v4.map(|range| self.view.owned(range, peer)).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    /// How many entries of the ring say something; it looks at each. [`mesh_router::Store::len`] of
    /// the ring counts ranges and retired entries too.
    pub fn entries(&self) -> usize {
        let says = |value: &RingValue| match value {
            RingValue::Owned { .. } => true,
            RingValue::Retired { within, at_least, .. } => {
                self.ring.get(&RingKey::Block(*within)).map(Version::of) < Some(*at_least)
            }
            _ => false,
        };
        self.ring.iter().filter(|(_, entry)| says(&entry.value)).count()
    }

    /// Leaves everything that this host owns to another, because it goes. From then on nothing is
    /// asked for and nothing given. Returns the blocks.
    ///
    /// # Errors
    /// [`GiveError`]; nothing was written.
    pub fn give_all(&mut self, heir: PeerId) -> Result<Vec<Block>, GiveError> {
        if heir == self.me() {
            return Err(GiveError::Oneself);
        }
        if self.is_fenced(heir) {
            return Err(GiveError::Fenced);
        }
        if self.has_gaps() {
            return Err(GiveError::Gaps);
        }
        if let Some((address, holder)) = self.held.iter().next() {
            let (count, holder) = (self.held.len(), holder.clone());
            return Err(GiveError::Held { count, address, holder });
        }
        let blocks = self.owned_blocks();
        if self.ring.len() + blocks.len() > 2 * ENTRIES_MAX {
            return Err(GiveError::Full);
        }
        self.leaving = true;
        self.space.stop_asking();
        for block in &blocks {
            self.write_grant(*block, heir);
        }
        self.refresh();
        Ok(blocks)
    }

    /// Whether [`Ipam::give_all`] was called.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Stays after all: what was given away is gone, but new space may be asked for.
    pub fn stay(&mut self) {
        self.leaving = false;
        self.settle();
    }

    /// Addresses that are held here and owned by somebody else, or held by somebody else, too.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let me = Owner::Peer(self.me());
        let conflict = |(address, holder): (IpAddr, &Holder)| {
            let owner = self.owner(address);
            let elsewhere = if owner == me {
                self.contested.get(&address).map(|(peer, holder, _)| (*peer, holder.clone()))
            } else {
                match (owner.route(), self.space.answer_for(address)) {
                    (Some(peer), Some(SpaceRefusal::Taken { holder })) => {
                        Some((peer, holder.clone()))
                    }
                    _ => None,
                }
            };
            let conflicts = owner != me || elsewhere.is_some();
            conflicts.then(|| Conflict { address, holder: holder.clone(), owner, elsewhere })
        };
        self.held.iter().filter_map(conflict).collect()
    }

    /// Asks for the addresses that are held here and belong to others, a few at a time. Whoever has
    /// no use for one grants it.
    pub fn claim_held(&mut self) {
        let me = Owner::Peer(self.me());
        let foreign = self.held.iter().map(|(address, _)| address);
        let foreign: Vec<IpAddr> = foreign
            .filter(|address| {
                let owner = self.owner(*address);
                owner != me && owner != Owner::Outside && !self.space.is_wanted(*address)
            })
            .take(CLAIMS_AT_ONCE)
            .collect();
        for address in foreign {
            self.want_exact(address);
        }
    }

    /// A peer holds an address that is held here, too.
    pub(crate) fn contest(&mut self, address: IpAddr, by: PeerId, holder: String, now: Time) {
        self.contested.retain(|_, (_, _, at)| now.since(*at) < CONTEST_MEMORY);
        if self.contested.len() < CONTESTED_MAX {
            self.contested.insert(address, (by, holder, now));
        }
    }

    /// Asserts the invariants; a no-op in release builds.
    ///
    /// # Panics
    /// When one does not hold, which is our own bug.
    pub fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let me = Owner::Peer(self.me());
        if self.viewed == self.ring.change_mark() {
            let (anew, _) = View::of(&self.ring);
            assert_eq!(self.view, anew, "the view is not what the ring says");
        }
        for (range, pool) in &self.pools {
            pool.check_invariants();
            assert_eq!(Some(pool.owned()).filter(|o| o.total() > 0), self.view.mine.get(range));
        }
        for (address, _) in self.held.iter() {
            let Some(range) = self.range_of(address) else { continue };
            let pool = &self.pools[&range];
            let mine = pool.owned().contains(number(address).1);
            assert_eq!(mine, self.owner(address) == me, "{address}: pool and ring differ");
            assert!(!pool.has(number(address).1), "{address} is held and free");
        }
    }

    pub(crate) fn is_reserved(&self, range: &Block, address: IpAddr) -> bool {
        is_reserved(range, address)
    }
}

/// The blocks in which the ring has changed since, of which none covers another; `None` when that
/// is not known, or so much that all is to be derived anew.
fn changed_blocks(ring: &Ring, since: u64) -> Option<Vec<Block>> {
    let changes = ring.changes_since(since)?;
    if changes.len() > 8 + (ring.len() / 16).min(PATCHES_MAX) {
        return None;
    }
    let mut blocks = Vec::new();
    for change in changes {
        match change.key {
            RingKey::Range(_) => return None,
            RingKey::Block(block) => blocks.push(block),
            _ => {}
        }
    }
    // A block comes before all that lies inside it.
    blocks.sort_unstable();
    blocks.dedup_by(|next, kept| kept.covers(next));
    Some(blocks)
}
