//! What follows from who can be reached: hidden names, donors of space, messages between nodes.
//!
//! Detection has graded effects and all here are reversible: after [`HIDE_AFTER`] a peer's names
//! are hidden, and they are back at once when it is. Its addresses are never given away by a timer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_ipam::{
    Promise, SpaceMessage,
    council::{DECREE, acceptor::Bars, message::CouncilMessage},
};
use mesh_router::{
    Kind, Mutation, PeerId, Time, codec,
    link::LinkId,
    member, mutation,
    store::{ORIGINS_MAX, Return},
};
use serde::{Deserialize, Serialize};

use super::{Node, event::Output, lease::Renewal};
use crate::api::types;

/// A peer that was not reached for this long is called unreachable instead of suspect.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(60);

/// How often what is replicated is looked at, at most. Chosen: a pass over the most records takes
/// 10 ms.
const COLLECT_EVERY: Duration = Duration::from_secs(1);

/// How long what is known of a peer that left is kept. Chosen: longer than anybody waits to leave,
/// which may be given up; and people can see that it has left.
const LEFT_KEPT: Duration = Duration::from_secs(120);
/// The same while a member is away. It would be told even later that the peer is gone, but not by
/// hosts that have started again since. Chosen: most reboots and cuts are over by then.
const LEFT_KEPT_AWAY: Duration = Duration::from_secs(3600);
/// But only while there are no more of them. Chosen: far more than leave while a host is away.
const LEFT_KEPT_AWAY_MAX: usize = 256;

/// Who is told of an age that differs by no more than this does not pass it on: a message takes a
/// while, so there always is a difference.
const AGE_SLACK: Duration = Duration::from_secs(2);

/// A message between nodes, sent through the router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PeerMessage {
    /// About space in the ring.
    Space(SpaceMessage),
    /// About what is decided together.
    Council(CouncilMessage),
    /// The sender is about to leave: may the receiver, who owns nothing, take its blocks over?
    WouldTakeOver,
    /// Yes.
    WouldIndeed,
    /// The sender leaves: does the receiver have its ring entries up to here on disk, and know of
    /// nothing that the sender owns?
    HandOver {
        /// Own counter of the sender.
        counter: u64,
        /// And what it says of itself up to here, which is that it has left.
        left: u64,
        /// And the decrees up to here.
        decreed: u64,
        /// Whether the receiver is the heir; else it was asked for space before.
        heir: bool,
    },
    /// Yes.
    TakenOver {
        /// The counter that was asked for.
        counter: u64,
    },
    /// The sender wants to put the ring's base forward: what does the receiver promise?
    AskPromise,
    /// This.
    Promised(Promise),
    /// The sender is new: does the receiver have on disk what it says of itself?
    KnowMe {
        /// Up to this write of its membership.
        counter: u64,
    },
    /// Yes; and whom it bars, of whom the receiver is to take no news either.
    IKnowYou(Bars),
    /// The sender left, or was removed, and is back: up to where does the receiver know its ring
    /// entries?
    WhatDidIWrite,
    /// Up to here.
    YouWrote {
        /// Own counter of the receiver.
        counter: u64,
    },
    /// Somebody wants the receiver removed: is it alive?
    AreYouThere,
    /// Yes.
    IAmHere,
    /// Another machine has the receiver's identity.
    Twin {
        /// Where the sender saw it.
        address: std::net::SocketAddr,
    },
    /// Another process had the receiver's identity just before.
    Before {
        /// Where the sender heard from it.
        address: std::net::SocketAddr,
    },
    /// Who has left, and for how many milliseconds the sender has known it or been told so.
    Left(Vec<(PeerId, u64)>),
    /// The sender's lease is to count from now.
    Renew(Renewal),
    /// It does.
    Renewed(Renewal),
}

/// What is looked at now and then.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Not before then is anything looked at again.
    at: Time,
    /// The ring's change mark when it was last found tidy.
    tidy: u64,
    /// Peers that have left.
    left: BTreeMap<PeerId, Departed>,
    /// The links over which these were told.
    left_told: BTreeSet<LinkId>,
    /// Of which of them it is known now that they left earlier.
    left_news: BTreeSet<PeerId>,
    /// What owners promised about their writes to the ring.
    promises: BTreeMap<PeerId, Promise>,
}

/// A peer that has left.
#[derive(Debug, Clone, Copy)]
struct Departed {
    heard: Time,
    /// For how long it was known then, by whoever told of it.
    before: Duration,
}

impl Keeping {
    /// Takes ages that another tells, where they are greater. Of more than so many it takes none.
    fn hear_who_left(&mut self, peers: Vec<(PeerId, u64)>, now: Time) {
        for (peer, age) in peers {
            let before = Duration::from_millis(age).min(LEFT_KEPT_AWAY);
            let known = match self.left.get(&peer) {
                Some(known) => known.known_for(now),
                None if self.left.len() >= ORIGINS_MAX => continue,
                None => Duration::ZERO,
            };
            let older = before.saturating_sub(known);
            let told = Departed { heard: now, before: known.max(before) };
            self.left.insert(peer, told);
            if older > AGE_SLACK {
                // Whoever heard of it through this host is told, too.
                self.left_news.insert(peer);
            }
        }
    }
}

impl Departed {
    fn known_for(self, now: Time) -> Duration {
        self.before + now.since(self.heard)
    }
}

impl Node {
    pub(super) fn on_peer_message(&mut self, from: PeerId, payload: &[u8]) {
        self.waiting_due = true;
        match codec::decode(payload) {
            // Who is still being told what it once wrote can give nothing away, nor who does not
            // know yet that no link from before a restart holds an address. It is asked again. Who
            // has left wants nothing any more.
            Ok(PeerMessage::Space(SpaceMessage::Request(_)))
                if self.recalling
                    || member::info(self.router.members(), from).is_some_and(|info| info.left)
                    || !(self.programmed || mutation::on(Mutation::ServeUnprogrammed))
                    || self.is_doubtful() => {}
            Ok(PeerMessage::Space(message)) => self.ipam.handle_message(from, message, self.now),
            Ok(PeerMessage::Council(message)) => self.on_council(from, message),
            Ok(PeerMessage::WouldTakeOver) if self.would_take_over() => {
                self.send_to_peer(from, &PeerMessage::WouldIndeed);
            }
            Ok(PeerMessage::WouldTakeOver) => {}
            Ok(PeerMessage::WouldIndeed) => self.may_be_heir(from),
            Ok(PeerMessage::HandOver { counter, left, decreed, heir }) => {
                self.confirm_hand_over(from, (counter, left, decreed), heir);
            }
            Ok(PeerMessage::TakenOver { counter }) => self.taken_over(from, counter),
            Ok(PeerMessage::AskPromise) => {
                if let Some(promise) = self.ipam.promise(self.journal.is_idle()) {
                    self.send_to_peer(from, &PeerMessage::Promised(promise));
                }
            }
            Ok(PeerMessage::Promised(promise)) => {
                self.keeping.promises.insert(from, promise);
            }
            Ok(PeerMessage::KnowMe { counter }) => self.get_to_know(from, counter),
            Ok(PeerMessage::IKnowYou(bars)) => self.is_known_by(from, &bars),
            Ok(PeerMessage::WhatDidIWrite) => self.say_what_was_written(from),
            Ok(PeerMessage::YouWrote { counter }) => self.told_what_was_written(from, counter),
            Ok(PeerMessage::AreYouThere) => self.send_to_peer(from, &PeerMessage::IAmHere),
            Ok(PeerMessage::Twin { address }) => self.note_twin(address),
            Ok(PeerMessage::Before { address }) => self.told_of_process_before(address),
            Ok(PeerMessage::IAmHere) => self.removal_is_answered(from),
            Ok(PeerMessage::Left(peers)) => self.keeping.hear_who_left(peers, self.now),
            Ok(PeerMessage::Renew(renewal)) => self.on_renew(from, renewal),
            Ok(PeerMessage::Renewed(renewal)) => self.on_renewed(from, renewal),
            Err(error) => {
                let name = self.router.name_of(from);
                self.notice(true, format!("{name} sent a message that is none: {error}"));
            }
        }
    }

    /// Answers only when the entries are on this host's disk, and the leaver owns nothing, not by
    /// what this host had granted to it either and not told yet; the sender asks again until then.
    fn confirm_hand_over(
        &mut self,
        from: PeerId,
        (counter, left, decreed): (u64, u64, u64),
        heir: bool,
    ) {
        let ring = self.ipam.store();
        let has = ring.seen(from) >= counter && ring.seen(DECREE) >= decreed;
        // What somebody says who was removed meanwhile is not taken in any more.
        let has_left = self.router.members().seen(from) >= left || self.ipam.is_removed(from);
        let has_all = has && has_left && !self.ipam.owns_anything(from) && !self.recalling;
        if has_all && (!heir || self.would_take_over()) {
            self.confirm(from, PeerMessage::TakenOver { counter });
        }
    }

    /// Who leaves itself would take these blocks with it: it hands them on first.
    fn would_take_over(&self) -> bool {
        !self.is_leaving() && !self.recalling && self.may_take_over()
    }

    pub(super) fn send_to_peer(&mut self, to: PeerId, message: &PeerMessage) {
        self.router.send_to(to, codec::encode(message));
    }

    /// Sends the ring's requests and answers. An answer that grants is only a hint: the grant
    /// itself is a ring entry and travels, once it is durable, like every other.
    pub(super) fn ask_for_space(&mut self) {
        while let Some((to, message)) = self.ipam.poll_message() {
            self.send_to_peer(to, &PeerMessage::Space(message));
        }
    }

    /// Looks who can be reached, when that may have changed.
    pub(super) fn review_peers(&mut self) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= self.now);
        if self.mesh.is_none() || !(due(self.peers_due()) || due(self.absent.poll_timeout())) {
            return;
        }
        let changed = self.router.generation() != self.peers_generation;
        // Somebody may be heard of only after it is known that nobody reaches him.
        let heard = self.heard();
        self.peers_reviewed = self.now;
        self.peers_heard = heard;
        self.peers_generation = self.router.generation();
        if changed {
            let reachable = self.router.paths().keys().copied();
            let asked =
                if self.may_ask_for_space() { reachable.collect() } else { BTreeSet::new() };
            self.ipam.set_reachable(asked);
            self.replan_soon();
        }
        let paths = self.router.paths();
        // Whoever left while it was away may have no entry any more and is hidden all the same.
        let back: Vec<PeerId> =
            self.zone.hidden().filter(|peer| paths.contains_key(peer)).collect();
        let described = member::present(self.router.members()).map(|(peer, _)| peer);
        let named = self.zone.store().vector().dots.keys().copied();
        let gone = |peer: &PeerId| *peer != self.config.me && !paths.contains_key(peer);
        let gone: BTreeSet<PeerId> = described.chain(named).filter(gone).collect();
        for peer in back {
            self.show(peer, true);
        }
        for peer in self.absent.review(&gone, self.now) {
            self.show(peer, false);
        }
    }

    /// When peers are reviewed because somebody is new, or links are other than they were: at once,
    /// unless they were reviewed just before.
    pub(super) fn peers_due(&self) -> Option<Time> {
        let news =
            self.heard() != self.peers_heard || self.router.generation() != self.peers_generation;
        news.then(|| self.peers_reviewed + self.pause())
    }

    /// How many entries the members and how many origins the zone has.
    fn heard(&self) -> (usize, usize) {
        (self.router.members().len(), self.zone.store().vector().dots.len())
    }

    fn show(&mut self, peer: PeerId, visible: bool) {
        let change = if visible { self.zone.show(peer) } else { self.zone.hide(peer) };
        self.outputs.extend(change.map(Output::Zone));
    }

    /// Keeps what is replicated short. Not at each input: it walks through all of it.
    pub(super) fn keep_short(&mut self) {
        if self.now < self.keeping.at || self.recalling || self.mesh.is_none() {
            return;
        }
        self.keeping.at = self.now + COLLECT_EVERY;
        let paths = self.router.paths();
        let mut others = self.standing_members();
        others.remove(&self.config.me);
        let all_here = others.iter().all(|peer| paths.contains_key(peer));
        self.collect_tombstones(others.is_empty(), all_here);
        self.forget_left(all_here);
        self.tell_who_left();
        if self.router.is_settled() && !self.is_leaving() {
            self.keep_ring();
        }
    }

    /// Drops own tombstones that every linked peer has seen: from then on whoever is not linked is
    /// told by these what is left. While somebody is away, only those beyond the zone's own bound.
    fn collect_tombstones(&mut self, alone: bool, all_here: bool) {
        let seen = match all_here {
            _ if alone => Some(self.zone.store().durable_counter()),
            true => self.router.seen_by_all(Kind::Zone),
            false => None,
        };
        self.zone.collect(seen.unwrap_or(0));
    }

    /// Drops what peers said who have left, some time after all linked peers know that they have;
    /// and what came late, of hosts that nobody describes any more.
    fn forget_left(&mut self, all_here: bool) {
        let members = self.router.members();
        let vectors = [members.vector(), self.zone.store().vector()];
        let nameless = vectors.into_iter().flat_map(|vector| vector.dots.keys()).copied();
        let nameless = nameless.filter(|peer| member::info(members, *peer).is_none());
        let mut left: BTreeSet<PeerId> = member::left(members).chain(nameless).collect();
        left.remove(&self.config.me);
        let many = left.len() > LEFT_KEPT_AWAY_MAX;
        let kept = if all_here || many { LEFT_KEPT } else { LEFT_KEPT_AWAY };
        let (now, here) = (self.now, |peer| member::info(members, peer).is_some());
        self.keeping.left.retain(|peer, known| {
            // Longer than its entries: a newcomer may have heard of it from somebody just before.
            left.contains(peer) || !here(*peer) && known.known_for(now) < kept + LEFT_KEPT
        });
        for peer in left {
            let new = Departed { heard: now, before: Duration::ZERO };
            let known = self.keeping.left.entry(peer).or_insert(new).known_for(now);
            let gone = self.router.link_to(peer).is_none() && known >= kept;
            if gone && self.router.known_by_all(peer, self.zone.store()) {
                self.forget_peer(peer, Return::Never);
            }
        }
    }

    /// Tells new neighbours for how long it is known who has left. If each began to count when it
    /// hears of it, every newcomer would tell the next, and nobody would ever be forgotten.
    fn tell_who_left(&mut self) {
        let links: BTreeMap<LinkId, PeerId> =
            self.router.links().map(|up| (up.link, up.peer)).collect();
        self.keeping.left_told.retain(|link| links.contains_key(link));
        let news = std::mem::take(&mut self.keeping.left_news);
        if news.is_empty() && self.keeping.left_told.len() == links.len() {
            return;
        }
        let message = |of: &dyn Fn(&PeerId) -> bool| {
            let left = self.keeping.left.iter().filter(|(peer, _)| of(peer));
            let age = |left: &Departed| left.known_for(self.now).as_millis();
            let age = |left: &Departed| u64::try_from(age(left)).unwrap_or(u64::MAX);
            let left: Vec<(PeerId, u64)> = left.map(|(peer, left)| (*peer, age(left))).collect();
            (!left.is_empty()).then(|| codec::encode(&PeerMessage::Left(left)))
        };
        let (all, news) = (message(&|_| true), message(&|peer| news.contains(peer)));
        for (link, peer) in links {
            let message = if self.keeping.left_told.contains(&link) { &news } else { &all };
            if message.clone().is_none_or(|message| self.router.send_to(peer, message)) {
                self.keeping.left_told.insert(link);
            } else {
                self.keeping.left_told.remove(&link);
            }
        }
    }

    /// Drops all that a peer said: what it said of itself, and its names.
    pub(super) fn forget_peer(&mut self, peer: PeerId, returns: Return) {
        self.router.forget(peer, returns, self.now);
        let changes = self.zone.drop_origin(peer, returns);
        self.outputs.extend(changes.into_iter().map(Output::Zone));
        self.keeping.promises.remove(&peer);
        self.absent.forget(peer);
    }

    /// Takes back ring entries that are not needed, and sees to it that they go.
    fn keep_ring(&mut self) {
        let mark = self.ipam.store().change_mark();
        if mark != self.keeping.tidy && !self.ipam.tidy() {
            self.keeping.tidy = mark;
        }
        self.ipam.advance_base(&self.keeping.promises);
        let Some(needs) = self.ipam.base_needs() else { return };
        // Without all of them nothing comes of it.
        if needs.iter().all(|peer| self.router.paths().contains_key(peer)) {
            self.keeping.promises.retain(|peer, _| needs.contains(peer));
            for peer in needs {
                self.send_to_peer(peer, &PeerMessage::AskPromise);
            }
        }
    }

    pub(super) fn peers(&self) -> Vec<types::Peer> {
        let members = self.router.members();
        let ids = members.iter().filter_map(|(key, _)| match key {
            member::MemberKey::Info(peer) => Some(*peer),
            member::MemberKey::Reach(_) => None,
        });
        ids.filter_map(|id| {
            let info = member::info(members, id)?;
            Some(types::Peer {
                id,
                name: info.name.clone(),
                state: if info.left { "left" } else { self.state_of(id) }.to_owned(),
                addresses: info.endpoints.clone(),
                owned: self.ipam.owned_by(id),
            })
        })
        .collect()
    }

    pub(super) fn state_of(&self, peer: PeerId) -> &'static str {
        if self.ipam.is_removed(peer) {
            return "removed";
        }
        match self.absent.since(peer) {
            None => "alive",
            Some(since) if self.now.since(since) < UNREACHABLE_AFTER => "suspect",
            Some(_) => "unreachable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_000_000_000);

    fn peer(n: u32) -> PeerId {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::new(id)
    }

    #[test]
    fn the_greatest_age_counts_and_only_a_far_greater_one_is_passed_on() {
        let mut keeping = Keeping::default();
        let mut hear = |age, seconds| {
            let now = NOW + Duration::from_secs(seconds);
            keeping.hear_who_left(vec![(peer(1), age)], now);
            (keeping.left[&peer(1)].known_for(now).as_millis(), !keeping.left_news.is_empty())
        };
        assert_eq!(hear(1_500, 0), (1_500, false), "of somebody new, too");
        assert_eq!(hear(1_000, 1), (2_500, false));
        assert_eq!(hear(4_000, 1), (4_000, false));
        assert_eq!(hear(90_000, 2), (90_000, true));
    }

    #[test]
    fn ages_of_whom_nobody_knows_take_little_room() {
        let mut keeping = Keeping::default();
        for round in 0..3 {
            let all = (0..5_000).map(|n| (peer(10_000 * round + n), 60_000));
            keeping.hear_who_left(all.collect(), NOW);
        }
        assert_eq!(keeping.left.len(), ORIGINS_MAX);
        assert!(keeping.left_news.len() <= ORIGINS_MAX);
    }
}
