//! The bodies of attach, detach and check. Fields may be added; names and meanings stay.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// `attach`: addresses, names and a link for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Container id.
    pub container: String,
    /// Interface in the container; `eth0` by default.
    #[serde(default = "default_interface")]
    pub interface: String,
    /// Path of the container's network namespace; without it only addresses and names are given.
    #[serde(default)]
    pub netns: Option<String>,
    /// Names, relative to the mesh's domain (`web`, `pod.namespace`) or absolute in it.
    #[serde(default)]
    pub names: Vec<String>,
    /// Exact addresses that are wanted; for a family without one, any.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Parts of the mesh's ranges, one per family at most, that the addresses are taken from.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub subnets: Vec<IpNetwork>,
    /// Hardware address that is wanted, `aa:bb:cc:dd:ee:ff`.
    #[serde(default)]
    pub mac: Option<String>,
    /// MTU; 0 for the mesh's.
    #[serde(default)]
    pub mtu: u32,
    /// Whether the container's default routes go to the mesh.
    #[serde(default = "yes")]
    pub default_gateway: bool,
    /// Whether the container may reach itself through the bridge.
    #[serde(default = "yes")]
    pub hairpin: bool,
    /// Whether its traffic to outside the mesh is masqueraded.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// Further destinations that the container reaches through the mesh.
    #[serde(default)]
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub routes: Vec<IpNetwork>,
    /// How long to wait for what the network must give, in milliseconds.
    #[serde(default = "default_patience_ms")]
    pub patience_ms: u64,
}

fn default_interface() -> String {
    "eth0".to_owned()
}

fn yes() -> bool {
    true
}

fn default_patience_ms() -> u64 {
    10_000
}

impl AttachRequest {
    /// A request with every default.
    pub fn new(container: impl Into<String>) -> Self {
        Self {
            container: container.into(),
            interface: default_interface(),
            netns: None,
            names: Vec::new(),
            addresses: Vec::new(),
            subnets: Vec::new(),
            mac: None,
            mtu: 0,
            default_gateway: true,
            hairpin: true,
            masquerade: true,
            routes: Vec::new(),
            patience_ms: default_patience_ms(),
        }
    }
}

/// What a container has been given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
pub struct Attachment {
    /// Container id.
    pub container: String,
    /// Interface in the container.
    pub interface: String,
    /// Path of its network namespace, if it has a link.
    pub netns: Option<String>,
    /// Addresses with the prefix that they are put on with.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpNetwork>,
    /// Gateways, one per family.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub gateways: Vec<IpAddr>,
    /// Routes besides the addresses' own networks, default routes included.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub routes: Vec<IpNetwork>,
    /// Hardware address of the container's end.
    pub mac: String,
    /// Name of the host's end, if there is a link.
    pub host_interface: Option<String>,
    /// Hardware address of the bridge.
    pub bridge_mac: String,
    /// Name of the bridge.
    pub bridge: String,
    /// MTU of the link.
    pub mtu: u32,
    /// Full names.
    pub names: Vec<String>,
    /// Resolvers to put into the container's configuration.
    #[cfg_attr(feature = "io", schema(value_type = Vec<String>))]
    pub nameservers: Vec<IpAddr>,
    /// The mesh's domain.
    pub domain: String,
}

/// `detach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// Container id.
    pub container: String,
    /// Its interface; all that it has if absent.
    #[serde(default)]
    pub interface: Option<String>,
}

/// `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// Container id.
    pub container: String,
    /// Its interface; `eth0` by default.
    #[serde(default = "default_interface")]
    pub interface: String,
}
