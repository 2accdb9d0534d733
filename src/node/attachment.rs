//! One attachment and the states it goes through.
//!
//! ```text
//!            space is there          stored and wired
//!  Waiting ------------------> Making ---------------> Standing
//!     |                          |                        |
//!     | patience ends            | disk or kernel fails   | detach
//!     v                          v                        v
//!   (gone, refused)           Removing <------------------+
//!                                |  stored and unwired
//!                                v
//!                              (gone: only now its addresses are free)
//! ```
//!
//! Persist, announce, reply: an attach is answered in `Standing`, which is entered only when its
//! batch is durable (and so its names may be announced) and its link stands. A detach is answered
//! as soon as it is durable; the addresses stay held until the kernel has removed the link.

use std::net::IpAddr;

use mesh_dns::Name;
use mesh_ipam::Holder;
use mesh_router::Time;
use serde::{Deserialize, Serialize};

use super::{
    desired::Wiring,
    event::{BatchId, RequestId},
    request::Refusal,
};
use crate::api::types::AttachRequest;

/// What a holder has been given; the row on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose.
    pub holder: Holder,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its names.
    pub names: Vec<Name>,
    /// Its link, if it has one.
    pub wiring: Option<Wiring>,
    /// Whether its traffic to outside the mesh is masqueraded.
    pub masquerade: bool,
}

/// Where an attachment stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no address yet. The node asks others for space until the time, if there is one.
    Waiting(Option<Time>),
    /// Being stored and wired.
    Making {
        /// The batch that must be durable; `None` when it is.
        storing: Option<BatchId>,
        /// Whether the kernel is still at it.
        wiring: bool,
    },
    /// Complete.
    Standing,
    /// Being deleted and unwired.
    Removing {
        /// The batch that must be durable; `None` when it is.
        storing: Option<BatchId>,
        /// Whether the kernel is still at it.
        wiring: bool,
    },
}

/// An attachment, its stage and who waits for it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) record: Record,
    pub(super) stage: Stage,
    /// When its first address was asked for.
    pub(super) since: Time,
    /// It stood once: somebody relies on it, so only a detach ends it.
    pub(super) stood: bool,
    /// Its link before an attach was repeated: what it keeps when that fails.
    pub(super) before: Option<Wiring>,
    /// What was asked for, while addresses are still to be found.
    pub(super) request: Option<Box<AttachRequest>>,
    /// Attaches to answer when it stands.
    pub(super) askers: Vec<RequestId>,
    /// Detaches to answer when its removal is durable.
    pub(super) removers: Vec<RequestId>,
    /// Why it is being removed although nobody asked for that: the askers' answer.
    pub(super) failure: Option<Refusal>,
    /// Attaches of the same holder that came while it was being removed.
    pub(super) next: Vec<(RequestId, Box<AttachRequest>, Time)>,
}

impl Slot {
    /// A slot in `Waiting` that nobody has asked for yet.
    pub(super) fn new(holder: Holder, until: Option<Time>) -> Self {
        Self {
            record: Record {
                holder,
                addresses: Vec::new(),
                names: Vec::new(),
                wiring: None,
                masquerade: true,
            },
            stage: Stage::Waiting(until),
            since: Time::ZERO,
            stood: false,
            before: None,
            request: None,
            askers: Vec::new(),
            removers: Vec::new(),
            failure: None,
            next: Vec::new(),
        }
    }

    /// A slot in `Standing`, as read from disk.
    pub(super) fn restored(record: Record) -> Self {
        Self { stage: Stage::Standing, stood: true, ..Self::new(record.holder.clone(), None) }
            .with(record)
    }

    fn with(mut self, record: Record) -> Self {
        self.record = record;
        self
    }

    /// Its batch is durable.
    pub(super) fn stored(&mut self, batch: BatchId) {
        if let Stage::Making { storing, .. } | Stage::Removing { storing, .. } = &mut self.stage
            && storing.is_some_and(|waiting| waiting <= batch)
        {
            *storing = None;
        }
    }

    /// The kernel is done with it.
    pub(super) fn kernel_done(&mut self) {
        if let Stage::Making { wiring, .. } | Stage::Removing { wiring, .. } = &mut self.stage {
            *wiring = false;
        }
    }
}
