//! The driver: carries the node's outputs out, in their order.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use mesh_router::{PeerId, member};
use tokio::sync::oneshot;

use super::{clock::Clock, handle::Ask, keepsake::Keepsake};
use crate::{
    api::types::Status,
    kernel::Kernel,
    node::{
        Node,
        desired::Desired,
        event::{Credentials, Input, LinkId, Output, RequestId},
        request::{Refusal, Reply},
    },
    resolver::Resolver,
    storage::Storage,
    transport::Transport,
};

/// The resolver's port on the gateway addresses.
const DNS_PORT: u16 = 53;

/// Everything that the node's outputs touch.
pub(super) struct Driver {
    pub(super) node: Node,
    pub(super) clock: Clock,
    pub(super) transport: Transport,
    pub(super) storage: Storage,
    pub(super) kernel: Kernel,
    pub(super) resolver: Resolver,
    pub(super) state_dir: PathBuf,
    /// Fixed listen addresses of the resolver; empty: the gateways'.
    pub(super) dns_listen: Vec<SocketAddr>,
    pub(super) replies: BTreeMap<RequestId, oneshot::Sender<Result<Box<Reply>, Refusal>>>,
    pub(super) next_request: u64,
    pub(super) credentials: Option<Credentials>,
    pub(super) kept: Option<Keepsake>,
}

impl Driver {
    /// Something happened.
    pub(super) fn input(&mut self, input: Input) {
        if matches!(input, Input::PersistFailed { .. }) {
            self.storage.resume();
        }
        self.node.handle_input(input, self.clock.now());
        self.carry_out();
    }

    /// Somebody asks.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.replies.insert(id, ask.reply);
        let Ask { request, patience, .. } = Ask { reply: oneshot::channel().0, ..ask };
        self.input(Input::Request { id, request, patience });
    }

    /// How long it is until the node wants to be woken.
    pub(super) fn sleeps(&self) -> Option<Duration> {
        self.node.poll_timeout().map(|at| self.clock.until(at))
    }

    /// Carries out what the node wants.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.carry(output);
        }
    }

    fn carry(&mut self, output: Output) {
        match output {
            Output::Membership(credentials) => self.membership(credentials),
            Output::Dial(target) => self.transport.dial(target),
            Output::Send { link, urgent, bytes } => self.transport.send(link, urgent, bytes),
            Output::Close { link, reason } => self.transport.close(link, &reason),
            Output::Persist { batch, writes } => self.storage.persist(batch, writes),
            Output::Wire { holder, wiring } => self.kernel.wire(holder, *wiring),
            Output::Unwire { holder, host_name } => self.kernel.unwire(holder, host_name),
            Output::Program(desired) => self.program(desired),
            Output::Zone(change) => self.resolver.apply(change),
            Output::Reply { id, result } => self.reply(id, result),
            Output::Notice(notice) if notice.warning => tracing::warn!("{}", notice.text),
            Output::Notice(notice) => tracing::info!("{}", notice.text),
        }
    }

    fn membership(&mut self, credentials: Option<Credentials>) {
        self.credentials.clone_from(&credentials);
        if credentials.is_none() {
            self.kept = None;
            Keepsake::remove(&self.state_dir);
        }
        self.transport.membership(credentials);
        self.keep();
    }

    fn program(&mut self, desired: Option<Box<Desired>>) {
        if let Some(desired) = &desired {
            self.resolver.set_ranges(desired.ranges.clone());
            if self.dns_listen.is_empty() {
                let gateways = desired.bridge.gateways.iter();
                self.resolver.listen(gateways.map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect());
            }
        } else if self.dns_listen.is_empty() {
            self.resolver.listen(Vec::new());
        }
        self.kernel.program(desired);
    }

    fn reply(&mut self, id: RequestId, mut result: Result<Box<Reply>, Refusal>) {
        let Some(reply) = self.replies.remove(&id) else { return };
        if let Ok(reply) = &mut result
            && let Reply::Status(status) = &mut **reply
        {
            self.complete(status);
        }
        // Whoever gave up meanwhile learns the answer by asking again.
        let _ = reply.send(result);
    }

    /// Adds what only the driver's parts know.
    fn complete(&self, status: &mut Status) {
        let by_link = self.transport.round_trips();
        let links: BTreeMap<PeerId, LinkId> =
            self.node.link_peers().map(|(link, peer)| (peer, link)).collect();
        for connection in &mut status.connections {
            let rtt = links.get(&connection.peer).and_then(|link| by_link.get(link));
            connection.rtt_ms = rtt.map(|rtt| (rtt.as_secs_f64() * 1e6).round() / 1e3);
        }
        status.dns.listen = self.resolver.listening();
        status.dns.upstream = self.resolver.upstreams();
        status.repairs = self.kernel.repairs();
        let problems = self.kernel.problems();
        if !problems.is_empty() && status.reason.is_none() {
            status.reason = Some(format!("the kernel refuses: {}", problems.join("; ")));
        }
    }

    /// Keeps what a host whose state is lost needs to come back, when it has changed.
    pub(super) fn keep(&mut self) {
        let Some(credentials) = &self.credentials else { return };
        let me = self.node.router().members().me();
        let others = member::present(self.node.router().members()).filter(|(peer, _)| *peer != me);
        let endpoints = others.flat_map(|(_, info)| info.endpoints.iter().copied());
        let by_hand = self.node.router().targets().map(|(address, _)| address);
        let mut targets: Vec<SocketAddr> = endpoints.chain(by_hand).collect();
        targets.sort_unstable();
        targets.dedup();
        targets.truncate(KEPT_MAX);
        let keepsake = Keepsake::new(credentials, targets);
        if self.kept.as_ref() != Some(&keepsake) {
            if let Err(error) = keepsake.write(&self.state_dir) {
                tracing::warn!("cannot keep the membership for bad days: {error}");
            }
            self.kept = Some(keepsake);
        }
    }
}

/// Endpoints that are kept. Chosen: some of them will answer.
const KEPT_MAX: usize = 64;
