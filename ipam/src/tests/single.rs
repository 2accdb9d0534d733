//! One host alone.

use mesh_router::Time;

use super::{address, block, holder, peer};
use crate::{AllocateError, FoundError, Holder, Ipam, Owner, Wanted};

fn founded(ranges: &[&str]) -> Ipam {
    let mut ipam = Ipam::new(peer(1));
    let ranges: Vec<_> = ranges.iter().map(|range| block(range)).collect();
    ipam.found(&ranges).unwrap();
    ipam
}

#[test]
fn a_founder_owns_everything_and_gives_addresses_at_once() {
    let mut ipam = founded(&["10.32.0.0/12", "fd00:6d65::/48"]);
    assert_eq!(ipam.owned_by(peer(1)), 1 << 20);
    assert_eq!(ipam.owned_blocks(), ipam.ranges());
    let holder = holder("a");
    let v4 = ipam.allocate(&holder, Wanted::Any(block("10.32.0.0/12")), Time::ZERO).unwrap();
    let v6 = ipam.allocate(&holder, Wanted::Any(block("fd00:6d65::/48")), Time::ZERO).unwrap();
    assert_eq!((v4, v6), (address("10.32.0.1"), address("fd00:6d65::1")));
    assert_eq!(ipam.addresses_of(&holder).collect::<Vec<_>>(), [v4, v6]);
    assert_eq!(ipam.allocate(&holder, Wanted::Any(block("10.32.0.0/12")), Time::ZERO), Ok(v4));
    assert_eq!(ipam.owner(address("10.48.0.0")), Owner::Outside);
    assert_eq!(ipam.owner(address("fd00:6d65::ffff")), Owner::Peer(peer(1)));
    assert_eq!(ipam.poll_timeout(), None);
}

#[test]
fn a_mesh_is_founded_once_and_on_ranges_that_make_sense() {
    let mut ipam = founded(&["10.32.0.0/12"]);
    assert_eq!(ipam.found(&[block("10.0.0.0/12")]), Err(FoundError::Founded));
    let mut ipam = Ipam::new(peer(1));
    assert_eq!(ipam.found(&[]), Err(FoundError::Count(0)));
    let overlap = [block("10.0.0.0/8"), block("10.32.0.0/12")];
    assert_eq!(ipam.found(&overlap), Err(FoundError::Overlap(overlap[0], overlap[1])));
    assert!(matches!(ipam.found(&[block("10.0.0.0/30")]), Err(FoundError::Range(_))));
    assert!(ipam.store().is_empty());
}

#[test]
fn reserved_and_foreign_and_taken_addresses_are_told_apart() {
    let mut ipam = founded(&["10.9.0.0/28", "fd00::/60"]);
    let exact = |ipam: &mut Ipam, text| {
        ipam.allocate(&holder("a"), Wanted::Exact(address(text)), Time::ZERO)
    };
    for text in ["10.9.0.0", "10.9.0.15", "fd00::", "fd00:0:0:1::"] {
        assert_eq!(exact(&mut ipam, text), Err(AllocateError::Reserved(address(text))));
    }
    let outside = AllocateError::Outside(block("10.9.0.16/32"));
    assert_eq!(exact(&mut ipam, "10.9.0.16"), Err(outside));
    assert_eq!(exact(&mut ipam, "10.9.0.5"), Ok(address("10.9.0.5")));
    assert_eq!(exact(&mut ipam, "10.9.0.5"), Ok(address("10.9.0.5")));
    let taken =
        ipam.allocate(&holder("b"), Wanted::Exact(address("10.9.0.5")), Time::ZERO).unwrap_err();
    assert!(taken.to_string().contains("held on this host by a/eth0"), "{taken}");
}

#[test]
fn a_full_range_is_exhausted_and_a_released_address_comes_back() {
    let mut ipam = founded(&["10.9.0.0/28"]);
    let range = block("10.9.0.0/28");
    for name in 0..14 {
        ipam.allocate(&holder(name), Wanted::Any(range), Time::ZERO).unwrap();
    }
    let full = ipam.allocate(&holder("late"), Wanted::Any(range), Time::ZERO);
    assert_eq!(full, Err(AllocateError::Exhausted(vec![range])));
    assert_eq!(ipam.release(&holder(3), &[], Time::ZERO), [address("10.9.0.4")]);
    assert!(ipam.release(&holder(3), &[], Time::ZERO).is_empty());
    assert_eq!(
        ipam.allocate(&holder("late"), Wanted::Any(range), Time::ZERO),
        Ok(address("10.9.0.4"))
    );
    ipam.check_invariants();
}

#[test]
fn a_released_address_rests_until_all_others_were_used_since() {
    let mut ipam = founded(&["10.9.0.0/28"]);
    let mut next = |name: usize| {
        let given =
            ipam.allocate(&holder(name), Wanted::Any(block("10.9.0.0/28")), Time::ZERO).unwrap();
        ipam.release(&holder(name), &[], Time::ZERO);
        given
    };
    let given: Vec<_> = (0..42).map(&mut next).collect();
    assert_eq!(given[..14], given[14..28]);
    assert_eq!(given[..14], given[28..]);
    let mut sorted = given[..14].to_vec();
    sorted.dedup();
    assert_eq!(sorted.len(), 14);
}

#[test]
fn restored_addresses_are_held_again_and_the_next_ones_lie_behind_them() {
    let mut ipam = founded(&["10.9.0.0/24"]);
    ipam.restore(&holder("a"), &[address("10.9.0.7"), address("192.0.2.1")]);
    ipam.restore(&holder("b"), &[address("10.9.0.7")]);
    assert_eq!(ipam.held().count(), 2);
    let next = ipam.allocate(&holder("c"), Wanted::Any(block("10.9.0.0/24")), Time::ZERO).unwrap();
    assert_eq!(next, address("10.9.0.8"));
    let conflicts = ipam.conflicts();
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].owner, Owner::Outside);
    let words = "192.0.2.1 is held here by a/eth0 and is in no range of the mesh";
    assert_eq!(conflicts[0].to_string(), words);
    ipam.check_invariants();
}

#[test]
fn the_ten_thousandth_address_costs_what_the_first_did() {
    let mut ipam = founded(&["10.32.0.0/12"]);
    let range = block("10.32.0.0/12");
    for name in 0..10_000 {
        ipam.allocate(&holder(name), Wanted::Any(range), Time::ZERO).unwrap();
    }
    // Holes everywhere do not slow it either: each is one step away.
    for name in (0..10_000).step_by(2) {
        ipam.release(&holder(name), &[], Time::ZERO);
    }
    for name in 20_000..30_000 {
        ipam.allocate(&holder(name), Wanted::Any(range), Time::ZERO).unwrap();
    }
    assert_eq!(ipam.held_len(), 15_000);
    ipam.check_invariants();
}

#[test]
fn a_holder_without_an_interface_prints_as_its_name() {
    let claim = Holder { container: "vip".into(), interface: String::new() };
    assert_eq!((claim.to_string(), holder("c").to_string()), ("vip".into(), "c/eth0".into()));
}
