//! Status: one page made of the node's state. What the kernel, the transport and the resolver know
//! is added by the driver.

use std::collections::BTreeSet;

use mesh_ipam::{Block, Owner, block::Family};
use mesh_router::{PeerId, dialer::Callee, member};

use super::{Node, attaching::gateway_holder};
use crate::api::types::{Connection, Dns, Ipam, OwnPeer, Path, PeerCounts, Status, Target};

impl Node {
    pub(super) fn status(&self) -> Status {
        let reason = self.unready_because().or_else(|| {
            self.overlapped_route().map(|(range, route)| {
                format!("the mesh's range {range} overlaps this host's route {route}")
            })
        });
        Status {
            ready: self.is_ready(),
            reason,
            version: self.config.version.clone(),
            mesh_id: self.mesh.as_ref().map(|mesh| mesh.mesh),
            peer: OwnPeer {
                id: self.config.me,
                name: self.config.name.clone(),
                addresses: self.underlay.as_ref().map_or_else(Vec::new, |u| u.endpoints.clone()),
            },
            peers: self.peer_counts(),
            connections: self.connections(),
            paths: self.path_list(),
            ipam: self.ipam_status(),
            dns: Dns {
                domain: self.config.domain.to_string(),
                listen: Vec::new(),
                records: self.zone.records().count(),
                upstream: Vec::new(),
            },
            targets: self.target_list(),
            repairs: Vec::new(),
        }
    }

    fn others(&self) -> impl Iterator<Item = (PeerId, &member::Info)> {
        let others = member::present(self.router.members());
        others.filter(|(peer, _)| *peer != self.config.me && !self.ipam.is_removed(*peer))
    }

    fn peer_counts(&self) -> PeerCounts {
        let mut counts = PeerCounts::default();
        if self.mesh.is_none() {
            return counts;
        }
        counts.total = 1;
        counts.alive = 1;
        for (peer, _) in self.others() {
            counts.total += 1;
            match self.state_of(peer) {
                "alive" => counts.alive += 1,
                "suspect" => counts.suspect += 1,
                _ => counts.unreachable += 1,
            }
        }
        counts
    }

    fn connections(&self) -> Vec<Connection> {
        let mut all: Vec<Connection> = self
            .router
            .links()
            .map(|up| Connection {
                peer: up.peer,
                name: self.router.name_of(up.peer),
                address: up.remote,
                state: "established".to_owned(),
                rtt_ms: None,
                reason: None,
            })
            .collect();
        for (peer, info) in self.others().filter(|(peer, _)| self.router.link_to(*peer).is_none()) {
            let call = self.router.call(Callee::Peer(peer));
            let error = call.and_then(|call| call.error.as_ref());
            let dialling = call.and_then(|call| call.dialling);
            let Some(address) = dialling.or_else(|| info.endpoints.first().copied()) else {
                continue;
            };
            all.push(Connection {
                peer,
                name: info.name.clone(),
                address,
                state: if error.is_some() { "failed" } else { "connecting" }.to_owned(),
                rtt_ms: None,
                reason: error.map(ToString::to_string),
            });
        }
        all
    }

    fn path_list(&self) -> Vec<Path> {
        let Some(desired) = self.desired() else { return Vec::new() };
        let mut paths = Vec::new();
        for (peer, nexthop) in &desired.nexthops {
            if self.ipam.is_removed(*peer) {
                continue;
            }
            let relay = (nexthop.via != *peer).then(|| self.router.name_of(nexthop.via));
            let (state, reason) = match (nexthop.certain, &relay) {
                (true, None) => ("up", "direct".to_owned()),
                (true, Some(relay)) => {
                    let call = self.router.call(Callee::Peer(*peer));
                    let error = call.and_then(|call| call.error.as_ref());
                    let why = error.map_or_else(|| "no link".to_owned(), ToString::to_string);
                    ("up", format!("through {relay}, because the direct way fails: {why}"))
                }
                (false, _) => ("down", format!("the peer is {}", self.state_of(*peer))),
            };
            paths.push(Path {
                peer: *peer,
                name: self.router.name_of(*peer),
                kind: "vxlan".to_owned(),
                via: relay,
                mtu: desired.tunnel.mtu_bytes,
                state: state.to_owned(),
                reason,
            });
        }
        paths
    }

    fn ipam_status(&self) -> Ipam {
        let waits = self.gateway_addresses().is_empty();
        let state = match (&self.mesh, self.ipam.ranges().is_empty(), waits) {
            (None, ..) => "waiting",
            (_, true, _) => "joining",
            _ if self.exhausted_words().is_some() => "exhausted",
            (_, false, true) => "waiting",
            _ => "ready",
        };
        let gateway = gateway_holder();
        let held = self.slots.values().filter(|slot| slot.record.holder != gateway);
        Ipam {
            state: state.to_owned(),
            reason: self.ipam_words(),
            ranges: self.ipam.ranges().iter().map(Block::network).collect(),
            blocks: self.ipam.owned_blocks().len(),
            owned: self.ipam.owned_by(self.config.me),
            allocated: held.map(|slot| slot.record.addresses.len()).sum::<usize>()
                - self.lent.len(),
            ring_entries: self.ipam.entries(),
            ring_digest: format!("{:032x}", self.ipam.store().digest()),
            conflicts: self.conflicts(),
            stranded: self.stranded(),
            epoch: self.ipam.epoch().number,
            electors: self
                .ipam
                .electors()
                .into_iter()
                .map(|peer| self.router.name_of(peer))
                .collect(),
            lease: self.lease_words(),
            told_anew: self.told_anew_words(),
        }
    }

    /// Why addresses are not as they should be, and what is waited for.
    fn ipam_words(&self) -> Option<String> {
        let waiting = Some(self.waiting_words()).filter(|text| !text.is_empty());
        let all =
            [self.exhausted_words(), waiting, self.unasked_words(), self.unregistered_words()];
        let all: Vec<String> = all.into_iter().flatten().collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn exhausted_words(&self) -> Option<String> {
        let full = [Family::V4, Family::V6].into_iter().find_map(|family| {
            let ranges = self.ipam.exhausted_of(family)?;
            Some(ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        })?;
        Some(format!(
            "nobody who can be reached has a free address of {full}: add a range with \
             `meshctl ipam range add`"
        ))
    }

    fn conflicts(&self) -> Vec<String> {
        let words = |conflict: &mesh_ipam::Conflict| {
            if let Some((peer, holder)) = &conflict.elsewhere {
                return format!(
                    "{} is held here by {} and on {} by {holder}: stop one of them",
                    conflict.address,
                    conflict.holder,
                    self.router.name_of(*peer)
                );
            }
            let owner = match conflict.owner {
                Owner::Peer(peer) => format!("belongs to {}", self.router.name_of(peer)),
                Owner::Unknown { ask } => format!("is known to {}", self.router.name_of(ask)),
                Owner::Outside => "is in no range of the mesh".to_owned(),
            };
            format!("{} is held here by {} and {owner}", conflict.address, conflict.holder)
        };
        self.twin_words().into_iter().chain(self.ipam.conflicts().iter().map(words)).collect()
    }

    /// Whose addresses nobody can use until it is back or removed.
    fn stranded(&self) -> Vec<String> {
        let owners: BTreeSet<PeerId> = self.ipam.owners().collect();
        let here =
            |peer: &PeerId| *peer == self.config.me || self.router.paths().contains_key(peer);
        let words = |peer: PeerId| {
            let info = member::info(self.router.members(), peer);
            let id = info.map_or_else(|| peer.to_string(), |info| info.name.clone());
            let how = match info {
                _ if self.ipam.is_removed(peer) => "was removed",
                None => "is not known here",
                Some(info) if info.left => "has left",
                Some(_) if self.state_of(peer) == "unreachable" => "cannot be reached",
                Some(_) => return None,
            };
            let owned = self.ipam.owned_by(peer);
            Some(format!(
                "{id} {how} and owns {owned} addresses; if it is gone for good, `meshctl peer \
                 remove {id}` takes them"
            ))
        };
        owners.into_iter().filter(|peer| !here(peer)).filter_map(words).collect()
    }

    fn target_list(&self) -> Vec<Target> {
        let state = |address, peer: Option<PeerId>| {
            let linked = peer.is_some_and(|peer| self.router.link_to(peer).is_some());
            // Who is found there and is no member is dialled as a target still.
            let member = peer.and_then(|peer| self.router.call(Callee::Peer(peer)));
            let call = member.or_else(|| self.router.call(Callee::Target(address)));
            let dialling = call.is_some_and(|call| call.dialling.is_some());
            let state = match (linked, dialling) {
                (true, _) => "connected",
                (false, true) => "dialling",
                (false, false) => "waiting",
            };
            let error = call.and_then(|call| call.error.as_ref());
            (state.to_owned(), error.map(ToString::to_string))
        };
        self.router
            .targets()
            .map(|(address, peer)| {
                let (state, reason) = state(address, peer);
                Target { address, state, reason }
            })
            .collect()
    }

    /// The peers' links by number, for the driver to add what it measured.
    pub fn link_peers(&self) -> impl Iterator<Item = (super::event::LinkId, PeerId)> {
        self.router.links().map(|up| (up.link, up.peer))
    }
}
