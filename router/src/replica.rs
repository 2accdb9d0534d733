//! What replication needs of a replicated store, whatever it holds.

use crate::{
    PeerId, Register, Store,
    store::{Cursor, Delta, RunError, VersionVector},
};

/// The kinds of replicated data, most urgent first: a narrow link carries them in this order.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub enum Kind {
    /// Who is there, and who reaches whom.
    Members,
    /// Who owns which addresses.
    Ring,
    /// Which names exist.
    Zone,
}

impl Kind {
    /// All kinds, most urgent first.
    pub const ALL: [Self; 3] = [Self::Members, Self::Ring, Self::Zone];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// Origins, each with the counter after which, and up to which, entries are meant.
pub type Intervals = Vec<(PeerId, u64, u64)>;

/// What a store may tell others, whatever it holds. See [`Store`] for what the methods mean.
pub trait Source {
    /// What may be told to others.
    fn announced(&self) -> VersionVector;
    /// One origin's element of it, 0 for none.
    fn announced_of(&self, origin: PeerId) -> u64;
    /// The origins whose element may have changed since a revision, if that is known.
    fn moved_since(&self, revision: u64) -> Option<Vec<PeerId>>;
    /// Changes whenever `announced` or a delta may have.
    fn revision(&self) -> u64;
    /// The counter of the newest own write that may be told.
    fn durable_counter(&self) -> u64;
    /// The counter of the newest own write, told or not.
    fn own_counter(&self) -> u64;
    /// What a receiver lacks, in short.
    fn lacking(
        &self,
        since: &Cursor,
        wanted: &dyn Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> Option<Intervals>;
    /// What a receiver lacks.
    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta;
    /// The same of what [`Source::lacking`] said, unless it is more than the budget.
    fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>>;
}

/// One kind of replicated data as replication sees it.
pub trait Replica {
    /// The store behind it.
    fn source(&self) -> &dyn Source;
    /// What a receiver lacks, as [`Replica::apply`] takes it.
    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta {
        self.source().delta(since, wanted, budget)
    }
    /// The same of what [`Source::lacking`] said, unless it is more than the budget.
    fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>> {
        self.source().delta_of(lacking, budget)
    }
    /// Takes a delta; says whether all of it could be taken.
    ///
    /// # Errors
    /// When it is no delta or holds what cannot be; nothing is taken then.
    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError>;
}

impl<R: Register> Source for Store<R> {
    fn announced(&self) -> VersionVector {
        Self::announced(self)
    }

    fn announced_of(&self, origin: PeerId) -> u64 {
        Self::announced_of(self, origin)
    }

    fn moved_since(&self, revision: u64) -> Option<Vec<PeerId>> {
        Self::moved_since(self, revision).map(Iterator::collect)
    }

    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn durable_counter(&self) -> u64 {
        Self::durable_counter(self)
    }

    fn own_counter(&self) -> u64 {
        Self::own_counter(self)
    }

    fn lacking(
        &self,
        since: &Cursor,
        wanted: &dyn Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> Option<Intervals> {
        Self::lacking(self, since, wanted, among)
    }

    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta {
        Self::delta(self, since, wanted, budget)
    }

    fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>> {
        Self::delta_of(self, lacking, budget)
    }
}

impl<R: Register> Replica for Store<R> {
    fn source(&self) -> &dyn Source {
        self
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        Self::apply(self, bytes)
    }
}
