//! The lease, if the mesh has one: who reaches no majority of electors for half of it gives no new
//! address; who is away for the whole of it is removed.

use std::{collections::BTreeSet, time::Duration};

use mesh_ipam::council::WishState;
use mesh_router::PeerId;

use super::Node;

impl Node {
    /// The lease that this host founds a mesh with.
    pub(super) fn lease_seconds(&self) -> u32 {
        self.config.lease.map_or(0, |lease| u32::try_from(lease.as_secs()).unwrap_or(u32::MAX))
    }

    /// Removes who was away for longer than the lease, if there is one. The reachable elector with
    /// the smallest id does.
    pub(super) fn remove_expired(&mut self, electors: &BTreeSet<PeerId>) {
        let lease = Duration::from_secs(self.ipam.epoch().lease_seconds.into());
        let me = self.config.me;
        let first = electors.iter().find(|peer| **peer == me || self.desk.reachable.contains(peer));
        if lease.is_zero() || first != Some(&me) {
            return;
        }
        let mut gone = self.away_longer_than(lease);
        gone.retain(|peer| self.desk.members.contains(peer));
        if let Some((wish, peers)) = &self.desk.expired {
            if *peers == gone {
                return;
            }
            self.ipam.withdraw(*wish);
            self.desk.expired = None;
        }
        if !gone.is_empty() {
            let names: Vec<String> = gone.iter().map(|peer| self.router.name_of(*peer)).collect();
            let names = names.join(", ");
            self.notice(true, format!("the lease of {names} has run out: taking the blocks back"));
            self.desk.expired = Some((self.ipam.wish_removal(&gone, false), gone));
        }
    }

    /// With a lease, and cut off for more than half of it: the lease, in seconds, and since when.
    pub(super) fn lost_majority(&self) -> Option<(u32, Option<Duration>)> {
        let seconds = self.ipam.epoch().lease_seconds;
        if seconds == 0 || !self.router.is_settled() {
            return None;
        }
        let half = Duration::from_secs(u64::from(seconds) / 2);
        let since = self.desk.majority_at.map(|at| self.now.since(at));
        since.is_none_or(|since| since >= half).then_some((seconds, since))
    }

    /// Why no new address may be given although this host has some: it was cut off for too long.
    pub(super) fn lease_lost(&self) -> Option<String> {
        let (seconds, since) = self.lost_majority()?;
        let away = since.map_or_else(
            || "since its start".to_owned(),
            |since| format!("for {} s", since.as_secs()),
        );
        Some(format!(
            "no majority of the electors was reached {away}, and half of the lease of {seconds} s \
             is over: no new address is given"
        ))
    }

    /// The lease in words, for status; `None` if there is none.
    pub(super) fn lease_words(&self) -> Option<String> {
        let seconds = self.ipam.epoch().lease_seconds;
        let since = self.desk.majority_at.map_or(0, |at| self.now.since(at).as_secs());
        (seconds > 0).then(|| {
            format!(
                "{seconds} s; a majority was reached {since} s ago; alone, this host stops new \
                 addresses after {} s and may lose its blocks after {seconds} s",
                seconds / 2
            )
        })
    }

    /// A lease that has run out is carried out once: whoever is back since then stays.
    pub(super) fn settle_expired(&mut self) {
        let Some((wish, peers)) = self.desk.expired.take() else { return };
        let (ipam, around) = self.council_parts(0);
        if matches!(ipam.wish_state(wish, &around), Some(WishState::Waiting { .. })) {
            self.desk.expired = Some((wish, peers));
        } else {
            self.ipam.withdraw(wish);
        }
    }
}
