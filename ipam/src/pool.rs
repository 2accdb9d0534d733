//! The addresses of one range that this host owns: free ones, and ones that rest after release.
//!
//! Addresses go out in rotation: never used ones after the last one given, then those whose release
//! is longest ago. So a connection to a stopped container does not reach a new one by chance.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    ask::ASKS_MAX,
    block::{Block, Family, number},
    intervals::Intervals,
};

/// Released addresses whose order is remembered; beyond it the oldest become free like any other.
pub const RESTING_MAX: usize = 1 << 16;
/// Addresses that are passed over in one search: those set aside for claims, and the reserved ones,
/// of which at most three lie in a row (last of a range, first of it, an anycast address).
const PASSED_MAX: usize = ASKS_MAX + 4;

/// Own addresses of one range.
///
/// Invariants: `free` and `resting` are disjoint parts of `owned`; what is in neither is held.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    range: Block,
    owned: Intervals,
    free: Intervals,
    /// By age of the release.
    resting: BTreeMap<u64, u128>,
    released: BTreeMap<u128, u64>,
    releases: u64,
    /// The next address to try.
    cursor: u128,
}

impl Pool {
    pub(crate) fn new(range: Block) -> Self {
        Self {
            range,
            owned: Intervals::default(),
            free: Intervals::default(),
            resting: BTreeMap::new(),
            released: BTreeMap::new(),
            releases: 0,
            cursor: range.first_number(),
        }
    }

    pub(crate) const fn owned(&self) -> &Intervals {
        &self.owned
    }

    /// Takes over what the ring says now about a region of the range. `held` are the held addresses
    /// in an interval.
    pub(crate) fn set_owned<I: Iterator<Item = u128>>(
        &mut self,
        region: (u128, u128),
        owned: &Intervals,
        held: impl Fn(u128, u128) -> I,
    ) {
        let old = self.owned.clipped(region.0, region.1);
        let new = owned.clipped(region.0, region.1);
        if old == new {
            return;
        }
        for (first, last) in old.without(&new).iter() {
            self.owned.remove(first, last);
            self.free.remove(first, last);
            let gone: Vec<u128> = self.released.range(first..=last).map(|(n, _)| *n).collect();
            for number in gone {
                self.wake(number);
            }
        }
        for (first, last) in new.without(&old).iter() {
            self.owned.insert(first, last);
            self.free.insert(first, last);
            for number in held(first, last) {
                self.free.remove(number, number);
            }
        }
    }

    /// How many addresses could be given.
    pub(crate) fn usable(&self) -> u128 {
        let ends = [self.range.first_number(), self.range.last_number()];
        let reserved = ends.iter().filter(|number| self.free.contains(**number));
        let reserved = reserved.filter(|number| self.reserved(**number)).count();
        self.free.total() - reserved as u128 + self.resting.len() as u128
    }

    /// Whether the address is never given.
    pub(crate) fn reserved(&self, number: u128) -> bool {
        reserved(&self.range, number)
    }

    /// Takes the next address in rotation, but none of those set aside.
    pub(crate) fn next(&mut self, aside: impl Fn(u128) -> bool) -> Option<u128> {
        let start = self.range.first_number();
        let mut from = self.cursor;
        for _ in 0..PASSED_MAX {
            let ahead = self.free.at_or_after(from).or_else(|| self.free.at_or_after(start));
            let Some(number) = ahead else { break };
            from = number.saturating_add(1);
            if !self.reserved(number) && !aside(number) {
                self.free.remove(number, number);
                self.cursor = from;
                return Some(number);
            }
        }
        let number = *self.resting.values().find(|number| !aside(**number))?;
        self.wake(number);
        Some(number)
    }

    /// Takes this address; false if it is not free.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        if self.free.contains(number) {
            self.free.remove(number, number);
            return true;
        }
        self.wake(number)
    }

    /// Puts a released address to rest.
    pub(crate) fn give_back(&mut self, number: u128) {
        if !self.owned.contains(number) {
            return;
        }
        self.releases += 1;
        self.resting.insert(self.releases, number);
        self.released.insert(number, self.releases);
        if self.resting.len() > RESTING_MAX
            && let Some((_, oldest)) = self.resting.pop_first()
        {
            self.released.remove(&oldest);
            self.free.insert(oldest, oldest);
        }
    }

    /// Goes on behind this address: the last one given before a restart, as far as is known.
    pub(crate) fn skip_to(&mut self, number: u128) {
        self.cursor = self.cursor.max(number.saturating_add(1));
    }

    fn wake(&mut self, number: u128) -> bool {
        let Some(release) = self.released.remove(&number) else { return false };
        self.resting.remove(&release);
        true
    }

    /// The largest aligned block without a held address, of at most `most` addresses, and no larger
    /// than `length` says. Addresses that rest are given only if there is no other block.
    pub(crate) fn spare(&self, length: u8, most: u128) -> Option<Block> {
        self.spare_in(&self.free, length, most).or_else(|| {
            let mut all = self.free.clone();
            for number in self.released.keys() {
                all.insert(*number, *number);
            }
            self.spare_in(&all, length, most)
        })
    }

    /// The highest such block: this host itself goes upwards from its cursor.
    fn spare_in(&self, free: &Intervals, length: u8, most: u128) -> Option<Block> {
        let family = self.range.family();
        (length..=family.bits()).find_map(|length| {
            let size = Block::at(family, 0, length).size();
            let fits = |(first, last): (u128, u128)| {
                let start = last.checked_sub(size - 1)? & !(size - 1);
                let start =
                    if size == 1 && self.reserved(start) { start.checked_sub(1)? } else { start };
                let useful = size > 1 || !self.reserved(start);
                (start >= first && useful).then(|| Block::at(family, start, length))
            };
            if size > most { None } else { free.iter().rev().find_map(fits) }
        })
    }

    /// Whether the address could be given.
    pub(crate) fn has(&self, number: u128) -> bool {
        self.free.contains(number) || self.released.contains_key(&number)
    }

    pub(crate) fn check_invariants(&self) {
        for (first, last) in self.free.iter() {
            assert!(self.owned.covers(first, last), "a free address is not owned");
        }
        for number in self.released.keys() {
            assert!(self.owned.contains(*number), "a resting address is not owned");
            assert!(!self.free.contains(*number), "a resting address is free");
        }
        assert_eq!(self.resting.len(), self.released.len());
    }
}

/// Whether an address is never given: first of its range, last of an IPv4 range (broadcast),
/// and the subnet-router anycast address of an IPv6 /64 (RFC 4291, section 2.6.1).
pub(crate) fn reserved(range: &Block, number: u128) -> bool {
    let first = number == range.first_number();
    match range.family() {
        Family::V4 => first || number == range.last_number(),
        Family::V6 => first || (range.length() <= 64 && number & u128::from(u64::MAX) == 0),
    }
}

/// The same for an address.
pub(crate) fn is_reserved(range: &Block, address: IpAddr) -> bool {
    reserved(range, number(address).1)
}
