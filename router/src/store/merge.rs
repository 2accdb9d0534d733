//! Taking a delta in: what is newer is inserted, and what it says is gone is dropped.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot};

use super::{
    COUNTER_MAX, Change, Dot, Entry, Register, Store, beats,
    delta::{ENTRIES_PER_ORIGIN_MAX, ORIGINS_MAX, Others, Run, RunError},
};
use crate::{
    codec,
    mutation::{self, Mutation},
};

/// An entry with what it is filed under.
type Keyed<R> = (<R as Register>::Key, Entry<<R as Register>::Value>);

impl<R: Register> Store<R> {
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
            let mut news = Vec::new();
            for run in runs {
                all &= !self.is_full(&run) && self.apply_run(run, &mut news);
            }
            self.insert_news(news);
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

    /// Takes a run; what is new of others' entries is left to the caller to insert, if it wants to.
    fn apply_run(&mut self, run: Run<R::Key, R::Value>, news: &mut Vec<Keyed<R>>) -> bool {
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
            self.insert_news(std::mem::take(news));
            self.drop_absent(&run);
            self.raise_floor(run.origin, run.upto);
        }
        let (origin, upto) = (run.origin, run.upto);
        let count = run.entries.len();
        let entries = run.entries.into_iter().filter(|entry| entry.0 > have);
        let entries = entries
            .map(|(counter, key, value)| (key, Entry { dot: Dot::new(origin, counter), value }));
        if origin == self.me {
            entries.for_each(|(key, entry)| self.insert_if_newer(key, entry));
        } else {
            news.reserve(count);
            news.extend(entries);
        }
        self.cover(origin, upto);
        self.tell_recalled(origin, upto);
        true
    }

    /// Inserts what is newer of others' entries: one by one, or, if they are more than what is
    /// here, by sorting all of them anew.
    fn insert_news(&mut self, news: Vec<Keyed<R>>) {
        for of_one in news.chunk_by(|one, next| one.1.dot.actor == next.1.dot.actor) {
            let new = of_one.iter().map(|(key, entry)| (entry.dot.counter, key.clone()));
            let keys = self.by_dot.entry(of_one[0].1.dot.actor).or_default();
            if keys.is_empty() { *keys = new.collect() } else { keys.extend(new) }
        }
        let change = |(key, entry): &Keyed<R>| Change { key: key.clone(), origin: entry.dot.actor };
        self.changes.extend(news.iter().map(change));
        let lost = if news.len() > self.entries.len() {
            self.sort_in(news)
        } else {
            news.into_iter().filter_map(|(key, entry)| self.put(key, entry)).collect()
        };
        for dot in lost {
            self.forget_dot(dot.actor, dot.counter);
        }
    }

    /// Inserts an entry if it is newer; returns the dot of the one that is not in the store then.
    fn put(&mut self, key: R::Key, entry: Entry<R::Value>) -> Option<Dot> {
        match self.entries.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
                None
            }
            Slot::Occupied(mut slot) if beats::<R>(&entry, slot.get()) => {
                Some(slot.insert(entry).dot)
            }
            Slot::Occupied(_) => Some(entry.dot),
        }
    }

    /// The same for many entries at once, which may be of the same keys.
    fn sort_in(&mut self, mut news: Vec<Keyed<R>>) -> Vec<Dot> {
        let mut lost = Vec::new();
        news.sort_by_cached_key(|(key, _)| R::prefix(key));
        news.extend(std::mem::take(&mut self.entries));
        if !news.is_sorted_by(|one, next| one.0 < next.0) {
            news.sort_by(|one, other| one.0.cmp(&other.0));
            news.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same && beats::<R>(&next.1, &kept.1) {
                    std::mem::swap(next, kept);
                }
                lost.extend(same.then_some(next.1.dot));
                same
            });
        }
        self.entries = news.into_iter().collect();
        lost
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
