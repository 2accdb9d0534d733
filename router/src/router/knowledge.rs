//! What others are known to know, and what may therefore be dropped here.

use super::Router;
use crate::{Kind, PeerId, Time, neighbour::Neighbour, replica::Source, store::Return};

impl Router {
    /// How far all linked peers have our own entries of a kind; `None` without links.
    pub fn seen_by_all(&self, kind: Kind) -> Option<u64> {
        let has = |neighbour: &Neighbour| neighbour.has_of(kind, self.me).unwrap_or(0);
        self.neighbours.values().map(has).min()
    }

    /// Whether all linked peers have what we have of another's rows in membership and zone; who has
    /// nothing of it counts, too, for it has dropped it.
    pub fn known_by_all(&self, origin: PeerId, zone: &dyn Source) -> bool {
        let have = [
            (Kind::Members, self.members.announced().get(&origin)),
            (Kind::Zone, zone.announced().get(&origin)),
        ];
        let knows = |neighbour: &Neighbour| {
            let knows = |(kind, counter)| {
                neighbour.has_of(kind, origin).is_some_and(|has| has == 0 || has >= counter)
            };
            have.into_iter().all(knows)
        };
        self.neighbours.values().all(knows)
    }

    /// Whether a linked peer has another's entries of a kind up to this counter.
    pub fn known_by_some(&self, kind: Kind, origin: PeerId, counter: u64) -> bool {
        let knows = |neighbour: &Neighbour| neighbour.has_of(kind, origin) >= Some(counter);
        self.neighbours.values().any(knows)
    }

    /// Drops what a peer said of itself. Others say whom they reach by whom they do not, so the
    /// paths are others without it; they are derived once for all who are forgotten in a burst.
    pub fn forget(&mut self, peer: PeerId, returns: Return, now: Time) {
        self.members.drop_origin(peer, returns);
        self.members_changed(true, now);
    }
}
