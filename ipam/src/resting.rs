//! Released addresses of one pool: how long they rest, in which order they go out again, and who
//! held them last.
//!
//! Resting is a courtesy to those who still talk to the last holder, and a chance for that holder
//! to come back to its address. Whoever has nothing else takes the oldest. The node puts to rest
//! again, after a start, what was released lately.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_router::Time;

use crate::held::Holder;

/// Released addresses that are remembered per pool; beyond it the oldest become free like any
/// other. Chosen: half an hour of 30 containers a second, and 30 MB at most.
pub(crate) const RESTING_MAX: usize = 1 << 16;

/// Invariants: `resting` and `rested` are disjoint and hold the numbers of `released` by the age
/// of their release; `former` holds those of each holder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resting {
    /// Their time has not come.
    resting: BTreeMap<u64, u128>,
    /// Their time has come.
    rested: BTreeMap<u64, u128>,
    released: BTreeMap<u128, Release>,
    former: BTreeMap<Arc<Holder>, BTreeSet<u128>>,
    releases: u64,
}

#[derive(Debug, Clone)]
struct Release {
    age: u64,
    until: Time,
    /// Under which names the last holder may come back.
    holders: Vec<Arc<Holder>>,
}

impl Resting {
    /// How many there are, and how many of them have rested.
    pub(crate) fn len(&self) -> usize {
        self.released.len()
    }

    pub(crate) fn rested_len(&self) -> usize {
        self.rested.len()
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.released.contains_key(&number)
    }

    /// Those from the first to the last, both inside, rising.
    pub(crate) fn between(&self, first: u128, last: u128) -> impl Iterator<Item = u128> {
        self.released.range(first..=last).map(|(number, _)| *number)
    }

    /// Those that have rested, oldest first.
    pub(crate) fn rested(&self) -> impl Iterator<Item = u128> {
        self.rested.values().copied()
    }

    /// All, oldest first.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = u128> {
        self.rested().chain(self.resting.values().copied())
    }

    /// Those in a part of the pool that have rested, or all there, rising.
    pub(crate) fn part(&self, first: u128, last: u128, all: bool) -> impl Iterator<Item = u128> {
        let there = self.released.range(first..=last);
        let there = there.filter(move |(_, rest)| all || self.rested.contains_key(&rest.age));
        there.map(|(number, _)| *number)
    }

    /// The oldest of those, but none of those set aside.
    pub(crate) fn oldest_in(
        &self,
        (first, last): (u128, u128),
        all: bool,
        aside: impl Fn(u128) -> bool,
    ) -> Option<u128> {
        let usable = self.part(first, last, all).filter(|number| !aside(*number));
        usable.min_by_key(|number| self.released[number].age)
    }

    /// The number that one of these held last, in a part of the pool.
    pub(crate) fn former(&self, holders: &[Holder], first: u128, last: u128) -> Option<u128> {
        let numbers = holders.iter().filter_map(|holder| self.former.get(holder));
        numbers.flat_map(|numbers| numbers.range(first..=last)).next().copied()
    }

    /// Puts a number to rest. Returns the oldest if there are too many: it does not rest any more.
    pub(crate) fn put(
        &mut self,
        number: u128,
        until: Time,
        holders: Vec<Arc<Holder>>,
    ) -> Option<u128> {
        self.take(number);
        self.releases += 1;
        for holder in &holders {
            self.former.entry(Arc::clone(holder)).or_default().insert(number);
        }
        self.resting.insert(self.releases, number);
        self.released.insert(number, Release { age: self.releases, until, holders });
        if self.len() <= RESTING_MAX {
            return None;
        }
        let oldest = self.oldest().next()?;
        self.take(oldest);
        Some(oldest)
    }

    /// Takes a number out. Returns whether it was there.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        let Some(release) = self.released.remove(&number) else { return false };
        self.resting.remove(&release.age);
        self.rested.remove(&release.age);
        for holder in release.holders {
            if let Some(numbers) = self.former.get_mut(&holder) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.former.remove(&holder);
                }
            }
        }
        true
    }

    /// Lets those go whose time has come. A later release rests at least as long as an earlier
    /// one, or waits for that.
    pub(crate) fn ripen(&mut self, now: Time) {
        while let Some(entry) = self.resting.first_entry()
            && self.released[entry.get()].until <= now
        {
            let (age, number) = entry.remove_entry();
            self.rested.insert(age, number);
        }
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.resting.len() + self.rested.len(), self.released.len());
        for (number, release) in &self.released {
            let order = self.resting.get(&release.age).or_else(|| self.rested.get(&release.age));
            assert_eq!(order, Some(number), "a released number has lost its place");
            for holder in &release.holders {
                assert!(self.former[holder].contains(number), "a former holder is forgotten");
            }
        }
    }
}
