//! How what others wrote travels through a mesh in which not all are linked to all.
//!
//! In a small mesh everybody passes it on to all who have no link to its origin. In a large one it
//! would arrive as often as a host has links; there it is passed on along the edges of one tree
//! that all derive from the same membership, and over the other links only named, with the next
//! heartbeat. Whoever has been told so of something and still does not have it two heartbeats
//! later, because the tree was cut or seen differently by two hosts, is sent it over that link.
//! (Plumtree, Leitao et al. 2007, has the same two kinds of links; there duplicates make the tree.)

use std::collections::BTreeSet;

use super::Router;
use crate::{
    PeerId, Time,
    frame::{Frame, Names},
    neighbour::{HEARTBEAT, Replicas, WINDOW_BYTES, is_told},
    replica::Kind,
};

/// With so many members or fewer there is no tree.
pub(super) const TREE_ABOVE: usize = 30;
/// Heartbeats after which what was named should have come over the tree: a second to be named
/// oneself, and one for the way.
const NAMED_BEATS: usize = 2;

impl Router {
    /// Tells all links that this host is there and what it has.
    pub(super) fn beat(&mut self, replicas: &Replicas<'_>, now: Time) {
        if self.beat_at > now || self.neighbours.is_empty() {
            return;
        }
        self.beat_at = now + HEARTBEAT;
        let (_, digest) = self.told.with_digest(&self.members, replicas);
        let beat = Frame::Heartbeat { digest };
        for link in self.neighbours.keys().copied().collect::<Vec<_>>() {
            self.send(link, false, &beat);
        }
        self.name_news(replicas);
    }

    /// Which links are edges of the tree.
    pub(super) fn mark_tree(&mut self, tree: Option<&BTreeSet<PeerId>>) {
        for neighbour in self.neighbours.values_mut() {
            let relays = tree.is_none_or(|tree| tree.contains(&neighbour.up.peer));
            let begins = relays && !neighbour.relays;
            neighbour.relays = relays;
            neighbour.behind |= begins;
            self.pump_due |= begins;
        }
    }

    /// These have something new.
    pub(super) fn note_unnamed(&mut self, fresh: &[Vec<PeerId>; Kind::COUNT]) {
        if self.neighbours.values().all(|neighbour| neighbour.relays) {
            return;
        }
        for (unnamed, fresh) in self.unnamed.iter_mut().zip(fresh) {
            unnamed.extend(fresh);
        }
    }

    /// Names, over the links that are not of the tree, what is new since the last heartbeat, and
    /// says to whom something is owed.
    fn name_news(&mut self, replicas: &Replicas<'_>) {
        let sources = replicas.sources(&self.members);
        let mut names = Names::default();
        for ((names, unnamed), source) in names.iter_mut().zip(&mut self.unnamed).zip(sources) {
            let far = |origin: PeerId| (origin, source.announced_of(origin));
            names.extend(std::mem::take(unnamed).into_iter().map(far));
        }
        let due = if self.named.len() < NAMED_BEATS { None } else { self.named.pop_front() };
        let (me, members) = (self.me, &self.members);
        let mut frames = Vec::new();
        for (link, neighbour) in self.neighbours.iter_mut().filter(|(_, n)| !n.relays) {
            let peer = neighbour.up.peer;
            // Whom both are told by, nobody passes on.
            let apart = |origin: PeerId| {
                origin != me
                    && origin != peer
                    && !(is_told(members, origin, peer) && is_told(members, origin, me))
            };
            let news = names.each_ref().map(|names| {
                names.iter().filter(|(origin, _)| apart(*origin)).copied().collect::<Vec<_>>()
            });
            // A full link is not filled further: what it is not told of is owed to it all the same.
            if neighbour.in_flight < WINDOW_BYTES && news.iter().any(|names| !names.is_empty()) {
                frames.push((*link, Frame::Have { names: news }));
            }
            if let Some(due) = &due {
                self.pump_due |= neighbour.is_owed(due, members);
            }
        }
        if frames.is_empty() && names.iter().all(Vec::is_empty) && self.named.is_empty() {
            return;
        }
        self.named.push_back(names);
        for (link, frame) in frames {
            self.send(link, false, &frame);
        }
    }
}
