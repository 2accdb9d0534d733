//! The base: how a store whose keys have several writers gets rid of what says nothing any more.
//!
//! One entry of the store is a number, the base, below which its writer had seen everything that
//! anybody will ever have written: all who may write had promised to write above it only. Deltas of
//! such a store are of all origins at once, so whoever has that entry has seen all of it, too.
//!
//! From the base follows what is waste and which origins need not be named in the vector, the same
//! on every replica that has the same entries; nothing is to be agreed on, nothing remembered.
//! Whoever lacks the base may have entries that only waste has superseded. It is told what else it
//! lacks first, and then with the base the counters of all entries that there are; it drops what
//! they cover and do not name: the join of two causal stores.
//!
//! The nil origin is nobody's clock: its entries are below the base only up to a counter of its
//! own.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Dot, Entry, Register, Run, Store};
use crate::PeerId;

/// The origin of what many decided together.
const NIL: PeerId = PeerId::new([0; 16]);

/// Counters below which everything is known; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Base {
    /// Of every origin but the nil one.
    pub upto: u64,
    /// Of the nil one.
    pub decrees: u64,
    /// What else the register measures its waste by: see [`Register::is_waste`].
    pub forgotten: u64,
}

impl Base {
    /// The counter up to which an origin's writes are below the base.
    pub fn of(&self, origin: PeerId) -> u64 {
        if origin == NIL { self.decrees } else { self.upto }
    }
}

impl<R: Register> Store<R> {
    /// The base that holds here.
    pub fn base(&self) -> Base {
        self.base.map(|(base, _)| base).unwrap_or_default()
    }

    /// The write that says so.
    pub(super) fn base_dot(&self) -> Option<Dot> {
        self.base.map(|(_, dot)| dot)
    }

    /// The counter up to which everything of an origin is known: it may be too idle to be named in
    /// the vector.
    pub fn seen(&self, origin: PeerId) -> u64 {
        match self.vector.dots.get(&origin) {
            Some(counter) => *counter,
            None if origin == NIL => 0,
            None => self.base().upto,
        }
    }

    /// How many entries and elements of the vector a base would make superfluous.
    pub fn gain(&self, base: &Base) -> usize {
        let idle = self.vector.dots.iter().filter(|(origin, counter)| {
            **origin != self.me
                && **origin != NIL
                && self.is_idle(**origin)
                && **counter <= base.upto
        });
        self.waste(base).len() + idle.count()
    }

    /// Takes over the base that the store has come to hold, once it may be told.
    /// It also drops what follows to be waste. After restoring rows this is to be called once.
    pub fn settle_base(&mut self) {
        let Some(key) = R::base_key() else { return };
        let Some(entry) = self.entries.get(&key) else { return };
        let (dot, base) = (entry.dot, R::base(&entry.value).unwrap_or_default());
        let told = dot.actor != self.me || dot.counter <= self.durable;
        if !told || self.base_dot() == Some(dot) || base.upto < self.base().upto {
            return;
        }
        self.base = Some((base, dot));
        self.clock = self.clock.max(base.upto);
        self.moves_all();
        for key in self.waste(&base) {
            if let Some(dot) = self.entries.get(&key).map(|entry| entry.dot) {
                self.remove_dot(dot.actor, dot.counter);
            }
        }
        let origins: Vec<PeerId> = self.vector.dots.keys().copied().collect();
        for origin in origins {
            self.forget_idle(origin);
        }
    }

    /// What says nothing under this base, and nothing else leans on. What leans on a key comes
    /// after it.
    fn waste(&self, base: &Base) -> Vec<R::Key> {
        let (mut waste, mut kept) = (Vec::new(), BTreeSet::new());
        for (key, entry) in self.entries.iter().rev() {
            let below = entry.dot.counter <= base.of(entry.dot.actor);
            if below && R::is_waste(&entry.value, base) && !kept.contains(key) {
                waste.push(key.clone());
            } else {
                kept.extend(R::leans_on(&entry.value));
            }
        }
        waste
    }

    /// Whether an origin has no entry that is told.
    fn is_idle(&self, origin: PeerId) -> bool {
        !self.by_dot.contains_key(&origin)
            && self.superseded.range((origin, 0)..=(origin, u64::MAX)).next().is_none()
    }

    /// Whether an origin that is known up to a counter need not be named for it.
    pub(super) fn is_forgotten(&self, origin: PeerId, upto: u64) -> bool {
        let told = self.told(origin, 0, upto).next().is_some();
        origin != NIL && !told && upto <= self.base().upto
    }

    /// Leaves an origin out of the vector that has no entry and is below the base.
    pub(super) fn forget_idle(&mut self, origin: PeerId) {
        let Some(counter) = self.vector.dots.get(&origin) else { return };
        let own = origin == self.me || origin == NIL;
        if !own && *counter <= self.base().upto && self.is_idle(origin) {
            self.vector.dots.remove(&origin);
            self.touched.insert(origin);
            self.moves(origin);
        }
    }

    /// Whether a receiver may have what only waste has superseded.
    pub(super) fn is_below_base(&self, have: &super::VersionVector) -> bool {
        self.base_dot().is_some_and(|dot| have.get(&dot.actor) < dot.counter)
    }

    /// Takes what makes this store another's whole state; see the module. Returns whether it did.
    pub(super) fn join(&mut self, mut runs: Vec<Run<R::Key, R::Value>>) -> bool {
        runs.sort_by_key(|run| run.origin);
        let own = runs.iter().find(|run| run.origin == self.me);
        // Others know writes of ours that we do not: what we lack they did not drop.
        if own.is_some_and(|run| run.upto > self.own_counter()) && !self.recalling {
            return false;
        }
        self.drop_superseded(&runs);
        for run in runs {
            let (origin, upto, seen) = (run.origin, run.upto, self.seen(run.origin));
            let news = run.entries.into_iter().filter(|entry| entry.0 > seen);
            for (counter, key, value) in news {
                let dot = Dot::new(origin, counter);
                self.insert_if_newer(key, Entry { dot, value });
            }
            self.cover(origin, upto);
            self.tell_recalled(origin, upto);
        }
        true
    }

    /// Drops what another's state covers and does not have.
    fn drop_superseded(&mut self, runs: &[Run<R::Key, R::Value>]) {
        let theirs: BTreeSet<(PeerId, u64)> = runs
            .iter()
            .flat_map(|run| {
                let here = run.entries.iter().map(|entry| entry.0).chain(run.others.named());
                here.map(|counter| (run.origin, counter))
            })
            .collect();
        let key = R::base_key();
        let values = runs.iter().flat_map(|run| &run.entries);
        let base = values.filter(|entry| Some(&entry.1) == key.as_ref());
        let base = base.filter_map(|entry| R::base(&entry.2)).max_by_key(|base| base.upto);
        let base = base.unwrap_or_default();
        let covered = |dot: (PeerId, u64)| {
            let run = runs.binary_search_by_key(&dot.0, |run| run.origin);
            let none = if dot.0 == NIL { 0 } else { base.upto };
            dot.1 <= run.map_or(none, |run| runs[run].upto) && !theirs.contains(&dot)
        };
        self.superseded.retain(|dot, _| !covered(*dot));
        let dots = self.entries.values().map(|entry| (entry.dot.actor, entry.dot.counter));
        let gone: Vec<(PeerId, u64)> = dots.filter(|dot| covered(*dot)).collect();
        for (origin, counter) in gone {
            self.remove_dot(origin, counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::FRAME_BYTES_MAX,
        store::{Cursor, ORIGINS_MAX, Others},
    };

    /// Notes by number, written by anybody; an empty one is waste, and number 0 is the base.
    #[derive(Debug, Clone)]
    struct Notes;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    enum Note {
        Text(Vec<u8>),
        Base(Base),
    }

    impl Register for Notes {
        type Key = u32;
        type Value = Note;

        const SINGLE_WRITER: bool = false;

        fn validate(_: PeerId, _: &u32, _: &Note) -> Result<(), String> {
            Ok(())
        }

        fn base_key() -> Option<u32> {
            Some(0)
        }

        fn base(value: &Note) -> Option<Base> {
            if let Note::Base(base) = value { Some(*base) } else { None }
        }

        fn is_waste(value: &Note, _: &Base) -> bool {
            *value == Note::Text(Vec::new())
        }
    }

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 16])
    }

    fn text(bytes: usize) -> Note {
        Note::Text(vec![7; bytes])
    }

    fn put_forward(store: &mut Store<Notes>) {
        let upto = store.clock();
        store.write(0, Note::Base(Base { upto, ..Base::default() }));
        store.mark_durable(store.own_counter());
    }

    /// Brings `to` up to date in parts; returns how many and the size of the largest.
    fn sync(from: &Store<Notes>, to: &mut Store<Notes>, budget: Option<usize>) -> (usize, usize) {
        let (mut cursor, mut largest) = (Cursor::at(to.announced()), 0);
        for parts in 0.. {
            let delta = match budget {
                Some(budget) => from.delta_cut(&cursor, |_| true, budget),
                None => from.delta(&cursor, |_| true, 1),
            };
            if delta.bytes.is_empty() {
                return (parts, largest);
            }
            largest = largest.max(delta.bytes.len());
            assert_eq!(to.apply(&delta.bytes), Ok(true));
            cursor = delta.cursor;
        }
        unreachable!("the loop ends by itself")
    }

    #[test]
    fn who_lacks_the_base_keeps_what_there_is_and_drops_the_rest_however_it_is_cut() {
        for budget in [1, 100, 10_000] {
            let (mut one, mut other) = (Store::<Notes>::new(peer(1)), Store::new(peer(2)));
            for key in 1..50 {
                one.write(key, text(10));
            }
            one.mark_durable(49);
            sync(&one, &mut other, Some(budget));
            assert_eq!(other.len(), 49);
            for key in 10..20 {
                one.write(key, text(0));
            }
            one.write(40, text(3));
            put_forward(&mut one);
            assert_eq!(one.len(), 40, "what is below the base and says nothing goes");
            one.write(60, text(5));
            one.mark_durable(one.own_counter());
            let mut newcomer = Store::new(peer(3));
            for (name, to) in [("who was away", &mut other), ("a newcomer", &mut newcomer)] {
                let (parts, _) = sync(&one, to, Some(budget));
                assert!(parts > 1 || budget > 1, "{name}: it came in one part");
                assert_eq!(to.digest(), one.digest(), "{name}, parts of {budget}");
            }
        }
    }

    #[test]
    fn nothing_is_dropped_before_what_took_its_place_has_come() {
        let (mut one, mut other) = (Store::<Notes>::new(peer(1)), Store::new(peer(2)));
        (1..9).for_each(|key| {
            other.write(key, text(10));
        });
        other.mark_durable(8);
        sync(&other, &mut one, Some(1000));
        one.write(1, text(0));
        put_forward(&mut one);
        (2..9).for_each(|key| {
            one.write(key, text(20));
        });
        one.mark_durable(one.own_counter());
        let mut cursor = Cursor::at(other.announced());
        loop {
            let delta = one.delta_cut(&cursor, |_| true, 1);
            if delta.bytes.is_empty() {
                break;
            }
            assert_eq!(other.apply(&delta.bytes), Ok(true));
            assert!((2..9).all(|key| other.get(&key).is_some()));
            cursor = delta.cursor;
        }
        assert_eq!(other.digest(), one.digest());
    }

    #[test]
    fn the_largest_store_with_a_base_goes_in_frames() {
        let id = |n: usize| {
            let mut bytes = [9; 16];
            bytes[..8].copy_from_slice(&(n as u64 * 7919).to_be_bytes());
            PeerId::new(bytes)
        };
        // As many entries as a ring may have, so far apart that a counter takes five bytes.
        let (origins, each, apart) = (ORIGINS_MAX - 2, 16, 100_000);
        let run = |origin: usize| {
            let entry = |n: usize| (n as u64 * apart + 1, (origin * each + n + 1) as u32, text(4));
            let entries: Vec<_> = (0..each).map(entry).collect();
            let upto = entries.last().unwrap().0;
            Run { origin: id(origin), after: 0, upto, others: Others::Unsaid, entries }
        };
        let mut one = Store::<Notes>::new(peer(1));
        for some in (0..origins).collect::<Vec<_>>().chunks(2000) {
            let runs: Vec<_> = some.iter().map(|origin| run(*origin)).collect();
            assert_eq!(one.apply(&crate::codec::encode(&runs)), Ok(true));
        }
        put_forward(&mut one);
        one.write(u32::MAX, text(24));
        one.mark_durable(one.own_counter());
        let mut newcomer = Store::new(peer(2));
        let (parts, largest) = sync(&one, &mut newcomer, None);
        assert!(parts > 10, "{parts}");
        assert!(largest <= FRAME_BYTES_MAX, "{largest} bytes");
        assert_eq!(newcomer.digest(), one.digest());
    }
}
