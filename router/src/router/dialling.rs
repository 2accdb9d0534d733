//! Whom the router wants a link to.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::Router;
use crate::{
    Time,
    dialer::{Callee, Wanted},
    member,
};

/// For each member it is looked this much more rarely who is to be dialled.
const REVIEW_DELAY: Duration = Duration::from_millis(5);
/// But never more rarely than this.
const REVIEW_DELAY_MAX: Duration = Duration::from_secs(2);

impl Router {
    /// When it is to be looked at who is to be dialled.
    pub(super) fn dials_at(&self) -> Option<Time> {
        self.dial_review.then(|| self.dials_of + self.pause(REVIEW_DELAY, REVIEW_DELAY_MAX))
    }

    /// A person waits.
    pub(super) fn review_dials_at_once(&mut self) {
        (self.dial_review, self.dials_of) = (true, Time::ZERO);
    }

    /// To whom there should be a link and is none.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut published: BTreeSet<SocketAddr> = BTreeSet::new();
        for (peer, info) in member::present(&self.members) {
            if peer != self.me && !self.by_peer.contains_key(&peer) {
                published.extend(&info.endpoints);
                // Where it was found may be none of what it publishes: an address before a NAT.
                let found = self.targets.iter().filter(|(address, found)| {
                    **found == Some(peer) && !info.endpoints.contains(address)
                });
                let endpoints = info.endpoints.iter().chain(found.map(|(address, _)| address));
                // Another host may have its address by now.
                let free = |endpoint: &&SocketAddr| !self.links().any(|up| up.remote == **endpoint);
                wanted.push(Wanted {
                    callee: Callee::Peer(peer),
                    endpoints: endpoints.filter(free).copied().collect(),
                    courteous: peer < self.me,
                    alive: self.paths.contains_key(&peer),
                });
            }
        }
        for (address, peer) in &self.targets {
            // A target behind which a member was found, or that a member publishes, is dialled as
            // that member; one who is linked and not yet known as a member, not at all.
            let found = |peer| {
                self.by_peer.contains_key(&peer) || member::info(&self.members, peer).is_some()
            };
            if published.contains(address) {
                continue;
            }
            if !peer.is_some_and(found) {
                wanted.push(Wanted {
                    callee: Callee::Target(*address),
                    endpoints: vec![*address],
                    courteous: false,
                    alive: false,
                });
            }
        }
        wanted.retain(|want| match want.callee {
            Callee::Target(address) => !self.links().any(|up| up.dialled == Some(address)),
            Callee::Peer(_) => true,
        });
        wanted
    }
}
