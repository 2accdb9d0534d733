//! Routes: one per block, to the bridge or through a peer's nexthop object.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{
    PROTOCOL,
    address::{family, from_octets, octets},
    netlink::{Message, Received, flags},
};

/// `RTM_NEWROUTE`.
pub(super) const NEW_ROUTE: u16 = 24;
/// `RTM_DELROUTE`.
pub(super) const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTA_NH_ID: u16 = 30;

const TABLE_MAIN: u8 = 254;
const SCOPE_LINK: u8 = 253;
/// When removing: whatever the scope.
const SCOPE_NOWHERE: u8 = 255;
const TYPE_UNICAST: u8 = 1;
const TYPE_UNREACHABLE: u8 = 7;
const ONLINK: u32 = 4;
/// `RTM_F_CLONED`: a cache entry, not a route.
const CLONED: u32 = 0x200;
/// `RTPROT_BOOT`, what `ip route` writes when it is told nothing.
const PROTOCOL_BOOT: u8 = 3;

/// Metric of the mesh's routes. Chosen: its own, so that replacing one of ours never takes the
/// place of somebody else's route to the same prefix.
const METRIC: u32 = 77;
/// Metric of the routes that say "nobody has this".
pub(super) const METRIC_UNREACHABLE: u32 = 7777;
/// Bytes of `struct rtmsg`.
const FIXED: usize = 12;

/// Where packets of a route go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Out of this device, to a neighbour.
    Link(u32),
    /// Through this nexthop object.
    Nexthop(u32),
    /// Nowhere, and the sender is told: what nobody owns must not leave by the default route.
    Unreachable,
}

/// A route as it stands or shall stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Which addresses.
    pub(super) network: IpNetwork,
    /// Of routes to the same addresses the least counts. [`Route::new`] knows which it shall be.
    pub(super) metric: u32,
    /// Where to.
    pub(super) way: Way,
    /// The source address of what the host itself sends.
    pub(super) source: Option<IpAddr>,
}

impl Route {
    /// A route as it shall be.
    pub(super) fn new(network: IpNetwork, way: Way, source: Option<IpAddr>) -> Self {
        let metric = if way == Way::Unreachable { METRIC_UNREACHABLE } else { METRIC };
        Self { network, metric, way, source }
    }
}

/// The request for all routes of a family, or only those that carry our mark.
pub(super) fn dump(v4: bool, ours: bool) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = if v4 { 2 } else { 10 };
    if ours {
        fixed[4] = TABLE_MAIN;
        fixed[5] = PROTOCOL;
    }
    Message::new(GET_ROUTE, 0, &fixed)
}

/// Whether a message is about a route with our mark.
pub(super) fn is_ours(received: &Received) -> bool {
    received.byte(5) == PROTOCOL
}

fn network(received: &Received) -> Option<IpNetwork> {
    let address = match (received.attributes(FIXED).find(RTA_DST), received.byte(0)) {
        (Some(bytes), _) => from_octets(bytes)?,
        (None, 2) => IpAddr::from([0; 4]),
        (None, _) => IpAddr::from([0; 16]),
    };
    IpNetwork::new(address, received.byte(1)).ok()
}

/// Reads a route of the main table that carries our mark.
pub(super) fn parse(received: &Received) -> Option<Route> {
    let main = received.byte(4) == TABLE_MAIN && received.number(8) & CLONED == 0;
    if received.kind != NEW_ROUTE || !is_ours(received) || !main {
        return None;
    }
    let attributes = received.attributes(FIXED);
    let way = match (received.byte(7), attributes.number(RTA_NH_ID)) {
        (TYPE_UNICAST, Some(id)) => Way::Nexthop(id),
        (TYPE_UNICAST, None) => Way::Link(attributes.number(RTA_OIF)?),
        _ => Way::Unreachable,
    };
    let source = attributes.find(RTA_PREFSRC).and_then(from_octets);
    let metric = attributes.number(RTA_PRIORITY).unwrap_or_default();
    Some(Route { network: network(received)?, metric, way, source })
}

/// A route that is not the mesh's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Which addresses.
    pub(super) network: IpNetwork,
    /// Number of the device that they are behind, if it is one.
    pub(super) link: Option<u32>,
}

/// Reads a route of the main table that does not carry our mark.
pub(super) fn parse_foreign(received: &Received) -> Option<Foreign> {
    let main = received.byte(4) == TABLE_MAIN && received.number(8) & CLONED == 0;
    if received.kind != NEW_ROUTE || is_ours(received) || !main {
        return None;
    }
    let link = received.attributes(FIXED).number(RTA_OIF);
    Some(Foreign { network: network(received)?, link })
}

/// Makes a route, or replaces ours to the same prefix in one step.
pub(super) fn put(route: &Route) -> Message {
    let extra = flags::CREATE | flags::REPLACE;
    let (scope, rtype) = match route.way {
        Way::Link(_) => (SCOPE_LINK, TYPE_UNICAST),
        Way::Nexthop(_) => (0, TYPE_UNICAST),
        Way::Unreachable => (0, TYPE_UNREACHABLE),
    };
    let message = message(NEW_ROUTE, extra, route, (scope, rtype))
        .put_some(RTA_PREFSRC, route.source.map(octets).as_deref());
    match route.way {
        Way::Link(link) => message.put_u32(RTA_OIF, link),
        Way::Nexthop(id) => message.put_u32(RTA_NH_ID, id),
        Way::Unreachable => message,
    }
}

/// Removes a route of ours, whatever its kind.
pub(super) fn delete(route: &Route) -> Message {
    message(DELETE_ROUTE, 0, route, (SCOPE_NOWHERE, 0))
}

fn message(kind: u16, extra: u16, route: &Route, (scope, rtype): (u8, u8)) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = family(route.network.ip());
    fixed[1] = route.network.prefix();
    fixed[4] = TABLE_MAIN;
    fixed[5] = PROTOCOL;
    fixed[6] = scope;
    fixed[7] = rtype;
    Message::new(kind, extra, &fixed)
        .put(RTA_DST, &octets(route.network.network()))
        .put_u32(RTA_PRIORITY, route.metric)
        .put_u32(RTA_TABLE, TABLE_MAIN.into())
}

/// Makes a route through a gateway behind a device, within a container.
pub(super) fn via(network: IpNetwork, gateway: IpAddr, link: u32) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = family(network.ip());
    fixed[1] = network.prefix();
    fixed[4] = TABLE_MAIN;
    fixed[5] = PROTOCOL_BOOT;
    fixed[7] = TYPE_UNICAST;
    fixed[8..].copy_from_slice(&ONLINK.to_ne_bytes());
    Message::new(NEW_ROUTE, flags::CREATE | flags::REPLACE, &fixed)
        .put(RTA_DST, &octets(network.network()))
        .put(RTA_GATEWAY, &octets(gateway))
        .put_u32(RTA_OIF, link)
}
