//! Deltas: how entries get from one store into another.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot};

use serde::{Deserialize, Serialize};

use super::{COUNTER_MAX, Change, Dot, Entry, Register, Store, VersionVector, beats};
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
    /// Counters out of order, out of the interval, or beyond [`COUNTER_MAX`].
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
    /// large ring may see, and what its rules must survive. The base comes last, with what one must
    /// have to take it, and what is to be dropped then.
    pub fn delta_cut(
        &self,
        since: &Cursor,
        wanted: impl Fn(PeerId) -> bool,
        budget: usize,
    ) -> Delta {
        let mut lacking: Vec<_> = self.news(since, &wanted, self.origins(None)).collect();
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
            let (run, bytes) = self.run(origin, seen, &mut delta.cursor, budget - size);
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
        for (origin, upto) in self.news(&Cursor::default(), |_| true, self.origins(None)) {
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
        origins: impl Iterator<Item = (PeerId, u64)>,
    ) -> impl Iterator<Item = (PeerId, u64)> {
        origins
            .filter(move |(origin, seen)| *seen > since.have.get(origin) && wanted(*origin))
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
        self.news(since, told, self.origins(among)).map(interval).collect()
    }

    /// One origin's next run for a receiver, and its size; moves the receiver's cursor.
    fn run(
        &self,
        origin: PeerId,
        seen: u64,
        cursor: &mut Cursor,
        budget: usize,
    ) -> (Run<R::Key, R::Value>, usize) {
        let floor = self.floors.get(&origin).copied().unwrap_or(0);
        let mut after = cursor.have.get(&origin);
        let whole = after < floor;
        // A receiver behind the floor starts over: only then can it tell what was deleted.
        if whole && cursor.streamed.insert(origin, floor) != Some(floor) {
            after = 0;
        }
        let others = if whole { Others::Gone } else { Others::Unsaid };
        let mut run = Run { origin, after, upto: seen, others, entries: Vec::new() };
        let mut size = RUN_HEAD_BYTES;
        for (counter, key, value) in self.told(origin, after, seen) {
            if size >= budget && !run.entries.is_empty() {
                run.upto = run.entries.last().map_or(after, |entry| entry.0);
                break;
            }
            size += codec::encoded_len(&(counter, key, value));
            run.entries.push((counter, key.clone(), value.clone()));
        }
        cursor.have.dots.insert(origin, run.upto);
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

    /// Takes an encoded delta. A run that starts after what this replica has is left out (the
    /// sender's picture of us was too good; vectors are then exchanged again), as is one that would
    /// pass a bound, and with it, where keys have several writers, the whole delta. Returns whether
    /// everything was taken.
    ///
    /// # Errors
    /// When the bytes are no delta or hold an entry that cannot be; nothing is taken then.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        let runs: Vec<Run<R::Key, R::Value>> =
            codec::decode(bytes).map_err(|error| RunError::Codec(error.to_string()))?;
        for run in &runs {
            check_run::<R>(run)?;
        }
        let barred =
            |run: &Run<_, _>| self.bars.contains(&run.origin) && run.upto > self.seen(run.origin);
        if runs.iter().any(barred) {
            return Ok(false);
        }
        let out = |run: &Run<_, _>| self.is_gap(run) || self.is_full(run);
        if !R::SINGLE_WRITER && runs.iter().any(out) {
            return Ok(false);
        }
        let mut all = true;
        if !R::SINGLE_WRITER && runs.iter().any(|run| run.others != Others::Unsaid) {
            all = self.join(runs);
        } else {
            for run in runs {
                all &= !self.is_full(&run) && self.apply_run(run);
            }
        }
        self.settle_base();
        self.check_invariants();
        Ok(all)
    }

    /// Whether a run begins after what is here.
    fn is_gap(&self, run: &Run<R::Key, R::Value>) -> bool {
        run.after > self.seen(run.origin) && !mutation::on(Mutation::ApplyGap)
    }

    /// Whether taking a run would pass a bound.
    fn is_full(&self, run: &Run<R::Key, R::Value>) -> bool {
        let origins = &self.vector.dots;
        let held = self.by_dot.get(&run.origin).map_or(0, BTreeMap::len);
        (origins.len() >= ORIGINS_MAX && !origins.contains_key(&run.origin))
            || held + run.entries.len() > ENTRIES_PER_ORIGIN_MAX
    }

    fn apply_run(&mut self, run: Run<R::Key, R::Value>) -> bool {
        let have = self.seen(run.origin);
        // Nobody else can know a write of ours that we do not know: an old image was restored, or
        // the peer lies. Either way our own store is the truth here.
        if run.origin == self.me && !self.recalling {
            return true;
        }
        if self.gone.covers(run.origin, run.upto) {
            return true;
        }
        if self.is_gap(&run) {
            return false;
        }
        if run.others == Others::Gone {
            self.drop_absent(&run);
            self.raise_floor(run.origin, run.upto);
        }
        let (origin, upto) = (run.origin, run.upto);
        let news = run.entries.into_iter().filter(|entry| entry.0 > have);
        if origin == self.me {
            for (counter, key, value) in news {
                let dot = Dot::new(origin, counter);
                self.insert_if_newer(key, Entry { dot, value });
            }
        } else {
            self.insert_run(origin, news);
        }
        self.cover(origin, upto);
        self.tell_recalled(origin, upto);
        true
    }

    /// Inserts what is newer of another's entries.
    fn insert_run(&mut self, origin: PeerId, news: impl Iterator<Item = (u64, R::Key, R::Value)>) {
        let mut keys = self.by_dot.remove(&origin).unwrap_or_default();
        let mut old_dots = Vec::new();
        for (counter, key, value) in news {
            let entry = Entry { dot: Dot::new(origin, counter), value };
            let key = match self.entries.entry(key) {
                Slot::Vacant(slot) => {
                    let key = slot.key().clone();
                    slot.insert(entry);
                    key
                }
                Slot::Occupied(slot) if !beats::<R>(&entry, slot.get()) => continue,
                Slot::Occupied(mut slot) => {
                    old_dots.push(slot.insert(entry).dot);
                    slot.key().clone()
                }
            };
            keys.insert(counter, key.clone());
            self.changes.push(Change { key, origin });
        }
        if !keys.is_empty() {
            self.by_dot.insert(origin, keys);
        }
        for dot in old_dots {
            self.forget_dot(dot.actor, dot.counter);
        }
    }

    /// Drops the origin's entries in the interval that the run no longer has.
    fn drop_absent(&mut self, run: &Run<R::Key, R::Value>) {
        let kept: BTreeSet<u64> = run.entries.iter().map(|entry| entry.0).collect();
        let gone: Vec<u64> = self
            .by_dot
            .get(&run.origin)
            .into_iter()
            .flat_map(|keys| keys.range(run.after + 1..=run.upto))
            .map(|(counter, _)| *counter)
            .filter(|counter| !kept.contains(counter))
            .collect();
        for counter in gone {
            self.remove_dot(run.origin, counter);
        }
    }
}

fn check_run<R: Register>(run: &Run<R::Key, R::Value>) -> Result<(), RunError> {
    let origin = run.origin;
    // An interval that is turned round has no meaning; one of nothing says what must be there.
    let nothing = run.after == run.upto && matches!(run.others, Others::GoneBut(_));
    let others = match &run.others {
        Others::Unsaid => true,
        Others::Gone => R::SINGLE_WRITER,
        others @ Others::GoneBut(_) => {
            !R::SINGLE_WRITER && others.named().all(|counter| counter <= run.after)
        }
    };
    if (run.after >= run.upto && !nothing) || run.upto > COUNTER_MAX || !others {
        return Err(RunError::Counters { origin });
    }
    let mut last = run.after;
    for (counter, key, value) in &run.entries {
        if *counter <= last {
            return Err(RunError::Counters { origin });
        }
        last = *counter;
        R::validate(origin, key, value).map_err(|reason| RunError::Refused { origin, reason })?;
    }
    if last > run.upto {
        return Err(RunError::Counters { origin });
    }
    Ok(())
}
