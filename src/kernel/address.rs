//! Addresses on devices.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::netlink::{Message, Received, flags};

const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

/// `IFA_F_NODAD`: usable at once, without asking whether somebody else has it.
const NO_DETECTION: u32 = 0x02;
/// `IFA_F_TEMPORARY`, `IFA_F_DADFAILED`, `IFA_F_DEPRECATED` and `IFA_F_TENTATIVE`.
const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;
/// Bytes of `struct ifaddrmsg`.
const FIXED: usize = 8;
const SCOPE_LINK: u8 = 253;

/// An address as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    /// Number of the device.
    pub(super) link: u32,
    /// Address and prefix.
    pub(super) network: IpNetwork,
    /// Whether others may rely on it: not temporary, tentative, failed or deprecated.
    pub(super) lasting: bool,
}

/// The number of an address's family.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// An address's bytes in network order.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address of its bytes in network order.
pub(super) fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The request for all addresses.
pub(super) fn dump() -> Message {
    Message::new(GET_ADDRESS, 0, &[0; FIXED])
}

/// Reads one address.
pub(super) fn parse(received: &Received) -> Option<Address> {
    if received.kind != NEW_ADDRESS {
        return None;
    }
    let attributes = received.attributes(FIXED);
    let bytes = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
    let flags = attributes.number(IFA_FLAGS).unwrap_or_else(|| received.byte(2).into());
    Some(Address {
        link: received.number(4),
        network: IpNetwork::new(from_octets(bytes)?, received.byte(1)).ok()?,
        // "Deprecated" and the like are said of IPv6 only; of IPv4, bit 0 means "secondary".
        lasting: bytes.len() == 4 || flags & PASSING == 0,
    })
}

/// Puts an address on a device, or does nothing when it is there.
pub(super) fn put(link: u32, network: IpNetwork) -> Message {
    message(NEW_ADDRESS, flags::CREATE | flags::REPLACE, link, network)
}

/// Takes an address off a device.
pub(super) fn delete(link: u32, network: IpNetwork) -> Message {
    message(DELETE_ADDRESS, 0, link, network)
}

fn message(kind: u16, extra: u16, link: u32, network: IpNetwork) -> Message {
    let link_local = matches!(network.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    let mut fixed = [0; FIXED];
    fixed[0] = family(network.ip());
    fixed[1] = network.prefix();
    fixed[3] = if link_local { SCOPE_LINK } else { 0 };
    fixed[4..].copy_from_slice(&link.to_ne_bytes());
    let octets = octets(network.ip());
    let message =
        Message::new(kind, extra, &fixed).put(IFA_LOCAL, &octets).put(IFA_ADDRESS, &octets);
    if network.is_ipv6() { message.put_u32(IFA_FLAGS, NO_DETECTION) } else { message }
}
