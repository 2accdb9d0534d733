//! The zone as replication sees it.

use mesh_router::{Replica, replica::Source, store::RunError};

use crate::Zone;

impl Replica for Zone {
    fn source(&self) -> &dyn Source {
        self.store()
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        self.absorb(bytes)
    }
}
