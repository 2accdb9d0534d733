//! Which address is given: released ones rest, former ones come back, parts of ranges have their
//! own.

use std::time::Duration;

use mesh_router::Time;

use super::{address, block, holder, peer};
use crate::{AllocateError, Family, Holder, Ipam, Wanted};

const REST: Duration = Duration::from_secs(60);

fn at(secs: u64) -> Time {
    Time::from_micros(secs * 1_000_000)
}

fn founded(ranges: &[&str]) -> Ipam {
    let mut ipam = Ipam::new(peer(1));
    let ranges: Vec<_> = ranges.iter().map(|range| block(range)).collect();
    ipam.found(&ranges).unwrap();
    ipam
}

#[test]
fn a_released_address_rests_for_its_time_while_there_are_others() {
    let mut ipam = founded(&["10.9.0.0/29"]);
    let range = Wanted::Any(block("10.9.0.0/29"));
    for name in 0..5 {
        ipam.allocate(&holder(name), range, at(0)).unwrap();
    }
    ipam.release(&holder(0), &[], at(0) + REST);
    ipam.release(&holder(1), &[], at(10) + REST);
    assert_eq!(ipam.allocate(&holder("a"), range, at(59)), Ok(address("10.9.0.6")));
    assert_eq!(ipam.ready_in(&block("10.9.0.0/29")), 0);
    assert_eq!(ipam.free_in(&block("10.9.0.0/29")), 2);
    assert_eq!(ipam.allocate(&holder("b"), range, at(61)), Ok(address("10.9.0.1")));
    // Nobody else has any: the one that still rests is better than none.
    assert_eq!(ipam.allocate(&holder("c"), range, at(62)), Ok(address("10.9.0.2")));
    let none = ipam.allocate(&holder("d"), range, at(200));
    assert_eq!(none, Err(AllocateError::Exhausted(vec![block("10.9.0.0/29")])));
    ipam.check_invariants();
}

#[test]
fn a_former_holder_gets_its_address_back_until_somebody_else_had_it() {
    let mut ipam = founded(&["10.9.0.0/29"]);
    let part = block("10.9.0.0/29");
    let name = [holder("name web")];
    let first = ipam.allocate(&holder("a"), Wanted::Any(part), at(0)).unwrap();
    assert_eq!(ipam.former(&[holder("a")], &part), None, "it is held");
    ipam.release(&holder("a"), &name, at(60));
    assert_eq!(ipam.former(&[holder("a")], &part), Some(first));
    assert_eq!(ipam.former(&name, &part), Some(first));
    assert_eq!(ipam.former(&name, &block("10.9.0.4/30")), None);
    assert_eq!(ipam.allocate(&holder("b"), Wanted::Exact(first), at(1)), Ok(first));
    assert_eq!(ipam.former(&name, &part), None);
    ipam.release(&holder("b"), &[], at(60));
    assert_eq!(ipam.former(&[holder("a")], &part), None);
    assert_eq!(ipam.former(&[holder("b")], &part), Some(first));
    ipam.check_invariants();
}

#[test]
fn a_part_of_a_range_gives_only_its_own_addresses() {
    let mut ipam = founded(&["10.9.0.0/24"]);
    let part = block("10.9.0.8/29");
    let given: Vec<_> = (0..8)
        .map(|name| ipam.allocate(&holder(name), Wanted::Any(part), at(0)).unwrap())
        .collect();
    assert_eq!((given[0], given[7]), (address("10.9.0.8"), address("10.9.0.15")));
    let full = ipam.allocate(&holder("x"), Wanted::Any(part), at(0));
    assert_eq!(full, Err(AllocateError::Exhausted(vec![part])));
    let any = ipam.allocate(&holder("y"), Wanted::Any(block("10.9.0.0/24")), at(0));
    assert_eq!(any, Ok(address("10.9.0.1")), "the whole range has a rotation of its own");
    ipam.release(&holder(3), &[], at(60));
    assert_eq!(ipam.allocate(&holder("x"), Wanted::Any(part), at(1)), Ok(given[3]));
    let outside = block("10.10.0.0/24");
    let refused = ipam.allocate(&holder("z"), Wanted::Any(outside), at(0));
    assert_eq!(refused, Err(AllocateError::Outside(outside)));
    ipam.check_invariants();
}

#[test]
fn the_range_that_was_founded_first_is_the_default_of_its_family() {
    let ipam = founded(&["10.20.0.0/16", "10.10.0.0/16", "fd00::/48"]);
    assert_eq!(ipam.ranges()[0], block("10.10.0.0/16"));
    assert_eq!(ipam.ranges_of(Family::V4)[0], block("10.20.0.0/16"));
    assert_eq!(ipam.ranges_of(Family::V6), [block("fd00::/48")]);
}

#[test]
fn an_address_changes_hands_without_being_free_in_between() {
    let mut ipam = founded(&["10.9.0.0/24"]);
    let claim = Holder { container: "db".into(), interface: String::new() };
    let held = address("10.9.0.7");
    ipam.allocate(&holder("c"), Wanted::Exact(held), at(0)).unwrap();
    assert!(ipam.hand_over(held, &claim));
    assert_eq!(ipam.holder_of(held), Some(&claim));
    assert!(ipam.release(&holder("c"), &[], at(0)).is_empty());
    assert!(!ipam.hand_over(address("10.9.0.8"), &claim));
    ipam.check_invariants();
}
