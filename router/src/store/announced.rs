//! What a replica may tell others that it has, and what of that has changed.

use super::{Register, Store, VersionVector};
use crate::PeerId;

/// Revisions of which is known what they changed. Chosen: more than a store makes between two
/// looks.
const MOVED_MAX: usize = 1024;

impl<R: Register> Store<R> {
    /// What this replica may tell others it has: its own undurable writes are left out.
    pub fn announced(&self) -> VersionVector {
        let mut vector = self.vector.clone();
        match self.announced_of(self.me) {
            0 => vector.dots.remove(&self.me),
            counter => vector.dots.insert(self.me, counter),
        };
        vector
    }

    /// The element of one origin in [`Store::announced`]; 0 when it has none.
    pub fn announced_of(&self, origin: PeerId) -> u64 {
        let seen = self.vector.get(&origin);
        if origin != self.me {
            return seen;
        }
        if self.is_forgotten(origin, self.durable) { 0 } else { self.durable.min(seen) }
    }

    /// The origins whose element of [`Store::announced`] may have changed since a revision, and
    /// maybe this host's own; `None` where that is not known any more.
    pub fn moved_since(&self, revision: u64) -> Option<impl Iterator<Item = PeerId>> {
        let count = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let known = self.moved.len().checked_sub(count)?;
        Some(self.moved.range(known..).copied())
    }

    /// What may be told of an origin has changed.
    pub(super) fn moves(&mut self, origin: PeerId) {
        self.revision += 1;
        self.moved.push_back(origin);
        if self.moved.len() > MOVED_MAX {
            self.moved.pop_front();
        }
    }

    /// What may be told has changed altogether.
    pub(super) fn moves_all(&mut self) {
        self.revision += 1;
        self.moved.clear();
    }

    /// Changes whenever [`Store::announced`] or a delta may have.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
