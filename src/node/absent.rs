//! Members that cannot be reached: since when, and when their names are to be hidden.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_router::{PeerId, Time};

/// A peer that was not reached for this long has its names hidden. Chosen: longer than its daemon
/// takes to start again.
const HIDE_AFTER: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Absent {
    peers: BTreeMap<PeerId, Away>,
    /// The earliest time at which somebody's names are to be hidden, kept because each input asks.
    hide_at: Option<Time>,
}

/// A peer that cannot be reached.
#[derive(Debug)]
struct Away {
    since: Time,
    hidden: bool,
}

impl Absent {
    /// These cannot be reached now, and nobody else. Returns whose names are to be hidden.
    pub(super) fn review(&mut self, gone: &BTreeSet<PeerId>, now: Time) -> Vec<PeerId> {
        self.peers.retain(|peer, _| gone.contains(peer));
        let mut hide = Vec::new();
        for peer in gone {
            let away = self.peers.entry(*peer).or_insert(Away { since: now, hidden: false });
            if !away.hidden && now.since(away.since) >= HIDE_AFTER {
                away.hidden = true;
                hide.push(*peer);
            }
        }
        self.look();
        hide
    }

    /// Nothing of it is kept.
    pub(super) fn forget(&mut self, peer: PeerId) {
        if self.peers.remove(&peer).is_some() {
            self.look();
        }
    }

    fn look(&mut self) {
        let shown = self.peers.values().filter(|away| !away.hidden);
        self.hide_at = shown.map(|away| away.since + HIDE_AFTER).min();
    }

    /// When somebody's names are to be hidden.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.hide_at
    }

    /// Since when a peer cannot be reached, if it cannot.
    pub(super) fn since(&self, peer: PeerId) -> Option<Time> {
        self.peers.get(&peer).map(|away| away.since)
    }

    /// Who was not reached for at least so long.
    pub(super) fn longer_than(&self, span: Duration, now: Time) -> BTreeSet<PeerId> {
        let long = self.peers.iter().filter(|(_, away)| now.since(away.since) >= span);
        long.map(|(peer, _)| *peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_once_and_in_time() {
        let (one, two) = (PeerId::new([1; 16]), PeerId::new([2; 16]));
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let mut absent = Absent::default();
        assert_eq!(absent.review(&BTreeSet::from([one]), at(1000)), []);
        assert_eq!(absent.review(&BTreeSet::from([one, two]), at(2000)), []);
        assert_eq!(absent.poll_timeout(), Some(at(3000)));
        assert_eq!(absent.review(&BTreeSet::from([one, two]), at(3000)), [one]);
        assert_eq!(absent.poll_timeout(), Some(at(4000)));
        assert_eq!(absent.longer_than(Duration::from_secs(2), at(3000)), BTreeSet::from([one]));
        absent.forget(two);
        assert_eq!(absent.poll_timeout(), None);
        assert_eq!(absent.review(&BTreeSet::from([one]), at(9000)), [], "it is hidden");
        assert_eq!(absent.review(&BTreeSet::new(), at(9000)), []);
        assert_eq!(absent.since(one), None, "it was reached");
    }
}
