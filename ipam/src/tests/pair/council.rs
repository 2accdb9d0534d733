//! What hosts decide together, and space meanwhile.

use mesh_router::{
    Replica,
    codec::{FRAME_BYTES_MAX, decode, encode},
    store::{COUNTER_MAX, ORIGINS_MAX},
};

use super::*;
use crate::{
    Epoch, Version,
    council::{acceptor::Acceptor, decree::Decree},
};

#[test]
fn whoever_leaves_gives_nothing_to_whom_it_has_agreed_to_remove() {
    let mut net = Net::settled(3);
    assert!(!net.hosts[1].owned_blocks().is_empty());
    let (proposer, dead) = (net.hosts[0].me(), net.hosts[2].me());
    net.tell_council(1, 1, Body::Prepare { founders: 0, removing: [dead].into() });
    net.hosts[1].begin_leaving();
    assert_eq!(net.hosts[1].give_all(dead), Err(GiveError::Fenced));
    assert!(!net.hosts[1].owned_blocks().is_empty(), "nothing was written");
    net.hosts[1].give_all(proposer).unwrap();
}

/// An earlier attempt may have been accepted somewhere, and is made the decree by whoever comes
/// next. Found by simulation: two hosts owned an address.
#[test]
fn who_is_barred_for_two_attempts_stays_so_when_one_is_given_up() {
    let mut net = Net::settled(3);
    let dead = net.hosts[2].me();
    for round in [1, 2] {
        net.tell_council(1, round, Body::Prepare { founders: 0, removing: [dead].into() });
    }
    net.tell_council(1, 2, Body::GivenUp);
    assert!(net.hosts[1].is_fenced(dead));
    net.tell_council(1, 1, Body::GivenUp);
    assert!(!net.hosts[1].is_fenced(dead));
}

/// Whether a host took all that another told it.
fn told(net: &mut Net, from: usize, to: usize) -> bool {
    net.persist(from);
    let since = Cursor::at(net.hosts[to].store().vector().clone());
    let delta = net.hosts[from].delta(&since, &|_| true, usize::MAX);
    delta.bytes.is_empty() || net.hosts[to].apply(&delta.bytes).unwrap()
}

/// Found by reading: who joined when the others had promised took a grant of the host that they
/// removed, and nobody knew of that.
#[test]
fn a_newcomer_takes_no_news_of_whom_an_elector_bars_and_passes_none_on() {
    for early in [false, true] {
        let mut net = Net::settled(4);
        let [dead, newcomer] = [2, 3].map(|host| net.hosts[host].me());
        let given = net.hosts[2].owned_blocks()[0];
        let remove = Body::Prepare { founders: 0, removing: [dead].into() };
        net.tell_council(1, 1, remove.clone());
        net.hosts[2].write_grant(given, newcomer);
        net.hosts[2].refresh();
        if early {
            assert!(told(&mut net, 2, 3), "it is in no hurry to be known");
        }
        let bars = net.hosts[1].bars();
        assert!(net.hosts[3].heed(&bars) && net.hosts[3].is_fenced(dead));
        assert_eq!(told(&mut net, 2, 3), early, "what is new is not taken");
        assert_eq!(net.hosts[3].owner(given.first()) == Owner::Peer(newcomer), early);
        if early {
            assert!(!told(&mut net, 3, 1), "it has not promised, nor said what it has heard");
            net.tell_council(3, 1, remove);
            assert!(told(&mut net, 3, 1), "now it has");
        }
    }
}

/// Found by reading: with a part of what a host wrote, its blocks seem larger than they are.
#[test]
fn who_was_told_a_part_of_what_somebody_wrote_takes_nothing_of_it_over() {
    let mut net = Net::settled(3);
    let dead = net.hosts[2].me();
    let more = net.hosts[2].store().own_counter() + 9;
    net.hosts[0].gaps.dots.insert(dead, more);
    let wish = net.hosts[0].wish_removal(&[dead].into(), None);
    confer(&mut net, &[0, 1], 5);
    assert_eq!(net.hosts[0].is_granted(wish), Some(false));
    let waits = net.around(|hosts, around| hosts[0].waits_for(wish, around));
    assert_eq!(waits.behind, BTreeSet::from([dead]), "its writes, that is");
    net.hosts[0].gaps.dots.clear();
    confer(&mut net, &[0, 1], 5);
    assert_eq!(net.hosts[0].is_granted(wish), Some(true));
}

/// It may be a removal.
#[test]
fn an_elector_that_knows_a_later_decree_does_not_count_before_that_is_heard_of() {
    let mut net = Net::settled(3);
    let dead = net.hosts[1].me();
    let wish = net.hosts[0].wish_removal(&[dead].into(), Some(net.now));
    net.away = [dead].into();
    net.drive_council(0);
    assert_eq!(net.hosts[0].is_granted(wish), Some(true));
    let bars = net.hosts[0].bars();
    assert!(!net.hosts[2].heed(&bars));
    net.gossip();
    assert!(net.hosts[2].heed(&bars));
}

#[test]
fn who_bars_for_long_and_may_not_propose_asks_for_the_next_decree() {
    let mut net = Net::settled(3);
    let dead = net.hosts[2].me();
    net.tell_council(1, 1, Body::Prepare { founders: 0, removing: [dead].into() });
    assert_eq!(net.hosts[1].plea(net.now), None);
    net.now = net.now + Duration::from_secs(20);
    let plea = net.hosts[1].plea(net.now).unwrap();
    net.hosts[1].reset_ring();
    assert_eq!(net.hosts[1].plea(net.now), None, "it is counted anew");
    net.now = net.now + Duration::from_secs(20);
    assert_eq!(net.hosts[1].plea(net.now).unwrap().epoch, plea.epoch, "though it has no ring");
    let epoch = net.hosts[0].epoch().number;
    net.tell_council(0, plea.ballot.round, plea.body);
    net.drive_council(0);
    assert_eq!(net.hosts[0].epoch().number, epoch + 1, "the only elector has decided");
}

#[test]
fn a_removal_by_force_waits_for_a_majority_but_not_for_who_is_silent() {
    let mut net = Net::settled(3);
    let (epoch, dead) = (net.hosts[0].epoch().number, net.hosts[2].me());
    let patient = net.hosts[0].wish_removal(&[dead].into(), None);
    net.drive_council(0);
    assert_eq!(net.hosts[0].is_granted(patient), Some(false), "the second has not answered");
    let alone_from = net.now + Duration::from_secs(3);
    net.hosts[0].wish_removal(&[dead].into(), Some(alone_from));
    net.drive_council(0);
    assert_eq!(net.hosts[0].is_granted(patient), Some(true), "the only elector agrees");
    assert_eq!(net.hosts[0].epoch().number, epoch + 1, "as if all had");
}

#[test]
fn a_removal_by_force_waits_for_no_majority_that_is_away_or_silent_for_long() {
    for away in [true, false] {
        let mut net = Net::settled(3);
        let [silent, dead] = [1, 2].map(|host| net.hosts[host].me());
        for _ in 0..3 {
            net.now = net.now + Duration::from_secs(2);
            net.drive_council(0);
        }
        assert_eq!(net.hosts[0].electors().len(), 3, "two of them would have to agree");
        let epoch = net.hosts[0].epoch().number;
        if away {
            net.away = [silent, dead].into();
        }
        let alone_from = net.now + Duration::from_secs(3);
        let wish = net.hosts[0].wish_removal(&[dead].into(), Some(alone_from));
        net.drive_council(0);
        assert_eq!(net.hosts[0].is_granted(wish), Some(away));
        net.now = alone_from;
        net.drive_council(0);
        assert_eq!(net.hosts[0].is_granted(wish), Some(true));
        assert!(net.hosts[0].epoch().number > epoch + 1, "a branch of its own begins");
    }
}

/// Whoever made the last decree may be making the next. Found by simulation.
#[test]
fn a_removal_by_force_waits_while_others_decide() {
    let mut net = Net::settled(3);
    let dead = net.hosts[2].me();
    for _ in 0..3 {
        net.now = net.now + Duration::from_secs(2);
        net.drive_council(0);
    }
    net.gossip();
    let begin = net.now;
    let after = |net: &mut Net, seconds| {
        net.now = begin + Duration::from_secs(seconds);
        net.drive_council(0);
        net.hosts[0].removal_of(dead).is_some()
    };
    net.hosts[0].wish_removal(&[dead].into(), Some(begin + Duration::from_secs(3)));
    assert!(!after(&mut net, 0) && !after(&mut net, 2));
    let added = block("10.99.0.0/20");
    net.hosts[1].wish_range(added).unwrap();
    // Its first attempt is overtaken by the first host's.
    for _ in 0..4 {
        net.now = net.now + Duration::from_millis(200);
        net.around(|hosts, around| {
            hosts[1].drive_council(around);
            for from in [1, 0, 1, 0, 1] {
                let me = hosts[from].me();
                hosts[from].promises_durable(hosts[from].promises().0);
                while let Some((to, message)) = hosts[from].poll_council() {
                    if let Some(to) = hosts[..2].iter_mut().find(|host| host.me() == to) {
                        to.handle_council(me, message, around);
                    }
                }
            }
        });
    }
    assert!(net.hosts[1].ranges().contains(&added), "two of three have agreed");
    net.gossip();
    assert!(!after(&mut net, 3), "they decided something just now");
    assert!(!after(&mut net, 4));
    assert!(after(&mut net, 5));
}

/// These hosts decide together for so long, and hear of no other's messages.
fn confer(net: &mut Net, among: &[usize], seconds: u64) {
    for _ in 0..2 * seconds {
        net.now = net.now + Duration::from_millis(500);
        net.around(|hosts, around| {
            for from in [among, among, among].concat() {
                let me = hosts[from].me();
                hosts[from].drive_council(around);
                hosts[from].promises_durable(hosts[from].promises().0);
                while let Some((to, message)) = hosts[from].poll_council() {
                    if let Some(to) = among.iter().find(|host| hosts[**host].me() == to) {
                        hosts[*to].handle_council(me, message, around);
                    }
                }
            }
        });
        net.gossip();
    }
}

/// Each had checked it before it heard of the other: one of them owned what the other gave out.
#[test]
fn of_two_ranges_that_overlap_and_are_added_at_once_one_is_added() {
    for (one, other) in [("10.99.0.0/16", "10.99.4.0/24"), ("10.99.4.0/24", "10.99.0.0/16")] {
        let mut net = Net::settled(3);
        confer(&mut net, &[0, 1, 2], 4);
        assert_eq!(net.hosts[0].electors().len(), 3);
        let wishes = [(0, block(one)), (1, block(other))];
        let wishes = wishes.map(|(host, range)| (host, net.hosts[host].wish_range(range).unwrap()));
        assert!(wishes.iter().all(|(host, wish)| net.hosts[*host].obstacle(*wish).is_none()));
        confer(&mut net, &[0, 1, 2], 10);
        let granted = wishes.map(|(host, wish)| net.hosts[host].is_granted(wish) == Some(true));
        let vain = wishes.map(|(host, wish)| net.hosts[host].obstacle(wish).is_some());
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
        assert_eq!(vain, granted.map(|granted| !granted));
        for host in &net.hosts {
            assert_eq!(host.ranges().len(), 2);
            let keys = host.store().iter().filter(|(key, _)| matches!(key, RingKey::Range(_)));
            assert_eq!(keys.count(), 2);
        }
        net.check();
    }
}

/// What it had promised may have led to a decree that somebody knows who is cut off: half a minute
/// later it is still so.
#[test]
fn who_lost_its_disk_votes_again_after_the_next_decree_and_not_before() {
    let mut net = Net::settled(3);
    confer(&mut net, &[0, 1, 2], 4);
    assert_eq!(net.hosts[0].electors().len(), 3);
    net.hosts[2].abstain();
    let wish = |net: &mut Net, range: &str| net.hosts[0].wish_range(block(range)).unwrap();
    let first = wish(&mut net, "10.99.0.0/16");
    confer(&mut net, &[0, 2], 60);
    assert_eq!(net.hosts[0].is_granted(first), Some(false));
    assert!(net.hosts[2].abstains());
    confer(&mut net, &[0, 1], 5);
    assert_eq!(net.hosts[0].is_granted(first), Some(true), "two that remember are a majority");
    confer(&mut net, &[0, 1, 2], 5);
    assert!(!net.hosts[2].abstains(), "what it had promised was about that decree");
    let second = wish(&mut net, "10.98.0.0/16");
    confer(&mut net, &[0, 2], 5);
    assert_eq!(net.hosts[0].is_granted(second), Some(true));

    // And when nobody wants anything else decided, a decree is made for that.
    net.hosts[2].abstain();
    let epoch = net.hosts[0].epoch().number;
    confer(&mut net, &[0, 1, 2], 20);
    assert!(net.hosts[2].abstains() && net.hosts[0].epoch().number == epoch);
    confer(&mut net, &[0, 1, 2], 20);
    assert!(!net.hosts[2].abstains() && net.hosts[0].epoch().number == epoch + 1);
}

/// It may have promised others not to. Whoever asked takes its vote for that of one who remembers.
#[test]
fn who_lost_its_disk_between_promising_and_accepting_is_asked_anew() {
    let mut net = Net::settled(2);
    confer(&mut net, &[0, 1], 4);
    assert_eq!(net.hosts[0].electors().len(), 2);
    let [first, second] = [0, 1].map(|host| net.hosts[host].me());
    let wish = net.hosts[0].wish_range(block("10.99.0.0/16")).unwrap();
    net.now = net.now + Duration::from_secs(1);
    let accept = net.around(|hosts, around| {
        hosts[0].drive_council(around);
        loop {
            hosts[0].promises_durable(hosts[0].promises().0);
            let (to, message) = hosts[0].poll_council().unwrap();
            let host = usize::from(to == second);
            if host == 1 && matches!(message.body, Body::Accept(_)) {
                return message;
            }
            hosts[host].handle_council(first, message, around);
            hosts[1].promises_durable(hosts[1].promises().0);
            while let Some((_, answer)) = hosts[1].poll_council() {
                hosts[0].handle_council(second, answer, around);
            }
        }
    });
    net.hosts[1].restore_promises(Default::default());
    net.hosts[1].abstain();
    net.around(|hosts, around| hosts[1].handle_council(first, accept.clone(), around));
    let (_, answer) = net.hosts[1].poll_council().unwrap();
    assert_eq!(answer.body, Body::Overtaken { by: accept.ballot });
    net.around(|hosts, around| hosts[0].handle_council(second, answer, around));
    confer(&mut net, &[0, 1], 5);
    assert_eq!(net.hosts[0].is_granted(wish), Some(true), "all electors have voted");
}

/// A decree that some peer made up.
fn made_up(after: u64, base: u64, writes: &[(RingKey, RingValue)]) -> Decree {
    decode(&encode(&(after, base, writes))).unwrap()
}

/// So many writes that the ring would take, each as long as it may be.
fn long_writes(count: u32) -> Vec<(RingKey, RingValue)> {
    let within = block("fd00::/16");
    let at_least = Version { epoch: 1 << 31, counter: 1 << 59, writer: peer(9) };
    let value = RingValue::Retired { within, at_least, epoch: 1 << 31 };
    let key = |n: u32| RingKey::Block(block(&format!("fd00:{:x}:{:x}::/48", n >> 16, n & 0xffff)));
    (0..count).map(|n| (key(n), value)).collect()
}

fn ids(count: usize) -> BTreeSet<PeerId> {
    let id = |n: usize| PeerId::new((n as u128 + 1).to_be_bytes());
    (0..count).map(id).collect()
}

/// What a host answers the first about the next decree.
fn answer(net: &mut Net, to: usize, round: u64, body: Body) -> Option<Body> {
    net.tell_council(to, round, body);
    let host = &mut net.hosts[to];
    host.promises_durable(host.promises().0);
    host.poll_council().map(|(_, message)| message.body)
}

#[test]
fn a_decree_with_counters_beyond_every_clock_is_not_accepted() {
    let mut net = Net::settled(2);
    let seat = RingValue::Elector { seated: true, epoch: 2 };
    let writes = [(RingKey::Elector(peer(1)), seat); 2];
    let mut accepts = |after, base, round| {
        let body = Body::Accept(made_up(after, base, &writes));
        answer(&mut net, 1, round, body) == Some(Body::Accepted)
    };
    assert!(!accepts(0, u64::MAX, 1));
    assert!(!accepts(u64::MAX - 1, u64::MAX - 1, 2));
    assert!(!accepts(0, COUNTER_MAX - 1, 3));
    assert!(!accepts(COUNTER_MAX, COUNTER_MAX - 2, 4), "it turns round");
    assert!(accepts(COUNTER_MAX - 2, COUNTER_MAX - 2, 5));
}

/// Else whoever hears it in a promise would propose it for ever.
#[test]
fn a_promise_that_tells_a_decree_that_cannot_be_is_not_listened_to() {
    let mut net = Net::settled(3);
    let [me, liar, dead] = [0, 1, 2].map(|host| net.hosts[host].me());
    let wish = net.hosts[0].wish_removal(&[dead].into(), None);
    net.drive_council(0);
    let before = net.hosts[0].epoch();
    let writes = [(RingKey::Epoch, RingValue::Epoch(Epoch { number: 2, ..before }))];
    let lie = (Ballot { round: 1, proposer: liar }, made_up(0, u64::MAX, &writes));
    for accepted in [Some(lie), None] {
        assert_eq!(net.hosts[0].is_granted(wish), Some(false));
        let (seen, members) = (Default::default(), BTreeSet::new());
        let body = Body::Promise { accepted, seen, members, abstains: false };
        let (epoch, branch) = (before.number + 1, Default::default());
        let ballot = Ballot { round: 1 << 32, proposer: me };
        let message = CouncilMessage { epoch, branch, ballot, body };
        net.around(|hosts, around| hosts[0].handle_council(liar, message, around));
        net.drive_council(0);
    }
    assert_eq!(net.hosts[0].is_granted(wish), Some(true), "it has all answers");
}

#[test]
fn a_decree_that_leaves_no_room_on_disk_for_what_else_is_promised_is_not_accepted() {
    let mut net = Net::settled(2);
    let longest = made_up(0, 100, &long_writes(6000));
    let bytes = encode(&longest).len();
    assert!((FRAME_BYTES_MAX * 2 / 5..FRAME_BYTES_MAX / 2).contains(&bytes), "{bytes}");
    let longer = made_up(0, 100, &long_writes(8000));
    assert_eq!(answer(&mut net, 1, 1, Body::Accept(longer)), None);
    assert_eq!(answer(&mut net, 1, 2, Body::Accept(longest)), Some(Body::Accepted));
    let removing = ids(ORIGINS_MAX);
    let promise = answer(&mut net, 1, 3, Body::Prepare { founders: 0, removing });
    assert!(matches!(promise, Some(Body::Promise { accepted: Some(_), .. })), "{promise:?}");
    let promises = net.hosts[1].promises().1.clone();
    assert_eq!(decode::<Acceptor>(&encode(&promises)).unwrap(), promises);
}

#[test]
fn nobody_bars_more_hosts_than_there_can_be() {
    let mut net = Net::settled(2);
    let asks = |net: &mut Net, round, count| {
        let body = Body::Prepare { founders: 0, removing: ids(count) };
        let promise = answer(net, 1, round, body);
        assert!(promise.is_none() || matches!(promise, Some(Body::Promise { .. })));
        promise.is_some()
    };
    assert!(!asks(&mut net, 1, ORIGINS_MAX + 1));
    assert!(!net.hosts[1].is_fenced(*ids(1).first().unwrap()), "nothing was promised");
    // Nor the same again and again.
    let most = ORIGINS_MAX / 4;
    let rounds: Vec<bool> = (2..8).map(|round| asks(&mut net, round, most)).collect();
    assert_eq!(rounds, [true, true, true, true, false, false]);
    assert!(asks(&mut net, 5, most), "this was promised before");
    assert!(asks(&mut net, 9, 0), "any decree ends it");
    net.tell_council(1, 3, Body::GivenUp);
    assert!(asks(&mut net, 10, most), "there is room again");
}
