//! A set of numbers kept as disjoint intervals that do not touch.
//!
//! Every operation on one number takes time logarithmic in the count of intervals.

use std::collections::BTreeMap;

use crate::block::{Block, Family};

/// A set of numbers.
///
/// Invariants: intervals are not empty, do not overlap and do not touch; `total` is the sum of
/// their sizes, which is below 2^128 because ranges have a least length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// First number to last number, both inside.
    parts: BTreeMap<u128, u128>,
    total: u128,
}

impl Intervals {
    /// How many numbers are in the set.
    pub(crate) const fn total(&self) -> u128 {
        self.total
    }

    /// First and last number of each interval, rising.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u128, u128)> {
        self.parts.iter().map(|(first, last)| (*first, *last))
    }

    /// What of the set lies in `first..=last`.
    pub(crate) fn clipped(&self, first: u128, last: u128) -> Self {
        let mut clipped = Self::default();
        let before = self.parts.range(..first).next_back().map(|(start, end)| (*start, *end));
        let inside = self.parts.range(first..=last).map(|(start, end)| (*start, *end));
        for (start, end) in before.into_iter().chain(inside).filter(|part| part.1 >= first) {
            let (start, end) = (start.max(first), end.min(last));
            clipped.parts.insert(start, end);
            clipped.total += end - start + 1;
        }
        clipped
    }

    /// Whether all of `first..=last` is in the set.
    pub(crate) fn covers(&self, first: u128, last: u128) -> bool {
        self.parts.range(..=first).next_back().is_some_and(|(_, end)| *end >= last)
    }

    /// Whether the number is in the set.
    pub(crate) fn contains(&self, number: u128) -> bool {
        self.covers(number, number)
    }

    /// How many numbers from the first to the last, both inside, are in the set; counting ends at
    /// `enough`.
    pub(crate) fn count_in(&self, first: u128, last: u128, enough: u128) -> u128 {
        let mut count = 0;
        for (start, end) in self.overlapping(first, last) {
            count += end - start + 1;
            if count >= enough {
                return enough;
            }
        }
        count
    }

    /// What of the set lies between the first and the last, both inside.
    pub(crate) fn within(&self, first: u128, last: u128) -> Self {
        let parts: BTreeMap<u128, u128> = self.overlapping(first, last).collect();
        let total = parts.iter().map(|(start, end)| end - start + 1).sum();
        Self { parts, total }
    }

    fn overlapping(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
        let before = self.parts.range(..first).next_back().filter(|(_, end)| **end >= first);
        let parts = before.into_iter().chain(self.parts.range(first..=last));
        parts.map(move |(start, end)| ((*start).max(first), (*end).min(last)))
    }

    /// The least number in the set that is not below `from`.
    pub(crate) fn at_or_after(&self, from: u128) -> Option<u128> {
        if self.contains(from) {
            return Some(from);
        }
        self.parts.range(from..).next().map(|(first, _)| *first)
    }

    /// Puts `first..=last` into the set.
    pub(crate) fn insert(&mut self, mut first: u128, mut last: u128) {
        if let Some((&start, &end)) = self.parts.range(..first).next_back()
            && end >= first - 1
        {
            first = start;
        }
        let touching = last.saturating_add(1);
        while let Some((&start, &end)) = self.parts.range(first..=touching).next() {
            self.parts.remove(&start);
            self.total -= end - start + 1;
            last = last.max(end);
        }
        self.parts.insert(first, last);
        self.total += last - first + 1;
    }

    /// Takes `first..=last` out of the set.
    pub(crate) fn remove(&mut self, first: u128, last: u128) {
        let before = self.parts.range(..first).next_back().map(|(start, end)| (*start, *end));
        if let Some((start, end)) = before
            && end >= first
        {
            self.parts.insert(start, first - 1);
            self.total -= end - first + 1;
            self.keep_tail(last, end);
        }
        while let Some((&start, &end)) = self.parts.range(first..=last).next() {
            self.parts.remove(&start);
            self.total -= end - start + 1;
            self.keep_tail(last, end);
        }
    }

    /// Puts back what of an interval that ended at `end` lies behind `last`.
    fn keep_tail(&mut self, last: u128, end: u128) {
        if end > last {
            self.parts.insert(last + 1, end);
            self.total += end - last;
        }
    }

    /// What is in this set and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (first, last) in other.iter() {
            rest.remove(first, last);
        }
        rest
    }

    /// The fewest aligned blocks that make up the set, rising.
    pub(crate) fn blocks(&self, family: Family) -> Vec<Block> {
        self.iter().flat_map(|(first, last)| blocks(family, first, last)).collect()
    }
}

/// The fewest aligned blocks that make up `first..=last`, rising.
pub(crate) fn blocks(family: Family, first: u128, last: u128) -> impl Iterator<Item = Block> {
    let next = move |block: &Block| {
        let end = block.last_number();
        (end < last).then(|| largest_at(family, end + 1, last))
    };
    std::iter::successors(Some(largest_at(family, first, last)), next)
}

/// The largest block that begins at `first` and does not go beyond `last`.
fn largest_at(family: Family, first: u128, last: u128) -> Block {
    let bits = u32::from(family.bits());
    let aligned = first.trailing_zeros().min(bits);
    let span = last - first;
    let fitting = span.checked_add(1).map_or(bits, u128::ilog2);
    let host_bits = u8::try_from(aligned.min(fitting)).expect("at most 128");
    Block::at(family, first, family.bits() - host_bits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn intervals_agree_with_a_plain_set_under_random_changes() {
        for seed in 0..300 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for _ in 0..60 {
                let first = rng.random_range(0..64_u128);
                let last = rng.random_range(first..(first + 9).min(64));
                if rng.random() {
                    set.insert(first, last);
                    model.extend(first..=last);
                } else {
                    set.remove(first, last);
                    model.retain(|number| !(first..=last).contains(number));
                }
                assert_eq!(set.total(), model.len() as u128);
                let flat: Vec<u128> = set.iter().flat_map(|(first, last)| first..=last).collect();
                assert!(flat.iter().eq(model.iter()), "seed {seed}");
                let ends: Vec<_> = set.iter().collect();
                assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "touching");
                assert_eq!(set.at_or_after(first), model.range(first..).next().copied());
                let inside = model.range(first..=last).count() as u128;
                assert_eq!(set.count_in(first, last, 5), inside.min(5));
                let part = set.within(first, last);
                assert_eq!(part.total(), inside);
                let flat: Vec<u128> = part.iter().flat_map(|(first, last)| first..=last).collect();
                assert!(flat.iter().eq(model.range(first..=last)), "seed {seed}");
                assert_eq!(
                    set.covers(first, last),
                    (first..=last).all(|number| model.contains(&number))
                );
            }
        }
    }

    #[test]
    fn a_set_is_made_of_the_fewest_aligned_blocks() {
        let mut set = Intervals::default();
        set.insert(1, 10);
        let blocks: Vec<String> = set.blocks(Family::V4).iter().map(Block::to_string).collect();
        assert_eq!(blocks, ["0.0.0.1/32", "0.0.0.2/31", "0.0.0.4/30", "0.0.0.8/31", "0.0.0.10/32"]);
        let mut all = Intervals::default();
        all.insert(u128::MAX - 3, u128::MAX);
        assert_eq!(all.blocks(Family::V6).len(), 1);
    }
}
