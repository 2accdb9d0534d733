//! The router as a state machine: links in, frames out, paths to everybody.
//!
//! The caller hands in what happened with the time, and then drains [`Router::poll_effect`]. After
//! anything that changed a replica it calls [`Router::pump`], which makes deltas for the links that
//! can take bytes.
//!
//! For now every host has a link to every other that it can reach (a full mesh). A bounded view
//! would change `wanted` (in `dialling`) and the rule in `Neighbour::next_delta`, and nothing else.

mod dialling;
mod knowledge;
mod reach;
mod relay;
mod replication;
mod routing;
mod settling;
mod strangers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    PeerId, Time,
    dialer::{Call, Callee, Dialer},
    frame::{Frame, Names, Word},
    link::{DialError, LinkId, LinkUp},
    member::{self, Info, MemberKey, MemberValue, Members},
    neighbour::{HEARTBEAT, Neighbour, Replicas, SILENCE_MAX, WINDOW_BYTES},
    replica::Kind,
    told::Told,
    topology::Hop,
};

/// How long after its link was lost a peer that others reach is still sent packets directly: a
/// restart of its daemon is over by then, and its data plane never stopped.
pub const RELAY_AFTER: Duration = Duration::from_millis(1500);

/// Something that the caller must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a target.
    Dial(SocketAddr),
    /// Send a frame.
    Send {
        /// On which link.
        link: LinkId,
        /// Whether it may overtake frames that are not.
        urgent: bool,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// End a link.
    Close {
        /// Which one.
        link: LinkId,
        /// In words.
        reason: String,
    },
    /// A message for this host.
    Deliver {
        /// From whom.
        from: PeerId,
        /// What [`Router::send_to`] was given there.
        payload: Vec<u8>,
    },
    /// A peer knows later writes of this host than the host itself: its disk is an old one, or
    /// another machine has its identity.
    Behind {
        /// Who.
        peer: PeerId,
    },
    /// Something for the log.
    Notice {
        /// Whether somebody should look at it.
        warning: bool,
        /// What happened.
        text: String,
    },
}

/// The router of one host.
///
/// Invariants: at most one link per peer; `by_peer` is the exact inverse of `neighbours`.
#[derive(Debug)]
pub struct Router {
    me: PeerId,
    members: Members,
    neighbours: BTreeMap<LinkId, Neighbour>,
    by_peer: BTreeMap<PeerId, LinkId>,
    /// Peers without a link: until when their packets are not yet sent over a relay; `None` once
    /// they may be.
    lost: BTreeMap<PeerId, Option<Time>>,
    /// When the next of those begin: the caller must look again.
    lost_at: Option<Time>,
    /// Addresses given by hand, with the peer that was found there.
    targets: BTreeMap<SocketAddr, Option<PeerId>>,
    dialer: Dialer,
    /// Links, members or targets changed: who is to be dialled may have, too.
    dial_review: bool,
    /// When that was last looked at.
    dials_of: Time,
    /// Something may have to be sent although no replica changed.
    pump_due: bool,
    paths: BTreeMap<PeerId, Hop>,
    /// Where messages last came from of peers to whom there is no path.
    ways_back: BTreeMap<PeerId, LinkId>,
    /// When the paths were derived.
    paths_of: Time,
    /// Others' links are others than those that the paths were derived from: when they are again.
    paths_at: Option<Time>,
    /// When all links get the next heartbeat.
    beat_at: Time,
    /// When what others wrote was last passed on, and when it is to be.
    relayed: Time,
    relay_at: Option<Time>,
    /// Nothing is due before, unless `dial_review`.
    quiet_until: Time,
    told: Told,
    /// Per kind, who has written what was not yet named: see `relay`.
    unnamed: [BTreeSet<PeerId>; Kind::COUNT],
    /// What was named with the last heartbeats.
    named: VecDeque<Names>,
    /// From whom we are getting all that we lack, and until when at most.
    pulling: Option<(LinkId, Time)>,
    /// Those that were asked in vain, and when they were last asked anew.
    passed_over: BTreeSet<LinkId>,
    round_at: Time,
    /// How often that was asked for.
    pulls: u64,
    /// Who has told all, since this host last knew that it knows too little.
    told_by: BTreeSet<LinkId>,
    /// Whether this host may write: it knows all that it ever wrote.
    settled: bool,
    /// Whether it tells all that it knows although it is not settled: its disk may only be old.
    tells: bool,
    /// Whether it asks what has happened while it was down: others may not rely on its word.
    asks: bool,
    /// What the best word is worth of those that have told everything since that was asked for.
    synced: Option<Word>,
    /// Whether this host was settled by one that was not.
    hearsay: bool,
    reach_at: Option<Time>,
    /// How often links or membership changed.
    generation: u64,
    /// Members have described themselves otherwise since.
    described: bool,
    /// Which mesh this host is in, of all with its token; zero until it knows. See `strangers`.
    founding: u32,
    effects: VecDeque<Effect>,
    rng: ChaCha8Rng,
}

impl Router {
    /// A router without peers. It may write only once it is settled.
    pub fn new(me: PeerId, seed: u64) -> Self {
        Self {
            me,
            members: Members::new(me),
            neighbours: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            lost: BTreeMap::new(),
            lost_at: None,
            targets: BTreeMap::new(),
            dialer: Dialer::default(),
            dial_review: true,
            dials_of: Time::ZERO,
            pump_due: false,
            paths: BTreeMap::new(),
            ways_back: BTreeMap::new(),
            paths_of: Time::ZERO,
            paths_at: None,
            beat_at: Time::ZERO,
            relayed: Time::ZERO,
            relay_at: None,
            quiet_until: Time::ZERO,
            told: Told::default(),
            unnamed: Default::default(),
            named: VecDeque::new(),
            pulling: None,
            passed_over: BTreeSet::new(),
            round_at: Time::ZERO,
            pulls: 0,
            told_by: BTreeSet::new(),
            settled: false,
            tells: false,
            asks: false,
            synced: Some(Word::Settled),
            hearsay: false,
            reach_at: None,
            generation: 0,
            described: false,
            founding: 0,
            effects: VecDeque::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The membership.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The membership, for restoring it and for the disk's acknowledgements.
    pub fn members_mut(&mut self) -> &mut Members {
        &mut self.members
    }

    /// Changes whenever [`Router::paths`] or [`Router::packet_path`] may have changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Publishes what this host says of itself, if that is new.
    ///
    /// # Panics
    /// When the host is not settled.
    pub fn describe(&mut self, info: Info) {
        assert!(self.settled, "a host that is not settled must not write");
        if member::info(&self.members, self.me) != Some(&info) {
            self.members.write(MemberKey::Info(self.me), MemberValue::Info(info));
        }
    }

    /// Addresses given by hand.
    pub fn targets(&self) -> impl Iterator<Item = (SocketAddr, Option<PeerId>)> {
        self.targets.iter().map(|(address, peer)| (*address, *peer))
    }

    /// Dials an address from now on; at once, if it was waiting.
    pub fn add_target(&mut self, address: SocketAddr) {
        self.targets.entry(address).or_insert(None);
        self.review_dials_at_once();
        self.dialer.hurry(Callee::Target(address));
    }

    /// Does not dial it any more. Returns whether it was a target.
    pub fn remove_target(&mut self, address: SocketAddr) -> bool {
        self.review_dials_at_once();
        self.targets.remove(&address).is_some()
    }

    /// How dialling somebody stands.
    pub fn call(&self, callee: Callee) -> Option<&Call> {
        self.dialer.call(callee)
    }

    /// The links that are up.
    pub fn links(&self) -> impl Iterator<Item = &LinkUp> {
        self.neighbours.values().map(|neighbour| &neighbour.up)
    }

    /// The way to every peer that can be reached now, over control links.
    pub fn paths(&self) -> &BTreeMap<PeerId, Hop> {
        &self.paths
    }

    /// Through whom containers' packets should reach a peer, if that is known. For a short while
    /// after a link was lost it is not: the peer's daemon may just be starting again.
    pub fn packet_path(&self, peer: PeerId) -> Option<PeerId> {
        let hop = self.paths.get(&peer)?;
        let given_up = self.lost.get(&peer).is_some_and(Option::is_none);
        (hop.via == peer || given_up).then_some(hop.via)
    }

    /// A link came up. If there is a message for the peer it comes before anything else.
    pub fn link_up(
        &mut self,
        up: LinkUp,
        message: Option<Vec<u8>>,
        replicas: &Replicas<'_>,
        now: Time,
    ) {
        self.dial_review = true;
        if let Some(target) = up.dialled {
            self.dialer.succeeded(target, up.peer, now, &mut self.rng);
            if let Some(peer) = self.targets.get_mut(&target) {
                *peer = Some(up.peer);
            }
        }
        if let Some(old) = self.by_peer.get(&up.peer).copied() {
            if self.keeps(&self.neighbours[&old].up, &up) {
                self.close(up.link, "there is another link already");
                return;
            }
            self.drop_link(old, now);
            self.close(old, "a newer link replaces it");
        }
        let (link, peer) = (up.link, up.peer);
        self.by_peer.insert(peer, link);
        self.neighbours.insert(link, Neighbour::new(up, now));
        self.beat_at = self.beat_at.clamp(now, now + HEARTBEAT);
        self.due_by(self.beat_at);
        if let Some(payload) = message {
            let routed = Frame::Routed { from: self.me, to: peer, hops_left: 0, payload };
            self.send(link, false, &routed);
        }
        let vectors = self.told.vectors(&self.members, replicas).clone();
        let hello = Frame::Hello { vectors, founding: self.founding };
        self.send(link, false, &hello);
        self.links_changed(now);
    }

    /// Whether `old` stays and `new` is closed. Both ends decide alike: a new process always wins;
    /// else the link that the smaller id dialled; else the newer one.
    fn keeps(&self, old: &LinkUp, new: &LinkUp) -> bool {
        let dialled_by_smaller = |up: &LinkUp| up.dialled.is_some() == (self.me < up.peer);
        old.incarnation == new.incarnation && dialled_by_smaller(old) && !dialled_by_smaller(new)
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, reason: &str, now: Time) {
        if let Some(peer) = self.drop_link(link, now) {
            self.notice(false, format!("lost the link to {}: {reason}", self.name_of(peer)));
        }
    }

    /// A target that was dialled gave no link.
    pub fn dial_failed(&mut self, target: SocketAddr, error: DialError, now: Time) {
        if error == DialError::Ourselves {
            self.remove_target(target);
        }
        if error.is_refusal() && error != DialError::Ourselves {
            self.notice(true, format!("{target} refused us: {error}"));
        }
        self.dialer.failed(target, error, now, &mut self.rng);
        self.due_by(self.dialer.poll_timeout().unwrap_or(Time::MAX));
    }

    /// Bytes came, if not yet a whole frame.
    pub fn activity(&mut self, link: LinkId, now: Time) {
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            neighbour.heard = now;
        }
    }

    /// Bytes of earlier frames have left.
    pub fn sent(&mut self, link: LinkId, bytes: usize) {
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            let full = neighbour.in_flight >= WINDOW_BYTES;
            neighbour.in_flight = neighbour.in_flight.saturating_sub(bytes);
            self.pump_due |= full && neighbour.in_flight < WINDOW_BYTES;
        }
    }

    /// A frame came. Bytes that are none end the link, and nothing else.
    pub fn on_frame(&mut self, link: LinkId, bytes: &[u8], replicas: &mut Replicas<'_>, now: Time) {
        self.activity(link, now);
        if !self.neighbours.contains_key(&link) {
            return;
        }
        let result = match Frame::decode(bytes) {
            Ok(frame) => self.on_decoded(link, frame, replicas, now),
            Err(error) => Err(format!("it sent a frame that is none: {error}")),
        };
        if let Err(reason) = result {
            let peer = self.drop_link(link, now);
            let name = peer.map_or_else(String::new, |peer| self.name_of(peer));
            self.notice(true, format!("closed the link to {name}: {reason}"));
            self.close(link, &reason);
        }
    }

    /// The time has passed: heartbeats, dead links, dialling, what was put off.
    pub fn timeout(&mut self, replicas: &Replicas<'_>, now: Time) {
        if now < self.quiet_until && self.dials_at().is_none_or(|at| now < at) {
            return;
        }
        self.drop_silent(now);
        if self.paths_at.is_some_and(|at| at <= now) {
            self.derive_paths(now);
        }
        self.beat(replicas, now);
        if self.relay_at.is_some_and(|at| at <= now) {
            (self.relay_at, self.pump_due) = (None, true);
        }
        if self.lost_at.is_some_and(|at| at <= now) {
            let waits = |until: &&mut Option<Time>| until.is_some_and(|at| at <= now);
            self.lost.values_mut().filter(waits).for_each(|until| *until = None);
            self.lost_at = self.lost.values().flatten().min().copied();
            self.generation += 1;
        }
        if self.reach_at.is_some_and(|at| at <= now) {
            self.reach_at = None;
            self.publish_reach();
        }
        if self.dials_at().is_some_and(|at| at <= now) {
            (self.dial_review, self.dials_of) = (false, now);
            self.dialer.review(self.wanted(), now, &mut self.rng);
        }
        self.effects.extend(self.dialer.due(now).into_iter().map(Effect::Dial));
        // What is heard from now on only puts something off.
        self.quiet_until = self.next_due();
    }

    /// When [`Router::timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let due = self.dials_at().map_or(self.quiet_until, |at| at.min(self.quiet_until));
        (due < Time::MAX).then_some(due)
    }

    fn next_due(&self) -> Time {
        let links = self.neighbours.values().map(|n| self.beat_at.min(n.heard + SILENCE_MAX));
        let own = [self.reach_at, self.paths_at, self.lost_at, self.relay_at];
        let own = own.into_iter().chain([self.dials_at(), self.dialer.poll_timeout()]);
        links.chain(own.flatten()).min().unwrap_or(Time::MAX)
    }

    /// Something is due at this time.
    fn due_by(&mut self, at: Time) {
        self.quiet_until = self.quiet_until.min(at);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A name for messages.
    pub fn name_of(&self, peer: PeerId) -> String {
        member::info(&self.members, peer).map_or_else(|| peer.short(), |info| info.name.clone())
    }

    fn drop_silent(&mut self, now: Time) {
        let silent: Vec<LinkId> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| now.since(neighbour.heard) >= SILENCE_MAX)
            .map(|(link, _)| *link)
            .collect();
        for link in silent {
            let reason = format!("nothing heard for {} s", SILENCE_MAX.as_secs());
            self.link_down(link, &reason, now);
            self.close(link, &reason);
        }
    }

    fn drop_link(&mut self, link: LinkId, now: Time) -> Option<PeerId> {
        let peer = self.neighbours.remove(&link)?.up.peer;
        self.by_peer.remove(&peer);
        self.ways_back.retain(|_, back| *back != link);
        if self.pulling.is_some_and(|(from, _)| from == link) {
            self.pulling = None;
        }
        self.links_changed(now);
        Some(peer)
    }

    fn send(&mut self, link: LinkId, urgent: bool, frame: &Frame) {
        self.send_bytes(link, urgent, frame.encode());
    }

    fn send_bytes(&mut self, link: LinkId, urgent: bool, bytes: Vec<u8>) {
        self.neighbour(link).in_flight += bytes.len();
        self.effects.push_back(Effect::Send { link, urgent, bytes });
    }

    fn close(&mut self, link: LinkId, reason: &str) {
        self.effects.push_back(Effect::Close { link, reason: reason.to_owned() });
    }

    fn notice(&mut self, warning: bool, text: String) {
        self.effects.push_back(Effect::Notice { warning, text });
    }

    fn neighbour(&mut self, link: LinkId) -> &mut Neighbour {
        self.neighbours.get_mut(&link).expect("only links that are up are looked up")
    }
}

#[cfg(test)]
mod tests;
