//! Which sockets stand: the wanted addresses, each bound by itself, so that an answer leaves from
//! the address that was asked.
//!
//! Addresses may be bound before a device has them (`IP_FREEBIND`). What cannot be bound (another
//! program has the port) is tried again, and said once.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::SysRng};
use rand_chacha::ChaCha8Rng;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};

use super::{Shared, tcp, udp, write};

/// How long after a failure an address is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// Connections that the kernel keeps for us until they are accepted; as most servers say.
const BACKLOG: i32 = 1024;
/// Bytes of queries that the kernel keeps for a socket; chosen: some thousand queries.
const RECEIVE_BYTES: usize = 1 << 20;

/// What stands and what does not.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) bound: Vec<SocketAddr>,
    pub(super) failed: Vec<(SocketAddr, String)>,
}

/// The two sockets of one address; dropping it closes them.
struct Endpoint {
    address: SocketAddr,
    /// Held only to be aborted with it.
    _tasks: JoinSet<()>,
}

/// Keeps the sockets as they are wanted until it is cancelled.
pub(super) async fn keep(shared: Arc<Shared>, mut wanted: watch::Receiver<Vec<SocketAddr>>) {
    let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    let mut said: Vec<(SocketAddr, String)> = Vec::new();
    loop {
        let addresses = wanted.borrow_and_update().clone();
        endpoints.retain(|address, _| addresses.contains(address));
        let mut failed = Vec::new();
        for address in addresses {
            if endpoints.contains_key(&address) {
                continue;
            }
            match open(&shared, address) {
                Ok(endpoint) => drop(endpoints.insert(address, endpoint)),
                Err(error) => failed.push((address, error.to_string())),
            }
        }
        for (address, error) in failed.iter().filter(|failure| !said.contains(failure)) {
            tracing::warn!(%address, error, "DNS cannot listen; trying again");
        }
        said.clone_from(&failed);
        let retry = !failed.is_empty();
        let bound = endpoints.values().map(|endpoint| endpoint.address).collect();
        *write(&shared.standing) = Standing { bound, failed };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}

/// Binds both sockets of an address and starts to serve them.
fn open(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<Endpoint> {
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    // More than the kernel allows is cut, which is fine.
    udp.set_recv_buffer_size(RECEIVE_BYTES)?;
    udp.bind(&SockAddr::from(address))?;
    let udp = UdpSocket::from_std(udp.into())?;
    let address = udp.local_addr()?;
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    // Else a restart would wait for the old connections' TIME_WAIT.
    tcp.set_reuse_address(true)?;
    tcp.bind(&SockAddr::from(address))?;
    tcp.listen(BACKLOG)?;
    let tcp = TcpListener::from_std(tcp.into())?;
    let mut tasks = JoinSet::new();
    tasks.spawn(udp::serve(shared.clone(), udp, rng()?));
    tasks.spawn(tcp::serve(shared.clone(), tcp, rng()?));
    tracing::info!(%address, "DNS listens");
    Ok(Endpoint { address, _tasks: tasks })
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    Ok(socket)
}

/// Randomness for the order of answers, seeded by the system.
fn rng() -> io::Result<ChaCha8Rng> {
    ChaCha8Rng::try_from_rng(&mut SysRng).map_err(io::Error::other)
}
