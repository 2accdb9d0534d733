//! Routers with virtual time, real stores and links that can lose or hold frames.

use std::collections::{BTreeMap, VecDeque};

use super::super::*;
use crate::{
    Kind,
    store::{Register, Store, VersionVector},
};

/// Anything by number, written by one host each.
#[derive(Debug, Clone)]
pub(super) struct Blobs;

impl Register for Blobs {
    type Key = (PeerId, u32);
    type Value = Vec<u8>;

    const SINGLE_WRITER: bool = true;

    fn validate(origin: PeerId, key: &Self::Key, _: &Self::Value) -> Result<(), String> {
        if key.0 == origin { Ok(()) } else { Err("not its own".to_owned()) }
    }
}

/// Anything by number, written by all.
#[derive(Debug, Clone)]
pub(super) struct Shared;

impl Register for Shared {
    type Key = u32;
    type Value = u32;

    const SINGLE_WRITER: bool = false;

    fn validate(_: PeerId, _: &u32, _: &u32) -> Result<(), String> {
        Ok(())
    }
}

pub(super) fn peer(n: u8) -> PeerId {
    PeerId::new([n; 16])
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A router with its replicas, its open links (ours to theirs) and what came of it.
pub(super) struct Host {
    pub(super) router: Router,
    pub(super) ring: Store<Shared>,
    pub(super) zone: Store<Blobs>,
    pub(super) delivered: Vec<(PeerId, Vec<u8>)>,
    pub(super) closed: Vec<LinkId>,
    pub(super) dialled: Vec<SocketAddr>,
    pub(super) sent_bytes: usize,
}

impl Host {
    pub(super) fn new(n: u8) -> Self {
        Self {
            router: Router::new(peer(n), u64::from(n)),
            ring: Store::new(peer(n)),
            zone: Store::new(peer(n)),
            delivered: Vec::new(),
            closed: Vec::new(),
            dialled: Vec::new(),
            sent_bytes: 0,
        }
    }

    pub(super) fn write_ring(&mut self, number: u32) {
        self.ring.write(number, 7);
        self.ring.mark_durable(self.ring.own_counter());
    }

    pub(super) fn write(&mut self, number: u32, bytes: usize) {
        self.zone.write((self.router.me, number), vec![7; bytes]);
        self.zone.mark_durable(self.zone.own_counter());
    }
}

macro_rules! replicas {
    ($host:expr) => {
        Replicas { ring: &mut $host.ring, zone: &mut $host.zone }
    };
}

/// Hosts by number and the pairs of links between them.
pub(super) struct World {
    pub(super) hosts: BTreeMap<u8, Host>,
    /// The other end of each open end.
    pub(super) ends: BTreeMap<(u8, LinkId), (u8, LinkId)>,
    pub(super) wire: VecDeque<(u8, LinkId, Vec<u8>)>,
    pub(super) now: Time,
    pub(super) links: u64,
    /// How many of the next deltas are lost.
    pub(super) lose_deltas: usize,
    /// That somebody is not settled is not told.
    pub(super) lose_unsettled: bool,
    /// Who gets no deltas.
    pub(super) deaf: Option<u8>,
    /// Deltas of the ring that were sent: from whom to whom.
    pub(super) ring_deltas: Vec<(u8, u8)>,
    /// Whether bytes that were given to a link are reported as sent.
    pub(super) reports_sent: bool,
}

impl World {
    /// Settled hosts that describe themselves.
    pub(super) fn new(numbers: &[u8]) -> Self {
        let mut world = Self::unsettled(numbers);
        for n in numbers {
            world.settle(*n);
        }
        world.run(Duration::ZERO);
        world
    }

    /// The same with links between these, after a while.
    pub(super) fn linked(numbers: &[u8], pairs: &[(u8, u8)]) -> Self {
        let mut world = Self::new(numbers);
        pairs.iter().for_each(|(dialler, other)| world.link(*dialler, *other));
        world.run(secs(3));
        world
    }

    pub(super) fn unsettled(numbers: &[u8]) -> Self {
        Self {
            hosts: numbers.iter().map(|n| (*n, Host::new(*n))).collect(),
            ends: BTreeMap::new(),
            wire: VecDeque::new(),
            now: Time::from_micros(1),
            links: 0,
            lose_deltas: 0,
            lose_unsettled: false,
            deaf: None,
            ring_deltas: Vec::new(),
            reports_sent: true,
        }
    }

    pub(super) fn settle(&mut self, n: u8) {
        let host = self.hosts.get_mut(&n).unwrap();
        host.router.settle(self.now);
        let (name, endpoints) = (format!("host{n}"), vec![address(n)]);
        host.router.describe(Info { name, endpoints, incarnation: 1, left: false });
    }

    pub(super) fn host(&mut self, n: u8) -> &mut Host {
        self.hosts.get_mut(&n).unwrap()
    }

    pub(super) fn up(&self, link: LinkId, other: u8, dialled: bool, incarnation: u64) -> LinkUp {
        let remote = address(other);
        let dialled = dialled.then_some(remote);
        LinkUp { link, peer: peer(other), incarnation, remote, dialled }
    }

    /// Two ends of a link that `dialler` dialled, not yet told to anybody.
    pub(super) fn ends(&mut self, dialler: u8, other: u8) -> [(u8, LinkUp); 2] {
        self.links += 2;
        let [a, b] = [LinkId(self.links), LinkId(self.links + 1)];
        self.ends.insert((dialler, a), (other, b));
        self.ends.insert((other, b), (dialler, a));
        [(dialler, self.up(a, other, true, 1)), (other, self.up(b, dialler, false, 1))]
    }

    pub(super) fn tell(&mut self, (n, up): (u8, LinkUp)) {
        let now = self.now;
        let host = self.host(n);
        host.router.link_up(up, None, &replicas!(host), now);
        self.collect(n);
    }

    pub(super) fn link(&mut self, dialler: u8, other: u8) {
        for end in self.ends(dialler, other) {
            self.tell(end);
        }
    }

    /// Cuts every link between two hosts without telling them.
    pub(super) fn cut(&mut self, a: u8, b: u8) {
        self.ends.retain(|(from, _), (to, _)| !(*from == a && *to == b || *from == b && *to == a));
    }

    pub(super) fn collect(&mut self, n: u8) {
        // Longer than what others wrote waits to be passed on.
        self.now = self.now + Duration::from_millis(1);
        let now = self.now;
        let host = self.hosts.get_mut(&n).unwrap();
        let members = host.router.members_mut();
        members.mark_durable(members.own_counter());
        host.router.pump(&replicas!(host), now);
        while let Some(effect) = host.router.poll_effect() {
            match effect {
                Effect::Send { link, bytes, .. } => {
                    host.sent_bytes += bytes.len();
                    if self.reports_sent {
                        host.router.sent(link, bytes.len());
                    }
                    let frame = Frame::decode(&bytes);
                    if self.lose_unsettled && matches!(frame, Ok(Frame::Unsettled { .. })) {
                        continue;
                    }
                    let delta = matches!(frame, Ok(Frame::Delta { .. }));
                    if let (Ok(Frame::Delta { kind: Kind::Ring, .. }), Some((to, _))) =
                        (frame, self.ends.get(&(n, link)))
                    {
                        self.ring_deltas.push((n, *to));
                    }
                    if delta && self.lose_deltas > 0 {
                        self.lose_deltas -= 1;
                    } else if let Some((to, end)) = self.ends.get(&(n, link))
                        && !(delta && self.deaf == Some(*to))
                    {
                        self.wire.push_back((*to, *end, bytes));
                    }
                }
                Effect::Close { link, .. } => {
                    host.closed.push(link);
                    if let Some((to, end)) = self.ends.remove(&(n, link)) {
                        self.ends.remove(&(to, end));
                        self.wire.push_back((to, end, Vec::new()));
                    }
                }
                Effect::Deliver { from, payload } => host.delivered.push((from, payload)),
                Effect::Dial(target) => host.dialled.push(target),
                Effect::Behind { .. } | Effect::Notice { .. } => {}
            }
            if host.router.pump_due() {
                host.router.pump(&replicas!(host), now);
            }
        }
    }

    /// Delivers all frames until there are none; an empty one is the end of its link.
    pub(super) fn deliver(&mut self) {
        for n in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.collect(n);
        }
        while let Some((n, link, bytes)) = self.wire.pop_front() {
            let now = self.now;
            let host = self.host(n);
            if bytes.is_empty() {
                host.router.link_down(link, "closed by the other side", now);
            } else {
                host.router.on_frame(link, &bytes, &mut replicas!(host), now);
            }
            self.collect(n);
        }
    }

    /// Lets the time pass, waking whoever wants to be woken.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            for n in self.hosts.keys().copied().collect::<Vec<_>>() {
                let now = self.now;
                let host = self.host(n);
                host.router.timeout(&replicas!(host), now);
                let next = host.router.poll_timeout();
                assert!(next.is_none_or(|at| at > now), "host {n} wants to be woken at once again");
            }
            self.deliver();
            let next = self.hosts.values().filter_map(|host| host.router.poll_timeout()).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = at.max(self.now + Duration::from_micros(1)),
                None => break,
            }
        }
        self.now = self.now.max(end);
    }

    pub(super) fn vectors(&self, n: u8) -> [VersionVector; 3] {
        let host = &self.hosts[&n];
        [host.router.members().announced(), host.ring.announced(), host.zone.announced()]
    }

    pub(super) fn assert_equal(&self, why: &str) {
        let first = *self.hosts.keys().next().unwrap();
        for n in self.hosts.keys() {
            assert_eq!(
                self.vectors(*n),
                self.vectors(first),
                "{why}: hosts {first} and {n} differ"
            );
        }
    }
}

pub(super) fn address(n: u8) -> SocketAddr {
    format!("192.0.2.{n}:7780").parse().unwrap()
}
