//! Nexthop objects: one per peer, shared by all of the peer's routes.
//!
//! An object says into which tunnel end packets go: the encapsulation (endpoint, VNI) and, as an
//! IPv6 gateway that is a neighbour of the tunnel device, the inner hardware address. Routes of
//! both families use the same object. Replacing it is one call that moves all
//! routes on it at once.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    PROTOCOL,
    address::{family, from_octets, octets},
    netlink::{Message, Received, flags},
};

const NEW_NEXTHOP: u16 = 104;
const DELETE_NEXTHOP: u16 = 105;
const GET_NEXTHOP: u16 = 106;

const NHA_ID: u16 = 1;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;

const ENCAP_IP: u16 = 2;
const ENCAP_IP6: u16 = 4;
/// Attributes of both kinds have the same numbers: `LWTUNNEL_IP_*` and `LWTUNNEL_IP6_*`.
const ENCAP_ID: u16 = 1;
const ENCAP_DST: u16 = 2;
const ENCAP_IP_TTL: u16 = 4;
const ENCAP_IP6_HOPLIMIT: u16 = 4;
const ENCAP_FLAGS: u16 = 6;
/// `TUNNEL_CSUM`, in network order.
const CHECKSUM: [u8; 2] = [0, 1];

const ONLINK: u32 = 4;
/// From RFC 1700's recommended default; the kernel sends with 0 when nothing is said.
const TTL: u8 = 64;
/// Bytes of `struct nhmsg`.
const FIXED: usize = 8;

/// A nexthop object as it stands or shall stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// Its number.
    pub(super) id: u32,
    /// Number of the tunnel device.
    pub(super) link: u32,
    /// The tunnel end that packets go to.
    pub(super) gateway: Ipv6Addr,
    /// Underlay address of that end.
    pub(super) endpoint: IpAddr,
    /// VXLAN network identifier.
    pub(super) vni: u32,
}

/// The request for all nexthop objects.
pub(super) fn dump() -> Message {
    Message::new(GET_NEXTHOP, 0, &[0; FIXED])
}

/// Reads the id of a nexthop object that carries our mark, and the object if it is of our shape.
pub(super) fn parse(received: &Received) -> Option<(u32, Option<Object>)> {
    if received.kind != NEW_NEXTHOP || received.byte(2) != PROTOCOL {
        return None;
    }
    let attributes = received.attributes(FIXED);
    let id = attributes.number(NHA_ID)?;
    let object = || {
        let encap = attributes.within(NHA_ENCAP);
        let key = u64::from_be_bytes(encap.find(ENCAP_ID)?.try_into().ok()?);
        let IpAddr::V6(gateway) = from_octets(attributes.find(NHA_GATEWAY)?)? else { return None };
        Some(Object {
            id,
            link: attributes.number(NHA_OIF)?,
            gateway,
            endpoint: from_octets(encap.find(ENCAP_DST)?)?,
            vni: u32::try_from(key).ok()?,
        })
    };
    Some((id, object()))
}

/// Makes an object, or replaces the one of the same id in one step.
pub(super) fn put(object: &Object) -> Message {
    let mut fixed = [0; FIXED];
    fixed[0] = family(object.gateway.into());
    fixed[2] = PROTOCOL;
    fixed[4..].copy_from_slice(&ONLINK.to_ne_bytes());
    let v4 = object.endpoint.is_ipv4();
    let (kind, ttl) = if v4 { (ENCAP_IP, ENCAP_IP_TTL) } else { (ENCAP_IP6, ENCAP_IP6_HOPLIMIT) };
    Message::new(NEW_NEXTHOP, flags::CREATE | flags::REPLACE, &fixed)
        .put_u32(NHA_ID, object.id)
        .put_u32(NHA_OIF, object.link)
        .put(NHA_GATEWAY, &object.gateway.octets())
        .put(NHA_ENCAP_TYPE, &kind.to_ne_bytes())
        .nest(NHA_ENCAP, |m| {
            let m = m
                .put(ENCAP_ID, &u64::from(object.vni).to_be_bytes())
                .put(ENCAP_DST, &octets(object.endpoint))
                .put_u8(ttl, TTL);
            // RFC 6935: IPv6 needs the UDP checksum unless both ends agree otherwise.
            if v4 { m } else { m.put(ENCAP_FLAGS, &CHECKSUM) }
        })
}

/// Removes an object, and with it all routes that use it.
pub(super) fn delete(id: u32) -> Message {
    Message::new(DELETE_NEXTHOP, 0, &[0; FIXED]).put_u32(NHA_ID, id)
}
