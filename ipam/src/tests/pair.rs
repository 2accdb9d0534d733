//! Space between hosts: virtual time, messages that get lost, doubled, delayed and reordered.

use std::{collections::BTreeSet, time::Duration};

use mesh_router::{PeerId, Time, store::Cursor};

use super::{address, block, holder, peer};
use crate::{
    AllocateError, Block, GiveError, Ipam, Owner, RingKey, RingValue, SpaceMessage, SpaceRefusal,
    SpaceRequest, Wanted,
    council::{
        Surroundings,
        message::{Ballot, Body, CouncilMessage},
    },
    space::chunk_length,
};

mod council;
mod shortage;

/// Hosts that hear each other at once, but for what a test takes away.
struct Net {
    now: Time,
    hosts: Vec<Ipam>,
    /// Whom the council cannot reach.
    away: BTreeSet<PeerId>,
}

impl Net {
    fn new(hosts: u8, ranges: &[&str]) -> Self {
        let mut hosts: Vec<Ipam> = (1..=hosts).map(|number| Ipam::new(peer(number))).collect();
        let ranges: Vec<Block> = ranges.iter().map(|range| block(range)).collect();
        hosts[0].found(&ranges).unwrap();
        let all: BTreeSet<PeerId> = hosts.iter().map(Ipam::me).collect();
        for host in &mut hosts {
            let me = host.me();
            host.set_reachable(all.iter().copied().filter(|peer| *peer != me).collect());
        }
        Self { now: Time::from_micros(1), hosts, away: BTreeSet::new() }
    }

    /// Hosts that have come to rest.
    fn settled(hosts: u8) -> Self {
        let mut net = Self::new(hosts, &["10.32.0.0/12"]);
        net.gossip();
        net.settle();
        net
    }

    fn at(&self, id: PeerId) -> usize {
        self.hosts.iter().position(|host| host.me() == id).unwrap()
    }

    /// What is on disk is gossiped; returns whether anything was news.
    fn gossip(&mut self) -> bool {
        let mut news = false;
        for from in 0..self.hosts.len() {
            self.persist(from);
            for to in 0..self.hosts.len() {
                let since = Cursor::at(self.hosts[to].store().announced());
                let delta = self.hosts[from].store().delta(&since, |_| true, usize::MAX);
                if from != to && !delta.bytes.is_empty() {
                    news = true;
                    assert!(self.hosts[to].absorb(&delta.bytes).unwrap());
                }
            }
        }
        news
    }

    fn around<T>(&mut self, with: impl FnOnce(&mut [Ipam], &Surroundings<'_>) -> T) -> T {
        let members: BTreeSet<PeerId> = self.hosts.iter().map(Ipam::me).collect();
        let away = |peer: &&PeerId| !self.away.contains(peer);
        let reachable = members.iter().filter(away).copied().collect();
        let around = Surroundings {
            now: self.now,
            members: &members,
            reachable: &reachable,
            long_away: &BTreeSet::new(),
            dice: 0,
        };
        with(&mut self.hosts, &around)
    }

    /// The first host says this to another about the next decree.
    fn tell_council(&mut self, to: usize, round: u64, body: Body) {
        let (proposer, epoch) = (self.hosts[0].me(), self.hosts[to].epoch().number + 1);
        let ballot = Ballot { round, proposer };
        let message = CouncilMessage { epoch, branch: Default::default(), ballot, body };
        self.around(|hosts, around| hosts[to].handle_council(proposer, message, around));
    }

    /// What a host says to itself about what is to be decided is heard.
    fn drive_council(&mut self, host: usize) {
        self.around(|hosts, around| {
            let host = &mut hosts[host];
            let me = host.me();
            host.drive_council(around);
            host.promises_durable(host.promises().0);
            while let Some((to, message)) = host.poll_council() {
                if to == me {
                    host.handle_council(me, message, around);
                    host.promises_durable(host.promises().0);
                }
            }
        });
    }

    fn persist(&mut self, host: usize) {
        let store = self.hosts[host].store_mut();
        store.mark_durable(store.own_counter());
        store.drain_changes();
    }

    fn messages(&mut self, from: usize) -> Vec<(PeerId, SpaceMessage)> {
        let host = &mut self.hosts[from];
        if host.poll_timeout().is_some_and(|due| due <= self.now) {
            host.handle_timeout(self.now);
        }
        std::iter::from_fn(|| host.poll_message()).collect()
    }

    /// Lets everything happen that happens without waiting.
    fn settle(&mut self) {
        for _ in 0..100 {
            let mut busy = self.gossip();
            for from in 0..self.hosts.len() {
                for (to, message) in self.messages(from) {
                    busy = true;
                    let (id, to) = (self.hosts[from].me(), self.at(to));
                    self.hosts[to].handle_message(id, message, self.now);
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the hosts do not come to rest");
    }

    /// One host's time passes and nobody hears it.
    fn settle_alone(&mut self, host: usize) {
        self.persist(host);
        self.messages(host);
    }

    fn any(&mut self, host: usize, name: usize, range: &str) -> Result<(), AllocateError> {
        self.hosts[host].allocate(&holder(name), Wanted::Any(block(range)), self.now).map(|_| ())
    }

    /// Every address has one owner, the same in all copies.
    fn check(&self) {
        for host in &self.hosts {
            host.check_invariants();
            assert_eq!(host.conflicts(), []);
            assert_eq!(host.routes(), self.hosts[0].routes());
        }
        let total: u64 = self.hosts.iter().map(|host| host.owned_by(host.me())).sum();
        let ranges = self.hosts[0].ranges().iter().filter(|range| range.first().is_ipv4());
        assert_eq!(u128::from(total), ranges.map(Block::size).sum::<u128>());
    }
}

#[test]
fn a_joiner_gets_a_chunk_of_each_range_before_anybody_asks() {
    let mut net = Net::new(3, &["10.32.0.0/12", "fd00:6d65::/48"]);
    net.settle();
    for host in 1..3 {
        let blocks = net.hosts[host].owned_blocks();
        assert_eq!(blocks.iter().map(Block::length).collect::<Vec<_>>(), [20, 64]);
        net.any(host, 1, "10.32.0.0/12").unwrap();
        net.any(host, 1, "fd00:6d65::/48").unwrap();
        assert_eq!(net.hosts[host].waiting_for(), []);
    }
    assert_eq!(net.hosts[2].entries(), 6);
    assert_eq!(net.hosts[2].routes().len(), 6);
    net.check();
}

#[test]
fn more_is_asked_for_when_a_quarter_of_a_chunk_is_left() {
    let mut net = Net::new(2, &["10.0.0.0/16"]);
    net.settle();
    assert_eq!(net.hosts[1].owned_by(peer(2)), 256);
    // One of them is the range's last and of no use.
    for name in 0..192 {
        assert_eq!(net.hosts[1].owned_by(peer(2)), 256, "at {name}");
        net.any(1, name, "10.0.0.0/16").unwrap();
        net.settle();
    }
    assert_eq!(net.hosts[1].owned_by(peer(2)), 512);
    net.check();
}

#[test]
fn a_repeated_request_is_answered_with_the_same_grant_also_after_a_restart() {
    let mut net = Net::new(2, &["10.0.0.0/16"]);
    net.gossip();
    let requests = net.messages(1);
    let [(_, request)] = &requests[..] else { panic!("{requests:?}") };
    net.hosts[0].handle_message(peer(2), request.clone(), net.now);
    assert_eq!(net.hosts[0].poll_message(), None, "the grant is not durable yet");
    net.persist(0);
    let (_, answer) = net.hosts[0].poll_message().unwrap();
    net.hosts[0].handle_message(peer(2), request.clone(), net.now);
    assert_eq!(net.hosts[0].poll_message().unwrap().1, answer);

    let mut restarted = Ipam::new(peer(1));
    for (key, entry) in net.hosts[0].store().iter() {
        restarted.store_mut().restore_entry(*key, entry.clone()).unwrap();
    }
    restarted.refresh();
    restarted.handle_message(peer(2), request.clone(), net.now);
    assert_eq!(restarted.poll_message().unwrap().1, answer);
    assert_eq!(restarted.owned_by(peer(2)), 256);

    // The grant is gone from the ring when its receiver has passed it on as a part of more.
    net.settle();
    let granted = net.hosts[1].owned_blocks()[0];
    net.hosts[1].write_grant(granted, peer(1));
    net.hosts[1].refresh();
    net.gossip();
    net.hosts[0].handle_message(peer(2), request.clone(), net.now);
    let stale = net.hosts[0].poll_message().unwrap().1;
    let SpaceMessage::Refused { reason, .. } = stale else { panic!("{stale:?}") };
    assert_eq!(reason, SpaceRefusal::Stale);
    assert_eq!(net.hosts[0].owned_by(peer(2)), 0);
}

#[test]
fn a_silent_donor_is_left_for_the_next_after_a_second() {
    let mut net = Net::new(3, &["10.0.0.0/16"]);
    net.settle();
    let now = net.now;
    net.hosts[1].want(block("10.0.0.0/16"), now);
    let joiner = Ipam::new(peer(4));
    net.hosts.push(joiner);
    net.hosts[3].set_reachable([1, 2].map(peer).into());
    net.gossip();
    let first = net.messages(3);
    assert_eq!(first[0].0, peer(1), "who owns most is asked first");
    assert_eq!(net.messages(3), []);
    net.now = net.now + Duration::from_secs(1);
    let second = net.messages(3);
    assert_eq!(second[0].0, peer(2));
    let waiting = net.hosts[3].waiting_for();
    assert_eq!(waiting[0].refused, Some((peer(1), SpaceRefusal::Silent)));
    assert!(waiting[0].to_string().contains("asked peer 02020202"), "{}", waiting[0]);
    // The third is not reachable: a pause, then from the start.
    net.now = net.now + Duration::from_secs(1);
    assert_eq!(net.messages(3), []);
    net.now = net.now + Duration::from_secs(1);
    assert_eq!(net.messages(3)[0].0, peer(1));
    // A late answer to the first request changes nothing that the ring does not say.
    let late = SpaceMessage::Granted { id: 1, block: block("10.0.0.0/24"), free: 0 };
    net.hosts[3].handle_message(peer(1), late, net.now);
    assert_eq!(net.hosts[3].owned_blocks(), []);
}

#[test]
fn a_donor_never_gives_an_address_in_use_and_keeps_half() {
    let mut net = Net::new(2, &["10.9.0.0/24"]);
    for name in 0..200 {
        net.any(0, name, "10.9.0.0/24").unwrap();
    }
    net.settle();
    let blocks = net.hosts[1].owned_blocks();
    assert_eq!(blocks, [block("10.9.0.240/28")]);
    for name in 200..238 {
        net.any(0, name, "10.9.0.0/24").unwrap();
    }
    net.settle();
    net.check();
}

#[test]
fn the_last_addresses_wander_to_where_they_are_needed_until_none_is_left() {
    let mut net = Net::new(3, &["10.9.0.0/27"]);
    net.settle();
    let mut given = 0;
    for round in 0..200 {
        match net.any(2, round, "10.9.0.0/27") {
            Ok(()) => given += 1,
            Err(AllocateError::NoSpace { .. }) => {}
            Err(AllocateError::Exhausted(_)) => break,
            Err(error) => panic!("{error}"),
        }
        net.settle();
        net.now = net.now + Duration::from_millis(500);
        net.check();
    }
    assert_eq!(given, 30, "all but the first and the last");
    assert_eq!(
        net.any(2, 999, "10.9.0.0/27"),
        Err(AllocateError::Exhausted(vec![block("10.9.0.0/27")]))
    );
    net.hosts[2].release(&holder(0), &[], net.now);
    net.any(2, 999, "10.9.0.0/27").unwrap();
}

#[test]
fn an_exact_address_comes_from_its_owner_or_is_refused_with_its_holder() {
    let mut net = Net::new(2, &["10.9.0.0/24"]);
    net.settle();
    let (free, taken) = (address("10.9.0.77"), address("10.9.0.1"));
    net.any(0, 1, "10.9.0.0/24").unwrap();
    for wanted in [free, taken] {
        let error =
            net.hosts[1].allocate(&holder("x"), Wanted::Exact(wanted), net.now).unwrap_err();
        assert_eq!(
            error,
            AllocateError::Elsewhere { address: wanted, owner: peer(1), refused: None }
        );
        assert!(net.hosts[1].want_exact(wanted));
    }
    net.settle();
    assert_eq!(net.hosts[1].allocate(&holder("x"), Wanted::Exact(free), net.now), Ok(free));
    let refused = net.hosts[1].allocate(&holder("x"), Wanted::Exact(taken), net.now).unwrap_err();
    assert!(refused.to_string().contains("held there by 1/eth0"), "{refused}");
    net.check();
    // Asked anew after the release, it is given.
    net.hosts[0].release(&holder(1), &[], net.now);
    assert!(net.hosts[1].want_exact(taken));
    net.settle();
    assert_eq!(net.hosts[1].allocate(&holder("y"), Wanted::Exact(taken), net.now), Ok(taken));
    // Refusals and claims are forgotten in the end: nothing stays to be done.
    net.now = net.now + Duration::from_secs(60);
    net.settle();
    assert_eq!(net.hosts[1].poll_timeout(), None);
    net.check();
}

#[test]
fn an_address_that_was_claimed_is_set_aside_for_the_claim() {
    let mut net = Net::new(2, &["10.9.0.0/27"]);
    net.settle();
    let wanted = address("10.9.0.9");
    assert!(net.hosts[1].want_exact(wanted));
    net.settle();
    assert_eq!(net.hosts[1].owner(wanted), Owner::Peer(peer(2)));
    while net.any(1, net.hosts[1].held_len(), "10.9.0.0/27").is_ok() {}
    assert_eq!(net.hosts[1].allocate(&holder("vip"), Wanted::Exact(wanted), net.now), Ok(wanted));
}

#[test]
fn an_address_that_nobody_claims_any_more_is_like_any_other() {
    let mut net = Net::new(2, &["10.9.0.0/27"]);
    net.settle();
    let wanted = address("10.9.0.9");
    assert!(net.hosts[1].want_exact(wanted));
    net.settle();
    while net.any(1, net.hosts[1].held_len(), "10.9.0.0/27").is_ok() {}
    assert_eq!(net.hosts[1].holder_of(wanted), None);
    net.hosts[1].forget_wish(wanted);
    net.any(1, 1000, "10.9.0.0/27").unwrap();
    assert_eq!(net.hosts[1].holder_of(wanted), Some(&holder(1000)));
}

#[test]
fn who_leaves_gives_all_it_owns_and_only_when_nothing_is_held() {
    let mut net = Net::new(3, &["10.9.0.0/24", "fd00::/48"]);
    net.settle();
    net.any(1, 1, "10.9.0.0/24").unwrap();
    assert!(matches!(net.hosts[1].give_all(peer(3)), Err(GiveError::Held { count: 1, .. })));
    net.hosts[1].release(&holder(1), &[], net.now);
    assert_eq!(net.hosts[1].give_all(peer(2)), Err(GiveError::Oneself));
    let given = net.hosts[1].give_all(peer(3)).unwrap();
    assert_eq!(given.len(), 2);
    net.settle();
    assert_eq!(net.hosts[1].owned_blocks(), []);
    assert_eq!(net.any(1, 1, "10.9.0.0/24"), Err(AllocateError::Leaving));
    assert_eq!(net.hosts[0].owned_by(peer(3)), 32);
    assert_eq!(net.hosts[1].poll_timeout(), None);
    net.check();
}

#[test]
fn a_range_that_is_another_hosts_block_has_one_route() {
    let mut net = Net::new(2, &["10.9.0.0/24"]);
    net.settle();
    net.hosts[0].give_all(peer(2)).unwrap();
    net.settle();
    net.hosts[1].tidy();
    net.settle();
    for host in &net.hosts {
        assert_eq!(host.routes(), [(block("10.9.0.0/24"), peer(2))], "not its writer's");
    }
    net.check();
}

#[test]
fn a_block_that_others_hide_is_said_to_be_whose_its_beginning_is() {
    let mut net = Net::new(3, &["10.9.0.0/24"]);
    net.settle();
    let taken: Vec<_> = net.hosts[0].inside(&block("10.9.0.0/24"));
    assert_eq!(taken, [(block("10.9.0.224/28"), 0), (block("10.9.0.240/28"), 0)]);
    for (part, owner) in [("10.9.0.0/25", 2), ("10.9.0.128/26", 3), ("10.9.0.192/27", 2)] {
        net.hosts[0].write_grant(block(part), peer(owner));
        net.hosts[0].refresh();
    }
    net.settle();
    let owners = |host: &Ipam| -> Vec<_> {
        (0..=255).map(|n| host.owner(format!("10.9.0.{n}").parse().unwrap())).collect()
    };
    let before = owners(&net.hosts[0]);
    assert_eq!(net.hosts[0].entries(), 6, "the range's own says nothing");
    for host in [0, 1, 2, 1] {
        net.hosts[host].tidy();
        net.settle();
    }
    for host in &net.hosts {
        assert_eq!(owners(host), before);
        let all = host.store().get(&RingKey::Block(block("10.9.0.0/24"))).unwrap();
        assert_eq!(all.value, RingValue::Owned { owner: peer(2), epoch: 0 });
        assert_eq!(host.entries(), 4, "{:?}", host.routes());
    }
    net.check();
}

#[test]
fn what_comes_back_is_merged_and_retired() {
    let mut net = Net::new(2, &["10.9.0.0/24"]);
    net.settle();
    assert_eq!(net.hosts[0].entries(), 2);
    net.hosts[1].give_all(peer(1)).unwrap();
    net.settle();
    for host in &net.hosts {
        assert_eq!(host.entries(), 1, "the block around says the same");
        assert_eq!(host.routes(), [(block("10.9.0.0/24"), peer(1))]);
        let retired = |value| matches!(value, RingValue::Retired { .. });
        assert!(host.store().iter().any(|(_, entry)| retired(entry.value)));
    }
    net.check();
}

#[test]
fn chunks_are_scaled_to_their_range() {
    let lengths = |texts: &[&str]| -> Vec<u8> {
        texts.iter().map(|text| chunk_length(&block(text), 9)).collect()
    };
    let v4 = lengths(&["10.0.0.0/8", "10.32.0.0/12", "10.9.0.0/24", "10.9.0.0/28", "10.9.0.0/29"]);
    assert_eq!(v4, [16, 20, 28, 30, 31]);
    let v6 = lengths(&["fd00::/32", "fd00::/48", "fd00::/56", "fd00::/64", "fd00::/120"]);
    assert_eq!(v6, [48, 64, 64, 72, 124]);
    let of_hosts = |owners| chunk_length(&block("10.32.0.0/16"), owners);
    assert_eq!([0, 1, 64, 65, 500, 1000].map(of_hosts), [24, 24, 24, 25, 27, 28]);
    assert_eq!(chunk_length(&block("fd00::/64"), 1000), 76);

    let net = Net::new(3, &["10.9.0.0/29"]);
    assert_eq!(net.hosts[0].low_water(&block("10.9.0.0/29")), 1);
}

#[test]
fn space_in_a_part_of_a_range_is_asked_of_its_owner_and_shared() {
    let mut net = Net::new(3, &["10.0.0.0/16"]);
    net.settle();
    let part = "10.0.1.0/24";
    for name in 0..40 {
        for host in [1, 2] {
            net.settle();
            if net.any(host, name, part).is_err() {
                net.settle();
                net.any(host, name, part).unwrap();
            }
        }
    }
    for host in &net.hosts[1..] {
        assert!(host.held().filter(|(held, _)| block(part).contains(*held)).count() == 40);
    }
    net.check();
    // Only the part moved: the owner keeps what lies around it.
    assert_eq!(net.hosts[0].owner(address("10.0.0.9")), Owner::Peer(peer(1)));
    assert_eq!(net.hosts[0].owner(address("10.0.2.9")), Owner::Peer(peer(1)));
    // What nobody wants any more is not asked for any more.
    net.now = net.now + Duration::from_secs(300);
    net.settle();
    net.now = net.now + Duration::from_secs(300);
    net.settle();
    for host in &net.hosts {
        let parts = host.waiting_for().into_iter().filter(
            |waiting| matches!(waiting.wanted, Wanted::Any(wanted) if wanted == block(part)),
        );
        assert_eq!(parts.count(), 0, "{:?}", host.waiting_for());
    }
}

#[test]
fn peers_are_asked_before_an_address_that_rests_is_used_again() {
    let mut net = Net::new(2, &["10.0.0.0/24"]);
    net.settle();
    let range = block("10.0.0.0/24");
    let mine = u64::try_from(net.hosts[1].free_in(&range)).unwrap();
    let until = net.now + Duration::from_secs(60);
    for name in 0..usize::try_from(mine).unwrap() {
        net.any(1, name, "10.0.0.0/24").unwrap();
        net.hosts[1].release(&holder(name), &[], until);
    }
    let rested: BTreeSet<_> =
        (0..256u32).map(|n| format!("10.0.0.{n}")).map(|a| address(&a)).collect();
    let resting = |net: &Net| {
        rested
            .iter()
            .filter(|a| net.hosts[1].former(&holders(mine), &Block::single(**a)).is_some())
            .count()
    };
    let before = resting(&net);
    assert!(before > 0);
    net.settle();
    net.any(1, 1000, "10.0.0.0/24").unwrap();
    assert_eq!(resting(&net), before, "there was space elsewhere");
    // Alone, it takes what it has.
    net.hosts[1].set_reachable(BTreeSet::new());
    let mut taken = 0;
    for name in 2000..2256 {
        if net.any(1, name, "10.0.0.0/24").is_err() {
            net.now = net.now + Duration::from_secs(2);
            net.settle_alone(1);
            if net.any(1, name, "10.0.0.0/24").is_err() {
                break;
            }
        }
        taken += 1;
    }
    assert!(taken > 0);
    assert_eq!(resting(&net), 0, "being out of addresses is worse");
}

fn holders(count: u64) -> Vec<crate::Holder> {
    (0..count).map(holder).collect()
}

#[test]
fn whoever_leaves_knows_who_may_still_give_it_something() {
    let mut net = Net::new(3, &["10.32.0.0/12"]);
    net.gossip();
    let requests = net.messages(1);
    assert!(!requests.is_empty(), "it asks before anybody wants an address");
    assert!(!net.messages(2).is_empty());
    net.hosts[1].begin_leaving();
    net.hosts[2].begin_leaving();
    let may_give = |host: &Ipam| host.may_give().collect::<Vec<_>>();
    assert_eq!(may_give(&net.hosts[1]), [peer(1)]);

    for (to, request) in requests {
        let (to, from) = (net.at(to), net.hosts[1].me());
        net.hosts[to].handle_message(from, request, net.now);
    }
    net.settle();
    assert_eq!(may_give(&net.hosts[1]), []);
    assert!(!net.hosts[1].owned_blocks().is_empty(), "it came, and can be handed on");
    net.hosts[1].give_all(peer(1)).unwrap();

    // The other's request was lost: nobody says so, and nobody else is asked.
    net.now = net.now + Duration::from_secs(60);
    assert!(net.messages(2).is_empty());
    assert_eq!(may_give(&net.hosts[2]), [peer(1)]);
    net.hosts[2].stay();
    net.settle();
    assert_eq!(may_give(&net.hosts[2]), []);
    assert_eq!(net.hosts[2].owned_by(peer(3)), 1 << 12);
    net.check();
}

/// What rests does not keep a host from asking: two passed addresses to and fro hundreds of times a
/// second.
#[test]
fn a_host_whose_addresses_rest_gives_none_to_one_that_is_not_in_need() {
    let mut net = Net::new(2, &["10.32.0.0/26"]);
    net.gossip();
    let range = block("10.32.0.0/26");
    // All but what it would ask for more at.
    let held = 0..62 - net.hosts[0].low_water(&range);
    for number in held.clone() {
        net.hosts[0].allocate(&holder(number), Wanted::Any(range), net.now).unwrap();
    }
    for number in held {
        net.hosts[0].release(&holder(number), &[], net.now + Duration::from_secs(60));
    }
    let ask = |net: &mut Net, id, urgent| {
        let (address, seen, own) = (None, net.hosts[0].store().own_counter(), 0);
        let request = SpaceRequest { id, range, address, seen, own, urgent, held_by: None };
        net.hosts[0].handle_message(peer(2), SpaceMessage::Request(request), net.now);
        net.persist(0);
        let mut messages = net.messages(0).into_iter().map(|(_, message)| message);
        messages.find(|one| !matches!(one, SpaceMessage::Request(_))).unwrap()
    };
    let reason = SpaceRefusal::NothingFree;
    let free = u64::try_from(net.hosts[0].free_in(&range)).unwrap();
    assert_eq!(ask(&mut net, 1, false), SpaceMessage::Refused { id: 1, reason, free });
    assert!(matches!(ask(&mut net, 2, true), SpaceMessage::Granted { .. }));
}

#[test]
fn a_donor_whose_grant_is_not_durable_answers_no_later_request() {
    let mut net = Net::new(2, &["10.32.0.0/12"]);
    net.gossip();
    let at = [address("10.32.0.9"), address("10.32.0.10")];
    net.hosts[0].allocate(&holder(1), Wanted::Exact(at[1]), net.now).unwrap();
    assert!(net.hosts[1].want_exact(at[0]));
    let deliver = |net: &mut Net| {
        for (_, request) in net.messages(1) {
            net.hosts[0].handle_message(peer(2), request, net.now);
        }
    };
    deliver(&mut net);
    assert!(net.hosts[1].want_exact(at[1]), "it is held there, so this one is refused");
    deliver(&mut net);
    assert!(net.messages(0).is_empty(), "its disk is full");
    net.hosts[1].begin_leaving();
    assert_eq!(net.hosts[1].may_give().collect::<Vec<_>>(), [peer(1)]);

    net.settle();
    assert_eq!(net.hosts[1].may_give().count(), 0, "all that was granted has come");
    assert!(net.hosts[1].owned_by(peer(2)) > 0);
    net.check();
}
