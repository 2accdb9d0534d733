//! What the pure parts cost: merge and delta encoding per entry, allocation, lookup, an answer.
//!
//! `cargo bench --bench node`. One line for a person and one JSON object per figure; nanoseconds
//! are the median of several rounds.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use mesh_dns::{Name, Table, Zone};
use mesh_ipam::{Block, Holder, Ipam, Wanted};
use mesh_router::{PeerId, Time, store::Cursor};

/// Entries that are merged and encoded.
const ENTRIES: u32 = 10_000;
/// Rounds of each figure.
const ROUNDS: usize = 7;

fn main() {
    zone();
    ring();
    allocations();
}

/// Names of another host: the delta that carries them, and taking it.
fn zone() {
    let mut origin = Zone::new(peer(1));
    for n in 0..ENTRIES {
        let name = Name::parse(&format!("c{n}.mesh.internal")).expect("a name");
        origin.put(&name, &format!("c{n}/eth0"), vec![address(n)]).expect("there is room");
    }
    let counter = origin.store().own_counter();
    origin.store_mut().mark_durable(counter);
    let delta = |zone: &Zone| zone.store().delta(&Cursor::default(), |_| true, usize::MAX);
    figure("zone_delta_per_entry_ns", ENTRIES, || drop(black_box(delta(&origin))));
    let bytes = delta(&origin).bytes;
    figure("zone_merge_per_entry_ns", ENTRIES, || {
        let mut receiver = Zone::new(peer(2));
        receiver.absorb(&bytes).expect("a delta of our own making");
        black_box(receiver);
    });
    let mut table = Table::new(Name::parse("mesh.internal").expect("a name"));
    figure("zone_table_per_change_ns", ENTRIES, || {
        for change in origin.snapshot() {
            table.apply(change);
        }
    });
}

/// A ring with a block for each of many owners.
fn ring() {
    let range: Block = "10.0.0.0/8".parse().expect("a range");
    let mut founder = Ipam::new(peer(1));
    founder.found(&[range]).expect("a fresh ring");
    for n in 0..ENTRIES / 10 {
        let holder = Holder { container: format!("c{n}"), interface: "eth0".to_owned() };
        founder.allocate(&holder, Wanted::Any(range), Time::ZERO).expect("there is room");
    }
    figure("ring_owner_lookup_ns", ENTRIES, || {
        for n in 0..ENTRIES {
            black_box(founder.owner(address(n)));
        }
    });
}

/// Addresses given and taken back with many held.
fn allocations() {
    let range: Block = "10.0.0.0/8".parse().expect("a range");
    for held in [1_000, 10_000, 100_000] {
        let mut ipam = Ipam::new(peer(1));
        ipam.found(&[range]).expect("a fresh ring");
        for n in 0..held {
            ipam.allocate(&holder(n), Wanted::Any(range), Time::ZERO).expect("there is room");
        }
        let name = format!("allocate_and_release_with_{held}_held_ns");
        figure(&name, 1_000, || {
            for n in 0..1_000 {
                let holder = holder(1_000_000 + n);
                black_box(
                    ipam.allocate(&holder, Wanted::Any(range), Time::ZERO).expect("there is room"),
                );
                ipam.release(&holder, &[], Time::ZERO);
            }
        });
    }
}

fn figure(name: &str, per: u32, mut work: impl FnMut()) {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_nanos() / u128::from(per)
        })
        .collect();
    rounds.sort_unstable();
    let median = rounds[ROUNDS / 2];
    println!("{name}: {median} (least {}, most {})", rounds[0], rounds[ROUNDS - 1]);
    println!("{{\"figure\":\"{name}\",\"value\":{median}}}");
}

fn peer(n: u8) -> PeerId {
    PeerId::new([n; 16])
}

fn holder(n: u32) -> Holder {
    Holder { container: format!("c{n}"), interface: "eth0".to_owned() }
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}
