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

/// A replicated store as replication sees it. See [`Store`] for what the methods mean.
pub trait Replica {
    /// What may be told to others.
    fn announced(&self) -> VersionVector;
    /// Changes whenever `announced` or a delta may have.
    fn revision(&self) -> u64;
    /// The counter of the newest own write, announced or not.
    fn written(&self) -> u64;
    /// What a receiver lacks, in short: see [`Store::lacking`].
    fn lacking(
        &self,
        since: &Cursor,
        wanted: &dyn Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> Option<Intervals>;
    /// What a receiver lacks.
    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta;
    /// Takes a delta; says whether all of it could be taken.
    ///
    /// # Errors
    /// When it is no delta or holds what cannot be; nothing is taken then.
    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError>;
}

impl<R: Register> Replica for Store<R> {
    fn announced(&self) -> VersionVector {
        Self::announced(self)
    }

    fn revision(&self) -> u64 {
        Self::revision(self)
    }

    fn written(&self) -> u64 {
        self.own_counter()
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

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        Self::apply(self, bytes)
    }
}
