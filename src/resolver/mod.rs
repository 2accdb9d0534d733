//! The resolver that containers ask.
//!
//! Mesh names are answered from a [`Table`] that the node keeps up to date through
//! [`Resolver::apply`]; everything else is forwarded to the upstreams of a resolv.conf file. An
//! answer never waits for gossip, for the disk or for another answer.
//!
//! ```text
//!   udp, tcp  bytes in, bytes out; bounded        listen    which sockets stand
//!   respond   message in, message out             upstream  forwarding, cache, resolv.conf
//! ```
//!
//! The sockets are made in the network namespace of the process. Deliberately absent: recursion
//! from the root, zone transfers, DNSSEC (nothing validates a private domain, and a forwarded
//! answer is passed on without signatures).

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use ipnetwork::IpNetwork;
use mesh_dns::{Name, Table, ZoneChange};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

mod listen;
mod respond;
mod stats;
mod tcp;
mod udp;
mod upstream;

pub use stats::Stats;

/// The most queries that wait for an upstream at once; more are answered SERVFAIL. Chosen: each
/// holds some kilobytes for at most five seconds.
pub const FORWARDS_MAX: usize = 1024;

/// What a resolver is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The mesh's domain.
    pub domain: Name,
    /// File that names the upstreams (`nameserver ADDR`), re-read when it changes.
    pub resolv_conf: PathBuf,
}

/// A running resolver. Dropping it closes its sockets.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

/// What all sockets' tasks share.
#[derive(Debug)]
struct Shared {
    /// Locked for a lookup or one change, never across an await.
    table: RwLock<Table>,
    upstreams: upstream::Upstreams,
    forwards: Arc<Semaphore>,
    clients: tcp::Clients,
    counters: stats::Counters,
    /// Where to listen.
    wanted: watch::Sender<Vec<SocketAddr>>,
    /// Where it does, and why not elsewhere.
    standing: RwLock<listen::Standing>,
}

impl Resolver {
    /// Starts a resolver that listens nowhere yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: Config) -> Self {
        let (wanted, receiver) = watch::channel(Vec::new());
        let shared = Arc::new(Shared {
            table: RwLock::new(Table::new(config.domain)),
            upstreams: upstream::Upstreams::new(config.resolv_conf),
            forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
            clients: tcp::Clients::default(),
            counters: stats::Counters::default(),
            wanted,
            standing: RwLock::default(),
        });
        shared.upstreams.load(&[]);
        let tasks = [
            tokio::spawn(listen::keep(shared.clone(), receiver.clone())),
            tokio::spawn(upstream::watch(shared.clone(), receiver)),
        ];
        Self { shared, tasks }
    }

    /// Listens on exactly these addresses, UDP and TCP, from now on. An address that cannot be
    /// bound is tried again until it can; port 0 takes any free port.
    pub fn listen(&self, addresses: Vec<SocketAddr>) {
        self.shared.wanted.send_if_modified(|wanted| {
            let changed = *wanted != addresses;
            *wanted = addresses;
            changed
        });
    }

    /// Where it listens now.
    pub fn listening(&self) -> Vec<SocketAddr> {
        read(&self.shared.standing).bound.clone()
    }

    /// Addresses that could not be bound, and why.
    pub fn failures(&self) -> Vec<(SocketAddr, String)> {
        read(&self.shared.standing).failed.clone()
    }

    /// Takes a change of the zone over: the next query sees it.
    pub fn apply(&self, change: ZoneChange) {
        write(&self.shared.table).apply(change);
    }

    /// Sets the mesh's ranges: addresses in them are looked up backwards here, others upstream.
    pub fn set_ranges(&self, ranges: Vec<IpNetwork>) {
        write(&self.shared.table).set_ranges(ranges);
    }

    /// How many records there are, hidden ones too.
    pub fn records(&self) -> usize {
        read(&self.shared.table).len()
    }

    /// What has been counted since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// Where other names are asked for.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.shared.upstreams.servers()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Locks for reading; a panic elsewhere must not stop DNS, and no write here can be half done in
/// a way that matters.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing; see [`read`].
fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
