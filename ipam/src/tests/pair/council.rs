//! What hosts decide together, and space meanwhile.

use super::*;

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

#[test]
fn who_bars_for_long_and_may_not_propose_asks_for_the_next_decree() {
    let mut net = Net::settled(3);
    let dead = net.hosts[2].me();
    net.tell_council(1, 1, Body::Prepare { founders: 0, removing: [dead].into() });
    assert_eq!(net.hosts[1].plea(net.now), None);
    net.now = net.now + Duration::from_secs(20);
    let plea = net.hosts[1].plea(net.now).unwrap();
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
