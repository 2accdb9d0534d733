//! What follows from links, one's own and others': what is said of them, paths, and who is lost.

use std::{collections::BTreeSet, time::Duration};

use super::{RELAY_AFTER, Router, relay::TREE_ABOVE};
use crate::{
    PeerId, Time,
    link::LinkUp,
    member::{self, MemberKey, MemberValue, Reach},
    topology::Graph,
};

/// Own link changes are published this much later, so that a burst of them is one write.
const REACH_DELAY: Duration = Duration::from_millis(100);
/// For each member what follows from others' links is derived this much more rarely: it costs more
/// the more there are, and they change the more often. Chosen: twenty hosts a burst of 40 ms.
const PATHS_DELAY: Duration = Duration::from_millis(2);
/// But never more rarely than this; and own link changes are not published later.
const BURST_MAX: Duration = Duration::from_secs(1);

impl Router {
    pub(super) fn publish_reach(&mut self) {
        if !self.settled {
            return;
        }
        let linked: BTreeSet<PeerId> = self.by_peer.keys().copied().collect();
        let others = member::present(&self.members).map(|(peer, _)| peer);
        let reach = Reach::of(&linked, others.filter(|peer| *peer != self.me));
        if member::reach(&self.members, self.me) != Some(&reach) {
            self.members.write(MemberKey::Reach(self.me), MemberValue::Reach(reach));
        }
    }

    /// The linked peers that have said what they know.
    pub fn greeted(&self) -> impl Iterator<Item = PeerId> {
        let greeted = self.neighbours.values().filter(|neighbour| neighbour.is_greeted());
        greeted.map(|neighbour| neighbour.up.peer)
    }

    /// The link to a peer.
    pub fn link_to(&self, peer: PeerId) -> Option<&LinkUp> {
        self.by_peer.get(&peer).map(|link| &self.neighbours[link].up)
    }

    /// When something last came over the link to a peer.
    pub fn heard_from(&self, peer: PeerId) -> Option<Time> {
        self.by_peer.get(&peer).map(|link| self.neighbours[link].heard)
    }

    pub(super) fn links_changed(&mut self, now: Time) {
        self.members_changed(true, now);
        self.derive_paths(now);
    }

    /// Members describe themselves or their links otherwise.
    pub(super) fn members_changed(&mut self, described: bool, now: Time) {
        self.described |= described;
        let pause = self.pause(PATHS_DELAY, BURST_MAX);
        let reach_at = *self.reach_at.get_or_insert(now + pause.max(REACH_DELAY));
        let paths_at = self.paths_of + pause;
        let paths_at = *self.paths_at.get_or_insert(paths_at);
        self.due_by(reach_at.min(paths_at));
    }

    /// How long changes are collected of which there are the more the more hosts there are.
    pub fn pause(&self, for_each: Duration, most: Duration) -> Duration {
        let members = u32::try_from(self.members.len() / 2).unwrap_or(u32::MAX);
        for_each.saturating_mul(members).min(most)
    }

    /// Who is reached through whom, and who is not.
    pub(super) fn derive_paths(&mut self, now: Time) {
        (self.paths_of, self.paths_at) = (now, None);
        self.dial_review = true;
        let links = self.by_peer.keys().copied().collect();
        let graph = Graph::new(&self.members, self.me, &links);
        let paths = graph.paths();
        let tree = (self.members.len() / 2 > TREE_ABOVE).then(|| graph.tree());
        let mut changed = std::mem::take(&mut self.described) || paths != self.paths;
        self.paths = paths;
        self.mark_tree(tree.as_ref());
        // Whoever is known but was never linked counts as lost from the moment that it is known.
        let others = member::present(&self.members).map(|(peer, _)| peer);
        let unlinked = others.filter(|peer| *peer != self.me && !links.contains(peer));
        let before = std::mem::take(&mut self.lost);
        let lost = unlinked.map(|peer| {
            let known = before.get(&peer).copied();
            changed |= known.is_none();
            (peer, known.unwrap_or(Some(now + RELAY_AFTER)))
        });
        self.lost = lost.collect();
        changed |= before.len() != self.lost.len();
        self.generation += u64::from(changed);
        self.lost_at = self.lost.values().flatten().min().copied();
        self.due_by(self.lost_at.unwrap_or(Time::MAX));
    }
}
