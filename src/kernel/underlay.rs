//! The underlay: which of the host's own addresses others can reach it at, and what fits through.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
};

use ipnetwork::IpNetwork;

use super::{
    Config,
    actual::{addresses, links},
    address::Address,
    link::Link,
    netlink::Netlink,
    plan::PORT_PREFIX,
    route::{self, Foreign},
};
use crate::node::event::Underlay;

/// What an interface is taken to carry when nobody says: Ethernet.
const MTU_DEFAULT_BYTES: u32 = 1500;
/// Devices that others make for containers and services, by how their names start.
const FOREIGN: [&str; 9] =
    ["docker", "br-", "cni", "podman", "virbr", "flannel", "cali", "cilium", "kube-ipvs"];

/// What the host's devices, addresses and routes say, as far as the underlay is concerned.
#[derive(Debug, Default)]
pub(super) struct Scene {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
    routes: Vec<Foreign>,
}

impl Scene {
    /// Reads it from the kernel.
    pub(super) fn read(netlink: &mut Netlink) -> io::Result<Self> {
        let links = links(netlink)?.into_values().map(|link| (link.index, link)).collect();
        let addresses = addresses(netlink)?;
        let mut routes = Vec::new();
        for v4 in [true, false] {
            let received = netlink.dump(route::dump(v4, false))?;
            routes.extend(received.iter().filter_map(route::parse_foreign));
        }
        Ok(Self { links, addresses, routes })
    }

    /// The underlay, our own devices left out. Pure.
    pub(super) fn underlay(&self, config: &Config, own: &[String]) -> Underlay {
        let own: BTreeSet<u32> = self
            .links
            .values()
            .filter(|link| own.contains(&link.name) || link.name.starts_with(PORT_PREFIX))
            .map(|link| link.index)
            .collect();
        let gates: BTreeSet<u32> = self
            .routes
            .iter()
            .filter(|route| route.network.prefix() == 0)
            .filter_map(|route| route.link)
            .collect();
        let advertised = |ip: IpAddr| config.advertise.contains(&ip);
        let mut found: Vec<(&Link, IpAddr)> = self
            .addresses
            .iter()
            .filter(|address| address.lasting || advertised(address.network.ip()))
            .filter_map(|address| Some((self.links.get(&address.link)?, address.network.ip())))
            .filter(|(link, ip)| {
                let usable = is_usable(link, *ip, gates.contains(&link.index));
                if config.advertise.is_empty() {
                    usable && !own.contains(&link.index)
                } else {
                    advertised(*ip)
                }
            })
            .collect();
        found.sort_by_key(|(link, ip)| (ip.is_ipv6(), !gates.contains(&link.index), link.index));
        let mtu_bytes = found.iter().map(|(link, _)| link.mtu_bytes).min();
        let mut ips: Vec<_> = found.iter().map(|(_, ip)| *ip).collect();
        if !config.advertise.is_empty() {
            ips.clone_from(&config.advertise);
        }
        Underlay {
            endpoints: ips.iter().map(|ip| SocketAddr::new(*ip, config.control_port)).collect(),
            mtu_bytes: mtu_bytes.unwrap_or(MTU_DEFAULT_BYTES),
            routes: self.foreign_routes(&own),
        }
    }

    fn foreign_routes(&self, own: &BTreeSet<u32>) -> Vec<IpNetwork> {
        let routes: BTreeSet<IpNetwork> = self
            .routes
            .iter()
            .filter(|route| route.network.prefix() != 0)
            .filter(|route| !is_local(route.network.ip()))
            .filter(|route| route.link.is_none_or(|link| !own.contains(&link)))
            .map(|route| route.network)
            .collect();
        routes.into_iter().collect()
    }
}

/// Whether others may reach the host at an address of this device.
fn is_usable(link: &Link, ip: IpAddr, is_gate: bool) -> bool {
    let inner = link.kind == "bridge" || (link.kind == "veth" && link.master.is_some());
    let foreign = FOREIGN.iter().any(|prefix| link.name.starts_with(prefix));
    link.up && !link.loopback && !is_local(ip) && (is_gate || !(inner || foreign))
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast(),
    }
}
