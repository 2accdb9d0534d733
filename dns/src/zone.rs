//! The zone: this host's replica of all hosts' records.
//!
//! Own records are written here; others' arrive with [`Zone::absorb`]. Deleting leaves a tombstone.
//! The origin collects its tombstones once all live peers have seen them and writes a *watermark*,
//! upon which every replica forgets them too. A replica that was away then gets the origin's whole
//! state (see [`mesh_router::Store::collect`]); never does a clock decide.
//!
//! A host that is away has its records hidden, not deleted: hiding is local and not replicated.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_router::{
    PeerId, Store,
    store::{Change, Return, RunError},
};

use crate::{
    Name,
    record::{
        ADDRESSES_PER_RECORD_MAX, BY_HAND, HOLDER_BYTES_MAX, RecordKey, RecordValue, ZoneRegister,
    },
};

/// The most records that one host may write; chosen: ten times what a full host has.
pub const RECORDS_PER_HOST_MAX: usize = 1 << 16;
/// The most tombstones that a host keeps for peers that lag; the oldest go first. Chosen: they
/// cost about 150 bytes each.
pub const TOMBSTONES_PER_HOST_MAX: usize = 1 << 13;

/// A change of what the resolver answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ZoneChange {
    /// A record is there, in place of what it was before.
    Set {
        /// The host that wrote it.
        origin: PeerId,
        /// The full name.
        name: Name,
        /// For whom.
        holder: String,
        /// All its addresses.
        addresses: Vec<IpAddr>,
    },
    /// A record is gone.
    Unset {
        /// The host that wrote it.
        origin: PeerId,
        /// The full name.
        name: Name,
        /// For whom it was.
        holder: String,
    },
    /// The host is away: its records are not to be answered from.
    Hide(PeerId),
    /// The host is back.
    Show(PeerId),
    /// Nothing is known any more.
    Clear,
}

/// A record that was not put. The zone is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// The host has as many as it may.
    #[error("this host has {RECORDS_PER_HOST_MAX} DNS records, the most it may; remove some first")]
    TooManyRecords,
    /// The record would have more than its share.
    #[error("{0} would have more than the {ADDRESSES_PER_RECORD_MAX} addresses a record may have")]
    TooManyAddresses(Name),
    /// There is nothing that the name could stand for.
    #[error("{0} needs at least one address")]
    NoAddress(Name),
    /// The holder is empty or too long.
    #[error("a record's holder has 1 to {HOLDER_BYTES_MAX} bytes, not {0}")]
    Holder(usize),
}

/// How many entries of its own a replica has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Own {
    records: usize,
    tombstones: usize,
}

/// One host's replica of the zone.
#[derive(Debug, Clone)]
pub struct Zone {
    store: Store<ZoneRegister>,
    hidden: BTreeSet<PeerId>,
    /// Counted at the first own write, when what was on disk has been put back.
    own: Option<Own>,
}

impl Zone {
    /// An empty replica of peer `me`.
    pub fn new(me: PeerId) -> Self {
        Self { store: Store::new(me), hidden: BTreeSet::new(), own: None }
    }

    /// The entries, for reading, deltas and vectors.
    pub fn store(&self) -> &Store<ZoneRegister> {
        &self.store
    }

    /// The entries, for putting back what was on disk and marking what is on it. Own records are
    /// written with [`Zone::put`] and [`Zone::remove`] only.
    pub fn store_mut(&mut self) -> &mut Store<ZoneRegister> {
        &mut self.store
    }

    /// Gives a name these addresses, for a holder on this host. Order and doubles do not matter.
    /// Returns whether anything changed.
    ///
    /// # Errors
    /// When a bound would be passed.
    pub fn put(
        &mut self,
        name: &Name,
        holder: &str,
        mut addresses: Vec<IpAddr>,
    ) -> Result<bool, PutError> {
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(PutError::NoAddress(name.clone()));
        }
        if addresses.len() > ADDRESSES_PER_RECORD_MAX {
            return Err(PutError::TooManyAddresses(name.clone()));
        }
        if holder.is_empty() || holder.len() > HOLDER_BYTES_MAX {
            return Err(PutError::Holder(holder.len()));
        }
        let key = self.key(name, holder);
        let value = RecordValue::Addresses(addresses);
        let old = self.store.get(&key).map(|entry| &entry.value);
        if old == Some(&value) {
            return Ok(false);
        }
        let (new, buried) = (old.is_none(), old == Some(&RecordValue::Tombstone));
        let own = self.own();
        if (new || buried) && own.records >= RECORDS_PER_HOST_MAX {
            return Err(PutError::TooManyRecords);
        }
        own.records += usize::from(new || buried);
        own.tombstones -= usize::from(buried);
        self.store.write(key, value);
        Ok(true)
    }

    /// Removes a holder's record of a name. Returns whether there was one.
    pub fn remove(&mut self, name: &Name, holder: &str) -> bool {
        let key = self.key(name, holder);
        self.bury(key)
    }

    /// Removes all records of a holder on this host. Returns how many there were.
    pub fn remove_holder(&mut self, holder: &str) -> usize {
        let from = self.key(&Name::least(), holder);
        let keys: Vec<RecordKey> = self
            .store
            .range(from..)
            .map(|(key, _)| key)
            .take_while(|key| key.origin == self.store.me() && key.holder == holder)
            .cloned()
            .collect();
        keys.into_iter().filter(|key| self.bury(key.clone())).count()
    }

    /// Adds addresses to what a name was given by hand on this host. Returns whether any was new.
    ///
    /// # Errors
    /// When a bound would be passed.
    pub fn add_by_hand(&mut self, name: &Name, addresses: &[IpAddr]) -> Result<bool, PutError> {
        let mut all = self.by_hand(name);
        all.extend(addresses);
        self.put(name, BY_HAND, all)
    }

    /// Takes these addresses (all, when none is named) from what a name was given by hand on this
    /// host. Returns whether anything changed.
    pub fn remove_by_hand(&mut self, name: &Name, addresses: &[IpAddr]) -> bool {
        let mut left = self.by_hand(name);
        left.retain(|address| !addresses.is_empty() && !addresses.contains(address));
        if left.is_empty() {
            return self.remove(name, BY_HAND);
        }
        self.put(name, BY_HAND, left).expect("a part of a record is within its bounds")
    }

    fn by_hand(&self, name: &Name) -> Vec<IpAddr> {
        match self.store.get(&self.key(name, BY_HAND)).map(|entry| &entry.value) {
            Some(RecordValue::Addresses(addresses)) => addresses.clone(),
            _ => Vec::new(),
        }
    }

    /// Takes an encoded delta from a peer; returns whether all of it could be taken.
    ///
    /// # Errors
    /// When the bytes are no delta or hold what their origin may not write; nothing is taken then.
    pub fn absorb(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        let me = self.store.me();
        let before = self.store.vector().get(&me);
        let result = self.store.apply(bytes);
        if self.store.vector().get(&me) != before {
            // Own records came back from a peer, after the disk was lost: count them anew.
            self.own = None;
        }
        result
    }

    /// Forgets own tombstones that all live peers have seen (`seen_by_all` is the counter of our
    /// writes that each of them has), and the oldest beyond [`TOMBSTONES_PER_HOST_MAX`] whoever
    /// has seen them. Writes the watermark that makes the others forget them. Returns how many.
    ///
    /// Costs one pass over own records: call it now and then, not for each removal.
    pub fn collect(&mut self, seen_by_all: u64) -> usize {
        let tombstones = self.own().tombstones;
        if tombstones == 0 {
            return 0;
        }
        let excess = tombstones.saturating_sub(TOMBSTONES_PER_HOST_MAX);
        let me = self.store.me();
        let mut mark = seen_by_all.min(self.store.durable_counter());
        if let Some(newest) = self.tombstones(me).nth(excess.wrapping_sub(1)) {
            mark = mark.max(newest.1);
        }
        let count = self.forget(me, mark);
        if count > 0 {
            self.own().tombstones -= count;
            self.store.write(RecordKey::watermark(me), RecordValue::Watermark(mark));
        }
        count
    }

    /// Drops all names of a host; returns what that means for the resolver.
    pub fn drop_origin(&mut self, origin: PeerId, returns: Return) -> Vec<ZoneChange> {
        let keys: Vec<RecordKey> = self.store.keys_of(origin).cloned().collect();
        self.store.drop_origin(origin, returns);
        let shown = keys.into_iter().filter(|key| !key.holder.is_empty());
        let unset = shown.map(|RecordKey { origin, holder, name }| ZoneChange::Unset {
            origin,
            name,
            holder,
        });
        unset.chain(self.show(origin)).collect()
    }

    /// Drops an origin's tombstones up to a counter.
    fn forget(&mut self, origin: PeerId, mark: u64) -> usize {
        let old: Vec<RecordKey> = self
            .tombstones(origin)
            .take_while(|(_, counter)| *counter <= mark)
            .map(|(key, _)| key.clone())
            .collect();
        old.iter().for_each(|key| self.store.collect(key));
        old.len()
    }

    /// The tombstones of an origin and their counters, the oldest first.
    fn tombstones(&self, origin: PeerId) -> impl Iterator<Item = (&RecordKey, u64)> {
        self.store.keys_of(origin).filter_map(|key| {
            let entry = self.store.get(key)?;
            (entry.value == RecordValue::Tombstone).then_some((key, entry.dot.counter))
        })
    }

    /// What changed since the last call, oldest first, for the disk and (each through
    /// [`Zone::zone_change`]) for the resolver. Obeys watermarks that have arrived: the tombstones
    /// that go are among the changes. All of them, and the store's vector and floors, belong into
    /// one batch on disk: a replica that forgot a floor could bring removed records back.
    pub fn take_changes(&mut self) -> Vec<Change<RecordKey>> {
        let mut changes = self.store.drain_changes();
        let marked: Vec<(PeerId, u64)> = changes
            .iter()
            .filter(|change| change.key.holder.is_empty() && change.origin != self.store.me())
            .filter_map(|change| match self.store.get(&change.key)?.value {
                RecordValue::Watermark(mark) => Some((change.origin, mark)),
                _ => None,
            })
            .collect();
        for (origin, mark) in marked {
            self.forget(origin, mark);
        }
        changes.extend(self.store.drain_changes());
        changes
    }

    /// What a change means for the resolver; nothing for a watermark.
    pub fn zone_change(&self, change: &Change<RecordKey>) -> Option<ZoneChange> {
        let RecordKey { origin, holder, name } = change.key.clone();
        match self.store.get(&change.key).map(|entry| &entry.value) {
            Some(RecordValue::Addresses(addresses)) => {
                Some(ZoneChange::Set { origin, name, holder, addresses: addresses.clone() })
            }
            Some(RecordValue::Watermark(_)) => None,
            Some(RecordValue::Tombstone) | None => Some(ZoneChange::Unset { origin, name, holder }),
        }
    }

    /// All that a resolver must be told that starts with nothing.
    pub fn snapshot(&self) -> impl Iterator<Item = ZoneChange> {
        let records = self.records().map(|(key, addresses)| {
            let RecordKey { origin, holder, name } = key.clone();
            ZoneChange::Set { origin, name, holder, addresses: addresses.to_vec() }
        });
        records.chain(self.hidden.iter().copied().map(ZoneChange::Hide))
    }

    /// All records, hidden ones too.
    pub fn records(&self) -> impl Iterator<Item = (&RecordKey, &[IpAddr])> {
        self.store.iter().filter_map(|(key, entry)| match &entry.value {
            RecordValue::Addresses(addresses) => Some((key, addresses.as_slice())),
            _ => None,
        })
    }

    /// Hides a host's records while it is away. Our own are never hidden.
    pub fn hide(&mut self, peer: PeerId) -> Option<ZoneChange> {
        (peer != self.store.me() && self.hidden.insert(peer)).then_some(ZoneChange::Hide(peer))
    }

    /// Shows a host's records again.
    pub fn show(&mut self, peer: PeerId) -> Option<ZoneChange> {
        self.hidden.remove(&peer).then_some(ZoneChange::Show(peer))
    }

    /// The hosts whose records are hidden.
    pub fn hidden(&self) -> impl Iterator<Item = PeerId> {
        self.hidden.iter().copied()
    }

    /// Whether a host's records are hidden.
    pub fn is_hidden(&self, peer: PeerId) -> bool {
        self.hidden.contains(&peer)
    }

    fn key(&self, name: &Name, holder: &str) -> RecordKey {
        RecordKey { origin: self.store.me(), holder: holder.to_owned(), name: name.clone() }
    }

    fn bury(&mut self, key: RecordKey) -> bool {
        let value = self.store.get(&key).map(|entry| &entry.value);
        if !matches!(value, Some(RecordValue::Addresses(_))) {
            return false;
        }
        let own = self.own();
        own.records -= 1;
        own.tombstones += 1;
        self.store.write(key, RecordValue::Tombstone);
        true
    }

    fn own(&mut self) -> &mut Own {
        let store = &self.store;
        self.own.get_or_insert_with(|| {
            let mut own = Own::default();
            for key in store.keys_of(store.me()) {
                match store.get(key).map(|entry| &entry.value) {
                    Some(RecordValue::Addresses(_)) => own.records += 1,
                    Some(RecordValue::Tombstone) => own.tombstones += 1,
                    Some(RecordValue::Watermark(_)) | None => {}
                }
            }
            own
        })
    }
}

#[cfg(test)]
mod tests;
