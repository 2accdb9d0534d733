//! What this host has promised and accepted: on disk before anybody is told.

use std::collections::{BTreeMap, BTreeSet};

use mesh_router::PeerId;
use serde::{Deserialize, Serialize};

use super::{
    branch::{Fork, Point},
    decree::Decree,
    message::Ballot,
};

/// What somebody has to heed whom an elector has not known so far: a removal may be on its way that
/// does not wait for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bars {
    /// The newest decree that the elector knows.
    pub(super) decided: Point,
    /// The decree that the bars are about.
    pub(super) about: Point,
    /// Whom it bars.
    pub(super) peers: BTreeSet<PeerId>,
    /// It may have forgotten promises, and with them other bars.
    pub abstains: bool,
}

/// The acceptor of one instance of Paxos, the newest that this host took part in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// The branch and the number of the decree that this is about.
    pub(super) branch: Fork,
    pub(super) epoch: u64,
    /// The greatest ballot that was promised.
    pub(super) promised: Option<Ballot>,
    /// What was accepted last.
    pub(super) accepted: Option<(Ballot, Decree)>,
    /// Who is barred, and in which ballots that was promised: as long as one of them may lead to a
    /// decree.
    pub(super) bars: BTreeMap<PeerId, BTreeSet<Ballot>>,
    /// Who else is barred: the electors said so when they came to know this host, which they did
    /// not know when they promised.
    pub(super) heeded: BTreeSet<PeerId>,
    /// Promises were lost with a disk.
    pub(super) abstain: bool,
    /// A removal that is known of, also while the ring is told anew.
    pub(super) removal: Point,
}

impl Acceptor {
    /// Begins anew for a later decree.
    pub(super) fn advance(&mut self, (branch, epoch): Point) {
        if self.about() < (branch, epoch) {
            let Self { abstain, removal, .. } = *self;
            *self = Self { branch, epoch, abstain, removal, ..Self::default() };
        }
    }

    /// The decree that this is about.
    pub(super) fn about(&self) -> Point {
        (self.branch, self.epoch)
    }

    /// Whether it listens to nothing smaller than this ballot about this decree.
    pub fn has_promised(&self, about: Point, ballot: Ballot) -> bool {
        self.about() > about || (self.about() == about && self.promised >= Some(ballot))
    }

    /// Whether it has accepted something in this ballot about this decree, or in a greater one.
    pub fn has_accepted(&self, about: Point, ballot: Ballot) -> bool {
        let accepted = self.accepted.as_ref().map(|(ballot, _)| *ballot);
        self.about() > about || (self.about() == about && accepted >= Some(ballot))
    }

    /// Who is barred, if the mesh has decided as many decrees as this.
    pub(super) fn barred(&self, decided: Point) -> BTreeSet<PeerId> {
        let open = self.about() > decided;
        self.bars.keys().chain(&self.heeded).filter(|_| open).copied().collect()
    }

    /// Who of these is barred by a promise, with which this host has said what it had heard.
    pub(super) fn promised_bars(&self, decided: Point) -> BTreeSet<PeerId> {
        let open = self.about() > decided;
        self.bars.keys().filter(|_| open).copied().collect()
    }
}
