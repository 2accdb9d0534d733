//! Before a host asks for its first space, a majority of the electors must know that it exists.
//!
//! A removal waits for every member's answer, because a grant of the dead host may be known to its
//! receiver alone ([`mesh_ipam::council`]). So no receiver may be unknown: with each majority of
//! electors that agrees to a removal there is one that knows it, and names it; or one that had
//! promised before, and tells it whom it bars.
//!
//! Whoever owns something may go on asking after a restart. But it takes over no leaver's blocks
//! before a majority knows it in this run: the leaver may have been the only one that knew it. And
//! where no majority is to be had, a host goes on all the same, after a while: nothing is to depend
//! on somebody who is gone. What that costs is said aloud.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_ipam::council::acceptor::Bars;
use mesh_router::{PeerId, Time};

use super::{Node, peers::PeerMessage};

/// The pause before electors that have not answered are asked again. Chosen: a round trip around
/// the world.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How often they are asked before this host goes on without: for ten seconds, and links to the
/// dead are given up long before. Not a span of time: a machine may sleep meanwhile.
const ASKED_MAX: u32 = 50;
/// How often after that: they may come back.
const ASK_LATE: Duration = Duration::from_secs(2);

/// Whether somebody has said all whom it bars.
type Sure = bool;

/// Who is known to know this host.
#[derive(Debug, Default)]
pub(super) struct Registration {
    /// Of those who may have forgotten promises, and so whom they bar, it is not sure.
    known_by: BTreeMap<PeerId, Sure>,
    ask_at: Time,
    asked: u32,
    /// The newest decree whose electors are known to know it, a majority of them.
    known_at: Option<u64>,
    /// In this run the ring was told anew: what this host owns says nothing of who knows it.
    anew: bool,
}

impl Registration {
    /// What is left of it when the ring is told anew.
    pub(super) fn anew() -> Self {
        Self { anew: true, ..Self::default() }
    }

    /// Whether enough of them have known it, or it has waited for long enough.
    fn may_go_on(&self) -> bool {
        self.known_at.is_some() || self.asked > ASKED_MAX
    }
}

impl Node {
    /// Whether this host may ask for space.
    pub(super) fn may_ask_for_space(&self) -> bool {
        // Who lost its disk may have lost with it whom it bars.
        let known_before = !self.registration.anew && !self.ipam.abstains();
        self.registration.may_go_on() || (known_before && self.owns_something())
    }

    fn owns_something(&self) -> bool {
        self.ipam.owns_anything(self.config.me)
    }

    /// Whether this host may take over what a leaver gives it.
    pub(super) fn may_take_over(&self) -> bool {
        self.registration.may_go_on()
    }

    /// The electors that may not know this host, if they are so many that no majority does.
    fn strangers(&self) -> BTreeSet<PeerId> {
        let electors = self.ipam.electors();
        let knows = |peer: &PeerId| match self.registration.known_by.get(peer) {
            None if *peer == self.config.me => Some(!self.ipam.abstains()),
            sure => sure.copied(),
        };
        let sure = electors.iter().filter(|peer| knows(peer) == Some(true)).count();
        // As with promises: those of who may have forgotten some count together with all others'.
        if 2 * sure > electors.len() || electors.iter().all(|peer| knows(peer).is_some()) {
            return BTreeSet::new();
        }
        electors.into_iter().filter(|peer| knows(peer) != Some(true)).collect()
    }

    /// Makes itself known, until a majority knows it; and to others, once they are the electors.
    pub(super) fn progress_registration(&mut self) {
        if !self.registers() {
            return;
        }
        let went_on = self.registration.may_go_on();
        let strangers = self.strangers();
        if strangers.is_empty() {
            self.registration.known_at = Some(self.ipam.epoch().number);
        } else if self.registration.ask_at <= self.now {
            let counter = self.router.members().own_counter();
            self.registration.ask_at = self.now + if went_on { ASK_LATE } else { ASK_EVERY };
            self.registration.asked = self.registration.asked.saturating_add(1);
            for peer in strangers {
                self.send_to_peer(peer, &PeerMessage::KnowMe { counter });
            }
        }
        if !went_on && self.registration.may_go_on() {
            let words = self.unregistered_words().filter(|_| !self.owns_something());
            words.into_iter().for_each(|words| self.notice(true, words));
            self.ipam.set_reachable(self.router.paths().keys().copied().collect());
        }
    }

    fn registers(&self) -> bool {
        let known = self.registration.known_at == Some(self.ipam.epoch().number);
        self.mesh.is_some() && self.router.is_settled() && !known
    }

    /// What may happen because this host went on although no majority knows it.
    pub(super) fn unregistered_words(&self) -> Option<String> {
        let unknown = self.registration.asked > ASKED_MAX && self.registers();
        let strangers = Some(self.strangers()).filter(|all| unknown && !all.is_empty())?;
        Some(format!(
            "no majority of the electors could be told of this host ({} did not answer): should \
             they come back and remove one of its peers before they hear of it, addresses may be \
             given twice",
            self.names(&strangers)
        ))
    }

    pub(super) fn registration_timeout(&self) -> Option<Time> {
        self.registers().then_some(self.registration.ask_at)
    }

    /// A new host wants to be known: it is, once what it says of itself is on disk.
    pub(super) fn get_to_know(&mut self, peer: PeerId, counter: u64) {
        let seen = self.router.members().vector().get(&peer);
        let knows = counter > 0 && seen >= counter && self.standing_members().contains(&peer);
        if knows && self.router.is_settled() && !self.recalling {
            self.confirm(peer, PeerMessage::IKnowYou(self.ipam.bars()));
        }
    }

    /// An elector knows this host from now on, and bars these: whatever is decided about them waits
    /// for this host's answer, or this host takes no news of them.
    pub(super) fn is_known_by(&mut self, peer: PeerId, bars: &Bars) {
        if self.ipam.heed(bars) {
            self.registration.known_by.insert(peer, !bars.abstains);
        }
    }

    /// For whom a new host waits, in words.
    pub(super) fn registration_words(&self) -> Option<String> {
        (!self.may_ask_for_space()).then(|| {
            let strangers = self.names(&self.strangers());
            format!(
                "before it may ask for space, a majority of the electors must know this host; not \
                 heard of: {strangers}"
            )
        })
    }
}
