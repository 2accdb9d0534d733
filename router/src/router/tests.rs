//! Few routers with virtual time: see [`world`].

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    routing::{ROUTED_BYTES_MAX, WAYS_BACK_MAX},
    *,
};
use crate::Kind;
use crate::{
    frame::Digest,
    neighbour::{DELTA_BYTES, WINDOW_BYTES},
    store::{Cursor, Return, Store},
};

#[macro_use]
mod world;
mod relay;

use world::{Blobs, Host, Shared, World, address, peer, secs};

#[test]
fn a_link_makes_two_hosts_equal_at_once() {
    let mut world = World::new(&[1, 2]);
    for number in 0..500 {
        world.host(1).write(number, 300);
    }
    world.host(2).write(1, 10);
    world.link(1, 2);
    world.deliver();
    world.assert_equal("after hello, want and synced");
    assert_eq!(world.hosts[&2].zone.len(), 501);
}

#[test]
fn a_write_goes_to_the_neighbour_without_being_asked_for_and_is_not_sent_back() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(1));
    let before = world.hosts[&2].sent_bytes;
    world.host(1).write(1, 5000);
    world.deliver();
    assert_eq!(world.hosts[&2].zone.len(), 1);
    assert!(world.hosts[&2].sent_bytes - before < 1000, "it came back");
}

#[test]
fn a_lost_delta_is_repaired_within_a_few_heartbeats() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    world.lose_deltas = 1;
    world.host(1).write(1, 10);
    world.deliver();
    assert!(world.hosts[&2].zone.is_empty());
    world.run(secs(4));
    world.assert_equal("after a lost delta");
}

#[test]
fn where_always_something_is_written_a_lost_delta_is_repaired_too() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    world.lose_deltas = 1;
    world.host(1).write_ring(1);
    world.deliver();
    assert!(world.hosts[&2].ring.get(&1).is_none(), "it was lost");
    // No two heartbeats have the same digest.
    for number in 0..100 {
        world.host(2).write(number, 10);
        world.run(Duration::from_millis(100));
    }
    assert!(world.hosts[&2].ring.get(&1).is_some(), "after ten seconds");
}

#[test]
fn two_links_at_once_become_one_and_both_ends_keep_the_same() {
    // The order in which the four ends hear of the two links.
    for order in
        [[0, 1, 2, 3], [0, 3, 1, 2], [2, 1, 0, 3], [2, 3, 0, 1], [0, 3, 2, 1], [2, 1, 3, 0]]
    {
        let mut world = World::new(&[1, 2]);
        let [a, b] = world.ends(1, 2);
        let [c, d] = world.ends(2, 1);
        let told = [a, b, c, d];
        for index in order {
            world.tell(told[index].clone());
        }
        world.run(secs(3));
        let ends: Vec<LinkId> = (1..=2)
            .map(|n| world.hosts[&n].router.links().map(|up| up.link).collect::<Vec<_>>()[0])
            .collect();
        assert_eq!(ends, [told[0].1.link, told[1].1.link], "order {order:?}");
        world.assert_equal("after two links");
    }
}

#[test]
fn a_new_incarnation_replaces_a_link_that_is_dead_and_does_not_know_it() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    let old = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    // Host 2 starts again; this time it dials, which alone would lose against the older link.
    *world.host(2) = Host::new(2);
    world.cut(1, 2);
    let [two, (_, up)] = world.ends(2, 1);
    world.tell(two);
    world.tell((1, LinkUp { incarnation: 2, ..up }));
    let new = world.hosts[&1].router.link_to(peer(2)).unwrap();
    assert!(new.link != old && new.incarnation == 2);
    assert_eq!(world.hosts[&1].closed, [old]);
    world.deliver();
    assert!(world.hosts[&2].router.is_settled(), "host 1 told everything");
}

/// On one stream, so that nothing overtakes it: what it says may be why all else is not to be
/// believed.
#[test]
fn a_message_for_who_comes_is_said_before_all_else() {
    let mut world = World::new(&[1, 2]);
    let [(_, up), _] = world.ends(1, 2);
    let now = world.now;
    let host = world.host(1);
    host.router.link_up(up, Some(b"first".to_vec()), &replicas!(host), now);
    let sent = std::iter::from_fn(|| host.router.poll_effect()).filter_map(|effect| match effect {
        Effect::Send { urgent, bytes, .. } => Some((urgent, Frame::decode(&bytes).unwrap())),
        _ => None,
    });
    let sent: Vec<(bool, Frame)> = sent.collect();
    assert!(
        matches!(&sent[0], (false, Frame::Routed { to, payload, .. })
            if *to == peer(2) && payload == b"first"),
        "{sent:?}"
    );
    assert!(matches!(sent[1], (false, Frame::Hello { .. })), "{sent:?}");
}

#[test]
fn silence_closes_a_link_and_any_byte_keeps_it() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    world.cut(1, 2);
    let link = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    for _ in 0..5 {
        world.run(secs(3));
        let now = world.now;
        world.host(1).router.activity(link, now);
    }
    assert!(world.hosts[&1].router.link_to(peer(2)).is_some(), "bytes came all the time");
    assert!(world.hosts[&2].router.link_to(peer(1)).is_none());
    world.run(secs(5));
    assert_eq!(world.hosts[&1].closed, [link]);
    assert!(!world.hosts[&1].router.paths().contains_key(&peer(2)));
    assert!(world.hosts[&1].dialled.contains(&address(2)), "and is dialled again");
}

#[test]
fn a_chain_passes_entries_and_messages_on() {
    let mut world = World::linked(&[1, 2, 3], &[(1, 2), (2, 3)]);
    world.assert_equal("along a chain");
    let hop = world.hosts[&1].router.paths()[&peer(3)];
    assert_eq!((hop.via, hop.hops), (peer(2), 2));
    assert_eq!(world.hosts[&1].router.packet_path(peer(3)), Some(peer(2)));
    world.host(1).write(1, 10);
    world.host(3).write(1, 10);
    world.run(Duration::from_millis(500));
    world.assert_equal("a write is passed on at once");
    assert!(world.host(1).router.send_to(peer(3), b"hello".to_vec()));
    assert!(!world.host(1).router.send_to(peer(9), b"hello".to_vec()), "nobody knows the way");
    world.deliver();
    assert_eq!(world.hosts[&3].delivered, [(peer(1), b"hello".to_vec())]);
    assert!(world.hosts[&2].delivered.is_empty());
    world.cut(2, 3);
    world.run(secs(6));
    assert!(!world.hosts[&1].router.paths().contains_key(&peer(3)));
}

#[test]
fn the_ring_is_not_passed_on_to_who_has_it_from_its_writer() {
    let mut world = World::linked(&[1, 2, 3, 4], &[(1, 2), (2, 3), (1, 3), (3, 4)]);
    world.ring_deltas.clear();
    world.host(1).write_ring(1);
    world.run(Duration::from_millis(500));
    world.ring_deltas.sort_unstable();
    assert_eq!(world.ring_deltas, [(1, 2), (1, 3), (3, 4)], "nobody else is linked to host 4");
    world.ring_deltas.clear();
    // Before the next heartbeats say that it has the first: both are told, for a delta is joint.
    world.host(2).write_ring(2);
    world.run(Duration::from_millis(500));
    world.ring_deltas.sort_unstable();
    assert_eq!(world.ring_deltas, [(2, 1), (2, 3), (3, 4)]);
    world.assert_equal("all know all");
}

#[test]
fn who_missed_its_writers_delta_of_the_ring_asks_for_it() {
    let mut world = World::linked(&[1, 2, 3], &[(1, 2), (2, 3), (1, 3)]);
    world.host(1).write_ring(1);
    world.lose_deltas = 1;
    world.run(secs(4));
    world.assert_equal("after a lost delta");
}

#[test]
fn who_leaves_is_answered_over_others() {
    let mut world = World::linked(&[1, 2, 3], &[(1, 2), (2, 3)]);
    leaves(&mut world);
    assert!(!world.hosts[&1].router.paths().contains_key(&peer(3)));
    assert!(!world.host(1).router.send_to(peer(3), b"hello".to_vec()));
    assert!(world.host(3).router.send_to(peer(1), b"yours now".to_vec()));
    world.deliver();
    assert!(world.host(1).router.send_to(peer(3), b"thanks".to_vec()));
    world.deliver();
    assert_eq!(world.hosts[&3].delivered, [(peer(1), b"thanks".to_vec())]);
    world.cut(1, 2);
    world.run(secs(6));
    assert!(!world.host(1).router.send_to(peer(3), b"hello".to_vec()));
}

#[test]
fn a_message_that_was_passed_on_too_often_ends() {
    let mut world = World::linked(&[1, 2, 3], &[(1, 2), (2, 3)]);
    let link = world.hosts[&2].router.link_to(peer(1)).unwrap().link;
    for (hops_left, arrives) in [(1, 1), (0, 1)] {
        let frame = Frame::Routed { from: peer(1), to: peer(3), hops_left, payload: vec![] };
        let now = world.now;
        let host = world.host(2);
        host.router.on_frame(link, &frame.encode(), &mut replicas!(host), now);
        world.deliver();
        assert_eq!(world.hosts[&3].delivered.len(), arrives);
    }
}

#[test]
fn bytes_that_are_no_frame_close_their_link_and_no_other() {
    let mut world = World::new(&[1, 2, 3]);
    world.link(1, 2);
    world.link(1, 3);
    world.run(secs(2));
    let bad = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    let now = world.now;
    let host = world.host(1);
    host.router.on_frame(bad, &[0xff; 40], &mut replicas!(host), now);
    world.collect(1);
    assert_eq!(world.hosts[&1].closed, [bad]);
    assert!(world.hosts[&1].router.link_to(peer(3)).is_some());
}

#[test]
fn what_is_on_its_way_into_a_link_is_bounded() {
    let mut world = World::new(&[1, 2, 3]);
    world.link(1, 2);
    world.run(secs(2));
    world.reports_sent = false;
    let before = world.hosts[&1].sent_bytes;
    for number in 0..2000 {
        world.host(1).write(number, 500);
    }
    world.deliver();
    let sent = world.hosts[&1].sent_bytes - before;
    assert!(sent >= WINDOW_BYTES / 2, "{sent} bytes");
    assert!(sent <= WINDOW_BYTES + DELTA_BYTES + 1000, "{sent} bytes");
    let accepted = (0..10_000)
        .filter(|_| world.hosts.get_mut(&1).unwrap().router.send_to(peer(2), vec![0; 1000]));
    assert!(accepted.count() <= ROUTED_BYTES_MAX / 1000, "messages pile up on a choked link");
}

#[test]
fn a_link_that_has_room_again_goes_on_where_it_stopped() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    world.reports_sent = false;
    for number in 0..500 {
        world.host(1).write(number, 500);
    }
    world.deliver();
    assert!(world.hosts[&2].zone.len() < 500);
    world.reports_sent = true;
    let link = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    world.host(1).router.sent(link, usize::MAX);
    assert!(world.hosts[&1].router.pump_due());
    world.deliver();
    assert_eq!(world.hosts[&2].zone.len(), 500);
}

/// Host 3 says that it leaves.
fn leaves(world: &mut World) {
    let (name, endpoints) = ("host3".to_owned(), vec![address(3)]);
    world.host(3).router.describe(Info { name, endpoints, incarnation: 1, left: true });
    world.run(secs(1));
}

#[test]
fn hosts_that_forget_who_left_at_different_times_ask_each_other_nothing() {
    let mut world = World::new(&[1, 2, 3]);
    world.link(1, 3);
    world.link(2, 3);
    world.link(1, 2);
    world.host(3).write(1, 10);
    world.run(secs(2));
    leaves(&mut world);
    world.cut(1, 3);
    world.cut(2, 3);
    world.run(secs(10));
    let now = world.now;
    world.host(1).router.forget(peer(3), Return::Never, now);
    world.host(1).zone.drop_origin(peer(3), Return::Never);
    let asked = |world: &World| [1, 2].map(|n| world.hosts[&n].router.pulls);
    let before = asked(&world);
    world.run(secs(20));
    assert_ne!(world.vectors(1), world.vectors(2), "host 2 has not forgotten it");
    assert_eq!(asked(&world), before);
}

#[test]
fn the_names_of_who_left_come_although_digests_do_not_speak_of_them() {
    let mut world = World::new(&[1, 2, 3]);
    world.link(1, 2);
    world.link(1, 3);
    world.host(3).write(0, 10);
    world.run(secs(2));
    let link = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    world.reports_sent = false;
    let mut number = 0;
    while world.hosts[&1].router.neighbours[&link].in_flight < WINDOW_BYTES {
        world.host(1).write(number, 500);
        world.deliver();
        number += 1;
    }
    world.reports_sent = true;
    world.host(3).write(1, 10);
    leaves(&mut world);
    world.cut(1, 3);
    let row = (peer(3), 1);
    // Heartbeats are not choked: host 2's say now that it is equal.
    world.run(secs(3));
    assert!(world.hosts[&1].zone.get(&row).is_some());
    assert!(world.hosts[&2].zone.get(&row).is_none());
    world.host(1).router.sent(link, usize::MAX);
    world.deliver();
    assert!(world.hosts[&2].zone.get(&row).is_some());
}

#[test]
fn hosts_that_are_not_settled_do_not_settle_each_other() {
    let mut world = World::unsettled(&[1, 2, 3]);
    // Both know the same part, as after an interrupted exchange with somebody else.
    let mut third = Store::<Blobs>::new(peer(9));
    third.write((peer(9), 1), vec![]);
    third.mark_durable(1);
    let part = third.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    for n in 1..=2 {
        world.host(n).zone.apply(&part).unwrap();
    }
    world.link(1, 2);
    world.run(secs(30));
    assert!(!world.hosts[&1].router.is_settled() && !world.hosts[&2].router.is_settled());
    // One that knows everything settles both, whoever is being asked at the time.
    world.settle(3);
    world.link(3, 1);
    world.run(secs(30));
    assert!(world.hosts[&1].router.is_settled() && world.hosts[&2].router.is_settled());
}

#[test]
fn a_host_says_what_its_word_is_worth() {
    let mut world = World::unsettled(&[1, 2, 3]);
    world.settle(1);
    let word = |world: &World, n: u8| world.hosts[&n].router.told_word();
    // The second's disk may be an old one, and the third knows what that one has told.
    for n in [1, 2] {
        world.host(n).router.ask_for_all();
    }
    world.host(2).router.tell_though_unsettled();
    world.link(2, 3);
    world.run(secs(5));
    assert!(world.hosts[&3].router.is_settled());
    assert_eq!(word(&world, 2), Some(Word::Hearsay), "it was its own");
    world.link(1, 2);
    world.run(secs(30));
    assert_eq!(word(&world, 1), Some(Word::Disk));
    assert_eq!(word(&world, 2), Some(Word::Disk), "the first asks itself");
    world.host(1).router.stop_asking();
    world.run(secs(30));
    assert_eq!(word(&world, 2), Some(Word::Settled));
    world.link(1, 3);
    world.run(secs(30));
    assert_eq!(word(&world, 1), Some(Word::Settled), "the third was told by one that is settled");
}

/// Found by simulation: the host barred somebody whose entries it was told.
#[test]
fn who_could_not_take_a_part_of_what_it_was_told_was_not_told_all() {
    let mut other = Store::<Shared>::new(peer(2));
    let empty = other.announced();
    other.write(1, 7);
    other.mark_durable(1);
    let part = other.announced();
    other.write(2, 7);
    other.mark_durable(2);
    for (since, settles) in [(empty, true), (part, false)] {
        let mut world = World::unsettled(&[1]);
        let (link, now) = (LinkId(1), world.now);
        let up = world.up(link, 2, false, 1);
        world.tell((1, up));
        let host = world.host(1);
        let mut hears = |frame: Frame| {
            host.router.on_frame(link, &frame.encode(), &mut replicas!(host), now);
            (host.router.pulls, host.router.is_settled())
        };
        let (pull, _) = hears(Frame::Hello { vectors: Default::default(), founding: 0 });
        let bytes = other.delta(&Cursor::at(since), |_| true, usize::MAX).bytes;
        hears(Frame::Delta { kind: Kind::Ring, bytes });
        let (_, settled) = hears(Frame::Synced { pull, word: Word::Settled });
        assert_eq!(settled, settles);
    }
}

#[test]
fn a_neighbour_that_never_answers_does_not_keep_the_others_from_being_asked() {
    let mut world = World::unsettled(&[1, 2, 3, 4]);
    world.lose_unsettled = true;
    world.settle(4);
    for other in 2..=4 {
        world.link(1, other);
        world.run(Duration::from_millis(100));
    }
    world.run(secs(45));
    assert!(world.hosts[&1].router.is_settled());
}

#[test]
fn a_neighbour_that_could_not_tell_all_is_asked_again_though_the_others_have_nothing_new() {
    let mut world = World::unsettled(&[1, 2, 3]);
    world.settle(1);
    world.settle(2);
    world.link(1, 2);
    world.run(secs(3));
    world.host(3).router.tell_though_unsettled();
    world.link(3, 1);
    world.run(secs(3));
    world.settle(3);
    world.run(secs(3));
    world.lose_deltas = 1;
    world.host(3).write(1, 10);
    world.deliver();
    assert!(world.hosts[&1].zone.is_empty(), "it was lost");
    world.run(secs(4));
    world.assert_equal("after a lost delta");
}

#[test]
fn among_many_that_are_not_settled_the_one_that_is_is_found_soon() {
    let numbers: Vec<u8> = (1..=12).collect();
    let mut world = World::unsettled(&numbers);
    world.settle(12);
    for n in &numbers {
        for other in n + 1..=12 {
            world.link(*n, other);
        }
    }
    world.run(secs(2));
    let unsettled = numbers.iter().filter(|n| !world.hosts[n].router.is_settled());
    assert_eq!(unsettled.count(), 0);
}

#[test]
fn a_target_that_a_member_publishes_is_dialled_once() {
    let mut world = World::new(&[1, 2]);
    world.link(1, 2);
    world.run(secs(2));
    world.host(1).router.add_target(address(2));
    world.cut(1, 2);
    world.host(1).dialled.clear();
    world.run(secs(8));
    assert_eq!(world.hosts[&1].dialled, [address(2)], "the first attempt is still under way");
}

#[test]
fn a_member_is_dialled_where_it_was_found_though_it_does_not_publish_that() {
    let mut world = World::new(&[1, 2]);
    world.host(2).router.describe(Info {
        name: "behind a NAT".to_owned(),
        endpoints: vec![address(9)],
        incarnation: 1,
        left: false,
    });
    world.host(1).router.add_target(address(2));
    world.link(1, 2);
    world.run(secs(2));
    world.cut(1, 2);
    world.host(1).dialled.clear();
    world.run(secs(5));
    let now = world.now;
    world.host(1).router.dial_failed(address(9), DialError::Unreachable("gone".to_owned()), now);
    world.run(secs(2));
    assert_eq!(world.hosts[&1].dialled, [address(9), address(2)]);
}

#[test]
fn a_target_that_is_this_host_is_forgotten() {
    let mut world = World::new(&[1]);
    world.host(1).router.add_target(address(1));
    world.run(secs(1));
    let now = world.now;
    world.host(1).router.dial_failed(address(1), DialError::Ourselves, now);
    world.run(secs(600));
    assert_eq!(world.hosts[&1].router.targets().count(), 0);
    assert_eq!(world.hosts[&1].dialled, [address(1)]);
}

/// One frame of each kind, with content.
fn frames(world: &World) -> Vec<Vec<u8>> {
    let mut store = Store::<Blobs>::new(peer(2));
    for number in 0..5 {
        store.write((peer(2), number), vec![1; 20]);
    }
    store.mark_durable(5);
    let bytes = store.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    let vectors = world.vectors(2);
    let (from, to) = (peer(2), peer(3));
    let mut frames = vec![
        Frame::Hello { vectors: vectors.clone(), founding: 0 },
        Frame::Heartbeat { digest: Digest::of(&vectors, world.hosts[&2].router.members()) },
        Frame::Want { vectors, pull: 1 },
        Frame::Synced { pull: 1, word: Word::Settled },
        Frame::Unsettled { pull: 1 },
        Frame::Routed { from, to, hops_left: 3, payload: vec![1, 2, 3] },
        Frame::Have { names: [vec![(from, 1)], vec![(to, 7), (from, 2)], vec![]] },
    ];
    frames.extend(Kind::ALL.map(|kind| Frame::Delta { kind, bytes: bytes.clone() }));
    let members = world.hosts[&2].router.members();
    let bytes = members.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    frames.push(Frame::Delta { kind: Kind::Members, bytes });
    frames.iter().map(Frame::encode).collect()
}

#[test]
fn no_frame_however_mangled_panics_or_hurts_another_link() {
    let mut world = World::new(&[1, 2, 3]);
    world.link(1, 2);
    world.link(1, 3);
    world.run(secs(2));
    let other = world.hosts[&1].router.link_to(peer(3)).unwrap().link;
    let frames = frames(&world);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut link = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    let start = world.now;
    for round in 0..20_000 {
        let mut bytes = frames[rng.random_range(0..frames.len())].clone();
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = if rng.random() { rng.random() } else { 0xfd };
        }
        if rng.random_range(0..4) == 0 {
            bytes.truncate(rng.random_range(0..=bytes.len()));
        }
        let now = start + Duration::from_micros(round);
        world.now = now;
        let host = world.host(1);
        host.router.on_frame(link, &bytes, &mut replicas!(host), now);
        host.router.timeout(&replicas!(host), now);
        world.collect(1);
        world.wire.clear();
        let host = world.host(1);
        host.router.members().check_invariants();
        host.zone.check_invariants();
        assert!(host.router.links().any(|up| up.link == other), "round {round}");
        if host.router.link_to(peer(2)).is_none() {
            let [_, (_, up)] = world.ends(2, 1);
            link = up.link;
            world.tell((1, up));
        }
    }
}

#[test]
fn the_ways_back_to_strangers_are_bounded() {
    let mut world = World::linked(&[1, 2], &[(1, 2)]);
    let link = world.hosts[&1].router.link_to(peer(2)).unwrap().link;
    let now = world.now;
    let host = world.host(1);
    for number in 0..2 * WAYS_BACK_MAX as u128 {
        let from = PeerId::new((number + 1000).to_be_bytes());
        let frame = Frame::Routed { from, to: peer(1), hops_left: 3, payload: vec![] };
        host.router.on_frame(link, &frame.encode(), &mut replicas!(host), now);
    }
    assert_eq!(host.router.ways_back.len(), WAYS_BACK_MAX);
}

#[test]
fn what_others_write_is_passed_on_in_bursts_where_there_are_many() {
    let mut world = World::linked(&[1, 2, 3], &[(1, 2), (2, 3)]);
    let pause = |world: &World| world.hosts[&2].router.pause(Duration::from_millis(1), secs(1));
    assert_eq!(pause(&world), Duration::from_millis(3));
    // As many as fill the pause, all of whom host 1 has heard of.
    for n in 10..=250 {
        let mut other = crate::member::Members::new(peer(n));
        let info = Info { name: n.to_string(), endpoints: vec![], incarnation: 1, left: false };
        other.write(MemberKey::Info(peer(n)), MemberValue::Info(info));
        let reach = crate::member::Reach::Only([].into());
        other.write(MemberKey::Reach(peer(n)), MemberValue::Reach(reach));
        other.mark_durable(2);
        let bytes = other.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
        world.host(1).router.members_mut().apply(&bytes).unwrap();
    }
    world.run(secs(3));
    assert_eq!(pause(&world), Duration::from_millis(244));
    world.ring_deltas.clear();
    for number in 0..20 {
        world.host(1).write_ring(number);
        world.run(Duration::from_micros(500));
    }
    world.run(Duration::from_millis(500));
    let count = |way| world.ring_deltas.iter().filter(|sent| **sent == way).count();
    assert_eq!(count((1, 2)), 20, "one's own writes at once");
    assert!(count((2, 3)) <= 4, "{} times", count((2, 3)));
    world.assert_equal("after the bursts");
}
