//! Nothing is free here: who might have something, and what is said when nobody has.

use std::{collections::BTreeMap, time::Duration};

use mesh_router::{PeerId, Time};

use super::{Ask, TRY};
use crate::{
    allocate::{AllocateError, Wanted},
    block::{Block, Family},
    ipam::Ipam,
    space::SpaceRefusal,
};

/// How soon everybody is asked again for whoever comes when nobody had anything a moment ago.
const AGAIN: Duration = Duration::from_millis(100);

/// What others had free of whole ranges when they answered last, and what they owned then, as far
/// as this host knew.
#[derive(Debug, Clone, Default)]
pub(super) struct Free(BTreeMap<(Block, PeerId), (u128, u128)>);

/// Answers that are remembered. Chosen: a mesh of a thousand hosts with four ranges.
const ANSWERS_MAX: usize = 4096;

impl Free {
    fn note(&mut self, range: Block, peer: PeerId, answer: (u128, u128)) {
        if self.0.len() >= ANSWERS_MAX {
            self.0.clear();
        }
        self.0.insert((range, peer), answer);
    }

    /// How much of what a peer owns of a range may be free: all, unless it has said otherwise, and
    /// what has become its own since.
    pub(super) fn of(&self, range: &Block, peer: PeerId, owned: u128) -> u128 {
        self.0.get(&(*range, peer)).map_or(owned, |(free, then)| {
            free.saturating_add(owned.saturating_sub(*then)).min(owned)
        })
    }
}

impl Ipam {
    /// A donor has answered.
    pub(super) fn hear_of_free(&mut self, from: PeerId, id: u64, free: u64) {
        let Some((Wanted::Any(range), _)) = self.space.ask_of(from, id) else { return };
        let whole = self.view.space.get(&range).and_then(|owners| owners.get(&from));
        if let Some(owned) = whole {
            self.space.free.note(range, from, (free.into(), *owned));
        }
    }

    /// Nothing is free here: says why, and sees to it that somebody is asked.
    pub(crate) fn shortage(&mut self, range: Block, now: Time) -> AllocateError {
        if self.leaving {
            return AllocateError::Leaving;
        }
        if !self.has_others(&range) {
            return AllocateError::Exhausted(vec![range]);
        }
        self.want(range, now);
        match self.space.asks.get(&Wanted::Any(range)) {
            Some(ask) if ask.exhausted.is_some() => AllocateError::Exhausted(vec![range]),
            ask => AllocateError::NoSpace { range, asked: ask.and_then(|ask| ask.donor) },
        }
    }

    /// The ranges of a family, if in none of them anything is free here and everybody else who
    /// owns a part of them has said the same.
    pub fn exhausted_of(&self, family: Family) -> Option<Vec<Block>> {
        let ranges = self.ranges_of(family);
        let nothing = |range: &Block| {
            let ask = self.space.asks.get(&Wanted::Any(*range));
            let nobody = ask.is_some_and(|ask| ask.exhausted.is_some());
            self.free_in(range) == 0 && (nobody || !self.has_others(range))
        };
        (!ranges.is_empty() && ranges.iter().all(nothing)).then_some(ranges)
    }

    /// Whether others were asked for space, and it came to nothing or takes long.
    pub(crate) fn asked_in_vain(&self, range: &Block, now: Time) -> bool {
        let ask = self.space.asks.get(&Wanted::Any(*range));
        ask.is_none_or(|ask| {
            ask.rounds > 0 || ask.since.is_some_and(|since| now.since(since) >= TRY)
        })
    }

    /// Whether others were asked for space, and none could be reached that had any.
    pub(crate) fn nobody_gave(&self, range: &Block) -> bool {
        self.space.asks.get(&Wanted::Any(*range)).is_some_and(|ask| ask.rounds > 0)
    }

    /// Whether somebody who wants an address since a time, and was told that all of these ranges
    /// are [`AllocateError::Exhausted`], should wait: that may have been learnt before, and
    /// something may have been released since. Then everybody is asked again. It takes a second at
    /// most.
    pub fn asks_again(&mut self, ranges: &[Block], since: Time, now: Time) -> bool {
        let mut again = false;
        for range in ranges.iter().filter(|_| now.since(since) < TRY) {
            let Some(ask) = self.space.asks.get_mut(&Wanted::Any(*range)) else { continue };
            let Some(began) = ask.exhausted.filter(|began| *began < since) else { continue };
            again = true;
            if ask.donor.is_none() {
                ask.due = ask.due.min(began + AGAIN);
            }
        }
        again
    }

    /// Whether every owner of a range was asked and had nothing.
    pub(super) fn nobody_has(&self, wanted: &Wanted, ask: &Ask) -> bool {
        let Wanted::Any(range) = wanted else { return false };
        let silent = matches!(ask.last, Some((_, SpaceRefusal::Silent)));
        let others = self.others(range).iter().all(|peer| ask.refused.contains(peer));
        !silent && others && !self.is_partly_unknown(range)
    }

    fn others(&self, range: &Block) -> Vec<PeerId> {
        let me = self.me();
        self.owners_in(range).into_keys().filter(|peer| *peer != me).collect()
    }

    /// Whether there is or may be anybody who owns a part of the range.
    pub(super) fn has_others(&self, range: &Block) -> bool {
        !self.others(range).is_empty() || self.is_partly_unknown(range)
    }

    fn is_partly_unknown(&self, part: &Block) -> bool {
        self.range_around(part).is_some_and(|range| self.view.unknown.contains_key(&range))
    }

    /// Who owns how much of a range, or of a part of one.
    pub(super) fn owners_in(&self, part: &Block) -> BTreeMap<PeerId, u128> {
        if let Some(owners) = self.view.space.get(part) {
            return owners.clone();
        }
        let mut owners = BTreeMap::new();
        for (peer, size) in self.view.pieces(part) {
            *owners.entry(peer).or_default() += size;
        }
        owners
    }
}
