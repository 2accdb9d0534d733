//! Proof of membership, after TLS and before anything else, on the dialler's first stream.
//!
//! ```text
//!   dialler                                    acceptor
//!     | -- hello: version, tag, proof, inc. ->    |  checks; closes with a code if it refuses
//!     | <- hello: version, tag, proof, inc. --    |  = "you are accepted"
//!     |    checks; closes with a code             |
//!     | -- accepted (1 byte) ------------------>  |
//!    up                                           up
//! ```
//!
//! * proof = HMAC-SHA256(mesh secret, everything that both know of this connection, see [`Seal`]).
//!   The exporter (RFC 5705, RFC 8446 section 7.5) binds it to the TLS session, so it cannot be
//!   relayed or replayed; the role, so that it cannot be reflected.
//! * tag = the same with the mesh id as the key: two members of different meshes find that out,
//!   and a stranger, who does not know the id, learns nothing.
//!
//! Each side knows that the other has accepted it before it calls the link up. After the first
//! hello nothing is read from a side that has not proved itself.

use mesh_router::{MeshId, PeerId};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use ring::hmac;

use super::{
    identity::{Identity, PublicKey, peer_id},
    tls::peer_key,
};
use crate::node::event::{Credentials, DialError};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Version, tag, proof, incarnation.
const HELLO_BYTES: usize = 1 + 2 * MAC_BYTES + 8;
const ACCEPTED: u8 = 0xac;
const EXPORTER_LABEL: &[u8] = b"EXPORTER-meshwork-membership";

/// The application code of a close that is not a refusal.
pub(super) const CLOSED: VarInt = VarInt::from_u32(1);

/// Why a connection became no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The two sides are in different meshes.
    ForeignMesh,
    /// The same mesh id, but not the same secret.
    WrongSecret,
    /// The other side is this process.
    Ourselves,
    /// The other side has this host's key, but is another process.
    Twin,
    /// The refusing side is in no mesh.
    NotMember,
    /// The other side said something that this version does not understand.
    Protocol(String),
    /// The connection broke first.
    Lost(String),
}

const REFUSALS: [(u32, Rejection); 5] = [
    (2, Rejection::ForeignMesh),
    (3, Rejection::WrongSecret),
    (4, Rejection::Ourselves),
    (5, Rejection::NotMember),
    (7, Rejection::Twin),
];
const PROTOCOL_CODE: u32 = 6;

impl Rejection {
    /// The application code that tells the other side.
    pub(super) fn code(&self) -> VarInt {
        let found = REFUSALS.iter().find(|(_, rejection)| rejection == self);
        VarInt::from_u32(found.map_or(PROTOCOL_CODE, |(code, _)| *code))
    }

    /// What the other side did, for the log of the side that refuses.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::ForeignMesh => "it belongs to another mesh",
            Self::WrongSecret => "its join token is not this mesh's",
            Self::Ourselves => "it is this host itself",
            Self::Twin => {
                "it has this host's key: one machine is a copy of the other; remove identity.key \
                 from the state directory of one of them"
            }
            Self::NotMember => "this host is not in a mesh yet (meshctl init or join)",
            Self::Protocol(reason) | Self::Lost(reason) => reason,
        }
    }
}

impl From<ConnectionError> for Rejection {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                let refusal = REFUSALS.iter().find(|(known, _)| u64::from(*known) == code);
                match refusal {
                    Some((_, rejection)) => rejection.clone(),
                    None if code == u64::from(PROTOCOL_CODE) => {
                        Self::Protocol(clean(&close.reason))
                    }
                    None => Self::Lost(format!("closed by the peer: {}", clean(&close.reason))),
                }
            }
            ConnectionError::VersionMismatch => {
                Self::Protocol("it speaks another version of QUIC".to_owned())
            }
            ConnectionError::TransportError(error) if is_tls(error.code) => {
                Self::Protocol(format!("the TLS handshake failed: {}", error.reason))
            }
            ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => {
                Self::Protocol(format!("the TLS handshake failed: {}", clean(&close.reason)))
            }
            error => Self::Lost(describe(&error)),
        }
    }
}

impl From<Rejection> for DialError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::ForeignMesh => Self::ForeignMesh,
            Rejection::WrongSecret => Self::WrongSecret,
            Rejection::Ourselves => Self::Ourselves,
            Rejection::NotMember => Self::NotMember,
            Rejection::Twin => Self::Twin,
            Rejection::Protocol(reason) => Self::Protocol(reason),
            Rejection::Lost(reason) => Self::Unreachable(reason),
        }
    }
}

fn is_tls(code: quinn::TransportErrorCode) -> bool {
    // RFC 9001 section 4.8: TLS alerts are the codes 0x100 to 0x1ff.
    (0x100..0x200).contains(&u64::from(code))
}

/// A lost connection in words.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by the peer: {}", clean(&close.reason))
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            "the peer has too many handshakes under way".to_owned()
        }
        ConnectionError::Reset => "the peer restarted".to_owned(),
        ConnectionError::TimedOut => "nothing was heard from the peer".to_owned(),
        ConnectionError::LocallyClosed => "closed by this host".to_owned(),
        error => error.to_string(),
    }
}

/// A peer's words, made fit for a log line.
fn clean(reason: &[u8]) -> String {
    const CHARS_MAX: usize = 200;
    let text = String::from_utf8_lossy(reason);
    let text = text.chars().take(CHARS_MAX).filter(|c| !c.is_control()).collect::<String>();
    if text.is_empty() { "no reason given".to_owned() } else { text }
}

/// What this side brings into a handshake.
pub(super) struct Local<'a> {
    pub(super) identity: &'a Identity,
    pub(super) incarnation: u64,
    pub(super) credentials: Option<Credentials>,
}

/// The other side, proved, and the stream that is now free for frames.
pub(super) struct Proved {
    pub(super) peer: PeerId,
    pub(super) incarnation: u64,
    /// The mesh that both are in.
    pub(super) mesh: MeshId,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

/// The handshake of the side that dialled.
pub(super) async fn dial(local: Local<'_>, connection: &Connection) -> Result<Proved, Rejection> {
    let key = remote_key(connection)?;
    let credentials = local.credentials.ok_or(Rejection::NotMember)?;
    let seal = Seal::of(connection, local.identity.public_key(), &key, &credentials)?;
    let (mut send, mut recv) = connection.open_bi().await?;
    write(&mut send, connection, &seal.hello(Role::Dialler, local.incarnation)).await?;
    let hello = read_hello(&mut recv, connection).await?;
    seal.check(Role::Acceptor, &hello)?;
    write(&mut send, connection, &[ACCEPTED]).await?;
    let mesh = credentials.mesh;
    Ok(Proved { peer: peer_id(&key), incarnation: hello.incarnation(), mesh, send, recv })
}

/// The handshake of the side that was dialled.
pub(super) async fn accept(local: Local<'_>, connection: &Connection) -> Result<Proved, Rejection> {
    let key = remote_key(connection)?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    let hello = read_hello(&mut recv, connection).await?;
    if key == *local.identity.public_key() {
        let same = hello.incarnation() == local.incarnation;
        return Err(if same { Rejection::Ourselves } else { Rejection::Twin });
    }
    let credentials = local.credentials.ok_or(Rejection::NotMember)?;
    let seal = Seal::of(connection, &key, local.identity.public_key(), &credentials)?;
    seal.check(Role::Dialler, &hello)?;
    write(&mut send, connection, &seal.hello(Role::Acceptor, local.incarnation)).await?;
    let mut answer = [0];
    read(&mut recv, connection, &mut answer).await?;
    if answer != [ACCEPTED] {
        return Err(Rejection::Protocol("the handshake ended with an unknown byte".to_owned()));
    }
    let mesh = credentials.mesh;
    Ok(Proved { peer: peer_id(&key), incarnation: hello.incarnation(), mesh, send, recv })
}

#[derive(Clone, Copy)]
enum Role {
    Dialler = 1,
    Acceptor = 2,
}

/// What both sides know of this one connection, and the keys that only members have.
struct Seal {
    exporter: [u8; 32],
    dialler: PublicKey,
    acceptor: PublicKey,
    mesh: hmac::Key,
    secret: hmac::Key,
}

impl Seal {
    fn of(
        connection: &Connection,
        dialler: &PublicKey,
        acceptor: &PublicKey,
        credentials: &Credentials,
    ) -> Result<Self, Rejection> {
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
            .map_err(|_| Rejection::Protocol("TLS exports no keys".to_owned()))?;
        Ok(Self {
            exporter,
            dialler: *dialler,
            acceptor: *acceptor,
            mesh: hmac::Key::new(hmac::HMAC_SHA256, credentials.mesh.as_bytes()),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &credentials.secret.0),
        })
    }

    /// Every part has a fixed length, so no two inputs give the same bytes.
    fn message(&self, role: Role, incarnation: u64) -> Vec<u8> {
        let head = [VERSION, role as u8];
        let incarnation = incarnation.to_be_bytes();
        [&head[..], &self.exporter, &self.dialler, &self.acceptor, &incarnation].concat()
    }

    fn hello(&self, role: Role, incarnation: u64) -> [u8; HELLO_BYTES] {
        let message = self.message(role, incarnation);
        let mut bytes = [0; HELLO_BYTES];
        bytes[0] = VERSION;
        bytes[1..][..MAC_BYTES].copy_from_slice(hmac::sign(&self.mesh, &message).as_ref());
        bytes[1 + MAC_BYTES..][..MAC_BYTES]
            .copy_from_slice(hmac::sign(&self.secret, &message).as_ref());
        bytes[1 + 2 * MAC_BYTES..].copy_from_slice(&incarnation.to_be_bytes());
        bytes
    }

    fn check(&self, role: Role, hello: &Hello) -> Result<(), Rejection> {
        let message = self.message(role, hello.incarnation());
        // Constant time, both.
        hmac::verify(&self.mesh, &message, hello.tag()).map_err(|_| Rejection::ForeignMesh)?;
        hmac::verify(&self.secret, &message, hello.proof()).map_err(|_| Rejection::WrongSecret)
    }
}

/// A hello of our version.
struct Hello([u8; HELLO_BYTES]);

impl Hello {
    fn tag(&self) -> &[u8] {
        &self.0[1..][..MAC_BYTES]
    }

    fn proof(&self) -> &[u8] {
        &self.0[1 + MAC_BYTES..][..MAC_BYTES]
    }

    fn incarnation(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[1 + 2 * MAC_BYTES..]);
        u64::from_be_bytes(bytes)
    }
}

fn remote_key(connection: &Connection) -> Result<PublicKey, Rejection> {
    peer_key(connection).ok_or_else(|| Rejection::Protocol("it showed no ed25519 key".to_owned()))
}

/// Reads the version first: a later one may be longer.
async fn read_hello(recv: &mut RecvStream, connection: &Connection) -> Result<Hello, Rejection> {
    let mut bytes = [0; HELLO_BYTES];
    read(recv, connection, &mut bytes[..1]).await?;
    if bytes[0] != VERSION {
        let version = bytes[0];
        return Err(Rejection::Protocol(format!("version {version} instead of {VERSION}")));
    }
    read(recv, connection, &mut bytes[1..]).await?;
    Ok(Hello(bytes))
}

async fn read(
    recv: &mut RecvStream,
    connection: &Connection,
    bytes: &mut [u8],
) -> Result<(), Rejection> {
    recv.read_exact(bytes).await.map_err(|_| broken(connection))
}

async fn write(
    send: &mut SendStream,
    connection: &Connection,
    bytes: &[u8],
) -> Result<(), Rejection> {
    send.write_all(bytes).await.map_err(|_| broken(connection))
}

/// A stream broke: mostly because the connection did, which says why.
fn broken(connection: &Connection) -> Rejection {
    connection
        .close_reason()
        .map_or_else(|| Rejection::Protocol("it ended the handshake early".to_owned()), Into::into)
}
