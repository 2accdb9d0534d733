//! When a range, or everything, is given away.

use std::net::IpAddr;

use super::*;
use crate::{Family, ask::ASKS_MAX};

/// Gives a host addresses of the family until it is told that there is none.
fn exhaust(net: &mut Net, host: usize) -> (Vec<IpAddr>, AllocateError) {
    let mut given = Vec::new();
    for turn in 0..400 {
        let name = holder(given.len());
        match net.hosts[host].allocate_of(&name, Family::V4, net.now) {
            Ok(address) => given.push(address),
            Err(AllocateError::NoSpace { .. }) => {}
            Err(error) => return (given, error),
        }
        net.settle();
        net.now = net.now + Duration::from_millis(500);
        net.check();
        assert!(turn < 399, "{given:?}");
    }
    unreachable!("it was asserted")
}

#[test]
fn the_next_range_serves_when_nobody_has_any_of_the_first() {
    let (first, second) = (block("10.9.1.0/28"), block("10.9.0.0/28"));
    let mut net = Net::new(3, &["10.9.1.0/28", "10.9.0.0/28"]);
    net.settle();
    let (given, error) = exhaust(&mut net, 2);
    assert_eq!(error, AllocateError::Exhausted(vec![first, second]));
    assert_eq!(given.len(), 28, "all but the first and the last of each");
    assert!(given[..14].iter().all(|address| first.contains(*address)), "{given:?}");
    let again = net.hosts[2].allocate_of(&holder(20), Family::V4, net.now);
    assert_eq!(again, Ok(given[20]));
    for name in [3, 23] {
        net.hosts[2].release(&holder(name), &[], net.now);
    }
    let next = net.hosts[2].allocate_of(&holder(99), Family::V4, net.now);
    assert_eq!(next, Ok(given[3]), "the first before the second");
}

#[test]
fn the_next_range_serves_who_can_reach_nobody() {
    let mut net = Net::new(2, &["10.9.0.0/24", "10.9.1.0/24"]);
    net.settle();
    let own = |net: &Net, range| net.hosts[1].free_in(&block(range));
    let (first, second) = (own(&net, "10.9.0.0/24"), own(&net, "10.9.1.0/24"));
    assert!(first > 0 && second > 0);
    net.hosts[1].set_reachable(BTreeSet::new());
    for name in 0..(first + second) as usize {
        let wants = |net: &mut Net| net.hosts[1].allocate_of(&holder(name), Family::V4, net.now);
        let address = wants(&mut net).or_else(|_| {
            net.settle_alone(1);
            wants(&mut net)
        });
        let in_first = block("10.9.0.0/24").contains(address.unwrap());
        assert_eq!(in_first, (name as u128) < first, "{name}");
    }
    let none = net.hosts[1].allocate_of(&holder(999), Family::V4, net.now);
    assert!(matches!(none, Err(AllocateError::NoSpace { .. })), "others may have some: {none:?}");
}

#[test]
fn who_comes_later_has_everybody_asked_again_for_a_second_at_most() {
    let range = block("10.9.0.0/28");
    let mut net = Net::new(2, &["10.9.0.0/28"]);
    net.settle();
    net.hosts[0].allocate(&holder(1000), Wanted::Any(range), net.now).unwrap();
    let full = |net: &mut Net| {
        let result = net.any(1, 502, "10.9.0.0/28");
        assert_eq!(result, Err(AllocateError::Exhausted(vec![range])));
    };
    let _ = exhaust(&mut net, 1);
    net.now = net.now + Duration::from_millis(1);
    let since = net.now;
    net.hosts[0].release(&holder(1000), &[], net.now);
    full(&mut net);
    assert!(!net.hosts[1].asks_again(&[range], Time::ZERO, net.now), "it was asked since");
    assert!(net.hosts[1].asks_again(&[range], since, net.now));
    net.now = net.now + Duration::from_millis(100);
    net.settle();
    net.any(1, 500, "10.9.0.0/28").unwrap();
    // Nobody has any, and then nobody answers.
    let since = net.now;
    let asks = |net: &mut Net| {
        let result = net.any(1, 501, "10.9.0.0/28");
        let waits = matches!(result, Err(AllocateError::NoSpace { .. }));
        waits || net.hosts[1].asks_again(&[range], since, net.now)
    };
    assert!(asks(&mut net));
    net.now = net.now + Duration::from_millis(100);
    net.settle();
    assert!(!asks(&mut net), "all have answered");
    let since = net.now + Duration::from_millis(1);
    full(&mut net);
    assert!(net.hosts[1].asks_again(&[range], since, since));
    let later = since + Duration::from_secs(1);
    assert!(!net.hosts[1].asks_again(&[range], since, later), "it has been long enough");
}

/// The owner of what lies around a block has the rest of a part that begins with that block.
#[test]
fn who_owns_what_is_around_the_beginning_of_a_part_is_asked_for_the_rest() {
    let mut net = Net::new(2, &["10.32.0.0/24"]);
    // It has enough elsewhere not to ask for any of the range.
    for own in ["10.32.0.224/28", "10.32.0.64/27"] {
        net.hosts[0].write_grant(block(own), peer(2));
    }
    net.hosts[0].refresh();
    net.settle();
    let part = block("10.32.0.224/27");
    assert_eq!(net.hosts[1].free_in(&part), 16, "this part begins with its block");
    let mut given = 0;
    for name in 0..100 {
        match net.any(1, name, "10.32.0.224/27") {
            Ok(()) => given += 1,
            Err(AllocateError::NoSpace { .. }) => {}
            Err(error) => {
                assert_eq!(error, AllocateError::Exhausted(vec![part]));
                break;
            }
        }
        net.settle();
        net.now = net.now + Duration::from_millis(500);
        net.check();
    }
    assert_eq!(given, 31, "all but the last");
}

/// Whoever owns most may have nothing left: it is not asked first again and again.
#[test]
fn who_has_most_free_is_asked_first() {
    let mut net = Net::settled(3);
    let range = block("10.32.0.0/12");
    let [first, second] = [1, 2].map(peer);
    net.hosts[2].want(range, net.now);
    let asked = |net: &mut Net| match &net.messages(2)[..] {
        [(to, SpaceMessage::Request(request))] => (*to, request.id),
        other => panic!("{other:?}"),
    };
    let (to, id) = asked(&mut net);
    assert_eq!(to, first, "it owns most, and nobody has said what is free");
    let (reason, free) = (SpaceRefusal::NothingFree, 3);
    net.hosts[2].handle_message(first, SpaceMessage::Refused { id, reason, free }, net.now);
    let (to, id) = asked(&mut net);
    assert_eq!(to, second);
    let granted = SpaceMessage::Granted { id, block: range, free: 3000 };
    net.hosts[2].handle_message(second, granted, net.now);

    net.hosts[2].begin_leaving();
    net.hosts[2].stay();
    net.hosts[2].want(range, net.now);
    assert_eq!(asked(&mut net).0, second, "it has more free than the first");
}

/// Space in a part of a range comes before the last address of it is used, also on a host that has
/// run for long.
#[test]
fn a_part_of_a_range_is_supplied_ahead_of_need() {
    let mut net = Net::new(2, &["10.0.0.0/16"]);
    net.now = net.now + Duration::from_secs(3600);
    net.settle();
    let part = "10.0.2.0/24";
    net.any(1, 0, part).unwrap_err();
    net.settle();
    for name in 0..100 {
        assert_eq!(net.any(1, name, part), Ok(()), "at {name}");
        net.settle();
        net.now = net.now + Duration::from_secs(1);
    }
    net.check();
}

#[test]
fn parts_that_are_asked_for_ahead_of_need_leave_room_for_others() {
    let mut net = Net::new(2, &["10.0.0.0/16"]);
    let quads = (0..300u32).map(|n| format!("10.0.{}.{}", 64 + n / 64, n % 64 * 4));
    let quads: Vec<String> = quads.collect();
    for quad in &quads {
        net.hosts[0].write_grant(block(&format!("{quad}/32")), peer(2));
    }
    net.hosts[0].refresh();
    net.settle();
    for (name, quad) in quads.iter().enumerate() {
        net.any(1, name, &format!("{quad}/30")).unwrap();
    }
    let asks = net.hosts[1].waiting_for().len();
    assert!((100..ASKS_MAX).contains(&asks), "{asks}");
    assert!(net.hosts[1].want_exact(address("10.0.0.9")), "who is in need may ask");
}
