//! The few nf_tables expressions that our rules are made of.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::super::{address::octets, netlink::Message};

const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// The one register that every expression here uses.
const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
const NETWORK_HEADER: u32 = 1;
/// `NFT_META_NFPROTO` and `NFT_META_OIFNAME`.
const META_FAMILY: u32 = 15;
const META_OUT_NAME: u32 = 7;
/// `NFT_RETURN`.
const RETURN: i32 = -5;

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads the packet's family.
    Family,
    /// Loads the name of the device that the packet leaves by.
    OutName,
    /// Loads bytes of the network header.
    Payload { offset: u32, length: u32 },
    /// Keeps only these bits.
    Mask(Vec<u8>),
    /// Goes on if what was loaded is this.
    Equal(Vec<u8>),
    /// Goes on if what was loaded is in this set.
    InSet(&'static str),
    /// Ends the chain.
    Return,
    /// Gives the packet the source address of the device that it leaves by.
    Masquerade,
}

impl Expression {
    /// Goes on if the packet is of this address's family.
    pub(super) fn family(address: IpAddr) -> Vec<Self> {
        let family = if address.is_ipv4() { 2 } else { 10 };
        vec![Self::Family, Self::Equal(vec![family])]
    }

    /// Goes on if the packet comes from this network.
    pub(super) fn source_in(network: IpNetwork) -> Vec<Self> {
        Self::within(Self::source(network.ip()), network)
    }

    /// Goes on if the packet goes to this network.
    pub(super) fn destination_in(network: IpNetwork) -> Vec<Self> {
        let load = match network.ip() {
            IpAddr::V4(_) => Self::Payload { offset: 16, length: 4 },
            IpAddr::V6(_) => Self::Payload { offset: 24, length: 16 },
        };
        Self::within(load, network)
    }

    /// Loads the source address.
    pub(super) fn source(of_family: IpAddr) -> Self {
        match of_family {
            IpAddr::V4(_) => Self::Payload { offset: 12, length: 4 },
            IpAddr::V6(_) => Self::Payload { offset: 8, length: 16 },
        }
    }

    /// Goes on if the packet leaves by this device.
    pub(super) fn out_name(name: &str) -> Vec<Self> {
        let mut value = name.as_bytes().to_vec();
        value.resize(16, 0);
        vec![Self::OutName, Self::Equal(value)]
    }

    fn within(load: Self, network: IpNetwork) -> Vec<Self> {
        let mut all = Self::family(network.ip());
        all.extend([
            load,
            Self::Mask(octets(network.mask())),
            Self::Equal(octets(network.network())),
        ]);
        all
    }

    /// Writes name and data.
    pub(super) fn write(&self, m: Message) -> Message {
        let number = |value: u32| value.to_be_bytes();
        let value = |m: Message, kind: u16, value: &[u8]| m.nest(kind, |m| m.put(VALUE, value));
        match self {
            Self::Family => meta(m, META_FAMILY),
            Self::OutName => meta(m, META_OUT_NAME),
            Self::Payload { offset, length } => m.put_text(NAME, "payload").nest(DATA, |m| {
                m.put(1, &REGISTER)
                    .put(2, &number(NETWORK_HEADER))
                    .put(3, &number(*offset))
                    .put(4, &number(*length))
            }),
            Self::Mask(mask) => m.put_text(NAME, "bitwise").nest(DATA, |m| {
                let length = u32::try_from(mask.len()).expect("addresses have at most 16 bytes");
                let m = m.put(1, &REGISTER).put(2, &REGISTER).put(3, &number(length));
                let m = value(m, 4, mask);
                value(m, 5, &vec![0; mask.len()])
            }),
            Self::Equal(wanted) => m
                .put_text(NAME, "cmp")
                .nest(DATA, |m| value(m.put(1, &REGISTER).put(2, &number(0)), 3, wanted)),
            Self::InSet(set) => {
                m.put_text(NAME, "lookup").nest(DATA, |m| m.put_text(1, set).put(2, &REGISTER))
            }
            Self::Return => m.put_text(NAME, "immediate").nest(DATA, |m| {
                m.put(1, &number(0))
                    .nest(2, |m| m.nest(VERDICT, |m| m.put(VERDICT_CODE, &RETURN.to_be_bytes())))
            }),
            Self::Masquerade => m.put_text(NAME, "masq").nest(DATA, |m| m),
        }
    }
}

fn meta(m: Message, key: u32) -> Message {
    m.put_text(NAME, "meta").nest(DATA, |m| m.put(1, &REGISTER).put(2, &key.to_be_bytes()))
}
