//! Origins that will not come back: in a store whose keys have one writer, all of them goes.

use std::collections::{BTreeMap, VecDeque};

use super::{Register, Store, VersionVector};
use crate::PeerId;

/// Dropped origins that are remembered, so that nobody who lags brings them back. Chosen: as many
/// as there may be.
pub const GONE_MAX: usize = super::ORIGINS_MAX;

/// Dropped origins with the counter up to which they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone {
    counters: BTreeMap<PeerId, u64>,
    /// The oldest first.
    order: VecDeque<PeerId>,
}

impl Gone {
    fn insert(&mut self, origin: PeerId, counter: u64) {
        if self.counters.insert(origin, counter).is_none() {
            self.order.push_back(origin);
        }
        if self.order.len() > GONE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.counters.remove(&oldest);
        }
    }

    /// Whether everything of an origin up to a counter was dropped. If there is more of it, it has
    /// come back, and is not gone any more.
    pub(super) fn covers(&mut self, origin: PeerId, upto: u64) -> bool {
        match self.counters.get(&origin) {
            Some(counter) if upto <= *counter => true,
            Some(_) => {
                self.counters.remove(&origin);
                self.order.retain(|other| *other != origin);
                false
            }
            None => false,
        }
    }
}

impl Gone {
    /// What of it somebody has, but not the end: it must be told that there is nothing any more.
    pub(super) fn behind(&self, have: &VersionVector) -> impl Iterator<Item = (PeerId, u64)> {
        let known = |origin: &PeerId| have.get(origin) > 0;
        self.counters
            .iter()
            .filter(move |(origin, counter)| known(origin) && have.get(origin) < **counter)
            .map(|(origin, counter)| (*origin, *counter))
    }
}

/// Whether an origin that is dropped may write again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// It has said that it leaves. What others still tell of it is left out; should it have written
    /// on after all, it is taken in again.
    Never,
    /// It was removed, and may be back sooner than is known here: whatever is told of it is taken
    /// in again.
    Perhaps,
}

impl<R: Register> Store<R> {
    /// Drops all of an origin.
    ///
    /// # Panics
    /// For one's own origin, and when the register's keys have several writers: those who lag could
    /// then bring back what it had superseded.
    pub fn drop_origin(&mut self, origin: PeerId, returns: Return) {
        assert!(R::SINGLE_WRITER, "an origin whose keys others write, too, cannot be dropped");
        assert!(origin != self.me, "a host does not drop itself");
        let Some(counter) = self.vector.dots.remove(&origin) else { return };
        let counters: Vec<u64> =
            self.by_dot.get(&origin).map(|keys| keys.keys().copied().collect()).unwrap_or_default();
        for counter in counters {
            self.remove_dot(origin, counter);
        }
        self.floors.remove(&origin);
        self.touched.insert(origin);
        if returns == Return::Never {
            self.gone.insert(origin, counter);
        }
        self.moves(origin);
    }
}
