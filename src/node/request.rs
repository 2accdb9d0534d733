//! What people and programs ask of a node, and what they get. The bodies are the local API's.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::event::Credentials;
use crate::api::types;

/// A target as somebody wrote it, and what looking it up gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTarget {
    /// As it was written.
    pub target: String,
    /// Its addresses, or in words why there is none.
    pub found: Result<Vec<SocketAddr>, String>,
}

impl From<SocketAddr> for JoinTarget {
    fn from(address: SocketAddr) -> Self {
        Self { target: address.to_string(), found: Ok(vec![address]) }
    }
}

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Found a mesh. The driver draws id and secret.
    Init {
        /// The new mesh.
        credentials: Credentials,
        /// Its ranges, the first of each family the default one; empty for the defaults.
        ranges: Vec<IpNetwork>,
    },
    /// Join a mesh through these targets.
    Join {
        /// Which mesh.
        credentials: Credentials,
        /// Where members of it may be found.
        targets: Vec<JoinTarget>,
    },
    /// Found a mesh together with others that start with the same number of founders, by agreement.
    Found {
        /// The new mesh; the same on all of them.
        credentials: Credentials,
        /// Its ranges, as in `Init`.
        ranges: Vec<IpNetwork>,
        /// How many hosts found it, this one included.
        founders: u16,
        /// Where the others may be found.
        targets: Vec<JoinTarget>,
    },
    /// Give addresses back, tell the others, remove everything.
    Leave,
    /// Take the blocks of dead hosts from them.
    PeerRemove {
        /// Their names or ids.
        peers: Vec<String>,
        /// Do not wait for those who do not answer.
        force: bool,
    },
    /// Add a range to the mesh.
    RangeAdd(IpNetwork),
    /// The join token's content.
    Token,
    /// How it stands.
    Status,
    /// Who is in the mesh.
    Peers,
    /// Give a container addresses, names and, if it has a namespace, a link. Idempotent by
    /// container and interface.
    Attach(Box<types::AttachRequest>),
    /// Take them back. Idempotent.
    Detach {
        /// Container id.
        container: String,
        /// Its interface; `None` for all it has.
        interface: Option<String>,
    },
    /// Is what a container was given still there?
    Check {
        /// Container id.
        container: String,
        /// Its interface.
        interface: String,
    },
    /// Who holds which address on this host.
    Allocations,
    /// Set an address aside for a holder without a container.
    Claim {
        /// Which address; `None` for any of the first range.
        address: Option<IpAddr>,
        /// For whom.
        holder: String,
    },
    /// Give such an address, or all that the holder has, back.
    Release {
        /// For whom it was set aside.
        holder: String,
    },
    /// Add a record by hand.
    DnsAdd {
        /// The name, with or without the mesh's domain.
        name: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// Remove records that were added by hand on this host.
    DnsRemove {
        /// The name.
        name: String,
        /// Which addresses; empty for all.
        addresses: Vec<IpAddr>,
    },
    /// All records.
    DnsList,
    /// Dial a target now and keep on.
    Connect(SocketAddr),
    /// Do not dial a target any more.
    Forget(SocketAddr),
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "replies are boxed on their way out")]
pub enum Reply {
    /// Done, and there is nothing to tell.
    Done,
    /// To `Init` and `Join`.
    Joined(types::Joined),
    /// To `PeerRemove`.
    Removed(types::Removed),
    /// To `Token`.
    Token(Credentials),
    /// To `Status`.
    Status(Box<types::Status>),
    /// To `Peers`.
    Peers(Vec<types::Peer>),
    /// To `Attach` and `Check`.
    Attached(types::Attachment),
    /// To `Allocations`.
    Allocations(Vec<types::Allocation>),
    /// To `Claim`.
    Claimed(types::Allocation),
    /// To `DnsList`.
    Records(Vec<types::Record>),
}

/// Why something was not done. State is unchanged unless the message says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// What happened and why, for people.
    pub message: String,
    /// What to do next, for people.
    pub hint: String,
}

impl Refusal {
    /// Makes a refusal.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "io", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is wrong: it will never succeed as it is.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// Somebody else has it, or the host is in another state than the request needs.
    Conflict,
    /// Another order came, which is carried out instead.
    Superseded,
    /// This host is in no mesh, or not ready yet: try again later.
    NotReady,
    /// There is no address left that could be given.
    Exhausted,
    /// It took longer than the asker would wait: try again.
    Timeout,
    /// The machine failed: disk or kernel.
    Internal,
}
