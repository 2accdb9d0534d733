//! A host's kernel: container links and gateway addresses. It outlives the node's crashes.
//!
//! Operations are done one after the other, in the order in which they were asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use mesh_ipam::Holder;
use meshwork::node::desired::{Desired, Wiring};

/// Something that the kernel is asked to do.
#[derive(Debug)]
pub(crate) enum Operation {
    Wire { holder: Holder, wiring: Box<Wiring> },
    Unwire { holder: Holder, host_name: String },
    Program(Option<Box<Desired>>),
}

/// A container's link that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) holder: Option<Holder>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    /// By the name of the host's end.
    pub(crate) ports: BTreeMap<String, Port>,
    /// The addresses of the bridge.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) queue: VecDeque<Operation>,
    /// The operation at the head of the queue is under way.
    pub(crate) busy: bool,
}

impl Kernel {
    /// The node is gone: what was not begun is never done.
    pub(crate) fn crash(&mut self) {
        self.queue.clear();
        self.busy = false;
    }

    /// Whether a newer desired state waits.
    pub(crate) fn has_newer_program(&self) -> bool {
        self.queue.iter().any(|operation| matches!(operation, Operation::Program(_)))
    }
}

/// The addresses of a link.
pub(crate) fn addresses(wiring: &Wiring) -> Vec<IpAddr> {
    wiring.addresses.iter().map(ipnetwork::IpNetwork::ip).collect()
}
