//! The kernel state that a node wants: a pure function of ring, peers and paths.
//!
//! The kernel is never commanded. The node publishes a [`Desired`], whose reader (`crate::kernel`)
//! compares it with what stands and changes the difference, again at every start and when idle.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use mesh_router::PeerId;
use serde::{Deserialize, Serialize};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered address made of a tag and the first bytes of an id, so that each
    /// peer's tunnel end has its own: VXLAN drops frames whose source is the receiver's own.
    pub const fn derived(tag: u8, id: &[u8; 16]) -> Self {
        Self([0x02 | (tag << 4), id[0], id[1], id[2], id[3], id[4]])
    }

    /// Reads `aa:bb:cc:dd:ee:ff`; `None` when it is no address that one interface can have.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|p| p.len() == 2)
                .and_then(|p| u8::from_str_radix(p, 16).ok())?;
        }
        let unicast = bytes[0] & 1 == 0 && bytes != [0; 6];
        (unicast && parts.next().is_none()).then_some(Self(bytes))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// All that a host wants its kernel to hold for the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The bridge that containers are ports of.
    pub bridge: Bridge,
    /// The tunnel device.
    pub tunnel: Tunnel,
    /// One nexthop object per known peer.
    pub nexthops: BTreeMap<PeerId, Nexthop>,
    /// One route per block; at most one per prefix.
    pub routes: BTreeMap<IpNetwork, RouteTarget>,
    /// The host's end of each container's link, by the name of that end.
    pub ports: BTreeMap<String, Wiring>,
    /// The mesh's ranges: traffic from them to anywhere else is masqueraded.
    pub ranges: Vec<IpNetwork>,
    /// Container addresses whose traffic is not masqueraded (`ipMasq: false`).
    pub unmasqueraded: Vec<IpAddr>,
}

/// The bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// `mesh0` by default.
    pub name: String,
    /// Derived from the peer id.
    pub mac: Mac,
    /// The gateway addresses of this host, put on the bridge as /32 and /128.
    pub gateways: Vec<IpAddr>,
}

/// The VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `mesh-vx` by default.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port, the same on every host of the mesh.
    pub port: u16,
    /// This host's tunnel MAC, [`vtep_mac`] of its own id.
    pub mac: Mac,
    /// MTU of the tunnel and of the bridge and its ports: the underlay's less the encapsulation.
    pub mtu_bytes: u32,
}

/// How to reach a peer's containers: which tunnel end gets the packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nexthop {
    /// The kernel's id of the nexthop object.
    pub id: u32,
    /// The peer that packets are sent to: the peer itself, or the relay in front of it.
    pub via: PeerId,
    /// Underlay address of `via`.
    pub endpoint: IpAddr,
    /// Tunnel MAC of `via`.
    pub mac: Mac,
    /// Whether the path is known to be right. When it is not (just after a start, before any peer
    /// was heard), an object that stands is left as it is, so that a restart moves no traffic.
    pub certain: bool,
}

/// Where a block's packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTarget {
    /// To the bridge: the block is this host's own.
    Local,
    /// Through the nexthop object of this peer.
    Peer(PeerId),
}

/// A container's link: a veth pair with one end in the container and one on the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// Name of the host's end; at most 15 bytes, starts with `mw`.
    pub host_name: String,
    /// Path of the container's network namespace.
    pub netns: String,
    /// Name of the container's end.
    pub interface: String,
    /// Hardware address of the container's end.
    pub mac: Mac,
    /// The container's addresses with the prefix they are put on with: the range's for IPv4 (the
    /// mesh is one flat subnet), 128 for IPv6.
    pub addresses: Vec<IpNetwork>,
    /// Default gateways: the host's IPv4 gateway address, and for IPv6 the bridge's link-local
    /// address. Empty when the network is not the default one.
    pub gateways: Vec<IpAddr>,
    /// Further destinations that go to the gateway of their family.
    pub routes: Vec<IpNetwork>,
    /// MTU; 0 for the tunnel's.
    pub mtu_bytes: u32,
    /// Whether the bridge may send a frame back out of the port it came in at.
    pub hairpin: bool,
    /// The namespace's inode and device when it was wired, so that a repair never puts an address
    /// into another container's namespace at the same path. `None` before the first wiring.
    pub netns_identity: Option<(u64, u64)>,
}

/// Tag of tunnel MACs in [`Mac::derived`].
const VTEP_TAG: u8 = 1;
/// Tag of bridge MACs.
const BRIDGE_TAG: u8 = 2;

/// The tunnel MAC of a peer.
pub const fn vtep_mac(peer: PeerId) -> Mac {
    Mac::derived(VTEP_TAG, peer.as_bytes())
}

/// The bridge MAC of a peer.
pub const fn bridge_mac(peer: PeerId) -> Mac {
    Mac::derived(BRIDGE_TAG, peer.as_bytes())
}

/// The link-local address that a peer's tunnel end has for its neighbours' tables: `fe80::` and the
/// first eight bytes of its id. It is never put on a device, only on permanent neighbour entries.
pub fn vtep_address(peer: PeerId) -> std::net::Ipv6Addr {
    let b = peer.as_bytes();
    let word = |i: usize| u16::from_be_bytes([b[i], b[i + 1]]);
    std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, word(0), word(2), word(4), word(6))
}

/// The bridge's link-local address: the IPv6 gateway of every container, the same on every host.
pub const BRIDGE_LINK_LOCAL: std::net::Ipv6Addr =
    std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
