//! Names asked of a host's resolver, from where one chooses to stand.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};

use super::Namespace;

/// The greatest message without EDNS, RFC 1035 section 4.2.1, with room for a server that errs.
const MESSAGE_BYTES: usize = 4096;

/// A socket in a namespace, aimed at one resolver.
#[derive(Debug)]
pub struct NameQuery {
    socket: UdpSocket,
    server: SocketAddr,
}

/// What a resolver answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response code in words.
    pub code: String,
    /// The records' data in words, names without their last dot, sorted.
    pub records: Vec<String>,
}

impl NameQuery {
    /// Makes the socket.
    ///
    /// # Errors
    /// When there is no way to the server from there.
    pub fn new(from: &Namespace, server: SocketAddr) -> Result<Self> {
        let any: SocketAddr =
            if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = from
            .inside(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(server)?;
                Ok::<_, std::io::Error>(socket)
            })?
            .with_context(|| format!("cannot aim at {server} from {}", from.name()))?;
        Ok(Self { socket, server })
    }

    /// Asks for the records of a name.
    ///
    /// # Errors
    /// When the name cannot be one, or no answer came within `patience`.
    pub fn ask(&self, name: &str, kind: RecordType, patience: Duration) -> Result<Answer> {
        let name = Name::from_utf8(name).with_context(|| format!("{name:?} is no name"))?;
        self.ask_name(name, kind, patience)
    }

    /// Asks for the names of an address.
    ///
    /// # Errors
    /// When no answer came within `patience`.
    pub fn ask_reverse(&self, address: IpAddr, patience: Duration) -> Result<Answer> {
        self.ask_name(Name::from(address), RecordType::PTR, patience)
    }

    fn ask_name(&self, mut name: Name, kind: RecordType, patience: Duration) -> Result<Answer> {
        name.set_fqdn(true);
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), kind));
        self.socket.send(&query.to_vec()?).context("cannot send the query")?;
        let end = Instant::now() + patience;
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} did not answer {kind} {name} within {patience:?}", self.server);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = self.socket.recv(&mut bytes) else { continue };
            let answer = Message::from_vec(&bytes[..length]).context("undecodable answer")?;
            if answer.metadata.id == query.metadata.id {
                return Ok(Answer::from(&answer));
            }
        }
    }
}

impl From<&Message> for Answer {
    fn from(message: &Message) -> Self {
        let text = |data: String| data.trim_end_matches('.').to_owned();
        let mut records: Vec<_> =
            message.answers.iter().map(|record| text(record.data.to_string())).collect();
        records.sort();
        Self { code: message.metadata.response_code.to_string(), records }
    }
}
