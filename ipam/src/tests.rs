//! Tests of the whole: several hosts, and messages between them.

mod addresses;
mod churn;
mod faults;
mod laws;
mod model;
mod pair;
mod single;

use std::net::IpAddr;

use mesh_router::PeerId;

use crate::{Block, Holder};

fn peer(number: u8) -> PeerId {
    PeerId::new([number; 16])
}

fn block(text: &str) -> Block {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holder(name: impl std::fmt::Display) -> Holder {
    Holder { container: name.to_string(), interface: "eth0".into() }
}
