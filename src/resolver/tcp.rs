//! The loop of one TCP socket: one task per connection, all of them bounded.
//!
//! One client cannot starve the others: connections are counted per client and in all, and every
//! step of a connection has a deadline.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    Shared,
    respond::{Outcome, Transport, forward, respond},
    stats::count,
};

/// The most connections of all clients together; chosen: well below the limit of open files.
pub(super) const CONNECTIONS_MAX: usize = 512;
/// The most connections of one client address; chosen: resolvers keep one or two.
pub(super) const CONNECTIONS_PER_CLIENT_MAX: usize = 32;
/// The longest query that is read, as over UDP.
const QUERY_BYTES_MAX: usize = 4096;
/// How long a connection may stay without a query. RFC 7766 section 6.2.3: a few seconds.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a query may take to arrive, and an answer to be taken.
const TRANSFER_MAX: Duration = Duration::from_secs(2);
/// How long to wait after an error of accepting (too many open files, say).
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How many connections each client has open.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place; dropping it makes room.
struct Place {
    shared: Arc<Shared>,
    client: IpAddr,
}

impl Place {
    /// Takes a place, if there is one for this client.
    fn take(shared: &Arc<Shared>, client: IpAddr) -> Option<Self> {
        let mut open = shared.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.entry(client).or_insert(0);
        if all >= CONNECTIONS_MAX || *own >= CONNECTIONS_PER_CLIENT_MAX {
            open.retain(|_, count| *count > 0);
            return None;
        }
        *own += 1;
        Some(Self { shared: shared.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = open.get(&self.client).map_or(0, |count| count - 1);
        if left == 0 {
            open.remove(&self.client);
        } else {
            open.insert(self.client, left);
        }
    }
}

/// Serves connections until it is cancelled, and they with it.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, mut rng: ChaCha8Rng) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, client): (TcpStream, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting DNS over TCP");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&shared, client.ip()) else {
            count(&shared.counters.tcp_refused);
            continue;
        };
        let rng = ChaCha8Rng::from_rng(&mut rng);
        connections.spawn(async move {
            // A client that goes away in the middle is not our trouble.
            drop(converse(&place, stream, rng).await);
        });
    }
}

/// Answers one query after the other. RFC 1035 section 4.2.2: each message behind its length.
async fn converse(place: &Place, mut stream: TcpStream, mut rng: ChaCha8Rng) -> io::Result<()> {
    let shared = &place.shared;
    stream.set_nodelay(true)?;
    loop {
        let length = usize::from(timeout(IDLE_MAX, stream.read_u16()).await??);
        if length > QUERY_BYTES_MAX {
            count(&shared.counters.bad);
            return Ok(());
        }
        let mut packet = vec![0; length];
        timeout(TRANSFER_MAX, stream.read_exact(&mut packet)).await??;
        let reply = match respond(shared, &packet, Transport::Tcp, &mut rng) {
            Outcome::Drop => None,
            Outcome::Reply(bytes) => Some(bytes),
            Outcome::Forward(request) => forward(shared, &request, Transport::Tcp).await,
        };
        let Some(bytes) = reply else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        timeout(TRANSFER_MAX, stream.write_all(&framed)).await??;
    }
}
