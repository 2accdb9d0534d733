//! What stands in the kernel, as far as it can be ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::{
    address::{self, Address},
    link::{self, Link},
    neighbour::{self, Neighbour},
    netlink::Netlink,
    netns,
    nexthop::{self, Object},
    nft,
    route::{self, Route},
    sysctl,
};
use crate::node::desired::Desired;

/// The state that a [`Desired`] is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Actual {
    /// All devices, by name.
    pub(super) links: BTreeMap<String, Link>,
    /// All addresses.
    pub(super) addresses: BTreeSet<Address>,
    /// Permanent neighbours behind the tunnel.
    pub(super) neighbours: BTreeSet<Neighbour>,
    /// Nexthop objects with our mark; `None` for one whose shape is not ours.
    pub(super) nexthops: BTreeMap<u32, Option<Object>>,
    /// Routes with our mark.
    pub(super) routes: Vec<Route>,
    /// Settings that we care for and that exist.
    pub(super) sysctls: BTreeMap<String, String>,
    /// The nftables table; `None` when it is missing or broken.
    pub(super) table: Option<nft::Found>,
    /// Ports without a device whose container's namespace is still the one they were wired in.
    pub(super) torn: BTreeSet<String>,
}

impl Actual {
    /// Reads everything that `desired` has a say in.
    pub(super) fn read(
        netlink: &mut Netlink,
        nft: &mut TableReader,
        desired: &Desired,
    ) -> io::Result<Self> {
        let links = links(netlink)?;
        let addresses = addresses(netlink)?;
        let mut neighbours = BTreeSet::new();
        if let Some(tunnel) = links.get(&desired.tunnel.name) {
            let received = netlink.dump(neighbour::dump(tunnel.index))?;
            let behind = |found: &Neighbour| found.link == tunnel.index;
            neighbours.extend(received.iter().filter_map(neighbour::parse).filter(behind));
        }
        let nexthops = netlink.dump(nexthop::dump())?.iter().filter_map(nexthop::parse).collect();
        let mut routes = Vec::new();
        for v4 in [true, false] {
            routes.extend(netlink.dump(route::dump(v4, true))?.iter().filter_map(route::parse));
        }
        let sysctls = sysctl::wanted(&desired.bridge.name, &desired.tunnel.name)
            .into_iter()
            .filter_map(|wanted| Some((wanted.path.clone(), sysctl::read(&wanted.path)?)))
            .collect();
        let torn = desired
            .ports
            .iter()
            .filter(|(name, wiring)| !links.contains_key(*name) && netns::is_as_wired(wiring))
            .map(|(name, _)| name.clone())
            .collect();
        let table = nft.read()?;
        Ok(Self { links, addresses, neighbours, nexthops, routes, sysctls, table, torn })
    }
}

/// All devices, by name.
pub(super) fn links(netlink: &mut Netlink) -> io::Result<BTreeMap<String, Link>> {
    let received = netlink.dump(link::dump())?;
    Ok(received.iter().filter_map(link::parse).map(|link| (link.name.clone(), link)).collect())
}

/// All addresses.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<BTreeSet<Address>> {
    Ok(netlink.dump(address::dump())?.iter().filter_map(address::parse).collect())
}

/// Reads the nftables table, and only when the kernel's ruleset has changed since.
#[derive(Debug)]
pub(super) struct TableReader {
    netlink: Netlink,
    last: Option<(u32, Option<nft::Found>)>,
}

impl TableReader {
    /// Opens its socket.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(nft::NETFILTER)?, last: None })
    }

    /// The socket, for changes.
    pub(super) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    fn read(&mut self) -> io::Result<Option<nft::Found>> {
        let generation = nft::generation(&mut self.netlink)?;
        if let Some((last, found)) = &self.last
            && *last == generation
        {
            return Ok(found.clone());
        }
        let found = nft::read(&mut self.netlink)?;
        // What changed while it was read has another number, and is read again the next time.
        self.last = Some((generation, found.clone()));
        Ok(found)
    }
}
