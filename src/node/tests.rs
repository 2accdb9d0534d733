//! One host, driven by hand: its disk and kernel answer only when the test says so.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;

use mesh_ipam::{RingKey, RingValue};
use mesh_router::{Kind, MeshId, Replica, frame::Frame, store::Cursor};

use super::{
    event::{Disk, LinkId, LinkUp, Secret, Table, Write},
    request::{JoinTarget, Reply},
    *,
};
use crate::api::types::AttachRequest;

/// A node, what its disk holds, and what it wants done.
struct Host {
    node: Node,
    disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    batches: VecDeque<(BatchId, Vec<Write>)>,
    kernel: VecDeque<Input>,
    replies: BTreeMap<u64, Result<Reply, Refusal>>,
    closed: Vec<LinkId>,
    sent: Vec<Vec<u8>>,
    now: Time,
    asked: u64,
}

mod addresses;
mod joining;
mod leaving;

fn config() -> NodeConfig {
    NodeConfig {
        me: PeerId::new([1; 16]),
        name: "one".into(),
        incarnation: 1,
        seed: 1,
        domain: Name::parse("mesh.internal").unwrap(),
        bridge: "mesh0".into(),
        data_port: 4789,
        mtu_bytes: None,
        lease: None,
        serve_alone: false,
        rest: Duration::from_secs(60),
        version: "test".into(),
        disk: Disk::New,
    }
}

fn credentials() -> Credentials {
    Credentials { mesh: MeshId::new([9; 16]), secret: Secret([7; 32]) }
}

fn at(target: &str) -> JoinTarget {
    target.parse::<std::net::SocketAddr>().unwrap().into()
}

fn rows(disk: &BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Vec<Row> {
    let rows = disk.iter();
    rows.map(|((table, key), value)| Row { table: *table, key: key.clone(), value: value.clone() })
        .collect()
}

impl Host {
    fn start(disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Self {
        let known = if disk.is_empty() { Disk::New } else { Disk::Same };
        Self::start_as(NodeConfig { disk: known, ..config() }, disk)
    }

    fn start_as(config: NodeConfig, disk: BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Self {
        let node = Node::restore(config, rows(&disk), Time::ZERO).unwrap();
        let mut host = Self {
            node,
            disk,
            batches: VecDeque::new(),
            kernel: VecDeque::new(),
            replies: BTreeMap::new(),
            closed: Vec::new(),
            sent: Vec::new(),
            now: Time::ZERO,
            asked: 0,
        };
        let endpoints = vec!["192.0.2.1:7780".parse().unwrap()];
        host.input(Input::Underlay(Underlay { endpoints, mtu_bytes: 1500, routes: vec![] }));
        host
    }

    /// A host that has founded a mesh and is ready.
    fn ready() -> Self {
        let mut host = Self::start(BTreeMap::new());
        let init = Request::Init { credentials: credentials(), ranges: vec![] };
        let id = host.ask(init);
        assert!(!host.replies.contains_key(&id), "nothing is durable yet");
        host.settle();
        assert!(matches!(host.replies[&id], Ok(Reply::Joined(_))));
        assert!(host.node.is_ready(), "{:?}", host.node.unready_because());
        host
    }

    fn input(&mut self, input: Input) {
        self.now = self.now + Duration::from_millis(1);
        self.node.handle_input(input, self.now);
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Persist { batch, writes } => self.batches.push_back((batch, writes)),
                Output::Wire { holder, .. } => {
                    self.kernel.push_back(Input::Wired { holder, netns_identity: (1, 2) });
                }
                Output::Unwire { holder, .. } => self.kernel.push_back(Input::Unwired { holder }),
                Output::Program(_) => self.kernel.push_back(Input::Programmed),
                Output::Close { link, .. } => self.closed.push(link),
                Output::Send { bytes, .. } => self.sent.push(bytes),
                Output::Reply { id, result } => {
                    let result = result.map(|reply| *reply);
                    assert!(self.replies.insert(id.0, result).is_none(), "answered twice");
                }
                _ => {}
            }
        }
        if let Some(at) = self.node.poll_timeout() {
            // What is due already is done by one more wake-up, or the daemon would spin.
            if at <= self.now {
                self.node.handle_input(Input::Timeout, self.now);
                let again = self.node.poll_timeout();
                assert!(again.is_none_or(|at| at > self.now), "it wants to be woken for ever");
            }
        }
    }

    fn ask_for(&mut self, request: Request, patience: Duration) -> u64 {
        self.asked += 1;
        let (id, request) = (RequestId(self.asked), Box::new(request));
        self.input(Input::Request { id, request, patience });
        self.asked
    }

    fn ask(&mut self, request: Request) -> u64 {
        self.ask_for(request, Duration::from_secs(10))
    }

    fn attach(&mut self, container: &str) -> u64 {
        let mut request = AttachRequest::new(container);
        request.netns = Some(format!("/run/netns/{container}"));
        request.names = vec![container.to_owned()];
        self.ask(Request::Attach(Box::new(request)))
    }

    fn detach(&mut self, container: &str) -> u64 {
        self.ask(Request::Detach { container: container.to_owned(), interface: None })
    }

    /// The disk is done with all that it was given.
    fn persist(&mut self) {
        while self.persist_one() {}
    }

    /// It is done with the oldest batch that it was given, if there is one.
    fn persist_one(&mut self) -> bool {
        let Some((batch, writes)) = self.batches.pop_front() else { return false };
        for Write { table, key, value } in writes {
            match value {
                Some(value) => drop(self.disk.insert((table, key), value)),
                None => drop(self.disk.remove(&(table, key))),
            }
        }
        self.input(Input::Persisted(batch));
        true
    }

    fn fail_disk(&mut self) {
        let (batch, _) = self.batches.pop_front().unwrap();
        self.batches.clear();
        self.input(Input::PersistFailed { batch, reason: "disk full".into() });
    }

    fn wire(&mut self) {
        while let Some(done) = self.kernel.pop_front() {
            self.input(done);
        }
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.persist();
            self.wire();
            self.wait(Duration::from_millis(300));
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        self.input(Input::Timeout);
    }

    fn restart(&self) -> Self {
        Self::start(self.disk.clone())
    }

    fn view(&self) -> (Vec<crate::api::types::Allocation>, Vec<crate::api::types::Record>) {
        (self.node.allocations(), self.node.dns_list())
    }
}

#[test]
fn an_attach_is_answered_when_disk_and_kernel_are_done_in_either_order() {
    for disk_first in [true, false] {
        let mut host = Host::ready();
        let id = host.attach("web");
        if disk_first {
            host.persist();
        } else {
            host.wire();
        }
        assert!(!host.replies.contains_key(&id));
        if disk_first {
            host.wire();
        } else {
            host.persist();
        }
        assert!(matches!(host.replies[&id], Ok(Reply::Attached(_))), "{:?}", host.replies[&id]);
        host.settle();
        let again = host.attach("web");
        host.settle();
        assert_eq!(host.replies[&again], host.replies[&id], "the same answer");
    }
}

#[test]
fn a_link_that_cannot_be_made_leaves_nothing_and_is_answered_after() {
    let mut host = Host::ready();
    let before = host.view();
    let id = host.attach("web");
    let Some(Input::Wired { holder, .. }) = host.kernel.pop_front() else { panic!("no wire") };
    let refusal = Refusal::new(Code::Internal, "no namespace", "look");
    host.input(Input::WireFailed { holder, refusal: refusal.clone() });
    assert!(!host.replies.contains_key(&id), "its record is on the disk still");
    host.persist();
    assert_eq!(host.replies[&id], Err(refusal));
    host.settle();
    assert_eq!(host.view(), before);
    assert_eq!(host.restart().view(), before);
}

#[test]
fn a_disk_that_fails_refuses_undoes_and_recovers() {
    let mut host = Host::ready();
    let before = host.view();
    let id = host.attach("web");
    host.fail_disk();
    assert_eq!(host.replies[&id].as_ref().unwrap_err().code, Code::Internal);
    let waits = host.attach("db");
    assert!(!host.replies.contains_key(&waits), "it waits for the disk");
    host.wait(Duration::from_secs(2));
    host.settle();
    assert!(host.replies[&waits].is_ok());
    host.detach("db");
    host.settle();
    assert_eq!(host.view(), before);
    assert_eq!(host.restart().view(), before);
}

#[test]
fn a_detached_address_is_held_until_the_link_is_gone() {
    let mut host = Host::ready();
    host.attach("web");
    host.settle();
    let held = host.node.ipam().held_len();
    let id = host.detach("web");
    assert!(!host.replies.contains_key(&id), "its record is on the disk still");
    host.persist();
    assert_eq!(host.replies[&id], Ok(Reply::Done));
    assert_eq!(host.node.ipam().held_len(), held, "the link may still stand");
    let again = host.attach("web");
    assert!(!host.replies.contains_key(&again), "it waits for the removal");
    host.settle();
    assert!(host.replies[&again].is_ok());
}

#[test]
fn a_restart_knows_all_that_was_answered() {
    let mut host = Host::ready();
    for container in ["a", "b", "c"] {
        host.attach(container);
    }
    host.ask(Request::Claim { address: None, holder: "printer".into() });
    host.ask(Request::DnsAdd { name: "x".into(), addresses: vec!["192.0.2.7".parse().unwrap()] });
    host.settle();
    host.detach("b");
    host.settle();
    let mut again = host.restart();
    assert_eq!(again.view(), host.view());
    again.settle();
    assert!(again.node.is_ready());
    assert_eq!(again.view(), host.view());
    assert_eq!(again.node.desired(), host.node.desired(), "the plan is a function of the state");
}

#[test]
fn a_disk_that_may_be_an_old_one_is_not_written_before_it_is_compared() {
    let mut host = Host::ready();
    let (me, range) = (host.node.config.me, host.node.ipam.ranges()[0]);
    // It says what the range around it says, so it is to be retired.
    let (needless, value) = (range.halves().unwrap().0, RingValue::Owned { owner: me, epoch: 0 });
    host.node.ipam.store_mut().write(RingKey::Block(needless), value);
    host.wait(Duration::ZERO);
    host.persist();
    let wrote = |disk| {
        let config = NodeConfig { disk, ..config() };
        let node = Node::restore(config, rows(&host.disk), Time::ZERO).unwrap();
        node.ipam.store().own_counter() - host.node.ipam.store().own_counter()
    };
    assert_ne!(wrote(Disk::Same), 0);
    assert_eq!(wrote(Disk::MayBeOld), 0, "the other hosts may know that number for something else");
}

/// Found by simulation: the image had the ring, and the host had not yet forgotten that it founds
/// the mesh.
#[test]
fn a_disk_from_the_moment_of_founding_may_be_an_old_one() {
    let mut host = Host::start(BTreeMap::new());
    let targets = vec![at("192.0.2.2:7780")];
    let (credentials, ranges) = (credentials(), vec![]);
    host.ask(Request::Found { credentials, ranges, founders: 1, targets });
    while !host.disk.keys().any(|(_, key)| key == b"founding") {
        assert!(host.persist_one());
    }
    let mut disk = host.disk.clone();
    host.settle();
    let ring = |table: &Table| matches!(table, Table::Ring | Table::Vectors);
    disk.extend(host.disk.into_iter().filter(|((table, _), _)| ring(table)));
    for known in [Disk::Same, Disk::MayBeOld] {
        let config = NodeConfig { disk: known, ..config() };
        let node = Node::restore(config, rows(&disk), Time::ZERO).unwrap();
        assert!(node.ipam.owns_anything(node.config.me));
        assert_eq!(node.is_unsure(), known == Disk::MayBeOld, "others may know more");
    }
}

#[test]
fn a_disk_from_before_the_founding_is_told_what_was_given_away_since() {
    let mut host = Host::start(BTreeMap::new());
    let targets = vec![at("192.0.2.2:7780")];
    let (credentials, ranges) = (credentials(), vec![]);
    host.ask(Request::Found { credentials, ranges, founders: 1, targets });
    while !host.disk.keys().any(|(_, key)| key == b"founding") {
        assert!(host.persist_one());
    }
    let disk = host.disk.clone();
    host.settle();
    leaving::grant(&mut host, PeerId::new([2; 16]));
    let ring = host.node.ipam.delta(&Cursor::default(), &|_| true, usize::MAX).bytes;
    let mut image = Host::start_as(NodeConfig { disk: Disk::MayBeOld, ..config() }, disk);
    let (link, peer) = (LinkId(1), PeerId::new([2; 16]));
    let remote = "192.0.2.3:7780".parse().unwrap();
    image.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    for frame in [
        Frame::Hello { vectors: Default::default(), founding: 0x0101_0101 },
        Frame::Delta { kind: Kind::Ring, bytes: ring },
    ] {
        image.input(Input::Frame { link, bytes: frame.encode() });
    }
    assert!(image.node.ipam.owns_anything(image.node.config.me));
    assert!(image.node.is_unsure(), "it was not told all");
}

/// Whoever is to serve alone is to do so only where nobody can be asked.
#[test]
fn a_host_that_may_serve_alone_hears_its_peers_first() {
    let mut host = Host::ready();
    let peer = PeerId::new([2; 16]);
    leaving::grant(&mut host, peer);
    host.persist();
    let alone = NodeConfig { disk: Disk::MayBeOld, serve_alone: true, ..config() };
    let mut image = Host::start_as(alone, host.disk.clone());
    assert!(image.node.is_unsure());
    let (link, remote) = (LinkId(1), "192.0.2.3:7780".parse().unwrap());
    image.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    image.wait(Duration::from_secs(2));
    assert!(image.node.is_unsure(), "the peer has not said yet what it knows");
    for _ in 0..10 {
        image.wait(Duration::from_secs(1));
    }
    assert!(!image.node.is_unsure(), "nobody said anything");
}

#[test]
fn rows_that_nobody_wrote_are_refused() {
    let host = Host::ready();
    for (table, key) in host.disk.keys().filter(|(table, _)| *table != Table::Mesh) {
        let row = Row { table: *table, key: key.clone(), value: vec![0xff; 3] };
        if *table != Table::Targets {
            assert!(Node::restore(config(), vec![row], Time::ZERO).is_err(), "{table:?}");
        }
    }
}

#[test]
fn requests_wait_until_the_host_is_ready_but_not_longer_than_they_said() {
    let mut host = Host::start(BTreeMap::new());
    let id = host.attach("web");
    assert_eq!(host.replies[&id].as_ref().unwrap_err().code, Code::NotReady);
    host.ask(Request::Init { credentials: credentials(), ranges: vec![] });
    let short = Request::Claim { address: None, holder: "a".into() };
    let short = host.ask_for(short, Duration::from_millis(50));
    let long = host.ask(Request::Claim { address: None, holder: "b".into() });
    host.wait(Duration::from_millis(100));
    assert_eq!(host.replies[&short].as_ref().unwrap_err().code, Code::NotReady);
    assert!(!host.replies.contains_key(&long));
    host.settle();
    assert!(host.replies[&long].is_ok());
}

#[test]
fn an_address_is_claimed_by_one_holder_and_the_hosts_own_by_none() {
    let mut host = Host::ready();
    let address = Some("10.32.0.77".parse().unwrap());
    let first = host.ask(Request::Claim { address, holder: "a".into() });
    let second = host.ask(Request::Claim { address, holder: "b".into() });
    let own = host.ask(Request::Attach(Box::new(AttachRequest {
        interface: "gateway".into(),
        ..AttachRequest::new("meshd")
    })));
    host.settle();
    assert!(host.replies[&first].is_ok());
    assert_eq!(host.replies[&second].as_ref().unwrap_err().code, Code::Conflict);
    assert_eq!(host.replies[&own].as_ref().unwrap_err().code, Code::Invalid);
}

#[test]
fn a_link_that_comes_up_outside_of_a_mesh_is_closed() {
    let mut host = Host::start(BTreeMap::new());
    let remote = "192.0.2.2:7780".parse().unwrap();
    let (link, peer) = (LinkId(4), PeerId::new([2; 16]));
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    assert_eq!((host.closed.clone(), host.node.router().links().count()), (vec![link], 0));
}

/// It had retired what somebody else's grant, still to come, lay in. Found by reading.
#[test]
fn who_was_told_a_part_of_the_ring_remembers_after_a_restart_that_it_was_a_part() {
    let mut host = Host::ready();
    let heir = PeerId::new([2; 16]);
    leaving::grant(&mut host, heir);
    let mut other = mesh_ipam::Ipam::new(heir);
    let all = host.node.ipam.delta(&Cursor::default(), &|_| true, usize::MAX);
    assert!(other.apply(&all.bytes).unwrap());
    // More than half a frame: less is told at once.
    for n in 0..30_000_u128 {
        let key = RingKey::Elector(PeerId::new(n.to_be_bytes()));
        other.store_mut().write(key, RingValue::Elector { seated: false, epoch: 1 });
    }
    let last = other.store().own_counter();
    other.store_mut().mark_durable(last);
    let since = Cursor::at(host.node.ipam.store().vector().clone());
    let part = other.delta(&since, &|_| true, 0);
    assert!(part.more && host.node.ipam.apply(&part.bytes).unwrap());
    host.settle();
    assert!(host.node.ipam.store().seen(heir) < last);
    let mut again = host.restart();
    again.node.router.settle(again.now);
    for host in [&mut host, &mut again] {
        assert_eq!(host.node.ipam.give_all(heir), Err(mesh_ipam::GiveError::Gaps));
    }
}

#[test]
fn tombstones_of_a_host_that_is_alone_do_not_pile_up() {
    let mut host = Host::ready();
    for round in 0..20 {
        host.attach(&format!("c{round}"));
        host.settle();
        host.detach(&format!("c{round}"));
        host.settle();
    }
    let entries = host.node.zone().store().len();
    assert!(entries < 5, "{entries} entries for no name");
}

/// Found by simulation: a machine slept, and its clock with it.
#[test]
fn whoever_slept_has_not_waited_for_a_majority() {
    let mut host = Host::ready();
    let electors = [2, 3].map(|n| PeerId::new([n; 16]));
    for elector in electors {
        let seat = RingValue::Elector { seated: true, epoch: 1 };
        host.node.ipam.store_mut().write(RingKey::Elector(elector), seat);
    }
    host.node.registration = registering::Registration::default();
    host.wait(Duration::from_secs(1));
    host.wait(Duration::from_secs(3600));
    assert!(!host.node.may_take_over(), "nobody could have answered");
    for _ in 0..60 {
        host.wait(Duration::from_millis(200));
    }
    assert!(host.node.may_take_over(), "it does not wait for ever");
    let reason = |host: &Host| host.node.status().ipam.reason.unwrap_or_default();
    assert!(reason(&host).contains("addresses may be given twice"), "{}", reason(&host));
    let mut bars = mesh_ipam::Ipam::new(electors[0]).bars();
    bars.abstains = true;
    host.node.is_known_by(electors[0], &bars);
    host.wait(Duration::from_secs(2));
    assert_ne!(reason(&host), "", "one of the two may have forgotten whom it bars");
    bars.abstains = false;
    host.node.is_known_by(electors[0], &bars);
    host.wait(Duration::from_secs(2));
    assert_eq!(reason(&host), "", "two of the three know it");
    assert!(host.node.may_take_over());
}
