//! Desired minus actual: which steps make the kernel what it shall be.
//!
//! Pure. A step that needs a device which does not stand yet is left out: the device is made first,
//! and the next look plans the rest.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnetwork::IpNetwork;

use super::{
    actual::Actual,
    link::Link,
    neighbour::Neighbour,
    nexthop::Object,
    nft::Ruleset,
    route::{METRIC_UNREACHABLE, Route, Way},
    sysctl::{self, Sysctl},
};
use crate::node::desired::{BRIDGE_LINK_LOCAL, Desired, Mac, RouteTarget, Wiring, vtep_address};

/// How the names of all ports start.
pub(super) const PORT_PREFIX: &str = "mw";

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Sysctl(String),
    Bridge(String),
    Tunnel(String),
    Address(IpNetwork),
    Neighbour(IpAddr),
    Nexthop(u32),
    /// A route and its metric.
    Route(IpNetwork, u32),
    Table,
    Port(String),
}

impl Subject {
    /// The kind in the singular and the plural.
    pub(super) fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::Sysctl(_) => ("setting", "settings"),
            Self::Bridge(_) => ("bridge", "bridges"),
            Self::Tunnel(_) => ("tunnel", "tunnels"),
            Self::Address(_) => ("address", "addresses"),
            Self::Neighbour(_) => ("neighbour", "neighbours"),
            Self::Nexthop(_) => ("nexthop", "nexthops"),
            Self::Route(_, METRIC_UNREACHABLE) => ("unreachable route", "unreachable routes"),
            Self::Route(..) => ("route", "routes"),
            Self::Table => ("nftables table", "nftables tables"),
            Self::Port(_) => ("port", "ports"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind().0)?;
        match self {
            Self::Sysctl(name) | Self::Bridge(name) | Self::Tunnel(name) | Self::Port(name) => {
                f.write_str(name)
            }
            Self::Address(network) | Self::Route(network, _) => write!(f, "{network}"),
            Self::Neighbour(address) => write!(f, "{address}"),
            Self::Nexthop(id) => write!(f, "{id}"),
            Self::Table => f.write_str(super::nft::TABLE),
        }
    }
}

/// What is wrong with the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flaw {
    /// It is not there.
    Gone,
    /// It is not as it shall be.
    Changed,
    /// It bears our mark and shall not be there.
    Extra,
}

/// What is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    CreateBridge,
    CreateTunnel,
    /// A device of this name is none of ours, for this reason.
    Refuse(String),
    DeleteLink(String),
    Raise(u32),
    MakeNoAddresses(u32),
    SetMtu(u32, u32),
    SetMac(u32, Mac),
    SetMaster(u32, u32),
    /// Bring a port up, with this hairpin setting.
    RaisePort(String, bool),
    /// Change the MTU on both ends.
    SetPortMtu(Box<Wiring>, u32),
    Rewire(Box<Wiring>),
    PutAddress(u32, IpNetwork),
    DeleteAddress(u32, IpNetwork),
    PutNeighbour(Neighbour),
    DeleteNeighbour(u32, IpAddr),
    PutNexthop(Object),
    DeleteNexthop(u32),
    PutRoute(Route),
    DeleteRoute(Route),
    SetSysctl(Sysctl),
    PutTable(Ruleset),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) subject: Subject,
    pub(super) flaw: Flaw,
    pub(super) action: Action,
}

/// Ports that the newest desired state does not speak the truth about, because they were wired or
/// unwired since it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Transit {
    /// Not to be touched: being worked on, or unwired on purpose.
    pub(super) hands_off: BTreeSet<String>,
    /// Ours though nobody says so yet.
    pub(super) wired: BTreeSet<String>,
}

/// The steps from `actual` to `desired`, in the order in which they are to be taken.
pub(super) fn plan(desired: &Desired, actual: &Actual, transit: &Transit) -> Vec<Step> {
    let mut plan = Plan { desired, actual, steps: Vec::new() };
    let bridge = plan.bridge();
    let tunnel = plan.tunnel();
    plan.sysctls();
    if let Some(bridge) = bridge {
        plan.settings(bridge, Subject::Bridge(bridge.name.clone()), desired.bridge.mac);
        plan.addresses(bridge);
        plan.ports(bridge, transit);
    }
    if let Some(tunnel) = tunnel {
        plan.settings(tunnel, Subject::Tunnel(tunnel.name.clone()), desired.tunnel.mac);
        plan.neighbours(tunnel);
        plan.nexthops(tunnel);
    }
    plan.routes(bridge, tunnel);
    plan.stale_nexthops();
    plan.table();
    plan.steps
}

struct Plan<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    steps: Vec<Step>,
}

impl<'a> Plan<'a> {
    fn step(&mut self, subject: Subject, flaw: Flaw, action: Action) {
        self.steps.push(Step { subject, flaw, action });
    }

    fn bridge(&mut self) -> Option<&'a Link> {
        let name = &self.desired.bridge.name;
        let subject = Subject::Bridge(name.clone());
        match self.actual.links.get(name) {
            None => self.step(subject, Flaw::Gone, Action::CreateBridge),
            Some(link) if link.kind == "bridge" => return Some(link),
            Some(link) => {
                let why = format!("{name} exists and is no bridge but {:?}", link.kind);
                self.step(subject, Flaw::Changed, Action::Refuse(why));
            }
        }
        None
    }

    fn tunnel(&mut self) -> Option<&'a Link> {
        let tunnel = &self.desired.tunnel;
        let subject = Subject::Tunnel(tunnel.name.clone());
        match self.actual.links.get(&tunnel.name) {
            None => self.step(subject, Flaw::Gone, Action::CreateTunnel),
            Some(link) if link.kind != "vxlan" => {
                let why = format!("{} exists and is no VXLAN but {:?}", tunnel.name, link.kind);
                self.step(subject, Flaw::Changed, Action::Refuse(why));
            }
            // Port and mode of a VXLAN device cannot be changed: the next look makes a new one.
            Some(link) if link.vxlan_port != Some(tunnel.port) => {
                let action = Action::DeleteLink(tunnel.name.clone());
                self.step(subject, Flaw::Changed, action);
            }
            Some(link) => return Some(link),
        }
        None
    }

    /// What bridge and tunnel have in common.
    fn settings(&mut self, link: &Link, subject: Subject, mac: Mac) {
        let mtu_bytes = self.desired.tunnel.mtu_bytes;
        if link.mac != Some(mac) {
            self.step(subject.clone(), Flaw::Changed, Action::SetMac(link.index, mac));
        }
        if link.mtu_bytes != mtu_bytes {
            self.step(subject.clone(), Flaw::Changed, Action::SetMtu(link.index, mtu_bytes));
        }
        if link.makes_addresses {
            self.step(subject.clone(), Flaw::Changed, Action::MakeNoAddresses(link.index));
        }
        if !link.up {
            self.step(subject, Flaw::Changed, Action::Raise(link.index));
        }
    }

    fn sysctls(&mut self) {
        for wanted in sysctl::wanted(&self.desired.bridge.name, &self.desired.tunnel.name) {
            // What does not exist belongs to a device or a family that is not there.
            if self.actual.sysctls.get(&wanted.path).is_some_and(|value| *value != wanted.value) {
                let subject = Subject::Sysctl(wanted.path.clone());
                self.step(subject, Flaw::Changed, Action::SetSysctl(wanted));
            }
        }
    }

    fn addresses(&mut self, bridge: &Link) {
        let mut wanted: BTreeSet<_> =
            self.desired.bridge.gateways.iter().map(|ip| IpNetwork::from(*ip)).collect();
        wanted.extend(IpNetwork::new(BRIDGE_LINK_LOCAL.into(), 64).ok());
        let standing: BTreeSet<_> = self
            .actual
            .addresses
            .iter()
            .filter(|address| address.link == bridge.index)
            .map(|address| address.network)
            .collect();
        for network in wanted.difference(&standing) {
            let action = Action::PutAddress(bridge.index, *network);
            self.step(Subject::Address(*network), Flaw::Gone, action);
        }
        // Only what looks like a gateway of ours: others may have their reasons.
        let like_ours = |n: &&IpNetwork| **n == IpNetwork::from(n.ip());
        for network in standing.difference(&wanted).filter(like_ours) {
            let action = Action::DeleteAddress(bridge.index, *network);
            self.step(Subject::Address(*network), Flaw::Extra, action);
        }
    }

    fn ports(&mut self, bridge: &Link, transit: &Transit) {
        for (name, wiring) in &self.desired.ports {
            if transit.hands_off.contains(name) {
                continue;
            }
            let subject = Subject::Port(name.clone());
            match self.actual.links.get(name) {
                Some(link) => self.port(bridge, link, wiring),
                None if self.actual.torn.contains(name) => {
                    self.step(subject, Flaw::Gone, Action::Rewire(Box::new(wiring.clone())));
                }
                None => {}
            }
        }
        let known = |name: &String| {
            self.desired.ports.contains_key(name)
                || transit.hands_off.contains(name)
                || transit.wired.contains(name)
        };
        let orphans: Vec<_> = self
            .actual
            .links
            .values()
            .filter(|link| link.kind == "veth" && link.master == Some(bridge.index))
            .map(|link| link.name.clone())
            .filter(|name| name.starts_with(PORT_PREFIX) && !known(name))
            .collect();
        for name in orphans {
            self.step(Subject::Port(name.clone()), Flaw::Extra, Action::DeleteLink(name));
        }
    }

    fn port(&mut self, bridge: &Link, link: &Link, wiring: &Wiring) {
        let subject = Subject::Port(link.name.clone());
        if link.master != Some(bridge.index) {
            let action = Action::SetMaster(link.index, bridge.index);
            self.step(subject.clone(), Flaw::Changed, action);
        }
        let mtu_bytes = wiring.mtu_or(self.desired.tunnel.mtu_bytes);
        if link.mtu_bytes != mtu_bytes {
            let action = Action::SetPortMtu(Box::new(wiring.clone()), mtu_bytes);
            self.step(subject.clone(), Flaw::Changed, action);
        }
        // A port that was taken off the bridge has lost its hairpin setting with it.
        let detached = link.master != Some(bridge.index) && wiring.hairpin;
        if !link.up || detached || link.hairpin != wiring.hairpin {
            let action = Action::RaisePort(link.name.clone(), wiring.hairpin);
            self.step(subject, Flaw::Changed, action);
        }
    }

    fn neighbours(&mut self, tunnel: &Link) {
        let wanted: BTreeMap<IpAddr, Mac> = self
            .desired
            .nexthops
            .values()
            .map(|nexthop| (vtep_address(nexthop.via).into(), nexthop.mac))
            .collect();
        let standing: BTreeMap<IpAddr, Mac> =
            self.actual.neighbours.iter().map(|n| (n.address, n.mac)).collect();
        for (address, mac) in &wanted {
            let flaw = match standing.get(address) {
                Some(standing) if standing == mac => continue,
                Some(_) => Flaw::Changed,
                None => Flaw::Gone,
            };
            let neighbour = Neighbour { link: tunnel.index, address: *address, mac: *mac };
            self.step(Subject::Neighbour(*address), flaw, Action::PutNeighbour(neighbour));
        }
        // An uncertain nexthop that is left as it is may still send to a neighbour of before.
        let used: BTreeSet<IpAddr> =
            self.actual.nexthops.values().flatten().map(|object| object.gateway.into()).collect();
        for address in standing.keys() {
            if !wanted.contains_key(address) && !used.contains(address) {
                let action = Action::DeleteNeighbour(tunnel.index, *address);
                self.step(Subject::Neighbour(*address), Flaw::Extra, action);
            }
        }
    }

    fn nexthops(&mut self, tunnel: &Link) {
        for nexthop in self.desired.nexthops.values() {
            let object = Object {
                id: nexthop.id,
                link: tunnel.index,
                gateway: vtep_address(nexthop.via),
                endpoint: nexthop.endpoint,
                vni: self.desired.tunnel.vni,
            };
            let flaw = match self.actual.nexthops.get(&nexthop.id) {
                None => Flaw::Gone,
                Some(Some(standing)) if *standing == object || !nexthop.certain => continue,
                Some(_) => Flaw::Changed,
            };
            self.step(Subject::Nexthop(nexthop.id), flaw, Action::PutNexthop(object));
        }
    }

    fn stale_nexthops(&mut self) {
        let wanted: BTreeSet<u32> = self.desired.nexthops.values().map(|n| n.id).collect();
        for id in self.actual.nexthops.keys().filter(|id| !wanted.contains(id)) {
            let step = Action::DeleteNexthop(*id);
            self.step(Subject::Nexthop(*id), Flaw::Extra, step);
        }
    }

    fn routes(&mut self, bridge: Option<&Link>, tunnel: Option<&Link>) {
        let wanted = self.wanted_routes(bridge, tunnel);
        let standing: BTreeMap<_, _> =
            self.actual.routes.iter().map(|route| (key(route), *route)).collect();
        for (key, route) in &wanted {
            let flaw = match standing.get(key) {
                Some(standing) if standing == route => continue,
                Some(_) => Flaw::Changed,
                None => Flaw::Gone,
            };
            self.step(Subject::Route(key.0, key.1), flaw, Action::PutRoute(*route));
        }
        // Without a device nothing is known of its routes: they have gone with it.
        if bridge.is_none() || tunnel.is_none() {
            return;
        }
        for (key, route) in standing.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            self.step(Subject::Route(key.0, key.1), Flaw::Extra, Action::DeleteRoute(*route));
        }
    }

    fn wanted_routes(
        &self,
        bridge: Option<&Link>,
        tunnel: Option<&Link>,
    ) -> BTreeMap<(IpNetwork, u32), Route> {
        let gateways = &self.desired.bridge.gateways;
        // A source address must stand on a device before a route may name it.
        let source = |network: IpNetwork| {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == network.is_ipv4();
            bridge.and_then(|_| gateways.iter().find(same_family).copied())
        };
        let mut wanted = BTreeMap::new();
        for (network, target) in &self.desired.routes {
            let way = match target {
                RouteTarget::Local => bridge.map(|link| Way::Link(link.index)),
                RouteTarget::Peer(peer) => self
                    .desired
                    .nexthops
                    .get(peer)
                    .filter(|_| tunnel.is_some() && bridge.is_some())
                    .map(|nexthop| Way::Nexthop(nexthop.id)),
            };
            if let Some(way) = way {
                let route = Route::new(*network, way, source(*network));
                wanted.insert(key(&route), route);
            }
        }
        for network in &self.desired.ranges {
            let route = Route::new(*network, Way::Unreachable, None);
            wanted.insert(key(&route), route);
        }
        wanted
    }

    fn table(&mut self) {
        let wanted = Ruleset::wanted(self.desired);
        let flaw = match &self.actual.table {
            Some(found) if wanted.is(found) => return,
            Some(_) => Flaw::Changed,
            None => Flaw::Gone,
        };
        self.step(Subject::Table, flaw, Action::PutTable(wanted));
    }
}

fn key(route: &Route) -> (IpNetwork, u32) {
    (route.network, route.metric)
}

impl Wiring {
    /// The MTU of this link when the tunnel's is `default_bytes`.
    pub(super) fn mtu_or(&self, default_bytes: u32) -> u32 {
        if self.mtu_bytes == 0 { default_bytes } else { self.mtu_bytes }
    }
}
