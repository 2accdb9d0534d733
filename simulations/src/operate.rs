//! Carrying out the plan: what people and programs ask for, and what they make of the answers.

use std::net::{IpAddr, Ipv4Addr};

use mesh_ipam::Holder;
use mesh_router::codec;
use meshwork::{
    api::types::{AttachRequest, Attachment},
    node::{
        event::{Input, RequestId},
        request::{Code, Refusal, Reply, Request},
    },
};

use crate::{
    check,
    host::Host,
    ledger::Promise,
    plan::{Act, Leap},
    queue::SECOND,
    world::{What, World},
};

/// How long people wait for an answer, in milliseconds.
pub(crate) const PATIENCE: u64 = 5_000;
/// Parts of ranges that are there or may be added.
const PARTS: [&str; 4] = ["10.32.0.0/28", "10.64.0.0/26", "10.64.0.64/27", "fd00:64::/120"];
/// Different names that containers have, so that they share some.
const NAMES: u64 = 12;

impl World {
    pub(crate) fn act(&mut self, act: Act) {
        let (now, text) = (self.queue.now(), format!("{act:?}"));
        self.trace.note((now, 0), "act", text.as_bytes(), || text.clone());
        match act {
            Act::Found => self.found(),
            Act::Join(host) => self.join(host),
            Act::Attach(host) => self.attach(host),
            Act::Repeat(host) => self.repeat(host),
            Act::Detach(host) => self.detach(host),
            Act::Claim(host) => self.claim(host),
            Act::NameAdd(host) => self.name(host, true),
            Act::NameRemove(host) => self.name(host, false),
            Act::Leave(host) => self.leave(host),
            Act::Recycle(host) if self.is_spare(host) => self.recycle(host),
            Act::Wipe(host) if self.is_spare(host) => self.wipe(host),
            Act::Recycle(_) | Act::Wipe(_) => {}
            Act::Replace(host) => self.replace(host),
            Act::Crash(host, None) => self.crash(host),
            Act::Crash(host, Some(outputs)) => self.hosts[host].armed = Some(outputs),
            Act::Restart(host) => self.restart(host),
            Act::DiskFault(host) if !self.healed => self.hosts[host].disk.broken = true,
            Act::DiskFault(_) => {}
            Act::DiskMended(host) => self.hosts[host].disk.broken = false,
            Act::Cut(ways) if !self.healed => {
                self.counts.partitions += 1;
                ways.iter().for_each(|(from, to)| self.net.cut(*from, *to));
            }
            Act::Cut(_) => {}
            Act::Mended(ways) if !self.healed => {
                for (from, to) in ways {
                    let parked = self.net.mend(from, to);
                    self.unpark(parked);
                }
            }
            Act::Mended(_) => {}
            Act::LinkDeath(host) => self.kill_link(host),
            Act::Suspend(host) => self.suspend(host),
            Act::Resume(host, leap) => self.resume(host, leap),
            Act::PowerOff(host) => self.power_off(host),
            Act::Remove(by) => self.remove_dead(by, false),
            Act::Oust(by, whom) => self.oust(by, whom),
            Act::RangeAdd(host) => self.add_range(host),
            Act::FoundTogether(host) => self.found_together(host),
            Act::Snapshot(host) => self.snapshot(host),
            Act::RestoreImage(host) => self.restore_image(host),
            Act::Clone(host, from) => self.clone_machine(host, from),
            Act::Force(by, whom) => self.force(by, &whom),
        }
    }

    /// The mesh goes on without it: two others are members and up, and nobody joins through it
    /// alone.
    pub(crate) fn is_spare(&self, host: usize) -> bool {
        let needs = |other: &Host| {
            let mut targets = other.node.router().targets().map(|(target, _)| target);
            let only = targets.all(|target| target == self.hosts[host].endpoint);
            other.is_member() && !other.node.router().is_settled() && only
        };
        let others = || self.hosts.iter().filter(|other| other.index != host);
        let ready = others().filter(|other| other.is_member() && other.node.is_ready()).count();
        self.founded && ready >= 2 && !others().any(needs)
    }

    fn found(&mut self) {
        if !self.hosts[0].running || self.founded {
            return;
        }
        if self.hosts[0].credentials.is_some() {
            // The answer was lost in a crash, or was that the disk had failed.
            self.founded = check::answers::knows_its_mesh(&self.hosts[0]);
            return self.found_again();
        }
        let range = self.scenario.ranges[self.range];
        let request = Request::Init { credentials: self.credentials.clone(), ranges: vec![range] };
        self.ask(0, request, PATIENCE);
    }

    pub(crate) fn found_again(&mut self) {
        let at = self.queue.now() + SECOND / 2;
        self.queue.push(at, What::Act(Act::Found));
    }

    pub(crate) fn join(&mut self, host: usize) {
        let this = &self.hosts[host];
        if this.stays_down || this.credentials.is_some() {
            return;
        }
        let joins =
            this.pending.values().any(|asked| matches!(asked.request, Request::Join { .. }));
        if joins {
            return;
        }
        // Those who found together and are restarted meanwhile go on, and nobody is told.
        // A crash before it was on disk undoes a founding.
        self.founded |= self.hosts.iter().any(|host| {
            let ring = host.node.ipam().store();
            ring.vector().dots.values().any(|counter| *counter > 0)
                && ring.durable_counter() >= ring.own_counter()
        });
        let this = &self.hosts[host];
        if !this.running || !self.founded {
            return self.join_again(host);
        }
        let net = &self.net;
        let near = |other: &&Host| other.index != host && !net.is_apart(host, other.index);
        let others = self.hosts.iter().filter(near);
        let members = others.clone().filter(|other| check::answers::knows_its_mesh(other));
        // Two who join through each other alone would wait for ever.
        let members: Vec<&Host> = members.filter(|m| m.node.router().is_settled()).collect();
        if members.is_empty() {
            return self.join_again(host);
        }
        let others: Vec<_> = others.map(|other| other.endpoint).collect();
        let member = members[self.dice.index(members.len())].endpoint;
        let mut targets = vec![self.dice.pick(&others), self.dice.pick(&others), member];
        if self.dice.chance(500) || self.healed {
            targets.extend(others);
        }
        let patience = if self.dice.chance(300) { u64::from(u32::MAX) * 1000 } else { 20_000 };
        let credentials = self.credentials.clone();
        let targets = targets.into_iter().map(Into::into).collect();
        self.ask(host, Request::Join { credentials, targets }, patience);
    }

    pub(crate) fn join_again(&mut self, host: usize) {
        let at = self.queue.now() + self.dice.between(SECOND / 10, SECOND);
        self.queue.push(at, What::Act(Act::Join(host)));
    }

    fn attach(&mut self, host: usize) {
        if !self.hosts[host].running {
            return;
        }
        self.last_container += 1;
        let mut request = AttachRequest::new(format!("c{}", self.last_container));
        if self.dice.chance(800) {
            request.netns = Some(format!("/run/netns/c{}", self.last_container));
        }
        for _ in 0..self.dice.below(3) {
            request.names.push(format!("n{}", self.dice.below(NAMES)));
        }
        if self.dice.chance(100) {
            request.addresses.push(self.some_address());
        }
        if self.scenario.range_add > 0 && self.dice.chance(300) {
            let part = self.dice.pick(&PARTS);
            request.subnets.push(part.parse().expect("a constant"));
        }
        self.ask(host, Request::Attach(Box::new(request)), PATIENCE);
    }

    /// An address out of a few, so that several ask for the same one.
    fn some_address(&mut self) -> IpAddr {
        let most = match self.scenario.ranges[self.range].prefix() {
            0..=26 => 62,
            length => (1 << (32 - length.min(30))) - 2,
        };
        let last = u8::try_from(self.dice.between(2, most)).unwrap_or(2);
        Ipv4Addr::new(10, 32, 0, last).into()
    }

    fn repeat(&mut self, host: usize) {
        let holders = self.ledger.holders(host);
        if holders.is_empty() || !self.hosts[host].running {
            return;
        }
        let holder = self.dice.pick(&holders);
        let promise = self.ledger.promise(host, &holder).expect("its holder was just named");
        let request = promise.request.clone();
        if !request.interface.is_empty() {
            self.ask(host, Request::Attach(Box::new(request)), PATIENCE);
        }
    }

    fn claim(&mut self, host: usize) {
        if !self.hosts[host].running {
            return;
        }
        self.last_container += 1;
        let address = self.dice.chance(700).then(|| self.some_address());
        let holder = format!("claim{}", self.last_container);
        self.ask(host, Request::Claim { address, holder }, PATIENCE);
    }

    fn detach(&mut self, host: usize) {
        let holders = self.ledger.holders(host);
        if holders.is_empty() || !self.hosts[host].running {
            return;
        }
        let holder = self.dice.pick(&holders);
        self.ledger.end(host, &holder);
        let request = if holder.interface.is_empty() {
            Request::Release { holder: holder.container }
        } else {
            let interface = self.dice.chance(500).then_some(holder.interface);
            Request::Detach { container: holder.container, interface }
        };
        self.ask(host, request, PATIENCE);
    }

    fn name(&mut self, host: usize, add: bool) {
        if !self.hosts[host].running {
            return;
        }
        let name = format!("hand{}", self.dice.below(NAMES));
        let address = self.some_address();
        let request = if add {
            Request::DnsAdd { name, addresses: vec![address] }
        } else {
            Request::DnsRemove { name, addresses: Vec::new() }
        };
        self.ask(host, request, PATIENCE);
    }

    pub(crate) fn leave(&mut self, host: usize) {
        if self.hosts[host].is_member() && self.is_spare(host) {
            self.counts.leaves += 1;
            self.ledger.end_all(host);
            self.ask(host, Request::Leave, 4 * PATIENCE);
        }
    }

    fn kill_link(&mut self, host: usize) {
        let links: Vec<(usize, usize)> = self.hosts[host].links.values().copied().collect();
        if links.is_empty() || self.healed {
            return;
        }
        let (connection, side) = self.dice.pick(&links);
        for side in [side, 1 - side] {
            let silent = self.dice.chance(500);
            self.tell_end(connection, side, silent);
        }
    }

    /// A node answers.
    pub(crate) fn reply(
        &mut self,
        host: usize,
        id: RequestId,
        result: Result<Box<Reply>, Refusal>,
    ) {
        let now = self.queue.now();
        let said = match &result {
            Ok(reply) => match &**reply {
                Reply::Attached(attachment) => codec::encode(&(id.0, &attachment.addresses)),
                _ => codec::encode(&id.0),
            },
            Err(refusal) => codec::encode(&(id.0, &refusal.message)),
        };
        self.trace.note((now, host), "reply", &said, || format!("{id:?} {result:?}"));
        let Some(asked) = self.hosts[host].pending.remove(&id) else {
            let text = format!("h{host} answers request {} twice, or unasked", id.0);
            return self.fail(check::Violation::new("answers", text));
        };
        match result {
            Ok(reply) => self.succeeded(host, asked.request, *reply),
            Err(refusal) => {
                self.counts.refused += 1;
                if let Err(violation) = check::waiting::named(host, &refusal) {
                    self.fail(violation);
                }
                if asked.probe
                    && let Err(violation) =
                        check::answers::fair_refusal(&self.hosts, host, &refusal)
                {
                    self.fail(violation);
                }
                self.refused(host, asked.request, &refusal);
            }
        }
    }

    fn succeeded(&mut self, host: usize, request: Request, reply: Reply) {
        let durable = check::answers::durable(&self.hosts[host], &request);
        let attached = matches!(reply, Reply::Attached(_));
        let given = attached.then(|| check::clones::attached(self.twins, host));
        if let Err(violation) = durable.and(given.unwrap_or(Ok(()))) {
            self.fail(violation);
        }
        match (request, reply) {
            (Request::Init { .. } | Request::Found { .. }, _) => self.founded = true,
            (Request::PeerRemove { force, .. }, Reply::Removed(removed)) => {
                // A range that nobody but the dead had heard of is gone with them.
                let known = |host: &Host| check::ownership::ranges_known(host) > 1;
                self.widened &= !force || self.hosts.iter().any(known);
                if force {
                    self.dispossess_witnesses(&removed.peers, host);
                }
                self.removed(&removed.peers);
            }
            (Request::RangeAdd(_), _) => self.widened = true,
            (Request::Attach(request), Reply::Attached(attachment)) => {
                self.attached(host, *request, attachment);
            }
            (Request::Claim { holder, .. }, Reply::Claimed(_) | Reply::Attached(_)) => {
                self.claimed(host, holder);
            }
            (Request::DnsAdd { name, addresses }, _) => {
                self.ledger.name(host, &name, true, &addresses);
                let leaves = |asked: &crate::host::Asked| matches!(asked.request, Request::Leave);
                if self.hosts[host].pending.values().any(leaves) {
                    self.ledger.unsure(host, &name);
                }
            }
            (Request::DnsRemove { name, .. }, _) => self.ledger.name(host, &name, false, &[]),
            (Request::Leave, _) => self.has_left(host),
            _ => {}
        }
    }

    fn has_left(&mut self, host: usize) {
        let times = (self.queue.now(), self.disk_lost_at);
        if let Err(violation) = check::left::handed_over(&self.hosts, host, times) {
            self.fail(violation);
        } else if self.hosts[host].replaced {
            self.recycle(host);
        } else {
            self.ledger.end_all(host);
            self.join_again(host);
        }
    }

    fn attached(&mut self, host: usize, request: AttachRequest, attachment: Attachment) {
        self.counts.attached += 1;
        let holder = Holder {
            container: attachment.container.clone(),
            interface: attachment.interface.clone(),
        };
        let kept = check::answers::attached(&self.hosts[host], &request, &attachment)
            .and_then(|()| self.ledger.keep(host, holder, Promise { request, attachment }));
        if let Err(violation) = kept {
            self.fail(violation);
        }
    }

    /// A claim is an attachment without interface and link.
    fn claimed(&mut self, host: usize, container: String) {
        let holder = Holder { container, interface: String::new() };
        let node = &self.hosts[host].node;
        let addresses = node.ipam().addresses_of(&holder).map(ipnetwork::IpNetwork::from);
        let mut request = AttachRequest::new(holder.container.clone());
        request.interface = String::new();
        let attachment = Attachment {
            container: holder.container.clone(),
            interface: String::new(),
            netns: None,
            addresses: addresses.collect(),
            gateways: Vec::new(),
            routes: Vec::new(),
            mac: String::new(),
            host_interface: None,
            bridge_mac: String::new(),
            bridge: String::new(),
            mtu: 0,
            names: Vec::new(),
            nameservers: Vec::new(),
            domain: String::new(),
        };
        self.counts.attached += 1;
        if let Err(violation) = self.ledger.keep(host, holder, Promise { request, attachment }) {
            self.fail(violation);
        }
    }

    fn refused(&mut self, host: usize, request: Request, refusal: &Refusal) {
        match request {
            Request::Join { .. } => self.join_again(host),
            Request::PeerRemove { .. } if self.scenario.recycles > 0 => self.have_removed(),
            Request::Leave if self.hosts[host].replaced => self.leave(host),
            Request::DnsAdd { name, .. } | Request::DnsRemove { name, .. }
                if refusal.code == Code::Internal =>
            {
                self.ledger.unsure(host, &name);
            }
            Request::Init { .. } => self.found_again(),
            Request::Found { .. } => self.found_together_again(host),
            // It may have left all the same, if it was the disk that failed.
            Request::Leave if self.hosts[host].credentials.is_none() => {
                self.ledger.end_all(host);
                self.join_again(host);
            }
            _ => {}
        }
    }

    /// All faults end; who is down starts again, unless it is to stay down.
    pub(crate) fn heal(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.healed = true;
        for host in 0..self.hosts.len() {
            self.resume(host, Leap::None);
        }
        let parked = self.net.heal();
        self.unpark(parked);
        let down = self.dice.chance(self.scenario.stays_down) && self.hosts.len() > 2;
        let down = down.then(|| self.dice.index(self.hosts.len()));
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.broken = false;
            self.hosts[host].armed = None;
            if down == Some(host) && self.is_spare(host) {
                self.hosts[host].stays_down = true;
                self.bereft = true;
                self.crash(host);
            }
            self.restart(host);
            // It crashed after it was told that it had joined but was not ready, and before that
            // was on disk.
            if self.founded && !self.hosts[host].is_member() {
                self.join_again(host);
            }
        }
        if !self.founded && self.scenario.founders == 0 {
            self.queue.push(0, What::Act(Act::Found));
        }
    }

    /// Asks every node that is up who holds what on it.
    pub(crate) fn allocations(&mut self, host: usize) -> Vec<Holder> {
        let now = self.queue.now();
        let this = &mut self.hosts[host];
        let clock = this.clock(now);
        let id = RequestId(u64::MAX);
        let request = Box::new(Request::Allocations);
        let patience = std::time::Duration::ZERO;
        this.node.handle_input(Input::Request { id, request, patience }, clock);
        let mut held = Vec::new();
        while let Some(output) = self.hosts[host].node.poll_output() {
            use meshwork::node::event::Output;
            if let Output::Reply { result: Ok(reply), .. } = output
                && let Reply::Allocations(all) = *reply
            {
                let holder = |one: meshwork::api::types::Allocation| Holder {
                    container: one.holder,
                    interface: one.interface,
                };
                held.extend(all.into_iter().map(holder));
            }
        }
        held
    }
}
