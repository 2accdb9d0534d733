//! The ring as replication sees it: its deltas say how far their sender is with the mesh's decrees.

use std::collections::BTreeSet;

use mesh_router::{
    Mutation, PeerId, Replica, codec, mutation,
    replica::{Intervals, Source},
    store::{Cursor, Delta, RunError},
};
use serde::{Deserialize, Serialize};

use crate::{Epoch, Ipam};

/// What comes before the runs of a delta.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The newest decree that the sender knows. Whoever knows of a later removal does not listen:
    /// what is said here may be of a host that has lost its blocks.
    pub(crate) epoch: Epoch,
    /// Whose news the sender takes only from those who bar them, too.
    pub(crate) barring: BTreeSet<PeerId>,
}

impl Replica for Ipam {
    fn source(&self) -> &dyn Source {
        self.store()
    }

    fn delta(&self, since: &Cursor, wanted: &dyn Fn(PeerId) -> bool, budget: usize) -> Delta {
        let mut delta = self.store().delta(since, wanted, budget);
        if !delta.bytes.is_empty() {
            delta.bytes = self.with_head(&delta.bytes);
        }
        delta
    }

    fn delta_of(&self, lacking: &Intervals, budget: usize) -> Option<Vec<u8>> {
        Some(self.with_head(&self.store().delta_of(lacking, budget)?))
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<bool, RunError> {
        let undecodable = || RunError::Codec("a ring delta without a head".to_owned());
        let (length, rest) = bytes.split_first_chunk().ok_or_else(undecodable)?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (head, runs) = rest.split_at_checked(length).ok_or_else(undecodable)?;
        let head: Head = codec::decode(head).map_err(|error| RunError::Codec(error.to_string()))?;
        let heeds = !mutation::on(Mutation::ForgetFence);
        if heeds && head.epoch.removed() < self.newest_removal() {
            return Ok(false);
        }
        let ours = self.epoch().founding;
        if ours != 0 && head.epoch.founding != 0 && ours != head.epoch.founding {
            return Ok(false);
        }
        let merges = mutation::on(Mutation::MergeBranches);
        if !merges && !head.epoch.continues(&self.position()) {
            self.fork(&head.epoch);
            return Ok(false);
        }
        self.absorb_from(runs, &head)
    }
}

impl Ipam {
    /// A delta as others take it.
    fn with_head(&self, runs: &[u8]) -> Vec<u8> {
        let epoch = self.position();
        let head = Head { epoch, barring: self.barred(epoch.decided()) };
        let head = codec::encode(&head);
        let length = u16::try_from(head.len()).expect("few are being removed at once");
        [&length.to_le_bytes()[..], &head, runs].concat()
    }
}
