//! Permanent neighbours: which hardware address an address has, known without asking.

use std::net::IpAddr;

use super::{
    address::{family, from_octets, octets},
    netlink::{Message, Received, flags},
};
use crate::node::desired::Mac;

const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_IFINDEX: u16 = 8;

/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
/// Bytes of `struct ndmsg`.
const FIXED: usize = 12;

/// A permanent neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Neighbour {
    /// Number of the device that it is behind.
    pub(super) link: u32,
    /// Its address.
    pub(super) address: IpAddr,
    /// Its hardware address.
    pub(super) mac: Mac,
}

/// The request for all neighbours of a device.
pub(super) fn dump(link: u32) -> Message {
    // A strict dump takes the device as an attribute only (`neigh_valid_dump_req`).
    Message::new(GET_NEIGHBOUR, 0, &[0; FIXED]).put_u32(NDA_IFINDEX, link)
}

/// Reads a neighbour; `None` when it is not a permanent one.
pub(super) fn parse(received: &Received) -> Option<Neighbour> {
    let state = u16::from_ne_bytes([received.byte(8), received.byte(9)]);
    if received.kind != NEW_NEIGHBOUR || state & PERMANENT == 0 {
        return None;
    }
    let attributes = received.attributes(FIXED);
    Some(Neighbour {
        link: received.number(4),
        address: from_octets(attributes.find(NDA_DST)?)?,
        mac: Mac(attributes.find(NDA_LLADDR)?.try_into().ok()?),
    })
}

/// Puts a permanent neighbour there, in place of what stands.
pub(super) fn put(neighbour: &Neighbour) -> Message {
    Message::new(
        NEW_NEIGHBOUR,
        flags::CREATE | flags::REPLACE,
        &fixed(neighbour.link, neighbour.address),
    )
    .put(NDA_DST, &octets(neighbour.address))
    .put(NDA_LLADDR, &neighbour.mac.0)
}

/// Removes a neighbour.
pub(super) fn delete(link: u32, address: IpAddr) -> Message {
    Message::new(DELETE_NEIGHBOUR, 0, &fixed(link, address)).put(NDA_DST, &octets(address))
}

fn fixed(link: u32, address: IpAddr) -> [u8; FIXED] {
    let mut fixed = [0; FIXED];
    fixed[0] = family(address);
    fixed[4..8].copy_from_slice(&link.to_ne_bytes());
    fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    fixed
}
