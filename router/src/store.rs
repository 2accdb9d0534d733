//! A replicated map of registers: the CRDT that ring, zone and membership are made of.
//!
//! Every write carries a [`Dot`] `(origin, counter)`. The counter is a Lamport clock over the whole
//! store: a write's counter is greater than every counter its writer had seen. Two entries for one
//! key are ordered by `(epoch, counter, origin)`, so two different entries never compare equal, and
//! merge keeps the greater: commutative, associative, idempotent and total.
//!
//! The version vector says, per origin, up to which counter this replica has seen *everything that
//! is not superseded*. An entry that the vector covers and that is not in the store was superseded:
//! it never comes back. Hence a delta is just "the live entries of each origin after what you
//! have".
//!
//! A delta is a list of [`Run`]s. A run `(after, upto]` of one origin holds every entry of that
//! origin in that interval that its sender still has; a receiver takes it only when its own vector
//! has reached `after`, so a lost or reordered run can never hide an entry.
//!
//! Own writes are announced (put into deltas, shown in the vector) only when they are durable:
//! [`Store::mark_durable`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Debug,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    PeerId,
    mutation::{self, Mutation},
};

mod announced;
mod base;
mod delta;
mod gone;
mod merge;
mod recall;

pub use base::Base;
pub use delta::{Cursor, Delta, ENTRIES_PER_ORIGIN_MAX, ORIGINS_MAX, Others, Run, RunError};
pub use gone::{GONE_MAX, Return};

/// A write: who made it, and its number on that peer's Lamport clock.
pub type Dot = crdts::Dot<PeerId>;
/// For each origin the counter up to which everything is known.
pub type VersionVector = crdts::VClock<PeerId>;
/// To merge two of them.
pub use crdts::CvRDT;

/// The greatest counter a peer may use. A clock that is at this ceiling could never beat itself.
pub const COUNTER_MAX: u64 = 1 << 60;

/// What a kind of replicated data has to say about itself.
pub trait Register {
    /// What an entry is filed under.
    type Key: Ord + Clone + Debug + Serialize + DeserializeOwned;
    /// What is written; a deleted key is a value too (a tombstone).
    type Value: Eq + Clone + Debug + Serialize + DeserializeOwned;

    /// Whether a key is written by one origin only (which is then part of the key). Such an origin
    /// may drop tombstones: see [`Store::collect`].
    const SINGLE_WRITER: bool;

    /// Whether `origin` may write this. Bounds on sizes belong here too.
    ///
    /// # Errors
    /// A sentence that says what is wrong; the entry is then not taken.
    fn validate(origin: PeerId, key: &Self::Key, value: &Self::Value) -> Result<(), String>;

    /// A number that does not fall where keys rise: by it most of many keys are sorted faster than
    /// by comparing them.
    fn prefix(_key: &Self::Key) -> u128 {
        0
    }

    /// The fence of a value: a greater one beats every counter.
    fn epoch(_value: &Self::Value) -> u64 {
        0
    }

    /// Where the base is filed, in a register that has one: see [`Base`].
    fn base_key() -> Option<Self::Key> {
        None
    }

    /// The base that a value is.
    fn base(_value: &Self::Value) -> Option<Base> {
        None
    }

    /// Whether a value, itself below the base, says nothing to whoever knows all below the base.
    fn is_waste(_value: &Self::Value, _base: &Base) -> bool {
        false
    }

    /// The key that must stay while this value stays.
    fn leans_on(_value: &Self::Value) -> Option<Self::Key> {
        None
    }
}

/// One entry: its dot and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<V> {
    /// Who wrote it, when on that peer's clock.
    pub dot: Dot,
    /// What was written.
    pub value: V,
}

/// A change of the store, for those who derive from it and for the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<K> {
    /// Which key; read the store for what it holds now (nothing, if it was collected).
    pub key: K,
    /// Who caused it.
    pub origin: PeerId,
}

/// A replica of one keyed-register CRDT.
///
/// Invariants (see [`Store::check_invariants`]): `by_dot` is the exact inverse of `entries`; every
/// entry's dot is covered by `vector`; `durable <= vector[me]`.
#[derive(Debug, Clone)]
pub struct Store<R: Register> {
    me: PeerId,
    entries: BTreeMap<R::Key, Entry<R::Value>>,
    by_dot: BTreeMap<PeerId, BTreeMap<u64, R::Key>>,
    vector: VersionVector,
    /// The greatest counter in the vector, kept beside it because each write needs it.
    clock: u64,
    /// Own counter up to which writes are on disk and may be announced.
    durable: u64,
    /// Per origin the counter up to which tombstones were collected.
    floors: BTreeMap<PeerId, u64>,
    /// Origins that were dropped.
    gone: gone::Gone,
    /// Below which everything is known here, with the write that says so.
    base: Option<(Base, Dot)>,
    changes: Vec<Change<R::Key>>,
    /// How many changes were drained, or made by restoring.
    drained: u64,
    /// Origins whose counter or floor changed since the last [`Store::drain_origins`].
    touched: BTreeSet<PeerId>,
    /// What own writes superseded that are not durable yet, by dot. Others are told what a restart
    /// would find: until the write is on disk, that is the old entry.
    superseded: BTreeMap<(PeerId, u64), (R::Key, R::Value)>,
    /// Whether own entries are taken from others: see [`Store::recall`].
    recalling: bool,
    /// The own counter when that was begun, and whether nothing at all was known.
    recalled_from: u64,
    recalls_everything: bool,
    /// How often it changed what may be told to others.
    revision: u64,
    /// Whose counter may have changed at each of the last revisions.
    moved: VecDeque<PeerId>,
    /// Origins of which nothing new is taken: see [`Store::set_bars`].
    bars: BTreeSet<PeerId>,
}

impl<R: Register> Store<R> {
    /// A hash of every entry with its dot: two replicas that hold the same give the same. It looks
    /// at each entry.
    pub fn digest(&self) -> u128 {
        use siphasher::sip128::{Hasher128, SipHasher13};
        use std::hash::Hasher;
        let mut hasher = SipHasher13::new();
        for item in &self.entries {
            hasher.write(&crate::codec::encode(&item));
        }
        hasher.finish128().as_u128()
    }

    /// An empty replica of peer `me`.
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            entries: BTreeMap::new(),
            by_dot: BTreeMap::new(),
            vector: VersionVector::new(),
            clock: 0,
            durable: 0,
            floors: BTreeMap::new(),
            gone: gone::Gone::default(),
            base: None,
            changes: Vec::new(),
            drained: 0,
            touched: BTreeSet::new(),
            superseded: BTreeMap::new(),
            recalling: false,
            recalled_from: 0,
            recalls_everything: false,
            revision: 0,
            moved: VecDeque::new(),
            bars: BTreeSet::new(),
        }
    }

    /// From now on no delta is taken that has news of these origins.
    pub fn set_bars(&mut self, bars: BTreeSet<PeerId>) {
        self.bars = bars;
    }

    /// Whose replica this is.
    pub fn me(&self) -> PeerId {
        self.me
    }

    /// The entry of a key.
    pub fn get(&self, key: &R::Key) -> Option<&Entry<R::Value>> {
        self.entries.get(key)
    }

    /// All entries in the order of keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&R::Key, &Entry<R::Value>)> {
        self.entries.iter()
    }

    /// The entries with keys in a range, in order.
    pub fn range(
        &self,
        range: impl std::ops::RangeBounds<R::Key>,
    ) -> impl DoubleEndedIterator<Item = (&R::Key, &Entry<R::Value>)> {
        self.entries.range(range)
    }

    /// The keys that `origin` wrote last, in the order of its writes.
    pub fn keys_of(&self, origin: PeerId) -> impl Iterator<Item = &R::Key> {
        self.by_dot.get(&origin).into_iter().flat_map(BTreeMap::values)
    }

    /// How many entries there are, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All that this replica has seen, its own undurable writes included.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// Writes a key as `me` and returns the write's dot. It is announced once it is durable.
    pub fn write(&mut self, key: R::Key, value: R::Value) -> Dot {
        let dot = Dot::new(self.me, self.clock + 1);
        self.insert(key, Entry { dot, value });
        if mutation::on(Mutation::AnnounceEarly) {
            self.durable = dot.counter;
        }
        dot
    }

    /// Own writes up to this counter are on disk: they may be announced.
    pub fn mark_durable(&mut self, counter: u64) {
        debug_assert!(counter <= self.vector.get(&self.me), "nothing can be durable unwritten");
        if counter > self.durable {
            self.durable = counter;
            self.moves(self.me);
        }
        if !self.superseded.is_empty() {
            let (me, durable, entries) = (self.me, self.durable, &self.entries);
            let mut origins = BTreeSet::new();
            self.superseded.retain(|(origin, _), (key, _)| {
                let now = entries.get(key).map(|entry| &entry.dot);
                let stays = now.is_some_and(|dot| dot.actor == me && dot.counter > durable);
                if !stays {
                    origins.insert(*origin);
                }
                stays
            });
            for origin in origins {
                self.forget_idle(origin);
            }
        }
        self.settle_base();
    }

    /// Own writes that are not durable failed and go to the disk again as one: what they superseded
    /// among themselves never gets there.
    pub fn mark_failed(&mut self) {
        let (me, durable) = (self.me, self.durable);
        self.superseded.retain(|(origin, counter), _| *origin != me || *counter <= durable);
    }

    /// The greatest counter that this replica has seen of anybody.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The counter of the newest own write.
    pub fn own_counter(&self) -> u64 {
        self.vector.get(&self.me)
    }

    /// The counter up to which own writes may be announced.
    pub fn durable_counter(&self) -> u64 {
        self.durable
    }

    /// Puts back an entry that was read from disk, without recording a change.
    ///
    /// # Errors
    /// When the entry cannot be what this store wrote.
    pub fn restore_entry(&mut self, key: R::Key, entry: Entry<R::Value>) -> Result<(), RunError> {
        let origin = entry.dot.actor;
        if entry.dot.counter == 0 || entry.dot.counter > COUNTER_MAX {
            return Err(RunError::Counters { origin });
        }
        R::validate(origin, &key, &entry.value)
            .map_err(|reason| RunError::Refused { origin, reason })?;
        let counter = entry.dot.counter;
        let other = self.by_dot.get(&origin).and_then(|keys| keys.get(&counter));
        if other.is_some_and(|other| *other != key) {
            return Err(RunError::Counters { origin });
        }
        self.insert(key, entry);
        if origin == self.me {
            self.durable = self.durable.max(counter);
        }
        self.drained += self.changes.len() as u64;
        self.changes.clear();
        self.touched.clear();
        Ok(())
    }

    /// Puts back one element of the vector that was read from disk.
    pub fn restore_counter(&mut self, origin: PeerId, counter: u64) {
        self.cover(origin, counter.min(COUNTER_MAX));
        if origin == self.me {
            self.durable = self.durable.max(self.vector.get(&origin));
        }
        self.touched.clear();
    }

    /// Origins whose counter or floor changed since the last call, with both, for the disk.
    pub fn drain_origins(&mut self) -> Vec<(PeerId, u64, u64)> {
        std::mem::take(&mut self.touched)
            .into_iter()
            .map(|origin| {
                let floor = self.floors.get(&origin).copied().unwrap_or(0);
                (origin, self.vector.get(&origin), floor)
            })
            .collect()
    }

    /// Drops a tombstone that everybody who matters has seen, for keys of one writer. A replica
    /// that had not seen it is later sent the origin's whole state instead.
    ///
    /// # Panics
    /// When the register's keys have several writers: forgetting would then bring old entries back.
    pub fn collect(&mut self, key: &R::Key) {
        assert!(R::SINGLE_WRITER, "only keys with one writer can be collected");
        let Some(entry) = self.entries.get(key) else { return };
        let dot = entry.dot;
        self.remove_dot(dot.actor, dot.counter);
        self.raise_floor(dot.actor, dot.counter);
    }

    /// Per origin the counter up to which tombstones were collected; kept on disk with the vector.
    pub fn floors(&self) -> &BTreeMap<PeerId, u64> {
        &self.floors
    }

    /// Puts back a floor that was read from disk.
    pub fn restore_floor(&mut self, origin: PeerId, floor: u64) {
        self.raise_floor(origin, floor);
        self.touched.clear();
    }

    fn raise_floor(&mut self, origin: PeerId, counter: u64) {
        let floor = self.floors.entry(origin).or_insert(0);
        if counter > *floor {
            *floor = counter;
            self.touched.insert(origin);
        }
    }

    /// The changes since the last call, oldest first.
    pub fn drain_changes(&mut self) -> Vec<Change<R::Key>> {
        self.drained += self.changes.len() as u64;
        std::mem::take(&mut self.changes)
    }

    /// A mark for [`Store::changes_since`].
    pub fn change_mark(&self) -> u64 {
        self.drained + self.changes.len() as u64
    }

    /// The changes since a mark; `None` if some of them were drained, or entries restored.
    pub fn changes_since(&self, mark: u64) -> Option<&[Change<R::Key>]> {
        let from = usize::try_from(mark.checked_sub(self.drained)?).ok()?;
        self.changes.get(from..)
    }

    fn insert_if_newer(&mut self, key: R::Key, entry: Entry<R::Value>) {
        if self.entries.get(&key).is_none_or(|old| beats::<R>(&entry, old)) {
            self.insert(key, entry);
        } else {
            self.cover(entry.dot.actor, entry.dot.counter);
        }
    }

    fn insert(&mut self, key: R::Key, entry: Entry<R::Value>) {
        let dot = entry.dot;
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            let tells = mutation::on(Mutation::DropSuperseded);
            if dot.actor == self.me && dot.counter > self.durable && !tells {
                let old_dot = (old.dot.actor, old.dot.counter);
                self.superseded.insert(old_dot, (key.clone(), old.value));
            }
            self.forget_dot(old.dot.actor, old.dot.counter);
        }
        self.by_dot.entry(dot.actor).or_default().insert(dot.counter, key.clone());
        self.cover(dot.actor, dot.counter);
        self.changes.push(Change { key, origin: dot.actor });
    }

    fn remove_dot(&mut self, origin: PeerId, counter: u64) {
        if let Some(key) = self.forget_dot(origin, counter) {
            self.entries.remove(&key);
            self.changes.push(Change { key, origin });
        }
    }

    fn forget_dot(&mut self, origin: PeerId, counter: u64) -> Option<R::Key> {
        let keys = self.by_dot.get_mut(&origin)?;
        let key = keys.remove(&counter);
        if keys.is_empty() {
            self.by_dot.remove(&origin);
            self.forget_idle(origin);
        }
        key
    }

    fn cover(&mut self, origin: PeerId, counter: u64) {
        if counter > self.seen(origin) {
            self.vector.dots.insert(origin, counter);
            self.clock = self.clock.max(counter);
            self.moves(origin);
            self.touched.insert(origin);
        }
    }

    /// Asserts the invariants; a no-op in release builds.
    ///
    /// # Panics
    /// When one does not hold, which is our own bug.
    pub fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let indexed: usize = self.by_dot.values().map(BTreeMap::len).sum();
            assert_eq!(indexed, self.entries.len(), "by_dot is not the inverse of entries");
            assert!(self.durable <= self.vector.get(&self.me), "durable beyond own writes");
            for (key, entry) in &self.entries {
                let dot = &entry.dot;
                assert_eq!(self.by_dot[&dot.actor].get(&dot.counter), Some(key));
                assert!(dot.counter <= self.vector.get(&dot.actor), "an entry is not covered");
            }
            for ((origin, counter), (key, _)) in &self.superseded {
                let now = self.by_dot.get(origin).and_then(|keys| keys.get(counter));
                assert!(now.is_none(), "{key:?} is superseded and there");
            }
        }
    }
}

/// Whether an entry takes another's place under their key.
fn beats<R: Register>(entry: &Entry<R::Value>, old: &Entry<R::Value>) -> bool {
    match mutation::on(Mutation::CompareReversed) {
        true => rank::<R>(entry) < rank::<R>(old),
        false => rank::<R>(entry) > rank::<R>(old),
    }
}

/// The order of two entries of one key.
fn rank<R: Register>(entry: &Entry<R::Value>) -> (u64, u64, PeerId) {
    (R::epoch(&entry.value), entry.dot.counter, entry.dot.actor)
}

#[cfg(test)]
mod tests;
