//! How what others wrote travels where not all are linked to all: see `relay`.

use std::collections::BTreeSet;

use super::*;
use crate::neighbour::NAMED_UNKNOWN_MAX;

const HOSTS: u8 = 40;

/// So many hosts on a circle, each linked to the next and to three farther ones.
fn circle() -> World {
    let numbers: Vec<u8> = (1..=HOSTS).collect();
    let far = |n: u8, step: u8| (n - 1 + step) % HOSTS + 1;
    let pairs = numbers.iter().flat_map(|n| [1, 2, 5, 9].map(|step| (*n, far(*n, step))));
    let mut world = World::linked(&numbers, &pairs.collect::<Vec<_>>());
    world.run(secs(5));
    world.assert_equal("before anything is written");
    world.ring_deltas.clear();
    world
}

/// The links over which what others wrote is passed on at once, by their ends.
fn tree(world: &World) -> BTreeSet<(PeerId, PeerId)> {
    let edges = world.hosts.values().flat_map(|host| {
        let edges = host.router.neighbours.values().filter(|neighbour| neighbour.relays);
        edges.map(|neighbour| (host.router.me, neighbour.up.peer))
    });
    edges.collect()
}

/// How often somebody was asked for everything.
fn pulls(world: &World) -> u64 {
    world.hosts.values().map(|host| host.router.pulls).sum()
}

#[test]
fn all_see_one_tree_that_reaches_everybody() {
    let world = circle();
    let tree = tree(&world);
    assert_eq!(tree.len(), 2 * (usize::from(HOSTS) - 1), "one edge less than hosts, seen twice");
    assert!(tree.iter().all(|(a, b)| tree.contains(&(*b, *a))), "both ends see it");
    let mut found: BTreeSet<PeerId> = [peer(1)].into();
    for _ in 0..HOSTS {
        found.extend(
            tree.iter().filter(|(a, _)| found.contains(a)).map(|(_, b)| *b).collect::<Vec<_>>(),
        );
    }
    assert_eq!(found.len(), usize::from(HOSTS));
}

#[test]
fn in_a_large_mesh_a_write_comes_once_or_twice_and_not_over_each_link() {
    let mut world = circle();
    let pulls_before = pulls(&world);
    world.host(17).write_ring(1);
    world.run(Duration::from_millis(500));
    world.assert_equal("half a second later");
    world.run(secs(6));
    let sent = world.ring_deltas.len();
    let others = usize::from(HOSTS) - 1;
    assert!((others..=2 * others).contains(&sent), "{sent} deltas over {} links", 4 * HOSTS);
    assert_eq!(pulls(&world), pulls_before, "nobody had to ask");
}

#[test]
fn what_the_tree_does_not_bring_comes_over_another_link() {
    let mut world = circle();
    for round in 1..=5 {
        let pulls_before = pulls(&world);
        // It is linked to others than the writer.
        world.deaf = Some(round + 20);
        world.host(round).write_ring(round.into());
        world.run(Duration::from_millis(200));
        world.deaf = None;
        assert!(world.hosts[&(round + 20)].ring.get(&round.into()).is_none(), "it was lost");
        // Where always something is on its way, nobody can tell by a digest.
        for number in 0..17 {
            world.host(HOSTS).write(number, 10);
            world.run(Duration::from_millis(200));
        }
        let all = world.hosts.values().all(|host| host.ring.get(&round.into()).is_some());
        assert!(all, "round {round}");
        assert_eq!(pulls(&world), pulls_before, "it came before anybody asked");
        world.run(secs(4));
        world.assert_equal("after a lost delta");
    }
}

#[test]
fn what_comes_when_somebody_is_forgotten_is_owed_all_the_same() {
    let mut world = circle();
    let mut left = Host::new(100);
    left.write(1, 1);
    let left = left.zone.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    world.hosts.values_mut().for_each(|host| host.zone.apply(&left).map(drop).unwrap());
    world.run(secs(4));
    let pulls_before = pulls(&world);
    // All but one have it at once, and what they tell that one is lost.
    world.deaf = Some(25);
    world.host(5).write_ring(1);
    let news = world.host(5).ring.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    for (_, host) in world.hosts.iter_mut().filter(|(n, _)| **n != 25) {
        host.ring.apply(&news).unwrap();
        host.zone.drop_origin(peer(100), Return::Perhaps);
    }
    world.run(Duration::from_millis(1));
    world.deaf = None;
    assert!(world.hosts[&25].ring.get(&1).is_none(), "it was lost");
    for number in 0..17 {
        world.host(HOSTS).write(number, 10);
        world.run(Duration::from_millis(200));
    }
    assert!(world.hosts[&25].ring.get(&1).is_some());
    assert_eq!(pulls(&world), pulls_before, "it came before anybody asked");
}

#[test]
fn a_cut_in_the_tree_is_mended() {
    let mut world = circle();
    let edges: Vec<(PeerId, PeerId)> = tree(&world).into_iter().step_by(9).collect();
    for (a, b) in edges {
        world.cut(a.as_bytes()[0], b.as_bytes()[0]);
    }
    world.host(3).write_ring(1);
    world.host(30).write(1, 10);
    world.run(secs(9));
    world.assert_equal("without these links");
    let tree = tree(&world);
    assert_eq!(tree.len(), 2 * (usize::from(HOSTS) - 1), "another tree");
}

#[test]
fn a_link_that_is_full_is_not_filled_with_names() {
    let mut world = circle();
    world.reports_sent = false;
    let not_of_the_tree = |world: &mut World, full: usize| {
        let links = world.host(20).router.neighbours.values_mut().filter(|link| !link.relays);
        links.map(|link| std::mem::replace(&mut link.in_flight, full)).collect::<Vec<_>>()
    };
    not_of_the_tree(&mut world, WINDOW_BYTES);
    for second in 0..5 {
        world.host(17).write(second, 10);
        world.run(secs(1));
    }
    let beats = 5 * Frame::Heartbeat { digest: Digest(u128::MAX) }.encode().len();
    let full = not_of_the_tree(&mut world, 0);
    assert!(
        !full.is_empty() && full.iter().all(|bytes| *bytes <= WINDOW_BYTES + beats),
        "{full:?}"
    );
    // What they were not told of they are owed all the same.
    world.reports_sent = true;
    world.run(secs(4));
    world.assert_equal("when there is room again");
}

#[test]
fn names_of_what_nobody_wrote_take_little_room() {
    let mut world = World::linked(&[1, 2], &[(1, 2)]);
    let link = *world.hosts[&1].router.neighbours.keys().next().unwrap();
    for round in 0..20_u16 {
        let named = (0..1000_u16).map(|n| {
            let mut id = [9; 16];
            id[..4].copy_from_slice(&[round.to_be_bytes(), n.to_be_bytes()].concat());
            (PeerId::new(id), 1)
        });
        let names = [Vec::new(), named.collect(), Vec::new()];
        let now = world.now;
        let host = world.host(1);
        host.router.on_frame(link, &Frame::Have { names }.encode(), &mut replicas!(host), now);
    }
    let known = world.hosts[&1].router.neighbours[&link].named();
    assert!((1..=NAMED_UNKNOWN_MAX).contains(&known), "{known} are kept");
}
