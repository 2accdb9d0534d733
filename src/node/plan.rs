//! The desired kernel state, made from ring, peers and paths; nothing else goes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use mesh_ipam::Block;
use mesh_router::{PeerId, member};

use super::{
    Node,
    attachment::{Record, Slot, Stage},
    desired::{Bridge, Desired, Nexthop, RouteTarget, Tunnel, Wiring, bridge_mac, vtep_mac},
    event::Output,
};

/// Name of the tunnel device.
const TUNNEL: &str = "mesh-vx";
/// What VXLAN adds to an inner packet, inner Ethernet header included, over IPv4 and over IPv6.
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
/// The least MTU that IPv6 allows (RFC 8200, 5).
const MTU_MIN: u32 = 1280;
/// MTU as long as the underlay's is not known. From Ethernet.
const UNDERLAY_MTU: u32 = 1500;
/// For each member what follows from changes elsewhere is looked at this much more rarely. Chosen:
/// among fifty hosts each 50 ms.
const PAUSE: Duration = Duration::from_millis(1);
/// But never more rarely than this.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The upper byte of our nexthop objects' ids: the kernel has one space of ids for everybody.
const NEXTHOP_IDS: u32 = 0x4d00_0000;

impl Node {
    /// The desired state changed: publishes it at the end of this input.
    pub(super) fn replan(&mut self) {
        self.program_at = Some(self.now);
    }

    /// As [`Node::replan`], for what happens elsewhere in the mesh: the more hosts there are, the
    /// more often that is, and the more it costs.
    pub(super) fn replan_soon(&mut self) {
        let at = self.now.max(self.programmed_at + self.pause());
        self.program_at = Some(self.program_at.map_or(at, |before| before.min(at)));
    }

    /// How long changes elsewhere are collected.
    pub(super) fn pause(&self) -> Duration {
        self.router.pause(PAUSE, PAUSE_MAX)
    }

    pub(super) fn publish_plan(&mut self) {
        if self.program_at.is_none_or(|at| at > self.now) {
            return;
        }
        (self.program_at, self.programmed_at) = (None, self.now);
        if self.is_clearing() {
            return;
        }
        if let Some(desired) = self.desired() {
            self.outputs.push_back(Output::Program(Some(Box::new(desired))));
        }
    }

    /// The kernel state that is wanted; `None` until this host has its own addresses and knows its
    /// underlay.
    pub(super) fn desired(&self) -> Option<Desired> {
        let gateways = self.gateway_addresses();
        let mesh = self.mesh.as_ref()?.mesh;
        if gateways.is_empty() || self.underlay.is_none() {
            return None;
        }
        let nexthops = self.nexthops();
        let [a, b, c, ..] = *mesh.as_bytes();
        Some(Desired {
            bridge: Bridge {
                name: self.config.bridge.clone(),
                mac: bridge_mac(self.config.me),
                gateways,
            },
            tunnel: Tunnel {
                name: TUNNEL.to_owned(),
                // Two meshes on one underlay do not hear each other's packets.
                vni: u32::from_be_bytes([0, a, b, c]).max(1),
                port: self.config.data_port,
                mac: vtep_mac(self.config.me),
                mtu_bytes: self.tunnel_mtu(),
            },
            routes: self.routes(&nexthops),
            nexthops,
            ports: self.ports(),
            ranges: self.ipam.ranges().iter().map(Block::network).collect(),
            unmasqueraded: self.unmasqueraded(),
        })
    }

    /// What fits into one packet between containers. Every host must come to the same figure on
    /// equal underlays, so the family decides: that of the first endpoint that this host publishes.
    pub(super) fn tunnel_mtu(&self) -> u32 {
        let first = self.underlay.as_ref().and_then(|underlay| underlay.endpoints.first());
        let overhead = if first.is_some_and(std::net::SocketAddr::is_ipv6) {
            OVERHEAD_IPV6
        } else {
            OVERHEAD_IPV4
        };
        let underlay = self.underlay.as_ref().map_or(0, |underlay| underlay.mtu_bytes);
        let underlay = if underlay == 0 { UNDERLAY_MTU } else { underlay };
        self.config.mtu_bytes.unwrap_or(underlay.saturating_sub(overhead).max(MTU_MIN))
    }

    fn nexthops(&self) -> BTreeMap<PeerId, Nexthop> {
        let mut nexthops = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (peer, _) in member::present(self.router.members()) {
            if peer == self.config.me {
                continue;
            }
            let path = self.router.packet_path(peer);
            let via = path.unwrap_or(peer);
            let Some(endpoint) = self.endpoint(via) else { continue };
            nexthops.insert(
                peer,
                Nexthop {
                    id: nexthop_id(peer, &mut taken),
                    via,
                    endpoint,
                    mac: vtep_mac(via),
                    certain: path.is_some(),
                },
            );
        }
        nexthops
    }

    /// The underlay address of a peer's tunnel: where its control link goes, else the best that it
    /// published.
    fn endpoint(&self, peer: PeerId) -> Option<IpAddr> {
        let linked = self.router.link_to(peer).map(|up| up.remote.ip());
        linked.or_else(|| {
            let info = member::info(self.router.members(), peer)?;
            info.endpoints.first().map(std::net::SocketAddr::ip)
        })
    }

    fn routes(
        &self,
        nexthops: &BTreeMap<PeerId, Nexthop>,
    ) -> BTreeMap<ipnetwork::IpNetwork, RouteTarget> {
        let target = |owner: PeerId| {
            if owner == self.config.me {
                Some(RouteTarget::Local)
            } else {
                nexthops.contains_key(&owner).then_some(RouteTarget::Peer(owner))
            }
        };
        self.ipam
            .routes()
            .iter()
            .filter_map(|(block, owner)| Some((block.network(), target(*owner)?)))
            .collect()
    }

    fn ports(&self) -> BTreeMap<String, Wiring> {
        self.slots_in_kernel()
            .filter(|slot| matches!(slot.stage, Stage::Standing | Stage::Making { .. }))
            .filter_map(|slot| slot.record.wiring.clone())
            .map(|wiring| (wiring.host_name.clone(), wiring))
            .collect()
    }

    fn unmasqueraded(&self) -> Vec<IpAddr> {
        let plain = self.slots_in_kernel().filter(|slot| !slot.record.masquerade);
        plain.flat_map(|slot| slot.record.addresses.iter().copied()).collect()
    }

    fn slots_in_kernel(&self) -> impl Iterator<Item = &Slot> {
        self.in_kernel.iter().filter_map(|holder| self.slots.get(holder))
    }

    /// A record was made or has changed.
    pub(super) fn note_in_kernel(&mut self, record: &Record) {
        if record.wiring.is_some() || !record.masquerade {
            self.in_kernel.insert(record.holder.clone());
        }
    }
}

/// An id for a peer's nexthop object: from its own id, so that a restart finds what stands; the
/// next free one when two peers collide (peers are asked in the order of ids, on every host).
fn nexthop_id(peer: PeerId, taken: &mut BTreeSet<u32>) -> u32 {
    let [a, b, c, ..] = *peer.as_bytes();
    let mut low = u32::from_be_bytes([0, a, b, c]);
    while !taken.insert(low) {
        low = (low + 1) & 0x00ff_ffff;
    }
    NEXTHOP_IDS | low
}
