//! Whether this host may write yet, and whether it has been told all that happened.

use super::Router;
use crate::{PeerId, Time, frame::Word, told::Told};

impl Router {
    /// Whether this host may write.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// This host knows all that it ever wrote: its state was on disk, or it founded the mesh, or a
    /// peer has told it everything.
    pub fn settle(&mut self, now: Time) {
        self.settled = true;
        self.look_again();
        self.reach_at = Some(now);
        self.due_by(now);
    }

    /// Tells others all that it knows, also before it is settled: else hosts that were all
    /// restarted at once would wait for each other. It is settled then when the caller says so.
    pub fn tell_though_unsettled(&mut self) {
        self.tells = true;
    }

    /// Whether it may say that it has told all.
    pub(super) fn tells_all(&self) -> bool {
        self.settled || self.tells
    }

    /// Asks the first peer that is linked for everything, though this host may write meanwhile.
    pub fn ask_for_all(&mut self) {
        self.synced = None;
        self.asks = true;
    }

    /// What was asked for has been told, or nobody told it in time.
    pub fn stop_asking(&mut self) {
        self.asks = false;
    }

    /// Whether a peer has told everything since [`Router::ask_for_all`], and what its word is
    /// worth.
    pub fn told_word(&self) -> Option<Word> {
        self.synced
    }

    /// What this host's own word is worth.
    pub(super) fn word(&self) -> Word {
        match (self.hearsay, self.settled && !self.asks) {
            (true, _) => Word::Hearsay,
            (false, true) => Word::Settled,
            (false, false) => Word::Disk,
        }
    }

    /// Whether whoever told this host all may have an old disk itself.
    pub fn is_hearsay(&self) -> bool {
        self.hearsay
    }

    /// The peers that have told all that they know.
    pub fn told_by(&self) -> impl Iterator<Item = PeerId> {
        self.told_by.iter().filter_map(|link| self.neighbours.get(link)).map(|of| of.up.peer)
    }

    /// What the peers told is not all: goes on being told.
    pub fn unsettle(&mut self) {
        self.settled = false;
        self.asks = false;
        self.pulling = None;
        self.passed_over.clear();
        self.told_by.clear();
        self.tells = false;
        self.reach_at = None;
        // A replica may have been thrown away: its revisions begin anew.
        self.told = Told::default();
    }
}
