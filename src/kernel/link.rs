//! Network devices: what the kernel says of them, and the messages that make and change them.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{Message, Received, flags};
use crate::node::desired::{Mac, Tunnel};

/// `RTM_NEWLINK`: make or change a device.
pub(super) const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;

const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
/// `BR_STATE_FORWARDING`.
const FORWARDING: u8 = 3;
/// `IF_OPER_UP`.
const OPERATIONAL: u8 = 6;

const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;

const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// `IN6_ADDR_GEN_MODE_NONE`.
const NO_ADDRESSES: u8 = 1;
const AF_INET6: u16 = 10;

/// `IFF_UP`.
const UP: u32 = 1;
/// `IFF_LOOPBACK`.
const LOOPBACK: u32 = 8;

/// Bytes of `struct ifinfomsg`.
const FIXED: usize = 16;

/// A device as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Whether it is up.
    pub(super) up: bool,
    /// Whether it is a loopback.
    pub(super) loopback: bool,
    /// What fits in one packet.
    pub(super) mtu_bytes: u32,
    /// Its hardware address, if it is an Ethernet's.
    pub(super) mac: Option<Mac>,
    /// Number of the device that it is a port of.
    pub(super) master: Option<u32>,
    /// Whether it makes up an IPv6 address when it comes up.
    pub(super) makes_addresses: bool,
    /// `bridge`, `vxlan`, `veth` …; empty for hardware.
    pub(super) kind: String,
    /// Whether a bridge sends frames back out of this port.
    pub(super) hairpin: bool,
    /// Whether it carries packets: the kernel says so a moment after both ends have come up.
    pub(super) operational: bool,
    /// Whether the bridge that it is a port of passes packets through it.
    pub(super) forwarding: bool,
    /// UDP port of a VXLAN device in metadata mode.
    pub(super) vxlan_port: Option<u16>,
}

/// The request for all devices.
pub(super) fn dump() -> Message {
    Message::new(GET_LINK, 0, &fixed(0, 0, 0))
}

/// The request for one device, by its name.
pub(super) fn get(name: &str) -> Message {
    Message::new(GET_LINK, 0, &fixed(0, 0, 0)).put_text(IFLA_IFNAME, name)
}

/// Reads one device.
pub(super) fn parse(received: &Received) -> Option<Link> {
    if received.kind != NEW_LINK {
        return None;
    }
    let attributes = received.attributes(FIXED);
    let info = attributes.within(IFLA_LINKINFO);
    let data = info.within(IFLA_INFO_DATA);
    let metadata = data.byte(IFLA_VXLAN_COLLECT_METADATA) == Some(1);
    let port = data.find(IFLA_VXLAN_PORT).and_then(|port| port.try_into().ok());
    let port_data = info.within(IFLA_INFO_SLAVE_DATA);
    let inet6 = attributes.within(IFLA_AF_SPEC).within(AF_INET6);
    let flags = received.number(8);
    Some(Link {
        index: received.number(4),
        name: attributes.text(IFLA_IFNAME)?,
        up: flags & UP != 0,
        loopback: flags & LOOPBACK != 0,
        mtu_bytes: attributes.number(IFLA_MTU).unwrap_or_default(),
        mac: attributes.find(IFLA_ADDRESS).and_then(|mac| mac.try_into().ok()).map(Mac),
        master: attributes.number(IFLA_MASTER),
        makes_addresses: inet6.byte(IFLA_INET6_ADDR_GEN_MODE).is_some_and(|m| m != NO_ADDRESSES),
        kind: info.text(IFLA_INFO_KIND).unwrap_or_default(),
        hairpin: port_data.byte(IFLA_BRPORT_MODE) == Some(1),
        operational: attributes.byte(IFLA_OPERSTATE) == Some(OPERATIONAL),
        forwarding: port_data.byte(IFLA_BRPORT_STATE) == Some(FORWARDING),
        vxlan_port: port.filter(|_| metadata).map(u16::from_be_bytes),
    })
}

/// Makes a bridge that forwards at once and never floods by guesswork. It is not up yet.
pub(super) fn create_bridge(name: &str, mac: Mac, mtu_bytes: u32) -> Message {
    created(name, mtu_bytes).put(IFLA_ADDRESS, &mac.0).nest(IFLA_LINKINFO, |m| {
        m.put(IFLA_INFO_KIND, b"bridge").nest(IFLA_INFO_DATA, |m| {
            m.put_u32(IFLA_BR_FORWARD_DELAY, 0)
                .put_u32(IFLA_BR_STP_STATE, 0)
                .put_u8(IFLA_BR_MCAST_SNOOPING, 0)
        })
    })
}

/// Makes the VXLAN device, in metadata mode: endpoint and VNI come with the route of each packet.
/// It is not up yet.
pub(super) fn create_tunnel(tunnel: &Tunnel) -> Message {
    created(&tunnel.name, tunnel.mtu_bytes).put(IFLA_ADDRESS, &tunnel.mac.0).nest(
        IFLA_LINKINFO,
        |m| {
            m.put(IFLA_INFO_KIND, b"vxlan").nest(IFLA_INFO_DATA, |m| {
                m.put_u8(IFLA_VXLAN_COLLECT_METADATA, 1)
                    .put_u8(IFLA_VXLAN_LEARNING, 0)
                    .put(IFLA_VXLAN_PORT, &tunnel.port.to_be_bytes())
            })
        },
    )
}

fn created(name: &str, mtu_bytes: u32) -> Message {
    Message::new(NEW_LINK, flags::CREATE | flags::EXCL, &fixed(0, 0, 0))
        .put_text(IFLA_IFNAME, name)
        .put_u32(IFLA_MTU, mtu_bytes)
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct VethEnd<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its hardware address.
    pub(super) mac: Mac,
}

/// Makes a veth pair, the host's end as a port of `master` and the other end in the namespace.
/// Neither is up yet.
pub(super) fn create_veth(
    host: VethEnd<'_>,
    peer: VethEnd<'_>,
    netns: BorrowedFd<'_>,
    (master, mtu_bytes): (u32, u32),
) -> Message {
    created(host.name, mtu_bytes).put(IFLA_ADDRESS, &host.mac.0).put_u32(IFLA_MASTER, master).nest(
        IFLA_LINKINFO,
        |m| {
            m.put(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    m.raw(&fixed(0, 0, 0))
                        .put_text(IFLA_IFNAME, peer.name)
                        .put_u32(IFLA_MTU, mtu_bytes)
                        .put(IFLA_ADDRESS, &peer.mac.0)
                        .put(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
                })
            })
        },
    )
}

/// Brings a bridge's port up: no IPv6 address of its own, hairpin as wanted.
pub(super) fn raise_port(name: &str, hairpin: bool) -> Message {
    let message = Message::new(NEW_LINK, 0, &fixed(0, UP, UP)).put_text(IFLA_IFNAME, name);
    without_addresses(message).nest(IFLA_LINKINFO, |m| {
        m.put(IFLA_INFO_SLAVE_KIND, b"bridge")
            .nest(IFLA_INFO_SLAVE_DATA, |m| m.put_u8(IFLA_BRPORT_MODE, hairpin.into()))
    })
}

/// Stops a device from making up an IPv6 address when it comes up, which must be said before.
pub(super) fn make_no_addresses(index: u32) -> Message {
    without_addresses(Message::new(NEW_LINK, 0, &fixed(index, 0, 0)))
}

fn without_addresses(message: Message) -> Message {
    message.nest(IFLA_AF_SPEC, |m| {
        m.nest(AF_INET6, |m| m.put_u8(IFLA_INET6_ADDR_GEN_MODE, NO_ADDRESSES))
    })
}

/// Brings a device up.
pub(super) fn raise(index: u32) -> Message {
    Message::new(NEW_LINK, 0, &fixed(index, UP, UP))
}

/// Changes what fits in one packet.
pub(super) fn set_mtu(index: u32, mtu_bytes: u32) -> Message {
    Message::new(NEW_LINK, 0, &fixed(index, 0, 0)).put_u32(IFLA_MTU, mtu_bytes)
}

/// Changes the hardware address.
pub(super) fn set_mac(index: u32, mac: Mac) -> Message {
    Message::new(NEW_LINK, 0, &fixed(index, 0, 0)).put(IFLA_ADDRESS, &mac.0)
}

/// Makes a device a port of another.
pub(super) fn set_master(index: u32, master: u32) -> Message {
    Message::new(NEW_LINK, 0, &fixed(index, 0, 0)).put_u32(IFLA_MASTER, master)
}

/// Removes a device, and with a veth its other end.
pub(super) fn delete(name: &str) -> Message {
    Message::new(DELETE_LINK, 0, &fixed(0, 0, 0)).put_text(IFLA_IFNAME, name)
}

/// The group of devices that are to be removed together. Chosen: nobody else's.
const DOOMED: u32 = 0x6d65_7368;

/// Puts a device into the group that [`delete_group`] removes.
pub(super) fn set_group(name: &str) -> Message {
    Message::new(NEW_LINK, 0, &fixed(0, 0, 0))
        .put_text(IFLA_IFNAME, name)
        .put_u32(IFLA_GROUP, DOOMED)
}

/// Removes all devices of that group in one go.
pub(super) fn delete_group() -> Message {
    Message::new(DELETE_LINK, 0, &fixed(0, 0, 0)).put_u32(IFLA_GROUP, DOOMED)
}

fn fixed(index: u32, flags: u32, change: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}
