//! The addresses of one range that this host owns: free ones, and ones that rest after release.
//!
//! Addresses go out in rotation: never used ones after the last one given, then those whose release
//! is longest ago. So a connection to a stopped container does not reach a new one by chance. A
//! part of the range (a network's `ipam.subnet`) has a rotation of its own.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_router::Time;

use crate::{
    ask::ASKS_MAX,
    block::{Block, Family, number},
    held::Holder,
    intervals::Intervals,
    resting::Resting,
};

/// Addresses that are passed over in one search: those set aside for claims, and the reserved ones,
/// of which at most three lie in a row (last of a range, first of it, an anycast address).
const PASSED_MAX: usize = ASKS_MAX + 4;
/// Parts of the range whose rotation is remembered; beyond it they begin anew.
const PARTS_MAX: usize = 256;

/// Own addresses of one range.
///
/// Invariants: `free` and `resting` are disjoint parts of `owned`; what is in neither is held.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    range: Block,
    owned: Intervals,
    free: Intervals,
    resting: Resting,
    /// The next address to try.
    cursor: u128,
    /// The same for parts of the range.
    cursors: BTreeMap<Block, u128>,
}

impl Pool {
    pub(crate) fn new(range: Block) -> Self {
        Self {
            range,
            owned: Intervals::default(),
            free: Intervals::default(),
            resting: Resting::default(),
            cursor: range.first_number(),
            cursors: BTreeMap::new(),
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
            let gone: Vec<u128> = self.resting.between(first, last).collect();
            for number in gone {
                self.resting.take(number);
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

    /// How many addresses could be given, those that rest included.
    pub(crate) fn usable(&self) -> u128 {
        self.unreserved() + self.resting.len() as u128
    }

    /// How many addresses could be given that do not rest.
    pub(crate) fn ready(&self) -> u128 {
        self.unreserved() + self.resting.rested_len() as u128
    }

    fn unreserved(&self) -> u128 {
        let ends = [self.range.first_number(), self.range.last_number()];
        let reserved = ends.iter().filter(|number| self.free.contains(**number));
        let reserved = reserved.filter(|number| self.reserved(**number)).count();
        self.free.total() - reserved as u128
    }

    /// [`Pool::usable`] or [`Pool::ready`] in a part of the range, counted up to `enough`.
    pub(crate) fn count_in(&self, part: &Block, resting: bool, enough: u128) -> u128 {
        if *part == self.range {
            return if resting { self.usable() } else { self.ready() };
        }
        let (first, last) = (part.first_number(), part.last_number());
        let ends = [self.range.first_number(), self.range.last_number()];
        let reserved = ends.into_iter().filter(|end| (first..=last).contains(end));
        let reserved = reserved.filter(|end| self.free.contains(*end) && self.reserved(*end));
        let free = self.free.count_in(first, last, enough.saturating_add(2));
        let free = free.saturating_sub(reserved.count() as u128);
        let most = usize::try_from(enough.saturating_sub(free)).unwrap_or(usize::MAX);
        free + self.resting.part(first, last, resting).take(most).count() as u128
    }

    /// Whether the address is never given.
    pub(crate) fn reserved(&self, number: u128) -> bool {
        reserved(&self.range, number)
    }

    /// Takes the next address of a part of the range in rotation, none of those that rest, and none
    /// of those set aside.
    pub(crate) fn next(&mut self, part: &Block, aside: impl Fn(u128) -> bool) -> Option<u128> {
        let (start, end) = (part.first_number(), part.last_number());
        let whole = *part == self.range;
        let cursor = if whole { Some(self.cursor) } else { self.cursors.get(part).copied() };
        let mut from = cursor.unwrap_or(start);
        for _ in 0..PASSED_MAX {
            let here = |from| self.free.at_or_after(from).filter(|number| *number <= end);
            let Some(number) = here(from).or_else(|| here(start)) else { break };
            from = number.saturating_add(1);
            if !self.reserved(number) && !aside(number) {
                self.free.remove(number, number);
                self.turn(part, from);
                return Some(number);
            }
        }
        let number = if whole {
            self.resting.rested().find(|number| !aside(*number))
        } else {
            self.resting.oldest_in((start, end), false, aside)
        };
        self.resting.take(number?);
        number
    }

    fn turn(&mut self, part: &Block, next: u128) {
        if *part == self.range {
            self.cursor = next;
            return;
        }
        if self.cursors.len() >= PARTS_MAX && !self.cursors.contains_key(part) {
            self.cursors.clear();
        }
        self.cursors.insert(*part, next);
    }

    /// Takes the address of a part of the range that has rested longest, although its time has not
    /// come.
    pub(crate) fn next_resting(
        &mut self,
        part: &Block,
        aside: impl Fn(u128) -> bool,
    ) -> Option<u128> {
        let number = if *part == self.range {
            self.resting.oldest().find(|number| !aside(*number))
        } else {
            let ends = (part.first_number(), part.last_number());
            self.resting.oldest_in(ends, true, aside)
        };
        self.resting.take(number?);
        number
    }

    /// Takes this address; false if it is not free.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        if self.free.contains(number) {
            self.free.remove(number, number);
            return true;
        }
        self.resting.take(number)
    }

    /// Puts a released address to rest until a time.
    pub(crate) fn give_back(&mut self, number: u128, until: Time, holders: Vec<Arc<Holder>>) {
        if self.owned.contains(number)
            && let Some(oldest) = self.resting.put(number, until, holders)
        {
            self.free.insert(oldest, oldest);
        }
    }

    /// Lets those go that have rested enough.
    pub(crate) fn ripen(&mut self, now: Time) {
        self.resting.ripen(now);
    }

    /// The address of a part of the range that one of these held last, if nobody has it since.
    pub(crate) fn former(&self, holders: &[Holder], part: &Block) -> Option<u128> {
        self.resting.former(holders, part.first_number(), part.last_number())
    }

    /// Goes on behind this address: the last one given before a restart, as far as is known.
    pub(crate) fn skip_to(&mut self, number: u128) {
        self.cursor = self.cursor.max(number.saturating_add(1));
    }

    /// The largest aligned block of a part of the range without a held address, of at most `most`
    /// addresses, and no larger than `length` says. Released addresses are given only if there is
    /// no other block, and those that still rest only to one in need.
    pub(crate) fn spare(
        &self,
        part: &Block,
        length: u8,
        most: u128,
        urgent: bool,
    ) -> Option<Block> {
        let (first, last) = (part.first_number(), part.last_number());
        let mut free = if *part == self.range {
            std::borrow::Cow::Borrowed(&self.free)
        } else {
            std::borrow::Cow::Owned(self.free.within(first, last))
        };
        for all in [None, Some(false), Some(true).filter(|_| urgent)] {
            for number in all.into_iter().flat_map(|all| self.resting.part(first, last, all)) {
                free.to_mut().insert(number, number);
            }
            let block = self.spare_in(&free, length, most);
            if block.is_some() {
                return block;
            }
        }
        None
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
        self.free.contains(number) || self.resting.contains(number)
    }

    pub(crate) fn check_invariants(&self) {
        for (first, last) in self.free.iter() {
            assert!(self.owned.covers(first, last), "a free address is not owned");
        }
        for number in self.resting.between(0, u128::MAX) {
            assert!(self.owned.contains(number), "a resting address is not owned");
            assert!(!self.free.contains(number), "a resting address is free");
        }
        self.resting.check_invariants();
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
