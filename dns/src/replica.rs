//! The zone as replication sees it.

use mesh_router::{
    PeerId, Replica,
    replica::Intervals,
    store::{Cursor, Delta, RunError, VersionVector},
};

use crate::Zone;

impl Replica for Zone {
    fn announced(&self) -> VersionVector {
        self.store().announced()
    }

    fn revision(&self) -> u64 {
        self.store().revision()
    }

    fn written(&self) -> u64 {
        self.store().own_counter()
    }

    fn lacking(
        &self,
        since: &Cursor,
        wanted: &dyn Fn(PeerId) -> bool,
        among: Option<&[PeerId]>,
    ) -> Option<Intervals> {
        self.store().lacking(since, wanted, among)
    }

    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta {
        self.store().delta(since, wanted, budget)
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        self.absorb(bytes)
    }
}
