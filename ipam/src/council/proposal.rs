//! One attempt to get something decided, and the answers to the attempts of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_router::{
    Mutation, PeerId, Time, mutation,
    store::{ORIGINS_MAX, VersionVector},
};

use super::{
    Council, Surroundings,
    branch::Point,
    decree::{Change, DECREE, Decree},
    message::{Ballot, Body, CouncilMessage},
};
use crate::ipam::Ipam;

/// How often a question is repeated to those who have not answered. Chosen: twice a round trip
/// around the world.
const REPEAT: Duration = Duration::from_millis(400);
/// The pause after an attempt was overtaken, times a random number below the attempts so far.
const PAUSE: Duration = Duration::from_millis(150);
/// A host that lost its disk may take so long to hear how many decrees there are. Chosen: as long
/// as any two that stand are without a link that could be made.
const ABSTENTION: Duration = Duration::from_secs(30);
/// How long all founders are waited for before a majority goes on without the others.
const GENESIS_PATIENCE: Duration = Duration::from_secs(1);
/// Hosts that are barred, each counted once for each attempt that asked for it. Chosen: all that
/// can be, in one attempt; what was promised then still fits into a row on disk.
const BARS_MAX: usize = ORIGINS_MAX;
/// Overtaken attempts beyond which the pause does not grow.
const PAUSES_MAX: u32 = 8;

/// What a member promised.
#[derive(Debug, Clone)]
struct Promise {
    accepted: Option<(Ballot, Decree)>,
    seen: VersionVector,
    members: BTreeSet<PeerId>,
    abstains: bool,
}

#[derive(Debug, Clone)]
enum Stage {
    Preparing(BTreeMap<PeerId, Promise>),
    Accepting {
        decree: Decree,
        accepted: BTreeSet<PeerId>,
        /// Of those who promised, these may have forgotten other promises.
        unsure: BTreeSet<PeerId>,
    },
}

/// An attempt.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    about: Point,
    ballot: Ballot,
    change: Change,
    founders: u16,
    since: Time,
    stage: Stage,
    /// When to ask again who has not answered.
    pub(super) repeat_at: Time,
}

impl Proposal {
    /// Who has answered the present question.
    pub(super) fn answered(&self) -> BTreeSet<PeerId> {
        match &self.stage {
            Stage::Preparing(promises) => promises.keys().copied().collect(),
            Stage::Accepting { accepted, .. } => accepted.clone(),
        }
    }

    /// Who has answered and may have forgotten other promises.
    pub(super) fn unsure(&self) -> BTreeSet<PeerId> {
        match &self.stage {
            Stage::Preparing(promises) => {
                let unsure = promises.iter().filter(|(_, promise)| promise.abstains);
                unsure.map(|(peer, _)| *peer).collect()
            }
            Stage::Accepting { unsure, .. } => unsure.clone(),
        }
    }

    /// Whose writes, or whose knowledge, have not all arrived here: what this host would take over
    /// may have been given away.
    pub(super) fn behind(&self, ipam: &Ipam) -> BTreeSet<PeerId> {
        let Stage::Preparing(promises) = &self.stage else { return BTreeSet::new() };
        let behind = promises.iter().filter(|(_, promise)| {
            promise.seen.dots.iter().any(|(origin, counter)| ipam.store().seen(*origin) < *counter)
        });
        behind.map(|(peer, _)| *peer).chain(ipam.lacking()).collect()
    }

    /// Everybody who must have answered before somebody is removed.
    pub(super) fn everybody(&self, around: &Surroundings<'_>) -> BTreeSet<PeerId> {
        let mut everybody = around.members.clone();
        if let Stage::Preparing(promises) = &self.stage {
            everybody.extend(promises.values().flat_map(|promise| &promise.members));
        }
        everybody.retain(|peer| !self.change.removed.contains(peer));
        everybody
    }

    fn say(&self, body: Body) -> CouncilMessage {
        let (branch, epoch) = self.about;
        CouncilMessage { epoch, branch, ballot: self.ballot, body }
    }
}

impl Ipam {
    /// Goes on with what is to be decided. Cheap when nothing is due.
    pub fn drive_council(&mut self, around: &Surroundings<'_>) {
        let now = around.now;
        let (next, decided) = (self.next_decree(), self.epoch().number);
        if self.council.proposal.as_ref().is_some_and(|proposal| proposal.about != next) {
            // Somebody else's decree was made: what is still wanted is proposed anew.
            self.council.proposal = None;
            self.council.overtaken = 0;
            self.apply_bars();
        }
        if self.council.next != next {
            self.council.next = next;
            self.council.moved_at = now;
        }
        self.council.end_abstention(next, now);
        if let Some(change) = self.forced_change(around) {
            // It waits for nobody any more, least of all for a proposal that finds no majority.
            self.give_up_proposal();
            self.council.proposal = None;
            return self.begin(change, around);
        }
        if self.is_behind() {
            self.council.proposal = None;
            self.council.wait_until = now + REPEAT;
            return self.review_later(now);
        }
        if let Some(proposal) = &self.council.proposal {
            if proposal.repeat_at <= now {
                self.ask(around);
            }
            return;
        }
        let wants = self.council.wants_something() && self.council.wait_until <= now;
        let reviews = decided > 0 && self.council.review_at <= now;
        if !wants && !reviews {
            return;
        }
        self.review_later(now);
        if self.council.wait_until > now {
            return;
        }
        self.council.wait_until = now + REPEAT;
        if let Some(change) = self.next_change(around) {
            self.begin(change, around);
        }
    }

    pub(super) fn next_decree(&self) -> Point {
        let epoch = self.epoch();
        (epoch.branch(), epoch.number + 1)
    }

    /// Gives up what is not wanted any more, as long as nobody was asked to accept it.
    pub fn give_up_proposal(&mut self) {
        self.council.give_up();
    }

    fn begin(&mut self, change: Change, around: &Surroundings<'_>) {
        if change.forced {
            let decree = self.draft(&change);
            return self.carry_out_alone(&decree);
        }
        let ballot = Ballot::after(self.council.round, self.me(), around.dice);
        self.council.round = ballot.round;
        let founders = self.council.founding.as_ref().filter(|_| self.epoch().number == 0);
        self.council.proposal = Some(Proposal {
            about: self.next_decree(),
            ballot,
            change,
            founders: founders.map_or(0, |founding| founding.founders),
            since: around.now,
            stage: Stage::Preparing(BTreeMap::new()),
            repeat_at: around.now,
        });
        self.ask(around);
    }

    /// Asks everybody who has not answered.
    fn ask(&mut self, around: &Surroundings<'_>) {
        let electors = self.electors();
        let me = self.me();
        let Some(proposal) = &mut self.council.proposal else { return };
        proposal.repeat_at = around.now + REPEAT;
        let audience: BTreeSet<PeerId> = if proposal.founders > 0 {
            around.reachable.iter().copied().chain([me]).collect()
        } else if proposal.change.removed.is_empty() {
            electors
        } else {
            // The removed do not vote, though they count.
            let voters = electors.difference(&proposal.change.removed).copied();
            proposal.everybody(around).into_iter().chain(voters).collect()
        };
        let body = match &proposal.stage {
            Stage::Preparing(_) => Body::Prepare {
                founders: proposal.founders,
                removing: proposal.change.removed.clone(),
            },
            Stage::Accepting { decree, .. } => Body::Accept(decree.clone()),
        };
        let answered = proposal.answered();
        let message = proposal.say(body);
        for peer in audience.difference(&answered) {
            self.council.say(*peer, message.clone());
        }
        self.check_promises(around);
    }

    /// Takes a message of the council.
    pub fn handle_council(
        &mut self,
        from: PeerId,
        message: CouncilMessage,
        around: &Surroundings<'_>,
    ) {
        let CouncilMessage { epoch, branch, ballot, body } = message;
        let about = (branch, epoch);
        // Who is behind is told by the ring; and whom we are behind asks again.
        if about != self.next_decree() {
            return;
        }
        if self.is_behind() {
            return;
        }
        self.council.heard_of(ballot);
        match body {
            Body::Prepare { founders, removing } => {
                self.on_prepare(from, (about, ballot), (founders, &removing), around);
            }
            Body::Accept(decree) => self.on_accept(from, (about, ballot), decree),
            Body::GivenUp if ballot.proposer == from => self.council.touch(|acceptor| {
                acceptor.bars.retain(|_, by| !(by.remove(&ballot) && by.is_empty()));
            }),
            Body::Stuck => self.council.pleaded = Some(about),
            answer => self.on_answer(from, ballot, answer, around),
        }
        self.apply_bars();
    }

    fn on_prepare(
        &mut self,
        from: PeerId,
        (about, ballot): (Point, Ballot),
        (founders, removing): (u16, &BTreeSet<PeerId>),
        around: &Surroundings<'_>,
    ) {
        let ours = self.council.founding.as_ref().map_or(0, |founding| founding.founders);
        let (branch, epoch) = about;
        let answer = |body| CouncilMessage { epoch, branch, ballot, body };
        if epoch == 1 && founders != ours {
            return self.council.say(from, answer(Body::Differs { founders: ours }));
        }
        // Who is to be removed does not agree to it, nor hinder it. Nobody removes the decrees.
        let sound = ballot.proposer == from && !removing.contains(&DECREE);
        if !sound || removing.contains(&self.me()) {
            return;
        }
        self.council.touch(|acceptor| acceptor.advance(about));
        if let Some(by) = self.council.acceptor.promised.filter(|promised| *promised > ballot) {
            return self.council.say(from, answer(Body::Overtaken { by }));
        }
        if !self.council.may_bar(removing, ballot) {
            return;
        }
        self.council.touch(|acceptor| {
            acceptor.promised = Some(ballot);
            for peer in removing {
                acceptor.bars.entry(*peer).or_default().insert(ballot);
            }
        });
        let votes = !removing.is_empty() && self.electors().contains(&self.me());
        let acceptor = &self.council.acceptor;
        let promise = Body::Promise {
            accepted: acceptor.accepted.clone(),
            seen: self.ring.vector().clone(),
            members: if votes { around.members.clone() } else { BTreeSet::new() },
            abstains: acceptor.abstain,
        };
        self.council.promise(from, answer(promise));
    }

    fn on_accept(&mut self, from: PeerId, (about, ballot): (Point, Ballot), decree: Decree) {
        let (branch, epoch) = about;
        let answer = |body| CouncilMessage { epoch, branch, ballot, body };
        if ballot.proposer != from || !decree.is_sound() {
            return;
        }
        self.council.touch(|acceptor| acceptor.advance(about));
        // Who counts on this vote has to know that it may be worth nothing, and so asks anew.
        if self.abstains() && self.council.acceptor.promised != Some(ballot) {
            return self.council.say(from, answer(Body::Overtaken { by: ballot }));
        }
        if let Some(by) = self.council.acceptor.promised.filter(|promised| *promised > ballot) {
            return self.council.say(from, answer(Body::Overtaken { by }));
        }
        self.council.touch(|acceptor| {
            acceptor.promised = Some(ballot);
            acceptor.accepted = Some((ballot, decree));
        });
        self.council.promise(from, answer(Body::Accepted));
    }

    fn on_answer(&mut self, from: PeerId, ballot: Ballot, body: Body, around: &Surroundings<'_>) {
        let Some(proposal) = &mut self.council.proposal else { return };
        if proposal.ballot != ballot {
            return;
        }
        match (body, &mut proposal.stage) {
            // It would be proposed for ever: nobody accepts it.
            (Body::Promise { accepted: Some((_, decree)), .. }, _) if !decree.is_sound() => {}
            (Body::Promise { accepted, seen, members, abstains }, Stage::Preparing(promises)) => {
                promises.insert(from, Promise { accepted, seen, members, abstains });
                self.check_promises(around);
            }
            (Body::Accepted, Stage::Accepting { accepted, .. }) => {
                accepted.insert(from);
                self.check_accepted();
            }
            (Body::Overtaken { by }, _) => self.council.was_overtaken(by, around),
            (Body::Differs { founders }, _) => {
                self.council.differing.insert(from, founders);
            }
            _ => {}
        }
    }

    /// Goes on to accepting, once enough have promised.
    fn check_promises(&mut self, around: &Surroundings<'_>) {
        let Some(proposal) = &self.council.proposal else { return };
        let Stage::Preparing(promises) = &proposal.stage else { return };
        if !self.may_accept(proposal, promises, around) {
            return;
        }
        let before = promises.values().filter_map(|promise| promise.accepted.as_ref());
        let before = before.max_by_key(|(ballot, _)| *ballot).map(|(_, decree)| decree.clone());
        let decree = before.or_else(|| {
            let change = if proposal.founders > 0 {
                self.genesis(promises.keys().copied().collect())?
            } else {
                proposal.change.clone()
            };
            Some(self.draft(&change))
        });
        let Some(decree) = decree else { return };
        let unsure = proposal.unsure();
        let Some(proposal) = &mut self.council.proposal else { return };
        proposal.stage = Stage::Accepting { decree, accepted: BTreeSet::new(), unsure };
        self.ask(around);
    }

    fn may_accept(
        &self,
        proposal: &Proposal,
        promises: &BTreeMap<PeerId, Promise>,
        around: &Surroundings<'_>,
    ) -> bool {
        if proposal.founders > 0 {
            // Each who is there gets a share, so the others are given a moment.
            let founders = usize::from(proposal.founders);
            let late = around.now.since(proposal.since) >= GENESIS_PATIENCE;
            return promises.len() >= founders || (late && promises.len() >= quorum(founders));
        }
        let electors = self.electors();
        let voted = |peer: &&PeerId| promises.contains_key(peer);
        let sure = |peer: &&PeerId| promises.get(peer).is_some_and(|promise| !promise.abstains);
        let majority = electors.iter().filter(sure).count() >= quorum(electors.len());
        if !majority && !electors.iter().all(|peer| voted(&peer)) {
            return false;
        }
        let removed = &proposal.change.removed;
        let mut everybody = proposal.everybody(around).into_iter();
        let all = proposal.change.hasty || everybody.all(|peer| promises.contains_key(&peer));
        let unasked = mutation::on(Mutation::RemoveUnasked);
        removed.is_empty() || unasked || (all && proposal.behind(self).is_empty())
    }

    /// Carries out what a majority has accepted.
    fn check_accepted(&mut self) {
        let Some(proposal) = &self.council.proposal else { return };
        let Stage::Accepting { decree, accepted, unsure } = &proposal.stage else { return };
        let enough = if proposal.founders > 0 {
            accepted.len() >= quorum(proposal.founders.into())
        } else {
            let electors = self.electors();
            let sure = accepted.difference(unsure).filter(|peer| electors.contains(peer)).count();
            sure >= quorum(electors.len()) || electors.is_subset(accepted)
        };
        if enough {
            let decree = decree.clone();
            self.council.proposal = None;
            self.council.overtaken = 0;
            self.council.wait_until = Time::ZERO;
            self.carry_out(&decree);
        }
    }
}

/// How many of so many decide.
pub(super) fn quorum(electors: usize) -> usize {
    if mutation::on(Mutation::SmallQuorum) { (electors / 2).max(1) } else { electors / 2 + 1 }
}

impl Council {
    /// What was promised before the disk was lost was about the decree after those that stood
    /// then. By and by this host hears of all of these.
    fn end_abstention(&mut self, next: Point, now: Time) {
        if !self.acceptor.abstain {
            return;
        }
        let since = *self.abstains_since.get_or_insert(now);
        if now.since(since) >= ABSTENTION && next > *self.abstains_past.get_or_insert(next) {
            (self.abstains_since, self.abstains_past) = (None, None);
            self.touch(|acceptor| acceptor.abstain = false);
        }
    }

    /// Whether a decree is needed for this host's vote to count again.
    pub(super) fn abstains_in_vain(&self) -> bool {
        self.acceptor.abstain && self.abstains_past.is_some()
    }

    /// Whether there is room to promise to bar these. Any decree makes room, and none is hindered
    /// that bars nobody.
    fn may_bar(&self, removing: &BTreeSet<PeerId>, ballot: Ballot) -> bool {
        let bars = &self.acceptor.bars;
        let promised = |peer: &&PeerId| bars.get(peer).is_some_and(|by| by.contains(&ballot));
        let new = removing.len() - removing.iter().filter(promised).count();
        let before: usize = bars.values().map(BTreeSet::len).sum();
        new == 0 || before + new <= BARS_MAX
    }

    /// Nobody needs to bar anybody for an attempt that ends before anybody was asked to accept it.
    fn give_up(&mut self) {
        let Some(proposal) = &self.proposal else { return };
        if let Stage::Preparing(promises) = &proposal.stage {
            let message = proposal.say(Body::GivenUp);
            let asked: Vec<PeerId> = promises.keys().copied().collect();
            self.proposal = None;
            for peer in asked {
                self.say(peer, message.clone());
            }
        }
    }

    fn was_overtaken(&mut self, by: Ballot, around: &Surroundings<'_>) {
        self.heard_of(by);
        self.give_up();
        self.proposal = None;
        self.overtaken = (self.overtaken + 1).min(PAUSES_MAX);
        let dice = 1 + around.dice % (2 * self.overtaken);
        self.wait_until = around.now + PAUSE * dice;
    }
}
