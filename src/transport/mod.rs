//! The transport: authenticated links to peers over QUIC, frames in and frames out.
//!
//! * [`identity`]: this host's key; `tls`: what QUIC is told;
//!   `handshake`: the proof of membership; `link`: frames on streams; `meet`: how a connection
//!   becomes a link, dialled or accepted; `socket`: UDP for both families.
//!
//! Deliberately absent: what frames mean, whom to dial, when to dial again, and which of two links
//! to one peer to keep. Those are the node's.
//!
//! Invariants: nothing is read from a peer that has not proved the mesh's secret; every dialled
//! target is answered once; the last input of a link is its `LinkDown`, and there is none after
//! [`Transport::close`]; no method waits.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_router::MeshId;
use quinn::{Endpoint, TokioRuntime};
use tokio::sync::mpsc::Sender;

use crate::node::event::{Credentials, Input, LinkId};

mod handshake;
pub mod identity;
mod link;
mod meet;
mod socket;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;

pub use identity::{Identity, IdentityError};

use handshake::CLOSED;
use throttle::Throttle;

/// What a log filter should say of the libraries below: they report each stranger's every mistake,
/// and what matters of it is logged here.
pub const QUIET_LOGS: &str = "quinn=error,quinn_proto=error,quinn_udp=error,rustls=error";
/// How long a stop waits for the goodbyes to leave. Chosen: a few round trips on a slow link.
const GOODBYE: Duration = Duration::from_millis(300);
/// What the peers of a host that leaves its mesh see.
const LEFT: &[u8] = b"it left the mesh";
/// What the peers of a host that stops see.
const STOPPING: &[u8] = b"meshd is stopping there";

/// What a transport is started with.
#[derive(Debug, Clone)]
pub struct TransportConfig {
    /// Where to listen, UDP; `[::]` takes IPv4 too; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// This host's key.
    pub identity: Identity,
    /// Drawn at random when this process started.
    pub incarnation: u64,
}

/// Why a transport did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another process listens there.
    #[error(
        "UDP port {port} is in use ({0}); is another meshd running? `ss -lunp sport = :{port}` \
         shows who has it; or choose another --listen", port = .0.port()
    )]
    PortInUse(SocketAddr),
    /// The system refused for another reason.
    #[error("cannot listen on {address}: {source}; is that an address of this host? See --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The key or the crypto provider does not fit, which is our own bug.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The way to all links.
pub struct Transport {
    shared: Arc<Shared>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = lock(&self.shared.links).len();
        f.debug_struct("Transport")
            .field("listen", &self.local_addr())
            .field("links", &links)
            .finish()
    }
}

/// What the tasks share.
struct Shared {
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    identity: Identity,
    incarnation: u64,
    membership: Mutex<Option<Credentials>>,
    links: Mutex<BTreeMap<LinkId, link::Handle>>,
    next_link: AtomicU64,
    inputs: Sender<Input>,
    half_open: Arc<tokio::sync::Semaphore>,
    dials: tokio::sync::Semaphore,
    log: Throttle,
}

impl Transport {
    /// Opens the socket and starts to accept. Call it in a tokio runtime; what happens goes to
    /// `inputs`. Until [`Self::membership`] gives credentials nobody is let in.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub fn start(config: TransportConfig, inputs: Sender<Input>) -> Result<Self, TransportError> {
        let TransportConfig { listen, identity, incarnation } = config;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => TransportError::PortInUse(listen),
            _ => TransportError::Listen { address: listen, source },
        };
        let tls::Configs { endpoint, server, client } =
            tls::configs(&identity).map_err(|error| TransportError::Tls(error.to_string()))?;
        let socket = socket::bind(listen).map_err(failed)?;
        let endpoint = Endpoint::new(endpoint, Some(server), socket, Arc::new(TokioRuntime))
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            endpoint,
            client,
            identity,
            incarnation,
            membership: Mutex::new(None),
            links: Mutex::new(BTreeMap::new()),
            next_link: AtomicU64::new(1),
            inputs,
            half_open: Arc::new(tokio::sync::Semaphore::new(meet::HALF_OPEN_MAX)),
            dials: tokio::sync::Semaphore::new(meet::DIALS_MAX),
            log: Throttle::new(tokio::time::Instant::now()),
        });
        tokio::spawn(meet::accept_all(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Where it listens, with the port that the system chose.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.endpoint.local_addr().ok().map(socket::unmapped)
    }

    /// From now on links to members of this mesh may be made and accepted; `None`: to nobody.
    /// Links to members of another mesh end at once.
    pub fn membership(&self, credentials: Option<Credentials>) {
        let mut membership = lock(&self.shared.membership);
        let mesh = |of: &Option<Credentials>| of.as_ref().map(|credentials| credentials.mesh);
        let moved = mesh(&membership) != mesh(&credentials);
        *membership = credentials;
        drop(membership);
        if moved {
            for handle in lock(&self.shared.links).values() {
                handle.connection.close(CLOSED, LEFT);
            }
        }
    }

    /// Connects to a target. Answered once, by `LinkUp` or `DialFailed`.
    pub fn dial(&self, target: SocketAddr) {
        tokio::spawn(meet::dial(Arc::clone(&self.shared), target));
    }

    /// Sends a frame of at most `FRAME_BYTES_MAX` bytes; nothing happens when the link is gone.
    /// An urgent one may overtake those that are not.
    pub fn send(&self, link: LinkId, urgent: bool, bytes: Vec<u8>) {
        let links = lock(&self.shared.links);
        let Some(handle) = links.get(&link) else { return };
        if let Err(overflow) = handle.send(urgent, bytes) {
            // The link's own task reports this as its end.
            tracing::error!("closing link {}: {}", link.0, overflow.0);
            handle.connection.close(CLOSED, overflow.0.as_bytes());
        }
    }

    /// Ends a link; the other side sees the reason. No `LinkDown` follows here.
    pub fn close(&self, link: LinkId, reason: &str) {
        if let Some(handle) = lock(&self.shared.links).remove(&link) {
            handle.connection.close(CLOSED, reason.as_bytes());
        }
    }

    /// The smoothed round-trip time of each link.
    pub fn round_trips(&self) -> BTreeMap<LinkId, Duration> {
        let links = lock(&self.shared.links);
        links.iter().map(|(id, handle)| (*id, handle.connection.rtt())).collect()
    }

    /// Ends all links so that the peers see it at once, and gives the port free.
    pub async fn shutdown(self) {
        for (_, handle) in std::mem::take(&mut *lock(&self.shared.links)) {
            handle.connection.close(CLOSED, STOPPING);
        }
        self.shared.endpoint.close(CLOSED, STOPPING);
        // A peer that does not answer must not hold up the stop.
        let _ = tokio::time::timeout(GOODBYE, self.shared.endpoint.wait_idle()).await;
    }
}

impl Shared {
    fn local(&self) -> handshake::Local<'_> {
        handshake::Local {
            identity: &self.identity,
            incarnation: self.incarnation,
            credentials: lock(&self.membership).clone(),
        }
    }

    fn mesh(&self) -> Option<MeshId> {
        lock(&self.membership).as_ref().map(|credentials| credentials.mesh)
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }
}

/// Locks what no holder leaves half done, even one that panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
