//! Links as the router sees them: numbered, authenticated, either up or gone.
//!
//! Making and authenticating them is the transport's work.

use std::net::SocketAddr;

use crate::PeerId;

/// A connection to a peer that both sides have authenticated; the driver numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A link that has come up. Both sides have proved their key and the mesh's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUp {
    /// Its number.
    pub link: LinkId,
    /// Who is at the other end.
    pub peer: PeerId,
    /// Drawn at random when the other end's process started.
    pub incarnation: u64,
    /// The other end's underlay address and port.
    pub remote: SocketAddr,
    /// The target that was dialled, when this side did; `None` when the other side did.
    pub dialled: Option<SocketAddr>,
}

/// Why a dialled target gave no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered in time, or the network said that nobody can.
    #[error("no answer ({0})")]
    Unreachable(String),
    /// The other side is in another mesh. Not retried soon.
    #[error("it belongs to another mesh")]
    ForeignMesh,
    /// The other side is in another mesh, whose hosts founded it with the same token. Not retried
    /// soon.
    #[error(
        "it is in another mesh, founded apart with the same token: `meshctl leave` on the hosts of \
         one of the two, then let them join the other"
    )]
    OtherMesh,
    /// The other side does not know our secret, or we not theirs. Not retried soon.
    #[error("the join token is not this mesh's")]
    WrongSecret,
    /// The other side is this host itself. Never retried.
    #[error("it is this host itself")]
    Ourselves,
    /// The other side has this host's key, but is another machine.
    #[error("it has this host's key: one machine is a copy of the other")]
    Twin,
    /// The other side is not in any mesh yet.
    #[error("it is not in a mesh yet")]
    NotMember,
    /// The other side speaks a protocol that we do not.
    #[error("it does not speak our protocol ({0})")]
    Protocol(String),
}

impl DialError {
    /// Whether trying again soon is pointless: somebody must change a configuration first.
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::NotMember)
    }
}
