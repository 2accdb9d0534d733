//! A container's link: a veth pair, and the container's end configured in its namespace.
//!
//! Validate everything, act, undo on failure: a wiring that failed leaves nothing behind. A link
//! that stands already is adopted: every message is one that changes nothing when all is right.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsFd,
    time::Duration,
};

use ipnetwork::{IpNetwork, Ipv6Network};

use super::{
    address,
    link::{self, Link, VethEnd},
    netlink::{KernelError, Message, Netlink},
    netns::Netns,
    plan::PORT_PREFIX,
    route,
    sysctl::{Sysctl, ensure},
};
use crate::node::{
    desired::{BRIDGE_LINK_LOCAL, Desired, Mac, Wiring},
    request::{Code, Refusal},
};

/// `IFNAMSIZ` less the zero byte.
const NAME_BYTES_MAX: usize = 15;
/// How long one waits between two looks whether a link carries packets.
const CARRIER_PAUSE: Duration = Duration::from_micros(100);
/// How often one looks: for over two seconds; the kernel's task may rest for one.
const CARRIER_LOOKS: usize = 15_000;
/// The loopback's number in every namespace.
const LOOPBACK: u32 = 1;

/// What a wiring needs to know of the host.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Number of the bridge.
    pub(super) bridge: u32,
    bridge_name: String,
    /// MTU of links that ask for none.
    pub(super) mtu_bytes: u32,
    gateways: Vec<IpAddr>,
    ranges: Vec<IpNetwork>,
}

impl Site {
    /// The host as it stands.
    pub(super) fn new(bridge: u32, desired: &Desired) -> Self {
        Self {
            bridge,
            bridge_name: desired.bridge.name.clone(),
            mtu_bytes: desired.tunnel.mtu_bytes,
            gateways: desired.bridge.gateways.clone(),
            ranges: desired.ranges.clone(),
        }
    }
}

/// Makes a container's link, or adopts the one that stands, and answers the namespace's identity.
/// On an error nothing is left of it.
pub(super) fn wire(
    netlink: &mut Netlink,
    wiring: &Wiring,
    site: &Site,
) -> Result<(u64, u64), Refusal> {
    validate(wiring)?;
    let netns = Netns::open(&wiring.netns)?;
    netns.within(|| {
        let mut inner = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE).map_err(failed)?;
        let end = find(&mut inner, &wiring.interface)?;
        let port = find(netlink, &wiring.host_name)?;
        match (end, port) {
            (Some(end), Some(_)) if is_ours(&end, wiring) => {}
            (Some(_), _) => return Err(taken(wiring)),
            (None, port) => {
                if port.is_some() {
                    // The pair of a namespace that is on its way out.
                    accepted(netlink, vec![link::delete(&wiring.host_name)])?;
                }
                create(netlink, &netns, wiring, site)?;
            }
        }
        let result = accepted(netlink, vec![link::raise_port(&wiring.host_name, wiring.hairpin)])
            .and_then(|()| configure(&mut inner, wiring, site))
            .and_then(|()| await_carrier(netlink, &mut inner, wiring, site));
        if result.is_err() {
            let _ = netlink.request(link::delete(&wiring.host_name));
        }
        result
    })?;
    Ok(netns.identity())
}

fn validate(wiring: &Wiring) -> Result<(), Refusal> {
    let invalid = |what: String, hint: &str| Err(Refusal::new(Code::Invalid, what, hint));
    for name in [&wiring.host_name, &wiring.interface] {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        let length = (1..=NAME_BYTES_MAX).contains(&name.len());
        if !length || name.contains(bad) || [".", "..", "lo", "all", "default"].contains(&&**name) {
            let hint = "use 1 to 15 bytes without slash, colon and space, and not a reserved name";
            return invalid(format!("{name:?} cannot be the name of a network interface"), hint);
        }
    }
    if !wiring.host_name.starts_with(PORT_PREFIX) {
        let what = format!("the host's end {:?} does not start with mw", wiring.host_name);
        return invalid(what, "this is a bug of meshd: report it");
    }
    if wiring.mac.0[0] & 1 != 0 || wiring.mac.0 == [0; 6] {
        let what = format!("{} cannot be the hardware address of an interface", wiring.mac);
        return invalid(what, "use a unicast address, for example 02:xx:xx:xx:xx:xx");
    }
    if wiring.mtu_bytes != 0 && !(68..=65_535).contains(&wiring.mtu_bytes) {
        let what = format!("an MTU of {} bytes is not possible", wiring.mtu_bytes);
        return invalid(what, "use 1280 or more with IPv6, or 0 for the mesh's own");
    }
    Ok(())
}

fn is_ours(end: &Link, wiring: &Wiring) -> bool {
    end.kind == "veth" && end.mac == Some(wiring.mac)
}

fn taken(wiring: &Wiring) -> Refusal {
    Refusal::new(
        Code::Conflict,
        format!("there is an interface {} already in {:?}", wiring.interface, wiring.netns),
        "use another name, or remove that interface first",
    )
}

/// A device by its name.
fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Link>, Refusal> {
    match netlink.get(link::get(name)) {
        Ok(received) => Ok(link::parse(&received)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the kernel said that there is no such thing.
fn is_absent(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref::<KernelError>());
    inner.is_some_and(|error| error.errno == nix::libc::ENODEV)
}

/// Makes the pair. The end on the host has the container's hardware address with another tag bit,
/// so that it needs no randomness.
fn create(
    netlink: &mut Netlink,
    netns: &Netns,
    wiring: &Wiring,
    site: &Site,
) -> Result<(), Refusal> {
    let mut outer = wiring.mac;
    outer.0[0] = (outer.0[0] ^ 0x40) | 0x02;
    let host = VethEnd { name: &wiring.host_name, mac: outer };
    let peer = VethEnd { name: &wiring.interface, mac: wiring.mac };
    let mtu_bytes = wiring.mtu_or(site.mtu_bytes);
    let message = link::create_veth(host, peer, netns.as_fd(), (site.bridge, mtu_bytes));
    accepted(netlink, vec![message])
}

/// Configures the container's end. The calling thread is in the container's namespace.
fn configure(inner: &mut Netlink, wiring: &Wiring, site: &Site) -> Result<(), Refusal> {
    let interface = &wiring.interface;
    let Some(end) = find(inner, interface)? else {
        return Err(failed(io::Error::other(format!("{interface} has vanished"))));
    };
    let has_v6 = wiring.addresses.iter().any(IpNetwork::is_ipv6);
    if has_v6 {
        for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")] {
            let sysctl = Sysctl::new(format!("ipv6/conf/{interface}/{name}"), value);
            ensure(&sysctl).map_err(failed)?;
        }
    }
    let mut messages = vec![link::raise(LOOPBACK)];
    let mtu_bytes = wiring.mtu_or(site.mtu_bytes);
    if end.mtu_bytes != mtu_bytes {
        messages.push(link::set_mtu(end.index, mtu_bytes));
    }
    messages.extend([link::make_no_addresses(end.index), link::raise(end.index)]);
    if has_v6 {
        messages.push(address::put(end.index, link_local(wiring.mac)));
    }
    messages.extend(wiring.addresses.iter().map(|network| address::put(end.index, *network)));
    let routes = routes(wiring, site);
    messages.extend(routes.iter().map(|(net, gateway)| route::via(*net, *gateway, end.index)));
    accepted(inner, messages)
}

/// Waits until packets pass. Carrier is told to a device's queue and to the bridge by a task of the
/// kernel's, well under a millisecond later; until then the first packets would be lost.
fn await_carrier(
    netlink: &mut Netlink,
    inner: &mut Netlink,
    wiring: &Wiring,
    site: &Site,
) -> Result<(), Refusal> {
    for _ in 0..CARRIER_LOOKS {
        let port = find(netlink, &wiring.host_name)?;
        let up = |link: Option<Link>| link.is_some_and(|link| link.operational);
        if port.is_some_and(|port| port.operational && port.forwarding)
            && up(find(netlink, &site.bridge_name)?)
            && up(find(inner, &wiring.interface)?)
        {
            return Ok(());
        }
        std::thread::sleep(CARRIER_PAUSE);
    }
    Err(failed(io::Error::other("the link got no carrier")))
}

/// All routes of the container besides the networks of its addresses, with their gateways.
fn routes(wiring: &Wiring, site: &Site) -> Vec<(IpNetwork, IpAddr)> {
    let mut routes = Vec::new();
    for gateway in &wiring.gateways {
        let unspecified: IpAddr = if gateway.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        routes.extend(IpNetwork::new(unspecified, 0).ok().map(|all| (all, *gateway)));
    }
    // Without a default route the mesh itself needs one: an IPv6 address is put on alone, and an
    // IPv4 address brings that of its own range only.
    let ranges = site.ranges.iter().filter(|range| {
        let mut own = wiring.addresses.iter().filter(|own| own.is_ipv4() == range.is_ipv4());
        let defaulted = wiring.gateways.iter().any(|ip| ip.is_ipv4() == range.is_ipv4());
        let has_family = own.clone().next().is_some();
        let reached = range.is_ipv4() && own.any(|own| range.contains(own.ip()));
        has_family && !defaulted && !reached
    });
    for network in wiring.routes.iter().chain(ranges) {
        let gateway = gateway(wiring, site, network.is_ipv4());
        routes.extend(gateway.map(|gateway| (*network, gateway)));
    }
    routes
}

fn gateway(wiring: &Wiring, site: &Site, v4: bool) -> Option<IpAddr> {
    let own = wiring.gateways.iter().find(|gateway| gateway.is_ipv4() == v4).copied();
    let fallback = || match v4 {
        true => site.gateways.iter().find(|gateway| gateway.is_ipv4()).copied(),
        false => Some(BRIDGE_LINK_LOCAL.into()),
    };
    own.or_else(fallback)
}

/// The link-local address of a hardware address, modified EUI-64 (RFC 4291, appendix A).
fn link_local(mac: Mac) -> IpNetwork {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    let words = [((a ^ 2) << 8) | b, (c << 8) | 0xff, 0xfe00 | d, (e << 8) | f];
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3]);
    IpNetwork::V6(Ipv6Network::new(address, 64).expect("64 is a prefix of IPv6"))
}

/// Changes the MTU of both ends, the container's first, so that it never sends what does not fit.
pub(super) fn set_mtu(
    netlink: &mut Netlink,
    wiring: &Wiring,
    mtu_bytes: u32,
) -> Result<(), Refusal> {
    if super::netns::is_as_wired(wiring) {
        let netns = Netns::open(&wiring.netns)?;
        netns.within(|| {
            let mut inner = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE).map_err(failed)?;
            match find(&mut inner, &wiring.interface)? {
                Some(end) => accepted(&mut inner, vec![link::set_mtu(end.index, mtu_bytes)]),
                None => Ok(()),
            }
        })?;
    }
    match find(netlink, &wiring.host_name)? {
        Some(port) => accepted(netlink, vec![link::set_mtu(port.index, mtu_bytes)]),
        None => Ok(()),
    }
}

fn accepted(netlink: &mut Netlink, messages: Vec<Message>) -> Result<(), Refusal> {
    let answers = netlink.perform(messages).map_err(failed)?;
    answers.into_iter().collect::<Result<(), _>>().map_err(|error| failed(error.into()))
}

fn failed(error: io::Error) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("the kernel refused a part of the container's link: {error}"),
        "nothing is left of it; see the log of meshd and try again",
    )
}
