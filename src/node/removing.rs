//! Removals on their way to the council, asked for or not: nobody is removed who answers.
//!
//! The links to a host that died count as up for some seconds more. So whoever is to be removed and
//! seems to be there is asked: an answer refuses the removal, also one that comes late, as long as
//! nothing was decided.

use std::{collections::BTreeSet, time::Duration};

use mesh_ipam::council::Surroundings;
use mesh_router::{PeerId, Time, member};

use super::{
    Node,
    council::{Desk, Pending, What},
    event::RequestId,
    peers::PeerMessage,
    request::{Code, Refusal},
};

/// Hosts that one removal may name. Chosen: far more than die at once.
const REMOVED_MAX: usize = 256;

/// Who seems to be there and says nothing for so long is not waited for. Chosen: several round
/// trips around the world.
const SILENCE: Duration = Duration::from_secs(1);
/// For how long a removal by force asks a majority that can be reached. Chosen: seven questions.
const FORCE_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// How long a removed host owns something before that is taken back, too. Chosen: the ring takes
/// less to go round.
const LEFT_OVER: Duration = Duration::from_secs(10);

/// A removal that somebody asked for.
#[derive(Debug)]
pub(super) struct Removal {
    pub(super) id: RequestId,
    peers: BTreeSet<PeerId>,
    force: bool,
    until: Time,
    since: Time,
}

impl Removal {
    /// When to look at it again.
    pub(super) fn poll_timeout(&self) -> Time {
        self.until.min(self.since + SILENCE)
    }
}

impl Node {
    /// Whom these names mean.
    pub(super) fn peers_to_remove(&self, names: &[String]) -> Result<BTreeSet<PeerId>, Refusal> {
        self.check_settled()?;
        if names.is_empty() || names.len() > REMOVED_MAX {
            let text = format!("a removal names 1 to {REMOVED_MAX} peers");
            return Err(Refusal::new(Code::Invalid, text, "`meshctl peer list` shows them"));
        }
        let peers: BTreeSet<PeerId> =
            names.iter().map(|name| self.find_peer(name)).collect::<Result<_, _>>()?;
        if peers.contains(&self.config.me) {
            let text = "a host cannot remove itself";
            return Err(Refusal::new(Code::Invalid, text, "run `meshctl leave` on it"));
        }
        Ok(peers)
    }

    /// The peer with this name, or with an id that begins so; a whole id may be anybody's.
    fn find_peer(&self, text: &str) -> Result<PeerId, Refusal> {
        let members = self.router.members();
        let infos = members.iter().filter_map(|(key, _)| match key {
            member::MemberKey::Info(peer) => Some(*peer),
            member::MemberKey::Reach(_) => None,
        });
        let fits = |peer: &PeerId| {
            let named = member::info(members, *peer).is_some_and(|info| info.name == text);
            named || (text.len() >= 8 && peer.to_string().starts_with(text))
        };
        let found: Vec<PeerId> = infos.filter(fits).collect();
        // Somebody may wait for one that nobody else has heard of.
        if let Ok(peer) = text.parse::<PeerId>()
            && found.is_empty()
        {
            return Ok(peer);
        }
        match found[..] {
            [peer] => Ok(peer),
            [] => {
                let text = format!("no peer is called {text:?}");
                Err(Refusal::new(Code::NotFound, text, "`meshctl peer list` shows names and ids"))
            }
            _ => {
                let text = format!("{} peers are called {text:?}", found.len());
                Err(Refusal::new(Code::Invalid, text, "give the id from `meshctl peer list`"))
            }
        }
    }

    /// Takes a removal; it begins as soon as nobody whom it names can be reached, or none of those
    /// has said anything.
    pub(super) fn begin_removing(
        &mut self,
        id: RequestId,
        (peers, force): (BTreeSet<PeerId>, bool),
        until: Time,
    ) {
        self.desk.removals.push(Removal { id, peers, force, until, since: self.now });
        self.desk.ask_at = self.now;
    }

    fn reached(&self, removal: &Removal) -> Vec<PeerId> {
        let paths = self.router.paths();
        removal.peers.iter().filter(|peer| paths.contains_key(peer)).copied().collect()
    }

    pub(super) fn progress_removals(&mut self) {
        if self.desk.ask_at <= self.now {
            self.desk.ask_at = self.now + ASK_EVERY;
            self.ask_the_doomed();
        }
        for removal in std::mem::take(&mut self.desk.removals) {
            let reached = self.reached(&removal);
            let silent = self.now.since(removal.since) >= SILENCE;
            if removal.force || silent || reached.is_empty() {
                self.remove_now(removal);
            } else if removal.until <= self.now {
                let refusal = self.is_alive(reached[0], "can be reached");
                self.reply(removal.id, Err(refusal));
            } else {
                self.desk.removals.push(removal);
            }
        }
    }

    /// Asks whether they run who are to be removed and can be reached: also those who are back
    /// while their removal waits for others.
    fn ask_the_doomed(&mut self) {
        let begun = self.desk.pending.iter().filter_map(|pending| match &pending.what {
            What::Remove { peers, force: false, .. } => Some(peers),
            _ => None,
        });
        let removals = self.desk.removals.iter().filter(|removal| !removal.force);
        let doomed = removals.map(|removal| &removal.peers).chain(begun).flatten();
        let paths = self.router.paths();
        let reached = doomed.filter(|peer| paths.contains_key(peer));
        for peer in reached.copied().collect::<BTreeSet<PeerId>>() {
            self.send_to_peer(peer, &PeerMessage::AreYouThere);
        }
    }

    fn remove_now(&mut self, removal: Removal) {
        let Removal { id, peers, force, until, .. } = removal;
        let addresses = peers.iter().map(|peer| self.ipam.owned_by(*peer)).sum();
        let patience = FORCE_PATIENCE.min(until.since(self.now) / 2);
        let wish = self.ipam.wish_removal(&peers, force.then_some(self.now + patience));
        let what = What::Remove { peers, addresses, force };
        self.desk.pending.push(Pending { id, wish, until, what });
        // The council looks at once who is there.
        self.desk.review_at = Time::ZERO;
    }

    /// Somebody who is to be removed has answered.
    pub(super) fn removal_is_answered(&mut self, by: PeerId) {
        for removal in std::mem::take(&mut self.desk.removals) {
            if removal.peers.contains(&by) && !removal.force {
                let refusal = self.is_alive(by, "answered just now");
                self.reply(removal.id, Err(refusal));
            } else {
                self.desk.removals.push(removal);
            }
        }
        // What was decided is decided.
        self.settle_pending();
        let names_it = |pending: &Pending| match &pending.what {
            What::Remove { peers, force, .. } => peers.contains(&by) && !force,
            What::Range => false,
        };
        let (refused, pending) =
            std::mem::take(&mut self.desk.pending).into_iter().partition(names_it);
        self.desk.pending = pending;
        for Pending { id, wish, .. } in refused {
            self.ipam.withdraw(wish);
            self.ipam.give_up_proposal();
            let refusal = self.is_alive(by, "answered just now");
            self.reply(id, Err(refusal));
        }
    }

    fn is_alive(&self, peer: PeerId, why: &str) -> Refusal {
        let text = format!("{} is alive: it {why}", self.router.name_of(peer));
        let hint = "run `meshctl leave` on it, or stop its meshd first";
        Refusal::new(Code::Conflict, text, hint)
    }

    /// Removes, unasked, who was away for longer than the lease, and who was removed or has left
    /// and owns something all the same. The reachable elector with the smallest id does.
    pub(super) fn remove_gone(&mut self, electors: &BTreeSet<PeerId>) {
        let (expired, left_over) = (self.expired(), self.left_over());
        let gone: BTreeSet<PeerId> = expired.union(&left_over).copied().collect();
        if let Some((wish, peers)) = &self.desk.unasked {
            if *peers == gone {
                return;
            }
            self.ipam.withdraw(*wish);
            self.ipam.give_up_proposal();
            self.desk.unasked = None;
        }
        let me = self.config.me;
        let first = electors.iter().find(|peer| **peer == me || self.desk.reachable.contains(peer));
        if gone.is_empty() || first != Some(&me) {
            return;
        }
        if !expired.is_empty() {
            let names = self.names(&expired);
            self.notice(true, format!("the lease of {names} has run out: taking the blocks back"));
        }
        if !left_over.is_empty() {
            let names = self.names(&left_over);
            let text = format!("{names} is gone and owns blocks all the same: taking them back");
            self.notice(true, text);
        }
        self.desk.unasked = Some((self.ipam.wish_removal(&gone, None), gone));
    }

    /// For whom the removal that nobody asked for waits, in words.
    pub(super) fn unasked_words(&self) -> Option<String> {
        let (wish, peers) = self.desk.unasked.as_ref()?;
        let Desk { members, reachable, long_away, .. } = &self.desk;
        let around = Surroundings { now: self.now, members, reachable, long_away, dice: 0 };
        let waits = self.ipam.waits_for(*wish, &around);
        let what = What::Remove { peers: peers.clone(), addresses: 0, force: false };
        Some(self.undecided(&what, &waits).message)
    }

    /// Peers that were removed, or have left, are not back, and own something: a grant to them that
    /// was not known where they were removed by force, or by those who confirmed that they had
    /// nothing; what a decree gave them after they had left; or more than fitted into one decree.
    /// Once that has been so for a while: the ring may be on its way.
    fn left_over(&mut self) -> BTreeSet<PeerId> {
        let members = self.router.members();
        let has_left = |peer: &PeerId| member::info(members, *peer).is_some_and(|info| info.left);
        let mut left_over = self.ipam.removed();
        left_over.extend(self.ipam.owners().filter(has_left));
        left_over
            .retain(|peer| self.ipam.owns_anything(*peer) && !self.desk.reachable.contains(peer));
        if left_over.is_empty() {
            self.desk.left_over_since = None;
            return left_over;
        }
        let since = *self.desk.left_over_since.get_or_insert(self.now);
        if self.now.since(since) < LEFT_OVER { BTreeSet::new() } else { left_over }
    }

    /// A removal that nobody asked for is carried out once: whoever is back since then stays.
    pub(super) fn settle_unasked(&mut self) {
        let Some((wish, peers)) = self.desk.unasked.take() else { return };
        if self.ipam.is_granted(wish) == Some(false) {
            self.desk.unasked = Some((wish, peers));
        } else {
            self.ipam.withdraw(wish);
        }
    }
}
