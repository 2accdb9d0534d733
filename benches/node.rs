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
use mesh_ipam::{
    Block, Holder, Ipam, Ring, RingKey, RingValue, SpaceMessage, SpaceRequest, Wanted,
};
use mesh_router::{PeerId, Time, store::Cursor};

/// Entries that are merged and encoded.
const ENTRIES: u32 = 10_000;
/// Rounds of each figure.
const ROUNDS: usize = 7;
/// What must not take longer, in the middle of its rounds: the benchmark fails.
const BOUNDS_NS: [(&str, u128); 3] = [
    ("ring_merge_of_10000_by_1_ns", 5_000_000),
    ("ring_merge_of_10000_by_500_ns", 5_000_000),
    ("ring_owner_lookup_at_10000_ns", 200),
];

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

/// Rings of many blocks, each with an owner unlike its neighbours': taking them over, looking up
/// who owns an address, and granting one block more.
fn ring() {
    for blocks in [1_000, 10_000, 100_000] {
        for writers in [1, 500] {
            let deltas = ring_deltas(blocks, writers);
            figure(&format!("ring_merge_of_{blocks}_by_{writers}_ns"), 1, || {
                black_box(ring_of(&deltas))
            });
        }
        // A host that was away hears of as many more.
        let mut all = Ring::new(peer(0));
        grow(&mut all, (0, blocks), 250);
        let had = frames(&all, Cursor::default());
        let cursor = Cursor::at(all.vector().clone());
        grow(&mut all, (blocks, blocks), 250);
        let more = frames(&all, cursor);
        let mut rings: Vec<Ipam> = (0..ROUNDS).map(|_| ring_of(&had)).collect();
        figure(&format!("ring_merge_of_{blocks}_into_{blocks}_ns"), 1, || {
            let mut ring = rings.pop().expect("one a round");
            for delta in &more {
                ring.absorb(delta).expect("a delta of our own making");
            }
            black_box(ring)
        });
        let ring = ring_of(&ring_deltas(blocks, 500));
        figure(&format!("ring_owner_lookup_at_{blocks}_ns"), ENTRIES, || {
            for n in 0..ENTRIES {
                black_box(ring.owner(address(n.wrapping_mul(2_654_435_761) % (blocks * 16))));
            }
        });
        grants(blocks);
    }
}

/// What a host is told that joins a ring of so many blocks by so many writers.
fn ring_deltas(blocks: u32, writers: u32) -> Vec<Vec<u8>> {
    let mut all = Ring::new(peer(0));
    grow(&mut all, (0, blocks), writers);
    frames(&all, Cursor::default())
}

/// From the first one on, so many blocks more, by so many other writers.
fn grow(all: &mut Ring, (first, blocks): (u32, u32), writers: u32) {
    let mut ring = Ring::new(owner_of(first));
    ring.write(RingKey::Range("10.0.0.0/8".parse().expect("a range")), RingValue::Range);
    for writer in 0..writers {
        for n in (writer..blocks).step_by(writers as usize) {
            // Spread over the range, as grants to many hosts at the same time are.
            let n = first + n.wrapping_mul(7_919) % blocks;
            let block = Block::containing(address(n * 16), 28).expect("a block");
            let value = RingValue::Owned { owner: owner_of(n % 997), epoch: 0 };
            ring.write(RingKey::Block(block), value);
        }
        ring.mark_durable(ring.own_counter());
        for delta in frames(&ring, Cursor::default()) {
            all.apply(&delta).expect("a delta of our own making");
        }
        ring = Ring::new(owner_of(first + writer + 1));
    }
}

/// What of a ring a receiver lacks, in frames.
fn frames(ring: &Ring, mut cursor: Cursor) -> Vec<Vec<u8>> {
    let mut deltas = Vec::new();
    loop {
        let delta = ring.delta(&cursor, |_| true, 0);
        if delta.bytes.is_empty() {
            return deltas;
        }
        deltas.push(delta.bytes);
        cursor = delta.cursor;
    }
}

fn ring_of(deltas: &[Vec<u8>]) -> Ipam {
    let mut ring = Ipam::new(peer(255));
    for delta in deltas {
        ring.absorb(delta).expect("a delta of our own making");
    }
    ring
}

/// One request for space after another, to a host that owns all but many blocks.
fn grants(blocks: u32) {
    let range: Block = "10.0.0.0/8".parse().expect("a range");
    let mut donor = Ipam::new(peer(255));
    donor.found(&[range]).expect("a fresh ring");
    for delta in ring_deltas(blocks, 500) {
        donor.absorb(&delta).expect("a delta of our own making");
    }
    let request = |id| SpaceRequest {
        id,
        range,
        address: None,
        seen: u64::MAX,
        own: 0,
        urgent: true,
        held_by: None,
    };
    let mut id = 0;
    figure(&format!("ring_grant_at_{blocks}_ns"), 16, || {
        for _ in 0..16 {
            id += 1;
            donor.handle_message(peer(1), SpaceMessage::Request(request(id)), Time::ZERO);
        }
    });
}

fn owner_of(n: u32) -> PeerId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PeerId::new(bytes)
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

/// What the work returns is dropped when it was timed. An argument leaves out all figures whose
/// names do not contain it.
fn figure<T>(name: &str, per: u32, mut work: impl FnMut() -> T) {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            let made = work();
            let elapsed = begin.elapsed();
            drop(made);
            elapsed.as_nanos() / u128::from(per)
        })
        .collect();
    rounds.sort_unstable();
    let median = rounds[ROUNDS / 2];
    println!("{name}: {median} (least {}, most {})", rounds[0], rounds[ROUNDS - 1]);
    println!("{{\"figure\":\"{name}\",\"value\":{median}}}");
    if let Some((_, bound)) = BOUNDS_NS.iter().find(|(bounded, _)| *bounded == name) {
        assert!(median < *bound, "{name} is {median}, and must be below {bound}");
    }
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
