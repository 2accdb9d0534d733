//! The bodies of the local API. Fields may be added; names and meanings stay.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
pub use mesh_ipam::Holder;
use mesh_router::{MeshId, PeerId};
use serde::{Deserialize, Serialize};

pub use super::attach::{AttachRequest, Attachment, CheckRequest, DetachRequest};

/// What `init` and `join` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Joined {
    /// The mesh.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub mesh_id: MeshId,
    /// Its ranges, as far as they are known yet.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub ranges: Vec<IpNetwork>,
}

/// What `peer remove` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Removed {
    /// Who is no member any more.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub peers: Vec<PeerId>,
    /// IPv4 addresses that were taken from them.
    pub addresses: u64,
    /// The ring's epoch from then on.
    pub epoch: u64,
}

/// `status`: one page about this host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Status {
    /// Whether attaches can be served.
    pub ready: bool,
    /// When not: why, and for what or whom one waits.
    pub reason: Option<String>,
    /// Version of meshd.
    pub version: String,
    /// The mesh, if the host is in one.
    #[cfg_attr(feature = "io", schema(value_type = Option<String>))]
    pub mesh_id: Option<MeshId>,
    /// This host.
    pub peer: OwnPeer,
    /// How many peers there are, this host included.
    pub peers: PeerCounts,
    /// Links of the control plane.
    pub connections: Vec<Connection>,
    /// Paths of the data plane.
    pub paths: Vec<Path>,
    /// Addresses.
    pub ipam: Ipam,
    /// Names.
    pub dns: Dns,
    /// Targets that are dialled.
    pub targets: Vec<Target>,
    /// Repairs of the kernel's state, newest last; bounded.
    pub repairs: Vec<Repair>,
}

/// This host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct OwnPeer {
    /// Its id.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Its control endpoints.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<SocketAddr>,
}

/// How many peers are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct PeerCounts {
    /// All.
    pub total: usize,
    /// Reached directly or through others.
    pub alive: usize,
    /// Not heard of for seconds: names hidden.
    pub suspect: usize,
    /// Not reached for longer.
    pub unreachable: usize,
}

/// A link, or the attempt at one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Connection {
    /// To whom.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// The other end's underlay address.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub address: SocketAddr,
    /// `established`, `connecting` or `failed`.
    pub state: String,
    /// Round-trip time, when it is known.
    pub rtt_ms: Option<f64>,
    /// When not established: why.
    pub reason: Option<String>,
}

/// How containers' packets reach a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Path {
    /// Which peer.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// `vxlan`, `wireguard` or `quic`.
    pub kind: String,
    /// Name of the relay, if there is one.
    pub via: Option<String>,
    /// What fits in one packet.
    pub mtu: u32,
    /// `up`, `down` or `probing`.
    pub state: String,
    /// Why it is as it is.
    pub reason: String,
}

/// Addresses in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Ipam {
    /// `ready`, `waiting`, `joining` or `exhausted`.
    pub state: String,
    /// Why, when not ready; and what is waited for.
    pub reason: Option<String>,
    /// The mesh's ranges.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub ranges: Vec<IpNetwork>,
    /// Blocks that this host owns.
    pub blocks: usize,
    /// Addresses in them, IPv4 (in IPv6 there are always enough).
    pub owned: u64,
    /// Addresses that are held on this host, by containers and by hand.
    pub allocated: usize,
    /// Entries of the ring.
    pub ring_entries: usize,
    /// A hash of all that this host knows of the ring, hexadecimal: hosts that know the same show
    /// the same.
    #[serde(default)]
    pub ring_digest: String,
    /// Addresses that two hosts gave away, in words.
    pub conflicts: Vec<String>,
    /// Hosts that are gone and own addresses, in words, with what to do.
    #[serde(default)]
    pub stranded: Vec<String>,
    /// The number of the newest common decision.
    #[serde(default)]
    pub epoch: u64,
    /// Names of the hosts that vote on the next one.
    #[serde(default)]
    pub electors: Vec<String>,
    /// The lease and how this host stands with it, in words; none unless the mesh has one.
    #[serde(default)]
    pub lease: Option<String>,
    /// When and why this run of the host had to be told the ring anew, in words: it was removed
    /// while it was away, or its disk was an old one. None if it had not.
    #[serde(default)]
    pub told_anew: Option<String>,
}

/// Names in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Dns {
    /// The mesh's domain.
    pub domain: String,
    /// Where the resolver listens.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub listen: Vec<SocketAddr>,
    /// How many records there are.
    pub records: usize,
    /// Where other names are asked for.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub upstream: Vec<SocketAddr>,
}

/// A target of dialling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Target {
    /// Where.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub address: SocketAddr,
    /// `connected`, `dialling` or `waiting`.
    pub state: String,
    /// The last failure.
    pub reason: Option<String>,
}

/// Something in the kernel that was not as it should be, and is again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Repair {
    /// Seconds since the epoch.
    pub at_secs: u64,
    /// What was repaired, in words.
    pub what: String,
}

/// A peer, as `peer list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Peer {
    /// Its id.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// `alive`, `suspect`, `unreachable` or `left`.
    pub state: String,
    /// Its control endpoints.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<SocketAddr>,
    /// Addresses that it owns, IPv4.
    pub owned: u64,
}

/// One held address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Allocation {
    /// The address.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub address: IpAddr,
    /// Container id, or for whom it was claimed.
    pub holder: String,
    /// Its interface; empty for a claim.
    pub interface: String,
}

/// `ipam claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Which address; any if it is absent.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// For whom.
    pub holder: String,
}

/// One name with its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Record {
    /// Full name.
    pub name: String,
    /// Its addresses.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// The host that wrote it.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub origin: PeerId,
    /// That host's name.
    pub host: String,
    /// The container, or `by hand`.
    pub holder: String,
    /// Whether it is hidden because its host is away.
    pub hidden: bool,
}

/// `dns add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DnsRequest {
    /// The name.
    pub name: String,
    /// Its addresses.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
}

/// `init`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InitRequest {
    /// Ranges, those of a family used in their order; a family without one gets its default.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub ranges: Vec<IpNetwork>,
}

/// `peers/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Names or ids of dead hosts; at least one.
    pub peers: Vec<String>,
    /// Whether to go on without the answers of those who cannot be reached. Addresses that a dead
    /// host gave to one of them may then be held twice.
    #[serde(default)]
    pub force: bool,
}

/// `ipam/ranges`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RangeRequest {
    /// The new range.
    #[cfg_attr(feature = "io", schema(value_type = String))]
    pub range: IpNetwork,
}

/// `join`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Members of the mesh, `host[:port]` or an address.
    pub targets: Vec<String>,
    /// The join token.
    pub token: String,
}

/// `ipam release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// For whom the address was claimed.
    pub holder: String,
}

/// What `token` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct TokenBody {
    /// The join token; whoever knows it can join.
    pub token: String,
}

/// What an order answers that has nothing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Done {
    /// Always true; a refusal has another shape.
    pub done: bool,
}

/// `connect` and `forget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// `host[:port]` or an address.
    pub target: String,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: crate::node::request::Refusal,
}
