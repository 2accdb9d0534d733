//! What this host has promised and accepted: on disk before anybody is told.

use std::collections::{BTreeMap, BTreeSet};

use mesh_router::PeerId;
use serde::{Deserialize, Serialize};

use super::{decree::Decree, message::Ballot};

/// The acceptor of one instance of Paxos, the newest that this host took part in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// The number of the decree that this is about.
    pub(super) epoch: u64,
    /// The greatest ballot that was promised.
    pub(super) promised: Option<Ballot>,
    /// What was accepted last.
    pub(super) accepted: Option<(Ballot, Decree)>,
    /// Who is barred, and in which ballot that was promised last.
    pub(super) bars: BTreeMap<PeerId, Ballot>,
    /// Promises were lost with a disk.
    pub(super) abstain: bool,
    /// A removal that is known of, also while the ring is told anew.
    pub(super) fence: u64,
}

impl Acceptor {
    /// Begins anew for a later decree.
    pub(super) fn advance(&mut self, epoch: u64) {
        if self.epoch < epoch {
            // One that may have promised something for this very decree abstains until it is made.
            let abstain = self.abstain && self.epoch == 0;
            *self = Self { epoch, abstain, fence: self.fence, ..Self::default() };
        }
    }

    /// Whether it listens to nothing smaller than this ballot about this decree.
    pub fn has_promised(&self, epoch: u64, ballot: Ballot) -> bool {
        self.epoch > epoch || (self.epoch == epoch && self.promised >= Some(ballot))
    }

    /// Whether it has accepted something in this ballot about this decree, or in a greater one.
    pub fn has_accepted(&self, epoch: u64, ballot: Ballot) -> bool {
        let accepted = self.accepted.as_ref().map(|(ballot, _)| *ballot);
        self.epoch > epoch || (self.epoch == epoch && accepted >= Some(ballot))
    }

    /// Who is barred, if the mesh has decided as many decrees as this.
    pub(super) fn barred(&self, decided: u64) -> BTreeSet<PeerId> {
        let open = self.epoch > decided;
        self.bars.keys().filter(|_| open).copied().collect()
    }
}
