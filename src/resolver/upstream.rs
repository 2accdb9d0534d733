//! Forwarding: the upstreams of a resolv.conf file, their answers' cache, and the file's changes.
//!
//! Of the file only `nameserver` lines count: search lists are the client's own business. An
//! upstream that is one of our own sockets is left out, or a query would go round for ever.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
};
use tokio::{sync::watch, time::timeout};

use super::{Shared, read, respond::blank, write};

/// The most upstreams that are used of a file; glibc uses three.
const UPSTREAMS_MAX: usize = 8;
/// The most answers in the cache, negative ones included; chosen: about four megabytes.
const CACHE_ENTRIES_MAX: u64 = 4096;
/// How long one upstream may take for one attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// How often an upstream is asked again.
const ATTEMPTS: usize = 2;
/// How long a query may take in all; clients commonly wait five seconds.
const LOOKUP_MAX: Duration = Duration::from_millis(4500);
/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How much of the file is looked at.
const FILE_BYTES_MAX: usize = 1 << 16;
/// The longest that "there is no such thing" is kept. RFC 2308 section 5: one to three hours; less,
/// because what does not exist yet is often being made.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);
/// The port of a name server.
const PORT: u16 = 53;

/// The upstreams and how they were found.
#[derive(Debug)]
pub(super) struct Upstreams {
    file: PathBuf,
    current: RwLock<Arc<Current>>,
}

/// What is asked now.
#[derive(Default)]
struct Current {
    servers: Vec<SocketAddr>,
    /// `None` without a server.
    resolver: Option<TokioResolver>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Current").field(&self.servers).finish()
    }
}

impl Upstreams {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, current: RwLock::default() }
    }

    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        read(&self.current).servers.clone()
    }

    /// Reads the file; when it names other servers than before, a new resolver with an empty cache
    /// takes over. A file that cannot be read changes nothing: editors replace files.
    pub(super) fn load(&self, ours: &[SocketAddr]) {
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(file = %self.file.display(), %error, "upstreams not read");
                return;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(FILE_BYTES_MAX)]);
        let servers = parse(&text, ours);
        if read(&self.current).servers == servers {
            return;
        }
        match build(&servers) {
            Ok(resolver) => {
                tracing::info!(?servers, "DNS upstreams");
                *write(&self.current) = Arc::new(Current { servers, resolver });
            }
            Err(error) => tracing::warn!(%error, ?servers, "DNS upstreams cannot be used"),
        }
    }

    /// Asks for what a request asks for.
    ///
    /// # Errors
    /// The code to answer with when there is no answer.
    pub(super) async fn lookup(&self, request: &Message) -> Result<Message, ResponseCode> {
        let current = read(&self.current).clone();
        let resolver = current.resolver.as_ref().ok_or(ResponseCode::ServFail)?;
        let query = request.queries.first().ok_or(ResponseCode::FormErr)?;
        let mut name = query.name.to_lowercase();
        name.set_fqdn(true);
        let found = timeout(LOOKUP_MAX, resolver.lookup(name, query.query_type)).await;
        let mut response = blank(request);
        match found {
            Ok(Ok(lookup)) => {
                response.answers = lookup.answers().to_vec();
                response.authorities = lookup.authorities().to_vec();
                response.additionals = lookup.additionals().to_vec();
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => {
                negative(&mut response, nothing);
            }
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => return Err(code),
            Ok(Err(error)) => {
                tracing::debug!(%error, name = %query.name, "upstream");
                return Err(ResponseCode::ServFail);
            }
            Err(_) => return Err(ResponseCode::ServFail),
        }
        Ok(response)
    }
}

/// Says that there is nothing, and for how long that holds.
fn negative(response: &mut Message, nothing: NoRecords) {
    response.metadata.response_code = nothing.response_code;
    if let Some(soa) = nothing.soa {
        let mut soa = soa.into_record_of_rdata();
        soa.ttl = nothing.negative_ttl.unwrap_or(soa.ttl).min(soa.ttl);
        response.authorities.push(soa);
    }
}

/// Looks at the file again and again until it is cancelled, and whenever our sockets change.
pub(super) async fn watch(shared: Arc<Shared>, mut ours: watch::Receiver<Vec<SocketAddr>>) {
    loop {
        let own = ours.borrow_and_update().clone();
        let loading = shared.clone();
        // Files may hang (a network mount), so not on a thread that answers.
        if tokio::task::spawn_blocking(move || loading.upstreams.load(&own)).await.is_err() {
            tracing::warn!("reading the DNS upstreams failed");
        }
        tokio::select! {
            changed = ours.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// The servers that a file names, each once, without our own sockets. Besides an address a line may
/// hold `ADDR:PORT`. An address with a zone (`fe80::1%eth0`) is left out.
fn parse(text: &str, ours: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(word) = words.next() else { continue };
        let plain = word.parse().map(|ip| SocketAddr::new(ip, PORT));
        let Ok(server) = plain.or_else(|_| word.parse()) else { continue };
        if !is_ours(server, ours) && !servers.contains(&server) && servers.len() < UPSTREAMS_MAX {
            servers.push(server);
        }
    }
    servers
}

/// Whether a server is one of our own sockets; a wildcard one hears on loopback too.
fn is_ours(server: SocketAddr, ours: &[SocketAddr]) -> bool {
    ours.iter().any(|own| {
        let heard = own.ip().is_unspecified() && server.ip().is_loopback();
        own.port() == server.port() && (own.ip() == server.ip() || heard)
    })
}

fn build(servers: &[SocketAddr]) -> Result<Option<TokioResolver>, NetError> {
    if servers.is_empty() {
        return Ok(None);
    }
    let name_server = |server: &SocketAddr| {
        let mut config = NameServerConfig::udp_and_tcp(server.ip());
        config.connections.iter_mut().for_each(|connection| connection.port = server.port());
        config
    };
    let name_servers = servers.iter().map(name_server).collect();
    let config = ResolverConfig::from_parts(None, vec![], name_servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHE_ENTRIES_MAX;
    options.ndots = 0;
    options.edns0 = true;
    options.edns_payload_len = 1232;
    options.timeout = ATTEMPT_MAX;
    options.attempts = ATTEMPTS;
    options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
    options.preserve_intermediates = true;
    options.try_tcp_on_error = true;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    builder.build().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_name_server_lines_count() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver\t10.0.0.1 # first\n\
            nameserver nonsense\nnameserver fe80::1%eth0\nnameserver\nnameserver 10.0.0.1\n\
            nameserver fd00::1\nnameserver 127.0.0.1:5300\nnameserver 10.32.0.1\n";
        let ours = ["10.32.0.1:53".parse().unwrap()];
        let servers: Vec<String> = parse(text, &ours).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "127.0.0.1:5300"]);
        let wildcard = ["[::]:53".parse().unwrap()];
        assert!(parse("nameserver 127.0.0.1\nnameserver ::1", &wildcard).is_empty());
    }
}
