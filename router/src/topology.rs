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

/// Everybody's links as this host knows them: its own as they are, those of others where both ends
/// claim them. Hosts are places in a list, for all of it is walked through.
#[derive(Debug)]
pub struct Graph<'a> {
    /// In order: the hosts that are present, this one, and whoever it is linked to.
    hosts: Vec<PeerId>,
    /// What each says of its links.
    reach: Vec<Option<&'a Reach>>,
    me: usize,
    /// Places of this host's neighbours.
    links: Vec<usize>,
}

impl<'a> Graph<'a> {
    /// The graph as `me`, whose own links are `links`, knows it.
    pub fn new(members: &'a Members, me: PeerId, links: &BTreeSet<PeerId>) -> Self {
        let own = links.iter().copied().chain([me]);
        let mut hosts: Vec<_> = member::present(members).map(|(peer, _)| peer).chain(own).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut reach = vec![None; hosts.len()];
        for (host, says) in member::reaches(members) {
            if let Ok(place) = hosts.binary_search(&host) {
                reach[place] = Some(says);
            }
        }
        let place = |host: &PeerId| hosts.binary_search(host).expect("it was put there");
        let (me, links) = (place(&me), links.iter().map(place).collect());
        Self { hosts, reach, me, links }
    }

    /// The way to every peer that can be reached.
    ///
    /// Neighbours in the order of ids, so equal lengths are decided the same way at each call and
    /// packets do not move without a reason.
    pub fn paths(&self) -> BTreeMap<PeerId, Hop> {
        let mut hops: Vec<Option<(usize, u32)>> = vec![None; self.hosts.len()];
        self.spread(self.me, |far, near| {
            hops[far] = Some(hops[near].map_or((far, 1), |(via, hops)| (via, hops + 1)));
        });
        let hops = self.hosts.iter().zip(&hops);
        let hop = |(via, hops): (usize, u32)| Hop { via: self.hosts[via], hops };
        hops.filter_map(|(host, hops)| Some((*host, hops.map(hop)?))).collect()
    }

    /// This host's neighbours in the tree of shortest paths from the least host that can be
    /// reached. Whoever knows the same links sees the same tree: each host's parent is, of the
    /// hosts that are nearer to the root, its neighbour with the least id.
    pub fn tree(&self) -> BTreeSet<PeerId> {
        let mut root = self.me;
        self.spread(self.me, |far, _| root = root.min(far));
        let mut levels: Vec<Option<u32>> = vec![None; self.hosts.len()];
        levels[root] = Some(0);
        self.spread(root, |far, near| levels[far] = levels[near].map(|level| level + 1));
        let parent = |host: usize| {
            let nearer = Some(levels[host]?.checked_sub(1)?);
            let is_parent = |near: &usize| levels[*near] == nearer && self.linked(*near, host);
            match self.reach[host] {
                _ if host == self.me => self.links.iter().copied().find(is_parent),
                Some(Reach::Only(few)) => {
                    let me = Some(self.me).filter(is_parent);
                    let claimed = few.iter().filter_map(|peer| self.place(*peer));
                    let claimed = claimed.into_iter().find(is_parent);
                    [claimed, me].into_iter().flatten().min()
                }
                _ => (0..self.hosts.len()).find(is_parent),
            }
        };
        let children = self.links.iter().copied().filter(|link| parent(*link) == Some(self.me));
        children.chain(parent(self.me)).map(|place| self.hosts[place]).collect()
    }

    fn place(&self, host: PeerId) -> Option<usize> {
        self.hosts.binary_search(&host).ok()
    }

    fn linked(&self, a: usize, b: usize) -> bool {
        let claims = |from: usize, to: usize| {
            self.reach[from].is_some_and(|reach| reach.claims(self.hosts[to]))
        };
        let is_own = |host: usize| self.links.binary_search(&host).is_ok();
        match (a == self.me, b == self.me) {
            (true, _) => is_own(b),
            (_, true) => is_own(a),
            _ => claims(a, b) && claims(b, a),
        }
    }

    /// Finds whoever can be reached from a host, breadth first, and says whom next to whom.
    fn spread(&self, from: usize, mut found: impl FnMut(usize, usize)) {
        let mut seen = vec![false; self.hosts.len()];
        seen[from] = true;
        // In a full mesh all are found at once, so that this costs no square of the hosts.
        let mut unseen: Vec<usize> = (0..self.hosts.len()).filter(|host| *host != from).collect();
        let mut queue = VecDeque::from([from]);
        while let Some(near) = queue.pop_front().filter(|_| !unseen.is_empty()) {
            let mut find = |far: usize| {
                if !seen[far] && self.linked(near, far) {
                    seen[far] = true;
                    found(far, near);
                    queue.push_back(far);
                }
            };
            match self.reach[near] {
                _ if near == self.me => self.links.iter().copied().for_each(find),
                Some(Reach::Only(few)) => {
                    few.iter().filter_map(|peer| self.place(*peer)).for_each(&mut find);
                    find(self.me);
                    continue;
                }
                Some(Reach::AllBut(_)) => unseen.iter().copied().for_each(find),
                None => find(self.me),
            }
            unseen.retain(|host| !seen[*host]);
        }
    }
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
        let paths = Graph::new(&members, peer(1), &[peer(2)].into()).paths();
        assert_eq!(paths[&peer(2)], Hop { via: peer(2), hops: 1 });
        assert_eq!(paths[&peer(3)], Hop { via: peer(2), hops: 2 });
        assert_eq!(paths[&peer(4)], Hop { via: peer(2), hops: 3 });
    }

    #[test]
    fn a_link_that_one_end_denies_does_not_count() {
        let members = members(&[(2, &[1, 3]), (3, &[])]);
        let paths = Graph::new(&members, peer(1), &[peer(2)].into()).paths();
        assert!(!paths.contains_key(&peer(3)));
    }
}
