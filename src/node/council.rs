//! What the mesh decides together, seen from one host: founding, removal, new ranges, the lease.

use std::{collections::BTreeSet, time::Duration};

use ipnetwork::IpNetwork;
use mesh_ipam::{
    Block, RingValue,
    council::{DECREE, Surroundings, Waits, WishError, WishId, message::CouncilMessage},
};
use mesh_router::{Kind, PeerId, Time, member, store::Return};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{
    Node,
    event::{Credentials, RequestId},
    lease::Lease,
    peers::PeerMessage,
    removing::Removal,
    request::{Code, JoinTarget, Refusal, Reply, Request},
};
use crate::api::types;

/// How often it is looked at who can be reached, who is to be removed and what is to be claimed.
const REVIEW_EVERY: Duration = Duration::from_secs(1);
/// An elector that was not reached for this long gives its seat to somebody else.
const SEAT_AWAY_MAX: Duration = Duration::from_secs(60);

/// The mesh is being founded together with others; the row on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founding {
    pub(super) founders: u16,
    pub(super) ranges: Vec<Block>,
}

/// A request that waits for a decree.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: RequestId,
    pub(super) wish: WishId,
    pub(super) until: Time,
    pub(super) what: What,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Range,
    Remove { peers: BTreeSet<PeerId>, addresses: u64, force: bool },
}

/// The node's part of the council.
#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) pending: Vec<Pending>,
    /// Removals that wait until those they name are surely silent.
    pub(super) removals: Vec<Removal>,
    /// The removal that nobody asked for: a lease ran out, or somebody removed owns something.
    pub(super) unasked: Option<(WishId, BTreeSet<PeerId>)>,
    /// Since when somebody who was removed owns something.
    pub(super) left_over_since: Option<Time>,
    pub(super) review_at: Time,
    pub(super) members: BTreeSet<PeerId>,
    pub(super) reachable: BTreeSet<PeerId>,
    pub(super) long_away: BTreeSet<PeerId>,
    pub(super) lease: Lease,
    /// Not before then are those asked who are to be removed.
    pub(super) ask_at: Time,
    /// When this host last had to be told the ring anew, and why.
    pub(super) told_anew: Option<(Time, String)>,
    /// What this host had promised is on its disk still, though it is told the ring anew.
    pub(super) promises_kept: bool,
    /// Since when it is told the ring of a branch that another side began by force.
    pub(super) forked: Option<Time>,
    /// The last state that was decided, to tell people about the next.
    epoch: u64,
}

impl Node {
    /// Takes a request that needs the agreement of others.
    pub(super) fn council(&mut self, id: RequestId, request: Request, until: Time) {
        let begun = match request {
            Request::Found { credentials, ranges, founders, targets } => {
                let patience = until.since(self.now);
                return match self.begin_founding_anew(&credentials, &ranges, founders, &targets) {
                    Ok(()) => self.join(id, credentials, targets, patience),
                    Err(refusal) => self.reply(id, Err(refusal)),
                };
            }
            Request::PeerRemove { peers, force } => match self.peers_to_remove(&peers) {
                Ok(peers) => return self.begin_removing(id, (peers, force), until),
                Err(refusal) => Err(refusal),
            },
            Request::RangeAdd(range) => self.add_range(range),
            _ => unreachable!("the caller hands in nothing else"),
        };
        match begun {
            Ok((wish, what)) => {
                self.desk.pending.push(Pending { id, wish, until, what });
                self.desk.review_at = Time::ZERO;
            }
            Err(refusal) => self.reply(id, Err(refusal)),
        }
    }

    /// Who is in that mesh already just goes on. Who founds it must not be told anything else: two
    /// groups of which each thinks that it is a majority could found it twice.
    fn begin_founding_anew(
        &mut self,
        credentials: &Credentials,
        ranges: &[IpNetwork],
        founders: u16,
        targets: &[JoinTarget],
    ) -> Result<(), Refusal> {
        self.check_joining(credentials, targets)?;
        let again = self.mesh_id() == Some(credentials.mesh);
        if again && self.founding.is_none() {
            return Ok(());
        }
        let ranges = self.checked_ranges(ranges, credentials.mesh)?;
        let ranges: Vec<Block> = ranges.iter().map(|range| Block::from(*range)).collect();
        let founding = Founding { founders, ranges };
        match &self.founding {
            Some(before) if again && *before != founding => {
                let text = format!(
                    "this host founds that mesh already, with {} founders and its own ranges",
                    before.founders
                );
                let hint = "start as before, or stop meshd, remove its state directory and start";
                return Err(Refusal::new(Code::Conflict, text, hint));
            }
            _ if again => return Ok(()),
            _ => self.give_up_mesh(),
        }
        self.begin_founding(founding)?;
        self.write_founding();
        Ok(())
    }

    fn begin_founding(&mut self, founding: Founding) -> Result<(), Refusal> {
        let lease = self.lease_seconds();
        self.ipam.found_together(founding.founders, founding.ranges.clone(), lease).map_err(
            |error| Refusal::new(Code::Invalid, error.to_string(), "give --founders N as on all"),
        )?;
        self.founding = Some(founding);
        Ok(())
    }

    /// After a restart in the middle of founding.
    pub(super) fn resume_founding(&mut self) {
        if let Some(founding) = self.founding.clone()
            && let Err(refusal) = self.begin_founding(founding)
        {
            self.notice(true, refusal.message);
        }
    }

    fn add_range(&mut self, range: IpNetwork) -> Result<(WishId, What), Refusal> {
        self.check_settled()?;
        super::membership::check_range(&range)?;
        self.check_host_routes(&range)?;
        let wish =
            self.ipam.wish_range(Block::from(range)).map_err(|error| range_refused(&error))?;
        Ok((wish, What::Range))
    }

    pub(super) fn check_settled(&self) -> Result<(), Refusal> {
        if self.mesh.is_none() {
            return Err(super::not_in_a_mesh());
        }
        if !self.router.is_settled() || self.is_leaving() {
            return Err(self.not_ready());
        }
        Ok(())
    }

    /// Members that have neither left nor been removed, this host included.
    pub(super) fn standing_members(&self) -> BTreeSet<PeerId> {
        let members = self.router.members();
        let mut standing: Vec<PeerId> = member::present(members).map(|(peer, _)| peer).collect();
        // Who owns something and has not been heard of is one, too.
        let unheard = self.ipam.owners().filter(|peer| {
            standing.binary_search(peer).is_err() && member::info(members, *peer).is_none()
        });
        let unheard: Vec<PeerId> = unheard.collect();
        standing.extend(unheard);
        let removed = self.ipam.removed();
        standing.into_iter().filter(|peer| !removed.contains(peer)).collect()
    }

    /// Goes on with what is decided together.
    pub(super) fn progress_council(&mut self) {
        if self.mesh.is_none() {
            return;
        }
        if let Some(upheaval) = self.ipam.take_upheaval() {
            self.start_over(upheaval);
        }
        self.compare();
        self.progress_removals();
        if self.desk.review_at <= self.now {
            self.desk.review_at = self.now + REVIEW_EVERY;
            self.review_council();
        }
        if self.may_vote() {
            self.drive_council();
        }
        self.progress_removals();
        self.settle_unasked();
        self.settle_pending();
        self.announce_epoch();
    }

    /// When to look at all this again.
    pub(super) fn council_timeout(&self) -> Option<Time> {
        self.mesh.as_ref()?;
        let pending = self.desk.pending.iter().map(|pending| pending.until);
        let pending = pending.chain(self.desk.removals.iter().map(Removal::poll_timeout));
        let asks = (!self.desk.removals.is_empty()).then_some(self.desk.ask_at);
        let driven = self.ipam.council_timeout().filter(|_| self.may_vote());
        let compare = self.compare_timeout();
        pending.chain(asks).chain(driven).chain(compare).chain([self.desk.review_at]).min()
    }

    /// Who is still being told what it once wrote does not vote, but in founding; nor do two
    /// machines with one vote.
    pub(super) fn may_vote(&self) -> bool {
        (self.router.is_settled() || self.founding.is_some()) && !self.has_twin()
    }

    fn drive_council(&mut self) {
        let dice = self.rng.random();
        let (ipam, around) = self.council_parts(dice);
        ipam.drive_council(&around);
        // A message to oneself may be followed by others.
        while let Some((to, message)) = self.ipam.poll_council() {
            if to == self.config.me {
                self.on_council(to, message);
            } else {
                self.send_to_peer(to, &PeerMessage::Council(message));
            }
        }
    }

    pub(super) fn on_council(&mut self, from: PeerId, message: CouncilMessage) {
        if self.may_vote() && !self.has_answered(&message) {
            let dice = self.rng.random();
            self.desk.members = self.standing_members();
            let (ipam, around) = self.council_parts(dice);
            ipam.handle_council(from, message, &around);
        }
    }

    pub(super) fn council_parts(&mut self, dice: u32) -> (&mut mesh_ipam::Ipam, Surroundings<'_>) {
        let Self { ipam, desk, now, .. } = self;
        let Desk { members, reachable, long_away, .. } = desk;
        (ipam, Surroundings { now: *now, members, reachable, long_away, dice })
    }

    /// Who is there, once a second: what the council knows of the world.
    fn review_council(&mut self) {
        let decrees = self.ipam.store().seen(DECREE);
        if self.router.is_settled() && self.router.known_by_some(Kind::Ring, DECREE, decrees) {
            self.ipam.look_for_own_removal();
        }
        self.forget_removed();
        self.desk.members = self.standing_members();
        self.desk.reachable = self.router.paths().keys().copied().collect();
        let long = self.absent.longer_than(SEAT_AWAY_MAX, self.now);
        self.desk.long_away = long;
        let electors = self.ipam.electors();
        let me = self.config.me;
        let here = |peer: &&PeerId| **peer == me || self.desk.reachable.contains(peer);
        let majority = 2 * electors.iter().filter(here).count() > electors.len();
        if !(electors.contains(&me) && self.may_vote()) {
            self.plead(&electors);
        }
        if self.router.is_settled() && !self.is_leaving() {
            self.renew_lease(&electors);
            self.ipam.claim_held();
            if majority {
                self.remove_gone(&electors);
            }
        }
    }

    /// Asks for the next decree, if this host bars somebody for long. Who is being told the ring
    /// anew may not know the electors.
    fn plead(&mut self, electors: &BTreeSet<PeerId>) {
        let Some(plea) = self.ipam.plea(self.now) else { return };
        let linked: BTreeSet<PeerId> = self.router.greeted().collect();
        for peer in electors | &linked {
            self.send_to_peer(peer, &PeerMessage::Council(plea.clone()));
        }
    }

    /// What removed hosts said of themselves goes, and their names: once they are back they say it
    /// anew.
    fn forget_removed(&mut self) {
        let members = self.router.members();
        let removed = self.ipam.removed().into_iter();
        let removed = removed.filter(|peer| member::is_present(members, *peer));
        for peer in removed.collect::<Vec<_>>() {
            if peer != self.config.me && self.router.link_to(peer).is_none() {
                self.forget_peer(peer, Return::Perhaps);
            }
        }
    }

    /// This host leaves the mesh: who waits here for what is decided there is refused.
    pub(super) fn refuse_undecided(&mut self) {
        let removals = std::mem::take(&mut self.desk.removals).into_iter().map(|r| r.id);
        let pending = std::mem::take(&mut self.desk.pending).into_iter().map(|p| p.id);
        for id in removals.chain(pending).collect::<Vec<_>>() {
            let text = "this host was told to leave the mesh meanwhile";
            let hint = "ask another host of the mesh";
            self.reply(id, Err(Refusal::new(Code::Conflict, text, hint)));
        }
    }

    /// Answers whose wish has come true, and whose patience has ended.
    pub(super) fn settle_pending(&mut self) {
        for pending in std::mem::take(&mut self.desk.pending) {
            if let Some(error) = self.ipam.obstacle(pending.wish) {
                self.ipam.withdraw(pending.wish);
                self.reply(pending.id, Err(range_refused(&error)));
                continue;
            }
            match self.ipam.is_granted(pending.wish) {
                Some(false) if pending.until > self.now => self.desk.pending.push(pending),
                Some(false) => {
                    let (ipam, around) = self.council_parts(0);
                    let waits = ipam.waits_for(pending.wish, &around);
                    self.ipam.withdraw(pending.wish);
                    self.ipam.give_up_proposal();
                    self.reply(pending.id, Err(self.undecided(&pending.what, &waits)));
                }
                Some(true) => {
                    self.ipam.withdraw(pending.wish);
                    self.acknowledge(pending.id, Ok(self.decided(&pending.what)));
                }
                None => {
                    let text = "this host lost its place in the mesh meanwhile";
                    let hint = "`meshctl status` tells how it stands";
                    self.reply(pending.id, Err(Refusal::new(Code::Conflict, text, hint)));
                }
            }
        }
    }

    fn decided(&self, what: &What) -> Reply {
        match what {
            What::Range => Reply::Done,
            What::Remove { peers, addresses, .. } => Reply::Removed(types::Removed {
                peers: peers.iter().copied().collect(),
                addresses: *addresses,
                epoch: self.ipam.epoch().number,
            }),
        }
    }

    pub(super) fn undecided(&self, what: &What, waits: &Waits) -> Refusal {
        let Waits { needed, answered, silent, behind, unsure } = waits;
        let electors = self.ipam.electors();
        let missing: BTreeSet<PeerId> = electors.difference(answered).copied().collect();
        let mut why = Vec::new();
        let sure = answered.len() - unsure.intersection(answered).count();
        if sure < *needed {
            let (have, all, names) = (answered.len(), electors.len(), self.names(&missing));
            why.push(format!(
                "{needed} of the {all} electors must agree and {have} did; not heard of: {names}"
            ));
            if !unsure.is_empty() {
                why.push(format!(
                    "what {} had promised was lost with a disk: until the next decree that vote \
                     counts only where all electors have voted",
                    self.names(unsure)
                ));
            }
        }
        if !silent.is_empty() {
            why.push(format!("not answered: {}", self.names(silent)));
        }
        if !behind.is_empty() {
            why.push(format!("what these know has not arrived yet: {}", self.names(behind)));
        }
        let seconds = self.consents_after().as_secs();
        if seconds > 0 && matches!(what, What::Remove { .. }) && !silent.is_empty() {
            why.push(format!(
                "because of the lease nobody agrees within {seconds} s after he last answered \
                 whoever is to be removed, or after his own start"
            ));
        }
        if why.is_empty() {
            why.push(format!("the electors {} have not agreed yet", self.names(&electors)));
        }
        let why = why.join("; ");
        match what {
            What::Range => Refusal::new(
                Code::Timeout,
                format!("the range was not added: {why}"),
                "try again where a majority of the electors can be reached",
            ),
            What::Remove { peers, .. } => Refusal::new(
                Code::Timeout,
                format!("{} not removed: {why}", self.names(peers)),
                "bring these back, or remove them together; --force removes without them, and \
                 gives an address to two containers if one of them is alive and uses it",
            ),
        }
    }

    pub(super) fn names(&self, peers: &BTreeSet<PeerId>) -> String {
        let names: Vec<String> = peers.iter().map(|peer| self.router.name_of(*peer)).collect();
        if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
    }

    /// Founding together is over as soon as there is a ring: it was agreed on, or the others had
    /// founded the mesh before. This comes before the recall is ended, and so before any write.
    pub(super) fn finish_founding(&mut self) {
        if self.founding.is_none() || self.ipam.epoch().number == 0 {
            return;
        }
        let new = self.was_just_founded();
        self.founding = None;
        self.write_founding();
        self.ipam.stop_founding();
        // A host that compares was restarted, maybe with an old disk.
        if !self.router.is_settled() && new && self.comparing.is_none() {
            self.router.settle(self.now);
        }
    }

    /// Whether the mesh is new: there is nothing that this host could have written and lost, unless
    /// its disk is an old one and nobody has told it so yet.
    pub(super) fn was_just_founded(&self) -> bool {
        let me = self.config.me;
        let wrote = self.ipam.store().own_counter() > 0;
        let owned =
            |value: RingValue| matches!(value, RingValue::Owned { owner, .. } if owner == me);
        self.founding.is_some()
            && !wrote
            && self.router.members().is_empty()
            && self.ipam.store().iter().any(|(_, entry)| owned(entry.value))
    }

    /// For whom the founding waits, while it does.
    pub(super) fn founding_words(&self) -> Option<String> {
        let (founders, answered) = self.ipam.founding()?;
        let me = self.config.me;
        let linked = self.router.links().map(|up| up.peer).chain([me]).collect::<BTreeSet<_>>();
        let there = linked.union(&answered).count();
        let others = usize::from(founders).saturating_sub(there);
        let text = format!("waiting for {others} of {founders} founders");
        let differing = self.ipam.differing_founders().iter().map(|(peer, theirs)| {
            // Before the mesh is founded nobody has told its name.
            let link = self.router.link_to(*peer).map(|up| up.remote.ip().to_string());
            let who = link.unwrap_or_else(|| self.router.name_of(*peer));
            match theirs {
                0 => format!("{who} founds no mesh"),
                _ => format!("{who} was told {theirs} founders"),
            }
        });
        let absent = Some(self.absent_targets()).filter(|words| !words.is_empty());
        let why = absent.into_iter().chain(differing).collect::<Vec<_>>().join("; ");
        Some(if why.is_empty() { text } else { format!("{text}: {why}") })
    }

    fn announce_epoch(&mut self) {
        let epoch = self.ipam.epoch().number;
        if epoch == self.desk.epoch {
            return;
        }
        let known = self.desk.epoch > 0;
        self.desk.epoch = epoch;
        let electors = self.names(&self.ipam.electors());
        if known {
            self.notice(false, format!("decree {epoch} was made; electors: {electors}"));
        }
        self.replan();
    }
}

fn range_refused(error: &WishError) -> Refusal {
    Refusal::new(Code::Invalid, error.to_string(), "`meshctl status ipam` lists the ranges")
}
