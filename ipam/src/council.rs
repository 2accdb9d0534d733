//! What the mesh decides together: a chain of decrees, each agreed on by Paxos.
//!
//! Almost everything about the ring is decided by one host alone, the owner of a block. Four things
//! are not, because two hosts on two sides of a cut might do them both: founding a mesh together,
//! adding a range, taking a dead host's blocks from it, and changing who votes. Each is a *decree*:
//! a batch of ring writes by a virtual writer ([`DECREE`]), with counters that are part of what is
//! agreed on, so whoever carries it out writes the same entries.
//!
//! Decrees are numbered from 1 (`epoch`). Decree `n + 1` is one instance of single-decree Paxos
//! (Lamport, "Paxos Made Simple", 2001) among the electors that decree `n` left: so there is one
//! chain, whoever was cut off when. `ring` holds its end: [`RingKey::Epoch`], [`RingKey::Elector`].
//!
//! ```text
//!   wish --propose--> preparing --majority (and all)--> accepting --majority--> carried out
//!                        ^   |                                      |
//!                        +---+-------- a greater ballot ------------+
//! ```
//!
//! A removal needs more than a majority: every member that stays must have answered. With its
//! promise a member *bars* those who are to be removed: it takes no news of their writes but from
//! members that have barred them, too. So once all have answered, nobody will ever know more of the
//! dead host's grants than the proposer has been told.
//!
//! * [`message`]: what is said. `acceptor`: what is promised, on disk before it is said.
//! * [`branch`]: what becomes of it when somebody decides by force, without the others.
//! * `proposal`: one attempt. `decree`: what is agreed on. `wish`: what this host wants decided.

pub mod acceptor;
pub mod branch;
pub mod decree;
pub mod message;
mod proposal;
mod wish;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_router::{
    Mutation, PeerId, Time, mutation,
    store::{ORIGINS_MAX, RunError, VersionVector},
};

use crate::{
    ipam::Ipam,
    replica::Head,
    ring::{Epoch, RingKey, RingValue},
};
use acceptor::{Acceptor, Bars};
use branch::{Fork, Point};
use message::{Ballot, CouncilMessage};
use proposal::Proposal;

pub use decree::{DECREE, Decree};
pub use wish::{Waits, Wish, WishError, WishId};

/// Electors at most: any five of nine hosts decide, however many there are.
pub const ELECTORS_MAX: usize = 9;
/// Hosts that may found a mesh together.
pub const FOUNDERS_MAX: u16 = 9;

/// What the council is told about the world around it, each time.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The time.
    pub now: Time,
    /// All members that have not left, this host included.
    pub members: &'a BTreeSet<PeerId>,
    /// Who can be reached now.
    pub reachable: &'a BTreeSet<PeerId>,
    /// Electors that were not reached for so long that somebody else should vote in their place.
    pub long_away: &'a BTreeSet<PeerId>,
    /// A random number.
    pub dice: u32,
}

/// Why this host's ring is worth nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upheaval {
    /// This host was removed while it was away.
    Removed,
    /// It had heard more of a removed host than those who removed it.
    Tainted(PeerId),
    /// So many hosts were removed since that it is forgotten whether it was one of them.
    Forgotten,
    /// What it knows to be decided is void: hosts were removed by force where that was not known.
    Forked,
}

/// This host's part in the council.
#[derive(Debug, Clone, Default)]
pub(crate) struct Council {
    acceptor: Acceptor,
    /// Changes of the acceptor so far, and how many of them are on disk.
    changes: u64,
    durable: u64,
    /// Since when this host has known that it may have forgotten promises.
    abstains_since: Option<Time>,
    /// With the first decree beyond this one they do not matter any more.
    abstains_past: Option<Point>,
    proposal: Option<Proposal>,
    wishes: BTreeMap<WishId, Wish>,
    last_wish: u64,
    /// How many hosts found the mesh, if this one is to be founded together.
    founding: Option<wish::Founding>,
    /// Hosts that say another number of founders.
    differing: BTreeMap<PeerId, u16>,
    /// The greatest round that was heard of.
    round: u64,
    /// Attempts that were overtaken in a row.
    overtaken: u32,
    /// Not before then is anything proposed.
    wait_until: Time,
    /// Since when the electors should be others, and when to look again.
    unseated_since: Option<Time>,
    review_at: Time,
    /// Since when something is barred here.
    barred_since: Option<(Point, Time)>,
    /// The decree that is to be made next, and since when this host knows that.
    next: Point,
    moved_at: Time,
    /// The decree that somebody is waiting for who bars somebody for long.
    pleaded: Option<Point>,
    upheaval: Option<Upheaval>,
    /// This host's return, which the ring that it was told has made undone.
    pub(crate) unheard_return: Option<RingValue>,
    /// To whom, what, and the change of the acceptor that must be durable before.
    outbox: VecDeque<(PeerId, CouncilMessage, u64)>,
}

/// Messages that wait; beyond it they are dropped, for everything is said again.
const OUTBOX_MAX: usize = 4096;

impl Ipam {
    /// How far the mesh's decisions are, as far as this host knows.
    pub fn epoch(&self) -> Epoch {
        match self.ring.get(&RingKey::Epoch).map(|entry| entry.value) {
            Some(RingValue::Epoch(epoch)) => epoch,
            _ => Epoch::default(),
        }
    }

    /// Who votes on the next decree.
    pub fn electors(&self) -> BTreeSet<PeerId> {
        let first = RingKey::Elector(PeerId::new([0; 16]));
        let last = RingKey::Elector(PeerId::new([0xff; 16]));
        let seated =
            self.ring.range(first..=last).filter_map(|(key, entry)| match (key, entry.value) {
                (RingKey::Elector(peer), RingValue::Elector { seated: true, .. }) => Some(*peer),
                _ => None,
            });
        seated.collect()
    }

    /// The decree that took a peer's blocks from it, and the counter of its writes that was taken
    /// into account; `None` if it is back.
    pub fn removal_of(&self, peer: PeerId) -> Option<(u64, u64)> {
        match self.ring.get(&RingKey::Removed(peer)).map(|entry| entry.value) {
            Some(RingValue::Removed { cut, epoch }) => Some((epoch, cut)),
            _ => None,
        }
    }

    /// The peers that were removed and have not been heard of since.
    pub fn removed(&self) -> BTreeSet<PeerId> {
        let all = self.ring.range(RingKey::Removed(PeerId::new([0; 16]))..);
        let removed = all.filter_map(|(key, entry)| match (key, entry.value) {
            (RingKey::Removed(peer), RingValue::Removed { .. }) => Some(*peer),
            _ => None,
        });
        removed.collect()
    }

    /// Whether a peer was removed and has not been heard of since.
    pub fn is_removed(&self, peer: PeerId) -> bool {
        self.removal_of(peer).is_some()
    }

    /// By which decree a peer was removed last, whether it is back or not; zero for never.
    pub(crate) fn removed_at(&self, peer: PeerId) -> u64 {
        match self.ring.get(&RingKey::Removed(peer)).map(|entry| entry.value) {
            Some(RingValue::Removed { epoch, .. } | RingValue::Returned { epoch, .. }) => epoch,
            _ => 0,
        }
    }

    /// This host was removed, has been told the ring anew, and is back.
    pub fn come_back(&mut self) {
        let me = self.me();
        if let Some((epoch, cut)) = self.removal_of(me) {
            self.ring.write(RingKey::Removed(me), RingValue::Returned { cut, epoch });
        }
    }

    /// That this host is back.
    pub(crate) fn own_return(&self) -> Option<RingValue> {
        let value = self.ring.get(&RingKey::Removed(self.me()))?.value;
        matches!(value, RingValue::Returned { .. }).then_some(value)
    }

    /// It said so where nobody knew what others had decided meanwhile, so that their base covers
    /// what it wrote: it says it again.
    pub(crate) fn return_again(&mut self) {
        let key = RingKey::Removed(self.me());
        if !self.ring.is_recalling()
            && let Some(RingValue::Returned { cut, epoch }) = self.council.unheard_return.take()
            && epoch > self.ring.base().forgotten
            && self.ring.get(&key).is_none()
        {
            self.ring.write(key, RingValue::Returned { cut, epoch });
        }
    }

    /// What was promised, for the disk, with the number of its changes so far.
    pub fn promises(&self) -> (u64, &Acceptor) {
        (self.council.changes, &self.council.acceptor)
    }

    /// Puts back what was promised.
    pub fn restore_promises(&mut self, acceptor: Acceptor) {
        self.council.acceptor = acceptor;
        self.apply_bars();
    }

    /// What was promised in an earlier life in this mesh is promised still.
    pub fn keep_promises(&mut self, promises: Acceptor) {
        self.council.touch(|acceptor| *acceptor = promises);
        self.apply_bars();
    }

    /// So many changes of the promises are on disk: they may be told.
    pub fn promises_durable(&mut self, changes: u64) {
        self.council.durable = self.council.durable.max(changes);
    }

    /// This host lost its disk, and with it what it had promised: its vote only counts where
    /// everybody has voted, until a decree is made that it cannot have promised anything about.
    pub fn abstain(&mut self) {
        if mutation::on(Mutation::VoteForgetful) {
            return;
        }
        (self.council.abstains_since, self.council.abstains_past) = (None, None);
        self.council.touch(|acceptor| acceptor.abstain = true);
    }

    /// Whether promises of this host may be lost.
    pub fn abstains(&self) -> bool {
        self.council.acceptor.abstain
    }

    /// The next message to be sent; it may be to this host itself. Promises come out once they are
    /// on disk.
    pub fn poll_council(&mut self) -> Option<(PeerId, CouncilMessage)> {
        let durable = self.council.durable;
        let ready = self.council.outbox.iter().position(|(_, _, needs)| *needs <= durable)?;
        self.council.outbox.remove(ready).map(|(to, message, _)| (to, message))
    }

    /// When [`Ipam::drive_council`] wants to be called at the latest.
    pub fn council_timeout(&self) -> Option<Time> {
        let council = &self.council;
        let proposal = council.proposal.as_ref().map(|proposal| proposal.repeat_at);
        let waits = (proposal.is_none() && council.wants_something()).then_some(council.wait_until);
        let idle = proposal.is_none() && self.epoch().number > 0;
        let reviews = idle.then_some(council.review_at);
        proposal.into_iter().chain(waits).chain(reviews).min()
    }

    /// Whether what this host knows of the ring must be thrown away and told anew, and why. It is
    /// asked once for each reason.
    pub fn take_upheaval(&mut self) -> Option<Upheaval> {
        self.council.upheaval.take()
    }

    /// Looks whether this host was removed and goes on as if it were not: in asking for something
    /// else it had to carry out first what others had accepted, its own removal. Only when somebody
    /// else knows that decree, too: this host throws it away with the rest.
    pub fn look_for_own_removal(&mut self) {
        let aware = self.ring.is_recalling() || mutation::on(Mutation::ForgetFence);
        if !aware && self.is_removed(self.me()) {
            self.council.upheaval = Some(Upheaval::Removed);
        }
    }

    /// Looks for removals that were not known when `fence` was the newest and `before` was all that
    /// was seen.
    fn look_for_removals(&mut self, fence: u64, before: &VersionVector) {
        // Who is told the ring for the first time, or anew, has nothing that could be wrong but
        // what others told it: somebody who was removed and does not know it, perhaps.
        let everything = self.ring.recalls_everything();
        if (everything && before.dots.is_empty()) || mutation::on(Mutation::ForgetFence) {
            return;
        }
        if self.is_removed(self.me()) && !everything {
            self.council.upheaval = Some(Upheaval::Removed);
            return;
        }
        if self.epoch().forgotten > fence {
            self.council.upheaval = Some(Upheaval::Forgotten);
            return;
        }
        let first = RingKey::Removed(DECREE);
        for (key, entry) in self.ring.range(first..) {
            let (
                RingKey::Removed(peer),
                RingValue::Removed { cut, epoch } | RingValue::Returned { cut, epoch },
            ) = (key, entry.value)
            else {
                continue;
            };
            if epoch > fence && before.get(peer) > cut {
                self.council.upheaval = Some(Upheaval::Tainted(*peer));
            }
        }
    }

    /// Takes a delta of a peer. Bars do not hold against who bars the same, nor against who knows
    /// what was decided.
    ///
    /// # Errors
    /// As [`Ipam::absorb`].
    pub(crate) fn absorb_from(&mut self, bytes: &[u8], head: &Head) -> Result<bool, RunError> {
        self.note_gaps(&head.more);
        let known = self.epoch();
        let before = (head.epoch.removed() > known.removed()).then(|| self.ring.vector().clone());
        if head.epoch.branch() > known.branch() {
            self.keep_removal(head.epoch.removed());
        }
        let bars = self.barred(head.epoch.decided());
        self.ring.set_bars(bars.difference(&head.barring).copied().collect());
        let taken = self.absorb(bytes);
        self.apply_bars();
        if let Some(before) = before {
            self.look_for_removals(known.fence, &before);
        }
        taken
    }

    /// The newest removal that this host knows of. It never takes a ring from somebody who does not
    /// know that, not even when it has thrown its own away.
    pub(crate) fn newest_removal(&self) -> Point {
        self.epoch().removed().max(self.council.acceptor.removal)
    }

    /// Whether the ring that this host was told lacks a removal that it knows of.
    pub fn is_behind(&self) -> bool {
        self.epoch().removed() < self.newest_removal()
    }

    /// The ring is about to be thrown away, or must be.
    pub(crate) fn keep_removal(&mut self, heard: Point) {
        let removal = self.newest_removal().max(heard);
        self.council.touch(|acceptor| acceptor.removal = removal);
    }

    /// The newest decree that this host is bound to: it may have heard things from somebody on
    /// another branch, and not yet of the fork.
    pub(crate) fn position(&self) -> Epoch {
        let epoch = self.epoch();
        let (branch, fence) = self.council.acceptor.removal;
        if branch <= epoch.branch() {
            return epoch;
        }
        Epoch { number: fence, fence, forks: [branch, epoch.branch(), Fork::default()], ..epoch }
    }

    /// Somebody is on a branch that stands, and this host is not.
    pub(crate) fn fork(&mut self, theirs: &Epoch) {
        self.keep_removal(theirs.removed());
        self.council.upheaval = Some(Upheaval::Forked);
    }

    /// Origins whose news this host takes only from those who bar them, too, or who know so many
    /// decrees.
    pub(crate) fn barred(&self, decided: Point) -> BTreeSet<PeerId> {
        self.council.acceptor.barred(decided.max(self.epoch().decided()))
    }

    /// What somebody has to heed whom this host comes to know.
    pub fn bars(&self) -> Bars {
        let decided = self.position().decided();
        let acceptor = &self.council.acceptor;
        let peers = self.barred(decided);
        Bars { decided, about: acceptor.about(), peers, abstains: acceptor.abstain }
    }

    /// Takes no news of those whom an elector bars that has come to know this host: that is on disk
    /// before anything that comes later. Returns false if it knows of a decree that this host does
    /// not know yet, which may have removed somebody.
    pub fn heed(&mut self, bars: &Bars) -> bool {
        let heeded = bars.peers.union(&self.council.acceptor.heeded).count();
        let later = bars.decided > self.epoch().decided() || bars.about > self.next_decree();
        if later || heeded > ORIGINS_MAX || bars.peers.contains(&DECREE) {
            return false;
        }
        if !bars.peers.is_empty() {
            self.council.touch(|acceptor| {
                acceptor.advance(bars.about);
                if acceptor.about() == bars.about {
                    acceptor.heeded.extend(&bars.peers);
                }
            });
            self.apply_bars();
        }
        true
    }

    /// Whom this host has promised to bar, for whoever bars them, too.
    pub(crate) fn promised_bars(&self) -> BTreeSet<PeerId> {
        let decided = self.position().decided().max(self.epoch().decided());
        self.council.acceptor.promised_bars(decided)
    }

    /// Whether a peer is being removed or was: it gets nothing more. A grant to it that was written
    /// after this host has said what it has seen would be nobody's once the removal is decided.
    pub fn is_fenced(&self, peer: PeerId) -> bool {
        self.barred(Point::default()).contains(&peer) || self.is_removed(peer)
    }

    /// What is barred holds for the ring from now on.
    pub(crate) fn apply_bars(&mut self) {
        let bars = self.barred(Point::default());
        self.ring.set_bars(bars);
    }
}

impl Council {
    fn wants_something(&self) -> bool {
        !self.wishes.is_empty() || self.founding.is_some()
    }

    /// Forgets what was wanted and begun.
    pub(crate) fn reset(&mut self) {
        let Self { acceptor, changes, durable, last_wish, round, .. } = std::mem::take(self);
        *self = Self { acceptor, changes, durable, last_wish, round, ..Self::default() };
    }

    /// Changes what was promised.
    fn touch(&mut self, change: impl FnOnce(&mut Acceptor)) {
        change(&mut self.acceptor);
        self.changes += 1;
    }

    /// Sends what depends on nothing.
    fn say(&mut self, to: PeerId, message: CouncilMessage) {
        self.say_durable(to, message, 0);
    }

    /// Sends a promise, once it is on disk.
    fn promise(&mut self, to: PeerId, message: CouncilMessage) {
        let needs = if mutation::on(Mutation::PromiseEarly) { 0 } else { self.changes };
        self.say_durable(to, message, needs);
    }

    fn say_durable(&mut self, to: PeerId, message: CouncilMessage, needs: u64) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((to, message, needs));
        }
    }

    fn heard_of(&mut self, ballot: Ballot) {
        self.round = self.round.max(ballot.round);
    }
}
