//! Deltas: what one store lacks of another. Taking them in is `merge.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Register, Store, VersionVector};
use crate::{
    PeerId,
    codec::{self, FRAME_BYTES_MAX},
    mutation::{self, Mutation},
    replica::Intervals,
};

/// Origins that a store takes entries of. Chosen: twice what a reachability set can name; a hello,
/// with three vectors of 26 bytes an origin, then still fits into a frame.
pub const ORIGINS_MAX: usize = 1 << 13;
/// Entries that a store takes of one origin; above what any register's own bounds let it write.
pub const ENTRIES_PER_ORIGIN_MAX: usize = 1 << 18;

/// The size of a delta while tests have deltas cut anywhere.
const CUT_BYTES: usize = 60;
/// Left in a frame for what goes around a delta.
const HEAD_BYTES: usize = 32 * 1024;
/// What naming an entry costs: its counter's distance to the one before, below 2^32.
const COUNTER_BYTES: usize = 5;
/// What a run costs beside its entries: origin, interval and what it says of others.
const RUN_HEAD_BYTES: usize = 24;

/// What a run says of entries that the receiver may have besides those in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Others {
    /// Nothing.
    Unsaid,
    /// In the interval there are none: tombstones were collected. For keys with one writer.
    Gone,
    /// Up to the interval's end there are only those with these counters up to `after`, each as the
    /// difference to the one before. For keys with several writers, and then in one delta of all
    /// origins that the sender knows.
    GoneBut(Vec<u64>),
}

impl Others {
    /// There are only those with these counters, in their order.
    fn gone_but(counters: impl Iterator<Item = u64>) -> Self {
        let differences =
            counters.scan(0, |last, counter| Some(counter - std::mem::replace(last, counter)));
        Self::GoneBut(differences.collect())
    }

    /// The counters that were named.
    pub(super) fn named(&self) -> impl Iterator<Item = u64> {
        let differences =
            if let Self::GoneBut(differences) = self { &differences[..] } else { &[] };
        differences.iter().scan(0, |last: &mut u64, difference| {
            *last = last.saturating_add(*difference);
            Some(*last)
        })
    }
}

/// A part of one origin's entries: all that the sender still has in `(after, upto]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run<K, V> {
    /// Who wrote these entries.
    pub origin: PeerId,
    /// The receiver must have everything up to here.
    pub after: u64,
    /// With this run it has everything up to here.
    pub upto: u64,
    /// What the receiver is to drop.
    pub others: Others,
    /// Counter, key and value, in the order of counters.
    pub entries: Vec<(u64, K, V)>,
}

/// A run that was not taken. The store is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The bytes are not a list of runs.
    #[error("undecodable delta: {0}")]
    Codec(String),
    /// Counters out of order, out of the interval, or beyond [`super::COUNTER_MAX`].
    #[error("run of {origin} has counters that cannot be")]
    Counters {
        /// Whose entries the run claims to hold.
        origin: PeerId,
    },
    /// An entry that its origin may not write.
    #[error("entry of {origin} refused: {reason}")]
    Refused {
        /// Whose entry it claims to be.
        origin: PeerId,
        /// What the register said.
        reason: String,
    },
}

/// What a receiver has, as far as its sender knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Per origin, up to where the receiver has everything.
    pub have: VersionVector,
    /// Origins that are being sent from the start, with the floor for which that was begun.
    streamed: BTreeMap<PeerId, u64>,
}

impl Cursor {
    /// The cursor of a receiver that said that it has this.
    pub fn at(have: VersionVector) -> Self {
        Self { have, streamed: BTreeMap::new() }
    }

    /// The receiver was sent these intervals of origins.
    pub(crate) fn pass(&mut self, intervals: &[(PeerId, u64, u64)]) {
        self.have.dots.extend(intervals.iter().map(|(origin, _, upto)| (*origin, *upto)));
    }

    /// The receiver has said that it has this, of the origins that count; most often that is known.
    pub(crate) fn move_to(&mut self, have: &VersionVector, counts: impl Fn(PeerId) -> bool) {
        if self.have != *have {
            self.have.dots.retain(|origin, _| !counts(*origin));
            let said = have.dots.iter().filter(|(origin, _)| counts(**origin));
            self.have.dots.extend(said.map(|(origin, counter)| (*origin, *counter)));
        }
        self.streamed.clear();
    }
}

/// How far a delta got.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Encoded runs; empty when there was nothing to send.
    pub bytes: Vec<u8>,
    /// What the receiver has once it has taken them; of no meaning when there was nothing to send.
    pub cursor: Cursor,
    /// More is to come: the budget ended first.
    pub more: bool,
    /// How many entries the delta holds.
    pub entries: usize,
}

impl<R: Register> Store<R> {
    /// Encodes what a receiver at `since` lacks, of the origins that `wanted` names, in about
    /// `budget` bytes (at least one entry, so that there is always progress).
    ///
    /// Where keys have several writers the delta is of all origins at once, and cut only beyond
    /// half a frame: an entry that one origin's run leaves out was superseded by another's, which
    /// must come with it.
    pub fn delta(&self, since: &Cursor, wanted: impl Fn(PeerId) -> bool, budget: usize) -> Delta {
        let cuts = mutation::cuts_deltas();
        if R::SINGLE_WRITER {
            return self.delta_cut(since, wanted, if cuts { CUT_BYTES } else { budget });
        }
        let part = if cuts { CUT_BYTES } else { budget.max(self.part_bytes(since)) };
        self.delta_cut(since, |_| true, part)
    }

    /// How many bytes of entries a delta of all origins may hold: half a frame, or, for who lacks
    /// the base, what the counters of all entries leave of a frame.
    fn part_bytes(&self, since: &Cursor) -> usize {
        let counters = self.len() * COUNTER_BYTES + self.vector.dots.len() * (RUN_HEAD_BYTES + 16);
        let named = if self.is_below_base(&since.have) { counters } else { 0 };
        (FRAME_BYTES_MAX / 2).min(FRAME_BYTES_MAX.saturating_sub(named + HEAD_BYTES))
    }

    /// As [`Store::delta`], but cut and filtered whatever the keys are: what a receiver of a very
    /// large ring may see, and what its rules must survive. The base comes last, with all that its
    /// writer wrote since, what one must have to take it, and what is to be dropped then.
    pub fn delta_cut(
        &self,
        since: &Cursor,
        wanted: impl Fn(PeerId) -> bool,
        budget: usize,
    ) -> Delta {
        let mut lacking: Vec<_> = self.news(since, &wanted, None).collect();
        // Most often there is nothing, and then nothing is copied.
        let gone = self.gone.behind(&since.have).any(|(gone, _)| wanted(gone));
        if lacking.is_empty() && !gone {
            return Delta::default();
        }
        let base = self.base_dot().filter(|_| self.is_below_base(&since.have));
        lacking.sort_by_key(|(origin, _)| base.is_some_and(|dot| dot.actor == *origin));
        let mut delta = Delta { cursor: since.clone(), ..Delta::default() };
        let mut runs = Vec::new();
        let mut size = 0;
        for (origin, seen) in lacking {
            if mutation::on(Mutation::SkipOrigin) && origin != self.me && !runs.is_empty() {
                delta.cursor.have.dots.insert(origin, seen);
                continue;
            }
            if size >= budget && !runs.is_empty() {
                delta.more = true;
                break;
            }
            let whole_after = base.filter(|dot| dot.actor == origin).map(|dot| dot.counter);
            let cut = (budget - size, whole_after);
            let (run, bytes) = self.run((origin, seen), &mut delta.cursor, cut);
            size += bytes;
            delta.entries += run.entries.len();
            delta.more |= run.upto < seen;
            runs.push(run);
        }
        for (origin, upto) in self.gone.behind(&since.have).filter(|(gone, _)| wanted(*gone)) {
            runs.push(Run { origin, after: 0, upto, others: Others::Gone, entries: Vec::new() });
            delta.cursor.have.dots.insert(origin, upto);
        }
        if base.is_some_and(|dot| delta.cursor.have.get(&dot.actor) >= dot.counter) {
            self.complete(&mut runs);
        }
        if !runs.is_empty() {
            delta.bytes = codec::encode(&runs);
        }
        delta
    }

    /// Adds to the runs what else there is, of all origins: whoever lacks anything of it does not
    /// take them, and who has anything else drops it.
    fn complete(&self, runs: &mut Vec<Run<R::Key, R::Value>>) {
        for (origin, upto) in self.news(&Cursor::default(), |_| true, None) {
            let place = runs.iter().position(|run| run.origin == origin);
            let place = place.unwrap_or_else(|| {
                let (others, entries) = (Others::Unsaid, Vec::new());
                runs.push(Run { origin, after: upto, upto, others, entries });
                runs.len() - 1
            });
            let run = &mut runs[place];
            run.others = Others::gone_but(self.told(origin, 0, run.after).map(|entry| entry.0));
        }
    }

    /// The origins in the vector, or these of them, and up to where their entries are told.
    fn origins(&self, among: Option<&[PeerId]>) -> impl Iterator<Item = (PeerId, u64)> {
        let all = among.is_none().then_some(&self.vector.dots).into_iter().flatten();
        let these = among.into_iter().flatten();
        let these = these.filter_map(|origin| self.vector.dots.get_key_value(origin));
        all.chain(these)
            .map(|(&origin, &seen)| (origin, if origin == self.me { self.durable } else { seen }))
    }

    /// Those of them that a receiver at `since` lacks something of.
    fn news(
        &self,
        since: &Cursor,
        wanted: impl Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> impl Iterator<Item = (PeerId, u64)> {
        // All origins rise, as do those of the receiver: no need to look each up.
        let mut rising = since.have.dots.iter().peekable();
        let mut has = move |origin: &PeerId| {
            if among.is_some() {
                return since.have.get(origin);
            }
            while rising.next_if(|(other, _)| *other < origin).is_some() {}
            rising.peek().filter(|(other, _)| *other == origin).map_or(0, |(_, counter)| **counter)
        };
        self.origins(among)
            .filter(move |(origin, seen)| *seen > has(origin) && wanted(*origin))
            .filter(|(origin, seen)| *origin != self.me || !self.is_forgotten(*origin, *seen))
    }

    /// Per origin the interval that [`Store::delta`] would tell a receiver at `since`, where these
    /// intervals say all about that delta: whoever lacks the same can be sent the same bytes.
    /// `among`: of others than these, and of what is gone, it lacks nothing.
    pub fn lacking(
        &self,
        since: &Cursor,
        wanted: impl Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> Option<Intervals> {
        let cut = mutation::cuts_deltas() || mutation::on(Mutation::SkipOrigin);
        let drops = || self.gone.behind(&since.have).any(|(gone, _)| wanted(gone));
        let drops = among.is_none() && drops();
        if cut || drops || self.is_below_base(&since.have) {
            return None;
        }
        let interval = |(origin, upto)| {
            let after = since.have.get(&origin);
            let whole = self.floors.get(&origin).is_some_and(|floor| after < *floor);
            (!whole).then_some((origin, after, upto))
        };
        let told = |origin| !R::SINGLE_WRITER || wanted(origin);
        self.news(since, told, among).map(interval).collect()
    }

    /// Encodes the entries of what [`Store::lacking`] said; `None` when they are more than the
    /// budget, and [`Store::delta`] has to cut. Costs nothing for what the receiver has.
    pub fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>> {
        let mut left = budget;
        let mut runs = Vec::new();
        for &(origin, after, upto) in lacking {
            let (run, bytes) = self.run_after((origin, after, upto), (left, None));
            left = left.checked_sub(bytes).filter(|_| run.upto == upto)?;
            runs.push(run);
        }
        Some(codec::encode(&runs))
    }

    /// One origin's next run for a receiver, and its size; moves the receiver's cursor. It is cut
    /// where the budget ends, but not after the counter `whole_after`.
    fn run(
        &self,
        (origin, seen): (PeerId, u64),
        cursor: &mut Cursor,
        (budget, whole_after): (usize, Option<u64>),
    ) -> (Run<R::Key, R::Value>, usize) {
        let floor = self.floors.get(&origin).copied().unwrap_or(0);
        let mut after = cursor.have.get(&origin);
        let whole = after < floor;
        // A receiver behind the floor starts over: only then can it tell what was deleted.
        if whole && cursor.streamed.insert(origin, floor) != Some(floor) {
            after = 0;
        }
        let (mut run, size) = self.run_after((origin, after, seen), (budget, whole_after));
        if whole {
            run.others = Others::Gone;
        }
        cursor.have.dots.insert(origin, run.upto);
        (run, size)
    }

    /// The entries of an origin after a counter, up to another or as far as the budget goes.
    fn run_after(
        &self,
        (origin, after, upto): (PeerId, u64, u64),
        (budget, whole_after): (usize, Option<u64>),
    ) -> (Run<R::Key, R::Value>, usize) {
        let mut run = Run { origin, after, upto, others: Others::Unsaid, entries: Vec::new() };
        let mut size = RUN_HEAD_BYTES;
        for (counter, key, value) in self.told(origin, after, upto) {
            let may_cut = whole_after.is_none_or(|last| counter <= last);
            if size >= budget && !run.entries.is_empty() && may_cut {
                run.upto = run.entries.last().map_or(after, |entry| entry.0);
                break;
            }
            size += codec::encoded_len(&(counter, key, value));
            run.entries.push((counter, key.clone(), value.clone()));
        }
        (run, size)
    }

    /// An origin's entries in `(after, upto]` as others are told, in the order of counters: as they
    /// are on disk, so with what own writes have superseded that are not.
    pub(super) fn told(
        &self,
        origin: PeerId,
        after: u64,
        upto: u64,
    ) -> impl Iterator<Item = (u64, &R::Key, &R::Value)> {
        let keys = self.by_dot.get(&origin).into_iter();
        let mut live = keys
            .flat_map(move |keys| keys.range(after + 1..upto + 1))
            .map(|(counter, key)| (*counter, key, &self.entries[key].value))
            .peekable();
        let mut superseded = self
            .superseded
            .range((origin, after + 1)..(origin, upto + 1))
            .map(|((_, counter), (key, value))| (*counter, key, value))
            .peekable();
        std::iter::from_fn(move || match (live.peek(), superseded.peek()) {
            (Some(one), Some(other)) if other.0 < one.0 => superseded.next(),
            (Some(_), _) => live.next(),
            (None, _) => superseded.next(),
        })
    }
}
