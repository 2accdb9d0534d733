//! Who can be reached, and through whom: shortest paths over links that both ends claim.
//!
//! A pure function of the membership and of this host's own links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    PeerId,
    member::{self, Members, Reach},
};

/// How a peer is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hop {
    /// The neighbour to hand things to: the peer itself when there is a link to it.
    pub via: PeerId,
    /// How many links it takes.
    pub hops: u32,
}

/// Whether two other hosts both claim a link to each other.
pub fn linked(members: &Members, a: PeerId, b: PeerId) -> bool {
    let claims = |from, to| member::reach(members, from).is_some_and(|reach| reach.claims(to));
    claims(a, b) && claims(b, a)
}

/// The way to every peer that can be reached from `me`, whose own links are `links`.
///
/// Breadth first, neighbours in the order of ids, so equal lengths are decided the same way at each
/// call and packets do not move without a reason.
pub fn paths(members: &Members, me: PeerId, links: &BTreeSet<PeerId>) -> BTreeMap<PeerId, Hop> {
    let mut paths: BTreeMap<PeerId, Hop> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for &peer in links {
        paths.insert(peer, Hop { via: peer, hops: 1 });
        queue.push_back(peer);
    }
    // What is left to be found; in a full mesh nothing, so that this costs no square of the hosts.
    let mut unseen: BTreeSet<PeerId> = member::present(members)
        .map(|(peer, _)| peer)
        .filter(|peer| *peer != me && !links.contains(peer))
        .collect();
    while let Some(near) = queue.pop_front().filter(|_| !unseen.is_empty()) {
        let Hop { via, hops } = paths[&near];
        let claimed: Vec<PeerId> = match member::reach(members, near) {
            Some(Reach::Only(few)) => few.intersection(&unseen).copied().collect(),
            Some(Reach::AllBut(few)) => unseen.difference(few).copied().collect(),
            None => Vec::new(),
        };
        for far in claimed {
            if member::reach(members, far).is_some_and(|reach| reach.claims(near)) {
                unseen.remove(&far);
                paths.insert(far, Hop { via, hops: hops + 1 });
                queue.push_back(far);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{Info, MemberKey, MemberValue};

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 16])
    }

    /// A membership as host 1 sees it: everybody's claims.
    fn members(claims: &[(u8, &[u8])]) -> Members {
        let mut all = Members::new(peer(1));
        for (id, linked) in claims {
            let mut own = Members::new(peer(*id));
            let info =
                Info { name: id.to_string(), endpoints: vec![], incarnation: 0, left: false };
            own.write(MemberKey::Info(peer(*id)), MemberValue::Info(info));
            let only = Reach::Only(linked.iter().map(|n| peer(*n)).collect());
            own.write(MemberKey::Reach(peer(*id)), MemberValue::Reach(only));
            own.mark_durable(own.own_counter());
            let delta = own.delta(&crate::store::Cursor::default(), |_| true, usize::MAX);
            all.apply(&delta.bytes).unwrap();
        }
        all
    }

    #[test]
    fn the_far_end_of_a_chain_is_reached_through_its_middle() {
        let members = members(&[(2, &[1, 3]), (3, &[2, 4]), (4, &[3])]);
        let paths = paths(&members, peer(1), &[peer(2)].into());
        assert_eq!(paths[&peer(2)], Hop { via: peer(2), hops: 1 });
        assert_eq!(paths[&peer(3)], Hop { via: peer(2), hops: 2 });
        assert_eq!(paths[&peer(4)], Hop { via: peer(2), hops: 3 });
    }

    #[test]
    fn a_link_that_one_end_denies_does_not_count() {
        let members = members(&[(2, &[1, 3]), (3, &[])]);
        assert!(!paths(&members, peer(1), &[peer(2)].into()).contains_key(&peer(3)));
    }
}
