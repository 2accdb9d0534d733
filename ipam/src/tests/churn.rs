//! Does the ring stay short, and right, whatever comes and goes?
//!
//! Hosts grant, tidy, lag behind, crash before their writes are durable, lose what they were sent,
//! leave, and are replaced by others with new identities; bases are put forward all the while. A
//! model knows who holds each address's token.

use std::collections::BTreeMap;

use mesh_router::{PeerId, store::Cursor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{block, holder};
use crate::{Block, Family, Ipam, Owner, Promise, RingKey, Wanted};

const HOSTS: usize = 5;
const ADDRESSES: u128 = 32;
const STEPS: usize = 150;

struct World {
    rng: ChaCha8Rng,
    hosts: Vec<Ipam>,
    /// What each host's disk held when it was last written.
    disks: Vec<Disk>,
    born: u32,
    /// The identity of who has each address's token.
    tokens: Vec<PeerId>,
    known: Vec<bool>,
    flying: Vec<(PeerId, Vec<u8>)>,
    promises: BTreeMap<PeerId, Promise>,
    bases: usize,
}

#[derive(Clone)]
struct Disk {
    rows: Vec<(RingKey, mesh_router::store::Entry<crate::RingValue>)>,
    counters: Vec<(PeerId, u64)>,
}

impl Disk {
    fn of(host: &Ipam) -> Self {
        let store = host.store();
        let rows = store.iter().map(|(key, entry)| (*key, entry.clone())).collect();
        let counters = store.vector().dots.iter().map(|(id, n)| (*id, *n)).collect();
        Self { rows, counters }
    }

    fn read(&self, me: PeerId) -> Ipam {
        let mut host = Ipam::new(me);
        for (key, entry) in &self.rows {
            host.store_mut().restore_entry(*key, entry.clone()).unwrap();
        }
        for (origin, counter) in &self.counters {
            host.store_mut().restore_counter(*origin, *counter);
        }
        host.refresh();
        host
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut founder = Ipam::new(id(0));
        founder.found(&[range()]).unwrap();
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            disks: vec![Disk::of(&founder)],
            hosts: vec![founder],
            born: 0,
            tokens: vec![id(0); 32],
            known: vec![true; 32],
            flying: Vec::new(),
            promises: BTreeMap::new(),
            bases: 0,
        };
        world.store(0);
        while world.hosts.len() < HOSTS {
            world.join();
        }
        world
    }

    /// A new host, told everything by one that is there: who may lag.
    fn join(&mut self) {
        self.born += 1;
        let teacher = self.any();
        let mut host = Ipam::new(id(self.born));
        host.store_mut().begin_recall();
        self.store(teacher);
        let bytes = self.delta(teacher, &Cursor::default());
        host.absorb(&bytes).unwrap();
        host.store_mut().end_recall(None);
        host.refresh();
        self.disks.push(Disk::of(&host));
        self.hosts.push(host);
    }

    fn any(&mut self) -> usize {
        self.rng.random_range(0..self.hosts.len())
    }

    fn delta(&mut self, from: usize, since: &Cursor) -> Vec<u8> {
        let store = self.hosts[from].store();
        let delta = store.delta(since, |_| true, usize::MAX);
        assert!(!delta.more);
        delta.bytes
    }

    /// All that a host has is on its disk.
    fn store(&mut self, at: usize) {
        let store = self.hosts[at].store_mut();
        store.mark_durable(store.own_counter());
        self.hosts[at].refresh();
        self.disks[at] = Disk::of(&self.hosts[at]);
    }

    fn step(&mut self) {
        let host = self.any();
        match self.rng.random_range(0..24) {
            0..=4 => self.grant(host),
            5 => self.tidy(host),
            6 => self.allocate(host),
            7 => self.release(host),
            8 => self.store(host),
            9..=11 => self.send(host),
            12..=15 => self.deliver(),
            16 | 17 => self.promise(host),
            18 | 19 => self.advance(),
            20 => self.crash(host),
            21 => self.recycle(host),
            _ => {
                let other = self.any();
                self.exchange(host, other);
            }
        }
    }

    /// A grant that its giver has on disk; as far as the model goes, the token has moved.
    fn grant(&mut self, giver: usize) {
        let receiver = self.any();
        let Some(block) = (0..6).find_map(|_| self.candidate(giver)) else { return };
        let to = self.hosts[receiver].me();
        self.hosts[giver].write_grant(block, to);
        self.hosts[giver].refresh();
        self.store(giver);
        self.moved(giver, &block, to);
        if self.rng.random_range(0..4) > 0 {
            self.exchange(giver, receiver);
        }
    }

    fn moved(&mut self, giver: usize, block: &Block, to: PeerId) {
        for number in block.first_number()..=block.last_number() {
            let (index, from) = (index(number), self.hosts[giver].me());
            assert_eq!(self.tokens[index], from, "it gives what is not its own");
            self.tokens[index] = to;
            self.known[index] = from == to;
        }
    }

    fn candidate(&mut self, giver: usize) -> Option<Block> {
        let length = 27 + self.rng.random_range(0..5) * self.rng.random_range(0..=1);
        let number = range().first_number() + self.rng.random_range(0..ADDRESSES);
        let block = Block::at(Family::V4, number, length.max(28));
        self.hosts[giver].is_spare(&block).then_some(block)
    }

    fn tidy(&mut self, host: usize) {
        self.hosts[host].tidy();
        if self.rng.random() {
            self.store(host);
        }
    }

    fn allocate(&mut self, host: usize) {
        let name = holder(self.rng.random_range(0..4));
        let _ = self.hosts[host].allocate(&name, Wanted::Any(range()), mesh_router::Time::ZERO);
    }

    fn release(&mut self, host: usize) {
        let name = holder(self.rng.random_range(0..4));
        self.hosts[host].release(&name, &[], mesh_router::Time::ZERO);
    }

    /// Puts what a host lacks, as it says, into flight, as one or in parts.
    fn send(&mut self, to: usize) {
        let from = self.any();
        let mut cursor = Cursor::at(self.hosts[to].store().announced());
        let budget = if self.rng.random() { usize::MAX } else { self.rng.random_range(1..300) };
        loop {
            let delta = self.hosts[from].store().delta_cut(&cursor, |_| true, budget);
            if !delta.bytes.is_empty() {
                self.flying.push((self.hosts[to].me(), delta.bytes));
            }
            if !delta.more {
                break;
            }
            cursor = delta.cursor;
        }
    }

    fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let pick = self.rng.random_range(0..self.flying.len());
        let (to, bytes) = match self.rng.random_range(0..8) {
            0 => self.flying[pick].clone(),
            _ => self.flying.swap_remove(pick),
        };
        if let Some(at) = self.hosts.iter().position(|host| host.me() == to) {
            self.hosts[at].absorb(&bytes).unwrap();
        }
    }

    fn promise(&mut self, host: usize) {
        let idle = self.rng.random();
        if idle {
            self.store(host);
        }
        let me = self.hosts[host].me();
        self.promises.extend(self.hosts[host].promise(idle).map(|promise| (me, promise)));
    }

    fn advance(&mut self) {
        for host in &mut self.hosts {
            self.bases += usize::from(host.advance_base(&self.promises));
        }
    }

    /// Comes back with what its disk holds.
    fn crash(&mut self, host: usize) {
        if self.hosts[host].held_len() == 0 {
            let me = self.hosts[host].me();
            self.hosts[host] = self.disks[host].read(me);
            // What it had heard and not stored it may not know any more.
            for (token, known) in self.tokens.iter().zip(&mut self.known) {
                *known &= *token != me;
            }
            self.flying.retain(|(to, _)| *to != me);
        }
    }

    /// Leaves all to another, who has it on disk before this one goes; a new one comes.
    fn recycle(&mut self, host: usize) {
        let heir = self.any();
        let knows_all = self.tokens.iter().enumerate().all(|(index, token)| {
            let address = Family::V4.address(range().first_number() + index as u128);
            let me = self.hosts[host].me();
            (*token == me) == (self.hosts[host].owner(address) == Owner::Peer(me))
        });
        if heir == host || self.hosts[host].held_len() > 0 || !knows_all {
            return;
        }
        let to = self.hosts[heir].me();
        let blocks = self.hosts[host].give_all(to).unwrap();
        self.store(host);
        for block in blocks {
            self.moved(host, &block, to);
        }
        self.exchange(host, heir);
        self.store(heir);
        self.hosts.remove(host);
        self.disks.remove(host);
        self.join();
    }

    fn exchange(&mut self, from: usize, to: usize) {
        self.store(from);
        let since = Cursor::at(self.hosts[to].store().announced());
        let bytes = self.delta(from, &since);
        if !bytes.is_empty() {
            self.hosts[to].absorb(&bytes).unwrap();
        }
    }

    fn settle(&mut self) {
        for _ in 0..12 {
            for pair in 0..HOSTS * HOSTS {
                self.exchange(pair / HOSTS, pair % HOSTS);
            }
            for host in 0..HOSTS {
                self.store(host);
                self.hosts[host].tidy();
                let promise = self.hosts[host].promise(true);
                self.promises.extend(promise.map(|promise| (self.hosts[host].me(), promise)));
            }
            self.advance();
        }
    }

    fn check(&mut self) {
        for number in range().first_number()..=range().last_number() {
            let (address, index) = (Family::V4.address(number), index(number));
            for host in &self.hosts {
                let mine = host.owner(address) == Owner::Peer(host.me());
                let token = self.tokens[index] == host.me();
                assert!(!mine || token, "{address}: {} takes what is another's", host.me());
                assert!(mine || !token || !self.known[index], "{address}: its owner doubts it");
                self.known[index] |= mine;
            }
        }
    }

    fn check_end(&self) {
        let first = &self.hosts[0];
        let rows = |host: &Ipam| -> Vec<_> {
            host.store().iter().map(|(key, entry)| (*key, entry.clone())).collect()
        };
        for host in &self.hosts {
            assert_eq!(rows(host), rows(first), "copies differ after a full exchange");
            assert_eq!(host.store().announced(), first.store().announced());
            for (index, token) in self.tokens.iter().enumerate() {
                let address = Family::V4.address(range().first_number() + index as u128);
                assert_eq!(host.owner(address), Owner::Peer(*token), "{address} is lost");
            }
        }
        let (entries, fragments) = (first.entries(), first.view.fragments());
        // An entry that smaller ones hide stays if none of them that is seen at its beginning is
        // the next one inside. No more of them than hosts were ever found.
        assert!(
            entries <= fragments + HOSTS,
            "{entries} entries for {fragments}: {:#?}",
            rows(first)
        );
    }
}

fn id(number: u32) -> PeerId {
    let mut bytes = [9; 16];
    // Not in the order of birth.
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    PeerId::new(bytes)
}

fn range() -> Block {
    block("10.9.0.0/27")
}

fn index(number: u128) -> usize {
    usize::try_from(number - range().first_number()).unwrap()
}

#[test]
fn whoever_comes_and_goes_the_ring_stays_right_and_short() {
    let seeds = std::env::var("IPAM_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut bases, mut born) = (0, 0);
    for seed in 0..seeds.unwrap_or(300) {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.settle();
        world.check();
        world.check_end();
        bases += world.bases;
        born += world.born;
    }
    println!("{bases} bases, {born} hosts");
    assert!(bases > 0, "no base was ever put forward");
}
