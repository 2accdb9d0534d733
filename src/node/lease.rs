//! The lease, if the mesh has one: who is answered by no majority of electors for half of it gives
//! no new address; who is away for the whole of it is removed.
//!
//! A lease counts from when its holder *asked* (Gray and Cheriton, "Leases", 1989): a host that
//! was stopped and goes on with what waited in its sockets takes nothing old for new. And who
//! answered a host consents to its removal only when the host must have stopped: an elector that
//! consents answers no more, and all members have to consent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_ipam::council::message::{Body, CouncilMessage};
use mesh_router::{Mutation, PeerId, Time, mutation};

use super::{Node, peers::PeerMessage};

/// What was asked and answered.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// When this host asked what an elector has answered, the newest of each.
    answered: BTreeMap<PeerId, Time>,
    /// When somebody was last answered here.
    renewed: BTreeMap<PeerId, Time>,
    /// Who was answered before is not known.
    began: Option<Time>,
}

/// A question to an elector, which it answers with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Renewal {
    /// The process that asks: another's clock is another.
    incarnation: u64,
    /// When, by its clock.
    asked: Time,
    /// How many decrees it knows: who knows more or fewer may have other electors.
    epoch: u64,
}

impl Node {
    /// Asks the electors, if there is a lease.
    pub(super) fn renew_lease(&mut self, electors: &BTreeSet<PeerId>) {
        self.desk.lease.began.get_or_insert(self.now);
        self.desk.lease.answered.retain(|peer, _| electors.contains(peer));
        self.desk.lease.renewed.retain(|peer, _| self.desk.members.contains(peer));
        let epoch = self.ipam.epoch();
        if epoch.lease_seconds == 0 {
            return;
        }
        let (incarnation, asked) = (self.config.incarnation, self.now);
        let renewal = Renewal { incarnation, asked, epoch: epoch.number };
        let me = self.config.me;
        for peer in electors.iter().filter(|peer| **peer != me) {
            self.send_to_peer(*peer, &PeerMessage::Renew(renewal));
        }
    }

    /// An elector is asked: it answers who is not being removed, if it remembers whom it promised
    /// to remove.
    pub(super) fn on_renew(&mut self, from: PeerId, renewal: Renewal) {
        let me = self.config.me;
        let knows = self.ipam.epoch().number == renewal.epoch && self.ipam.electors().contains(&me);
        let remembers = self.may_vote() && !self.ipam.abstains();
        if knows && remembers && !self.ipam.is_fenced(from) {
            self.desk.lease.renewed.insert(from, self.now);
            self.send_to_peer(from, &PeerMessage::Renewed(renewal));
        }
    }

    pub(super) fn on_renewed(&mut self, from: PeerId, renewal: Renewal) {
        let Renewal { incarnation, asked, epoch } = renewal;
        if incarnation == self.config.incarnation && epoch == self.ipam.epoch().number {
            let asked = if mutation::on(Mutation::LeaseFromAnswer) { self.now } else { asked };
            let last = self.desk.lease.answered.entry(from).or_insert(asked);
            *last = asked.max(*last);
        }
    }

    /// Whether this host cannot consent to a removal yet, because it may have answered somebody
    /// whom it concerns. The proposer asks again.
    pub(super) fn has_answered(&self, message: &CouncilMessage) -> bool {
        let Body::Prepare { removing, .. } = &message.body else { return false };
        let after = self.consents_after();
        let runs = |at: Time| self.now.since(at) < after;
        let answered = |peer| {
            let last = self.desk.lease.renewed.get(peer).copied().max(self.desk.lease.began);
            last.is_none_or(runs)
        };
        !after.is_zero() && removing.iter().any(answered)
    }

    /// How long after it answered a host this one consents to its removal; zero without a lease.
    /// The holder stops after half of the lease; clocks may differ.
    pub(super) fn consents_after(&self) -> Duration {
        Duration::from_secs(self.ipam.epoch().lease_seconds.into()) * 3 / 4
    }

    /// When this host last asked what a majority of the electors has answered.
    fn majority_at(&self) -> Option<Time> {
        let electors = self.ipam.electors();
        let asked = |peer: &PeerId| match *peer == self.config.me {
            true => Some(self.now),
            false => self.desk.lease.answered.get(peer).copied(),
        };
        let mut asked_at: Vec<Time> = electors.iter().filter_map(asked).collect();
        asked_at.sort_unstable_by(|one, other| other.cmp(one));
        asked_at.get(electors.len() / 2).copied()
    }

    /// Electors that have not answered for half of the lease, in words.
    fn silent_electors(&self, half: Duration) -> String {
        let answered = &self.desk.lease.answered;
        let silent = |peer: &PeerId| {
            *peer != self.config.me
                && answered.get(peer).is_none_or(|at| self.now.since(*at) >= half)
        };
        self.names(&self.ipam.electors().into_iter().filter(silent).collect())
    }

    /// The lease that this host founds a mesh with.
    pub(super) fn lease_seconds(&self) -> u32 {
        self.config.lease.map_or(0, |lease| u32::try_from(lease.as_secs()).unwrap_or(u32::MAX))
    }

    /// Members that were away for longer than the lease, if there is one.
    pub(super) fn expired(&self) -> BTreeSet<PeerId> {
        let lease = Duration::from_secs(self.ipam.epoch().lease_seconds.into());
        if lease.is_zero() {
            return BTreeSet::new();
        }
        let mut gone = self.absent.longer_than(lease, self.now);
        gone.retain(|peer| self.desk.members.contains(peer));
        gone
    }

    /// With a lease, and cut off for more than half of it: the lease, in seconds, and since when.
    pub(super) fn lost_majority(&self) -> Option<(u32, Option<Duration>)> {
        let seconds = self.ipam.epoch().lease_seconds;
        if seconds == 0 || !self.router.is_settled() {
            return None;
        }
        let half = Duration::from_secs(u64::from(seconds) / 2);
        let since = self.majority_at().map(|at| self.now.since(at));
        since.is_none_or(|since| since >= half).then_some((seconds, since))
    }

    /// Why no new address may be given although this host has some: it was cut off for too long.
    pub(super) fn lease_lost(&self) -> Option<String> {
        let (seconds, since) = self.lost_majority()?;
        let away = since.map_or_else(
            || "since its start".to_owned(),
            |since| format!("for {} s", since.as_secs()),
        );
        let silent = self.silent_electors(Duration::from_secs(u64::from(seconds) / 2));
        Some(format!(
            "no majority of the electors has answered {away}, and half of the lease of {seconds} s \
             is over: no new address is given (waiting for {silent}; who is gone for good is \
             taken out by `meshctl peer remove --force`)"
        ))
    }

    /// The lease in words, for status; `None` if there is none.
    pub(super) fn lease_words(&self) -> Option<String> {
        let seconds = self.ipam.epoch().lease_seconds;
        let since = self.majority_at().map_or_else(
            || "not answered yet".to_owned(),
            |at| format!("answered {} s ago", self.now.since(at).as_secs()),
        );
        let away = self.absent.longer_than(Duration::ZERO, self.now).into_iter();
        let away = away.filter(|peer| self.desk.members.contains(peer)).filter_map(|peer| {
            let span = self.now.since(self.absent.since(peer)?).as_secs();
            Some(format!("; {} was last reached {span} s ago", self.router.name_of(peer)))
        });
        (seconds > 0).then(|| {
            format!(
                "{seconds} s; a majority has {since}; alone, this host stops new \
                 addresses after {} s and may lose its blocks after {seconds} s{}",
                seconds / 2,
                away.collect::<String>()
            )
        })
    }
}
