//! Whom the router wants a link to.

use std::{collections::BTreeSet, net::SocketAddr};

use super::Router;
use crate::{
    dialer::{Callee, Wanted},
    member,
};

impl Router {
    /// To whom there should be a link and is none.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let mut published: BTreeSet<SocketAddr> = BTreeSet::new();
        for (peer, info) in member::present(&self.members) {
            if peer != self.me && !self.by_peer.contains_key(&peer) {
                published.extend(&info.endpoints);
                // Another host may have its address by now.
                let free = |endpoint: &&SocketAddr| !self.links().any(|up| up.remote == **endpoint);
                wanted.push(Wanted {
                    callee: Callee::Peer(peer),
                    endpoints: info.endpoints.iter().filter(free).copied().collect(),
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
