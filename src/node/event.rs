//! What happens to a node and what it wants done: the closed pair of enums.
//!
//! Drive a node like this, and nothing else touches it:
//!
//! ```text
//!   loop { wait for the next event or for poll_timeout()
//!          node.handle_input(input, now)
//!          while let Some(output) = node.poll_output() { do it } }
//! ```
//!
//! Order is law: what is answered was announced or may be, what is announced is on disk. A driver
//! carries outputs out in their order, except that it may start several [`Output::Persist`] before
//! the first is done, as long as they become durable in their order.

use std::{net::SocketAddr, time::Duration};

use ipnetwork::IpNetwork;
use mesh_dns::ZoneChange;
use mesh_ipam::Holder;
use mesh_router::MeshId;
pub use mesh_router::link::{DialError, LinkId, LinkUp};
use serde::{Deserialize, Serialize};

use super::{
    desired::{Desired, Wiring},
    request::{Refusal, Reply, Request},
};

/// A request to the node; the driver numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A batch of writes to the disk; the node numbers them upwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// The secret that every member of a mesh knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is known of a host's disk at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// The host's key was made just now: it never wrote anything, anywhere.
    New,
    /// It is for sure as this host's last run left it: it was not exchanged meanwhile.
    Same,
    /// It may be an old image.
    MayBeOld,
}

/// What makes a host a member of a mesh; a join token holds just this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Which mesh.
    pub mesh: MeshId,
    /// Its secret.
    pub secret: Secret,
}

/// What the underlay of this host looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Underlay {
    /// Control endpoints that others can dial, best first.
    pub endpoints: Vec<SocketAddr>,
    /// The least MTU of the interfaces that hold them.
    pub mtu_bytes: u32,
    /// Routes of this host that are not the mesh's own, default routes left out.
    pub routes: Vec<IpNetwork>,
}

/// What the disk keeps, as keys and values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Which mesh, its secret, the node's own settings.
    Mesh,
    /// Peers that were dialled by hand or learned.
    Targets,
    /// Entries of the membership.
    Members,
    /// Entries of the ring.
    Ring,
    /// Entries of the zone.
    Zone,
    /// Version vectors and floors of the three, per origin.
    Vectors,
    /// What containers hold: addresses, names, wiring.
    Attachments,
    /// Who held which addresses last.
    Rests,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 8] = [
        Self::Mesh,
        Self::Targets,
        Self::Members,
        Self::Ring,
        Self::Zone,
        Self::Vectors,
        Self::Attachments,
        Self::Rests,
    ];

    /// The table's name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Targets => "targets",
            Self::Members => "members",
            Self::Ring => "ring",
            Self::Zone => "zone",
            Self::Vectors => "vectors",
            Self::Attachments => "attachments",
            Self::Rests => "rests",
        }
    }
}

/// One write to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// What to put there; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// One row of what the disk held at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which table.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// What is there.
    pub value: Vec<u8>,
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A link came up.
    LinkUp(LinkUp),
    /// A link is gone, for this reason.
    LinkDown {
        /// Which one.
        link: LinkId,
        /// In words.
        reason: String,
    },
    /// A whole frame arrived.
    Frame {
        /// From where.
        link: LinkId,
        /// Its bytes, undecoded.
        bytes: Vec<u8>,
    },
    /// Some bytes arrived, if not yet a whole frame: the link lives.
    Activity {
        /// On which link.
        link: LinkId,
    },
    /// So many bytes of earlier [`Output::Send`]s were handed to the network.
    Sent {
        /// On which link.
        link: LinkId,
        /// How many.
        bytes: usize,
    },
    /// A target that was to be dialled gave no link.
    DialFailed {
        /// Which one.
        target: SocketAddr,
        /// Why.
        error: DialError,
    },
    /// Another machine with this host's key tried to make a link.
    Twin {
        /// From where.
        remote: SocketAddr,
    },
    /// A batch, and with it every earlier one, is durable.
    Persisted(BatchId),
    /// A batch, and with it every later one that was begun, could not be written.
    PersistFailed {
        /// Which one.
        batch: BatchId,
        /// Why, for people.
        reason: String,
    },
    /// A container's link stands; the namespace had this identity.
    Wired {
        /// Whose.
        holder: Holder,
        /// Inode and device of the namespace.
        netns_identity: (u64, u64),
    },
    /// A container's link could not be made; nothing of it is left.
    WireFailed {
        /// Whose.
        holder: Holder,
        /// Why.
        refusal: Refusal,
    },
    /// A container's link is gone.
    Unwired {
        /// Whose.
        holder: Holder,
    },
    /// The kernel stands as the newest [`Output::Program`] wants it.
    Programmed,
    /// The underlay changed (or is known for the first time).
    Underlay(Underlay),
    /// Somebody asks for something.
    Request {
        /// Its number, for the reply.
        id: RequestId,
        /// What.
        request: Box<Request>,
        /// For how long the asker waits.
        patience: Duration,
    },
    /// Nothing but the time: [`super::Node::poll_timeout`] has passed.
    Timeout,
}

/// What to do next.
#[derive(Debug, Clone)]
pub enum Output {
    /// From now on links to members of this mesh may be made and accepted; `None`: to nobody.
    Membership(Option<Credentials>),
    /// Connect to a target. Answered by `LinkUp` or `DialFailed`.
    Dial(SocketAddr),
    /// Send a frame.
    Send {
        /// On which link.
        link: LinkId,
        /// Whether it may overtake frames that are not.
        urgent: bool,
        /// The frame.
        bytes: Vec<u8>,
    },
    /// End a link. No `LinkDown` follows.
    Close {
        /// Which one.
        link: LinkId,
        /// In words, also for the other side.
        reason: String,
    },
    /// Make these writes durable, all or none, after all earlier batches.
    Persist {
        /// Its number.
        batch: BatchId,
        /// The writes.
        writes: Vec<Write>,
    },
    /// Make a container's link now.
    Wire {
        /// Whose.
        holder: Holder,
        /// Which.
        wiring: Box<Wiring>,
    },
    /// Remove a container's link now.
    Unwire {
        /// Whose.
        holder: Holder,
        /// Name of the host's end.
        host_name: String,
    },
    /// The kernel state that is wanted from now on; `None` removes all that is ours.
    Program(Option<Box<Desired>>),
    /// A change of what the resolver answers.
    Zone(ZoneChange),
    /// The answer to a request.
    Reply {
        /// Which one.
        id: RequestId,
        /// What, or why not.
        result: Result<Box<Reply>, Refusal>,
    },
    /// Something that the log should say.
    Notice(Notice),
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// What happened.
    pub text: String,
}
