//! What this host wants decided, until the ring says that it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_router::{Mutation, PeerId, Time, mutation};

use super::{
    Council, ELECTORS_MAX, FOUNDERS_MAX, Surroundings,
    branch::Point,
    decree::Change,
    message::{Ballot, Body, CouncilMessage},
    proposal::{Proposal, quorum},
};
use crate::{
    block::Block,
    ipam::Ipam,
    ring::{RANGES_MAX, check_range},
};

/// Electors change this long after they should, so that a burst of joins is one decree.
const SEAT_DELAY: Duration = Duration::from_secs(1);
/// How often it is looked at who should vote.
const REVIEW: Duration = Duration::from_secs(1);
/// Bars that nobody lifted for this long are lifted by a decree that changes nothing else.
const BARRED_MAX: Duration = Duration::from_secs(15);
/// How long the first of the founders is left to propose alone.
const FOUNDING_TURN: Duration = Duration::from_secs(3);

/// Nobody decides alone so soon after the last decree: whoever made it may be making the next.
const MOVING: Duration = Duration::from_secs(2);

/// A wish's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WishId(pub u64);

/// What this host wants decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A new range, owned by this host.
    Range(Block),
    /// These lose their blocks to this host.
    Remove {
        /// Who, and by which decree they had been removed before.
        peers: BTreeMap<PeerId, u64>,
        /// Members that have not answered are not waited for; from then on no majority is either.
        alone_from: Option<Time>,
    },
    /// This host votes no more.
    Resign,
}

/// The mesh is to be founded together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Founding {
    pub(super) founders: u16,
    pub(super) ranges: Vec<Block>,
    pub(super) lease_seconds: u32,
    pub(super) since: Option<Time>,
}

/// What a wish waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// Electors of which more must answer: how many are needed.
    pub needed: usize,
    /// Of the electors, these have.
    pub answered: BTreeSet<PeerId>,
    /// Members that have not answered and have to.
    pub silent: BTreeSet<PeerId>,
    /// Members whose writes have not arrived yet.
    pub behind: BTreeSet<PeerId>,
    /// Of the electors that have answered, these have a vote only where all have answered: what
    /// they had promised was lost with their disks.
    pub unsure: BTreeSet<PeerId>,
}

/// Why a wish cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// Not a range, or one too many.
    #[error("{0}")]
    Range(String),
    /// It shares addresses with a range that is there.
    #[error("{0} overlaps the mesh's range {1}")]
    Overlap(Block, Block),
    /// A number of founders that cannot be.
    #[error("{0} founders cannot be: from 1 to {FOUNDERS_MAX} hosts found a mesh")]
    Founders(u16),
}

impl Ipam {
    /// Wants a range added.
    ///
    /// # Errors
    /// [`WishError`].
    pub fn wish_range(&mut self, range: Block) -> Result<WishId, WishError> {
        check_range(&range).map_err(WishError::Range)?;
        self.may_add(range)?;
        Ok(self.council.wish(Wish::Range(range)))
    }

    /// Whether a range can be added to those that there are, or is one of them.
    fn may_add(&self, range: Block) -> Result<(), WishError> {
        let ranges = self.ranges();
        if ranges.contains(&range) {
            return Ok(());
        }
        if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
            return Err(WishError::Overlap(range, *other));
        }
        if ranges.len() >= RANGES_MAX {
            let text = format!("a mesh may have {RANGES_MAX} ranges and has as many");
            return Err(WishError::Range(text));
        }
        Ok(())
    }

    /// Why a wish cannot come true any more: a range was added meanwhile that it overlaps.
    pub fn obstacle(&self, id: WishId) -> Option<WishError> {
        self.council.wishes.get(&id).and_then(|wish| self.obstacle_to(wish))
    }

    fn obstacle_to(&self, wish: &Wish) -> Option<WishError> {
        match wish {
            Wish::Range(_) if mutation::on(Mutation::AddOverlap) => None,
            Wish::Range(range) => self.may_add(*range).err(),
            Wish::Remove { .. } | Wish::Resign => None,
        }
    }

    /// Wants peers removed: their blocks are to be this host's. By force, from `alone_from` on or
    /// as soon as no majority can be reached, without anybody's agreement; and until then without
    /// waiting for members that do not answer.
    pub fn wish_removal(&mut self, peers: &BTreeSet<PeerId>, alone_from: Option<Time>) -> WishId {
        if alone_from.is_some() {
            // What waits for them is not waited for.
            self.give_up_proposal();
        }
        let peers = peers.iter().map(|peer| (*peer, self.removed_at(*peer))).collect();
        self.council.wish(Wish::Remove { peers, alone_from })
    }

    /// Wants to vote no more.
    pub fn wish_resignation(&mut self) -> WishId {
        self.council.wish(Wish::Resign)
    }

    /// Does not want it any more. What was agreed on already is carried out all the same.
    pub fn withdraw(&mut self, id: WishId) {
        self.council.wishes.remove(&id);
    }

    /// Founds the mesh together with others that were told the same number of founders.
    ///
    /// # Errors
    /// [`WishError::Founders`].
    pub fn found_together(
        &mut self,
        founders: u16,
        ranges: Vec<Block>,
        lease_seconds: u32,
    ) -> Result<(), WishError> {
        if founders == 0 || founders > FOUNDERS_MAX {
            return Err(WishError::Founders(founders));
        }
        self.council.founding = Some(Founding { founders, ranges, lease_seconds, since: None });
        Ok(())
    }

    /// Does not found any more: the mesh stands.
    pub fn stop_founding(&mut self) {
        self.council.founding = None;
    }

    /// How many hosts found the mesh, and which have answered so far, while that goes on.
    pub fn founding(&self) -> Option<(u16, BTreeSet<PeerId>)> {
        let founding = self.council.founding.as_ref()?;
        let answered = self.council.proposal.as_ref().map(Proposal::answered);
        Some((founding.founders, answered.unwrap_or_default()))
    }

    /// Hosts that were told another number of founders.
    pub fn differing_founders(&self) -> &BTreeMap<PeerId, u16> {
        &self.council.differing
    }

    /// Whether a wish has come true; `None` when there is no such wish.
    pub fn is_granted(&self, id: WishId) -> Option<bool> {
        self.council.wishes.get(&id).map(|wish| self.is_fulfilled(wish))
    }

    /// What a wish waits for. Looks at everything that each host has answered.
    pub fn waits_for(&self, id: WishId, around: &Surroundings<'_>) -> Waits {
        let wish = self.council.wishes.get(&id);
        let removing = wish.map(|wish| self.removing(wish)).unwrap_or_default();
        let electors = self.electors();
        let proposal = self.council.proposal.as_ref();
        let answered = proposal.map(Proposal::answered).unwrap_or_default();
        let silent = if removing.is_empty() {
            BTreeSet::new()
        } else {
            let everybody = proposal.map_or_else(
                || around.members.difference(&removing).copied().collect(),
                |proposal| proposal.everybody(around),
            );
            everybody.difference(&answered).copied().collect()
        };
        Waits {
            needed: electors.len() / 2 + 1,
            answered: answered.intersection(&electors).copied().collect(),
            silent,
            behind: proposal.map(|proposal| proposal.behind(self)).unwrap_or_default(),
            unsure: proposal.map(Proposal::unsure).unwrap_or_default(),
        }
    }

    fn is_fulfilled(&self, wish: &Wish) -> bool {
        match wish {
            Wish::Range(range) => self.ranges().contains(range),
            Wish::Remove { .. } => self.removing(wish).is_empty(),
            Wish::Resign => !self.electors().contains(&self.me()),
        }
    }

    /// Whom a wish removes that has not been removed since it was wished.
    pub(super) fn removing(&self, wish: &Wish) -> BTreeSet<PeerId> {
        let Wish::Remove { peers, .. } = wish else { return BTreeSet::new() };
        let due = |(peer, before): &(&PeerId, &u64)| {
            self.removed_at(**peer) <= **before || self.owns_anything(**peer)
        };
        peers.iter().filter(due).map(|(peer, _)| *peer).collect()
    }

    /// Whoever owns an address, some of them more than once.
    pub fn owners(&self) -> impl Iterator<Item = PeerId> {
        self.view.space.values().flat_map(|owners| owners.keys().copied())
    }

    /// Whether a peer owns any address.
    pub fn owns_anything(&self, peer: PeerId) -> bool {
        self.view.space.values().any(|owners| owners.contains_key(&peer))
    }

    /// What should be decided next, and whom it removes: what people want first.
    pub(super) fn next_change(&mut self, around: &Surroundings<'_>) -> Option<Change> {
        let epoch = self.epoch().number;
        if epoch == 0 {
            return self.may_found(around).then(Change::default);
        }
        let electors = self.electors();
        let open = |wish: &&Wish| !self.is_fulfilled(wish) && self.obstacle_to(wish).is_none();
        let wishes = self.council.wishes.values().filter(open);
        // What is forced comes first.
        if let Some(wish) = wishes.min_by_key(|wish| !wish.is_forced()).cloned() {
            let change = self.change_for(&wish, &electors, around);
            return (!change.electors.is_empty()).then_some(change);
        }
        self.seats(&electors, around)
    }

    /// What somebody wants carried out without anybody's consent. Where a majority can be asked it
    /// is, for a while: it may be about to decide the same, and would have another chain of decrees
    /// (found by simulation: an address had two owners, seed 5037080 of random scenarios; and where
    /// the decree before had taken that while, seed 171700043 of `restore`).
    pub(super) fn forced_change(&self, around: &Surroundings<'_>) -> Option<Change> {
        let mut wishes = self.council.wishes.values();
        let wish = wishes.find(|wish| wish.is_forced() && !self.is_fulfilled(wish))?;
        let Wish::Remove { alone_from: Some(alone_from), .. } = wish else { return None };
        let electors = self.electors();
        let change = self.change_for(wish, &electors, around);
        let here = |peer: &&PeerId| **peer == self.me() || around.reachable.contains(peer);
        let voters = electors.difference(&change.removed).filter(here).count();
        let moving = around.now.since(self.council.moved_at) < MOVING;
        let over = around.now >= *alone_from && !moving;
        let alone = over || voters < quorum(electors.len());
        (alone && !change.electors.is_empty()).then_some(Change { forced: true, ..change })
    }

    /// What a wish changes.
    fn change_for(
        &self,
        wish: &Wish,
        electors: &BTreeSet<PeerId>,
        around: &Surroundings<'_>,
    ) -> Change {
        let mut change = Change { electors: electors.clone(), ..Change::default() };
        match wish {
            Wish::Range(range) => change.ranges = vec![(*range, vec![self.me()])],
            Wish::Remove { .. } => {
                change.hasty = wish.is_forced();
                change.removed = self.removing(wish);
                let stay = electors.difference(&change.removed).copied();
                change.electors = self.filled(stay.collect(), &change.removed, around);
            }
            Wish::Resign => {
                let stay = electors.iter().copied().filter(|peer| *peer != self.me());
                change.electors = self.filled(stay.collect(), &[self.me()].into(), around);
            }
        }
        change
    }

    /// Whether this host should propose the founding: the one with the smallest id does, and the
    /// others if nothing comes of that.
    fn may_found(&mut self, around: &Surroundings<'_>) -> bool {
        let me = self.me();
        let Some(founding) = &mut self.council.founding else { return false };
        let since = *founding.since.get_or_insert(around.now);
        let first = around.reachable.first().is_none_or(|first| me < *first);
        first || around.now.since(since) >= FOUNDING_TURN
    }

    /// Electors with others in the seats that are free: reachable members that own something.
    fn filled(
        &self,
        mut electors: BTreeSet<PeerId>,
        but: &BTreeSet<PeerId>,
        around: &Surroundings<'_>,
    ) -> BTreeSet<PeerId> {
        let here = |peer: &&PeerId| **peer == self.me() || around.reachable.contains(peer);
        for peer in around.members.iter().filter(here) {
            let may = !but.contains(peer) && self.owns_anything(*peer);
            if electors.len() < ELECTORS_MAX && may {
                electors.insert(*peer);
            }
        }
        electors
    }

    /// Other electors, if there should be. The reachable elector with the smallest id sees to it.
    fn seats(&mut self, electors: &BTreeSet<PeerId>, around: &Surroundings<'_>) -> Option<Change> {
        let me = self.me();
        let now = around.now;
        let first = electors.iter().find(|peer| **peer == me || around.reachable.contains(peer));
        let pleaded = self.council.pleaded == Some(self.next_decree());
        let stuck = self.is_stuck(now) || pleaded;
        if !electors.contains(&me) || (first != Some(&me) && !stuck) {
            self.council.unseated_since = None;
            return None;
        }
        let staying = electors.iter().filter(|peer| around.members.contains(peer)).copied();
        let staying: BTreeSet<PeerId> = staying.collect();
        let present = |peer: &&PeerId| !around.long_away.contains(peer);
        let near: BTreeSet<PeerId> = staying.iter().filter(present).copied().collect();
        let replaced = self.filled(near.clone(), &BTreeSet::new(), around);
        // Who is away keeps its seat unless somebody can take it.
        let wanted = if replaced.len() >= staying.len() && replaced.len() > near.len() {
            replaced
        } else {
            self.filled(staying, &BTreeSet::new(), around)
        };
        if wanted == *electors && !stuck {
            self.council.unseated_since = None;
            return None;
        }
        let since = *self.council.unseated_since.get_or_insert(now);
        let due = stuck || now.since(since) >= SEAT_DELAY;
        (due && !wanted.is_empty()).then(|| Change { electors: wanted, ..Change::default() })
    }

    /// Whether this host has barred somebody for so long that whoever wanted it has given up, and
    /// it was not told; or has had no vote for long. The next decree ends it, whatever that is.
    fn is_stuck(&mut self, now: Time) -> bool {
        let barred = !self.barred(Point::default()).is_empty();
        // Whoever goes on after a decree bars anew.
        let about = self.council.acceptor.about();
        let since = self.council.barred_since.filter(|(of, _)| *of == about);
        self.council.barred_since = barred.then(|| since.unwrap_or((about, now)));
        let long = self.council.barred_since.is_some_and(|(_, at)| now.since(at) >= BARRED_MAX);
        long || self.council.abstains_in_vain()
    }

    /// What to say to the electors where this host cannot propose: that it bars somebody for long.
    pub fn plea(&mut self, now: Time) -> Option<CouncilMessage> {
        if !self.is_stuck(now) {
            return None;
        }
        // Who is told the ring anew does not know which decree is next, but for which it bars.
        let (branch, epoch) = self.next_decree().max(self.council.acceptor.about());
        let ballot = Ballot { round: self.council.round, proposer: self.me() };
        Some(CouncilMessage { epoch, branch, ballot, body: Body::Stuck })
    }

    /// When to look again who should vote.
    pub(super) fn review_later(&mut self, now: Time) {
        self.council.review_at = now + REVIEW;
    }

    /// The decree that founds a mesh of all who promised.
    pub(super) fn genesis(&self, founders: BTreeSet<PeerId>) -> Option<Change> {
        let founding = self.council.founding.as_ref()?;
        let owners: Vec<PeerId> = founders.iter().copied().collect();
        let ranges = founding.ranges.iter().map(|range| (*range, owners.clone())).collect();
        let lease_seconds = Some(founding.lease_seconds);
        Some(Change { ranges, electors: founders, lease_seconds, ..Change::default() })
    }
}

impl Wish {
    fn is_forced(&self) -> bool {
        matches!(self, Self::Remove { alone_from: Some(_), .. })
    }
}

impl Council {
    fn wish(&mut self, wish: Wish) -> WishId {
        self.last_wish += 1;
        let id = WishId(self.last_wish);
        self.wishes.insert(id, wish);
        self.wait_until = Time::ZERO;
        id
    }
}
