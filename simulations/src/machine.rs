//! The driver's side of disk and kernel, and what happens to machines: crash, restart, loss.

use meshwork::node::{
    event::{BatchId, Input, Write},
    request::{Code, Refusal, Request},
};

use crate::{
    check::{self, Violation, outdated::SetBack},
    host::Host,
    kernel::{self, Operation, Port},
    plan::Act,
    queue::SECOND,
    world::{What, World},
};

/// Who holds the gateway addresses, in the ledger.
const GATEWAY: &str = "meshd/gateway";
/// Of so many hosts all are looked at whenever one is replaced; of more, the more rarely.
const SIZES_EACH: u64 = 32;

impl World {
    pub(crate) fn persist(&mut self, host: usize, batch: BatchId, writes: Vec<Write>) {
        let slow = self.dice.chance(50);
        let most = self.scenario.disk_max * 1000;
        let delay = if slow { self.dice.below(200_000) } else { self.dice.between(200, most) };
        let done = self.queue.now() + delay;
        let this = &mut self.hosts[host];
        let done = this.disk.begin(batch, writes, done);
        let boot = this.boot;
        self.counts.batches += 1;
        self.queue.push(done, What::Stored { host, boot, batch });
    }

    pub(crate) fn stored(&mut self, (host, boot): (usize, u32), batch: BatchId) {
        if !self.is_current(host, boot) || !self.hosts[host].disk.is_pending(batch) {
            return;
        }
        let this = &mut self.hosts[host];
        if this.disk.broken {
            this.disk.fail();
            let reason = "no space left on device".to_owned();
            return self.input(host, Input::PersistFailed { batch, reason });
        }
        this.disk.store(batch);
        // The mark beside the socket names this commit from now on.
        this.doubtful_disk = false;
        // Most often the node hears of it at once; a crash may come between.
        if self.dice.chance(850) {
            return self.input(host, Input::Persisted(batch));
        }
        let at = self.queue.now() + self.dice.below(3_000);
        self.queue.push(at, What::Persisted { host, boot, batch });
    }

    pub(crate) fn operate_kernel(&mut self, host: usize, operation: Operation) {
        self.hosts[host].kernel.queue.push_back(operation);
        self.begin_operation(host);
    }

    fn begin_operation(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        if this.kernel.busy || this.kernel.queue.is_empty() {
            return;
        }
        this.kernel.busy = true;
        let boot = this.boot;
        let slowest = self.scenario.kernel_max * 1000;
        let at = self.queue.now() + self.dice.between(300, slowest.max(300));
        self.queue.push(at, What::KernelDone { host, boot });
    }

    pub(crate) fn kernel_done(&mut self, (host, boot): (usize, u32)) {
        if !self.is_current(host, boot) {
            return;
        }
        self.hosts[host].kernel.busy = false;
        let Some(operation) = self.hosts[host].kernel.queue.pop_front() else { return };
        let done = self.carry_out(host, operation);
        self.begin_operation(host);
        match done {
            Ok(Some(input)) => self.input(host, input),
            Ok(None) => {}
            Err(violation) => self.fail(violation),
        }
    }

    /// Changes the kernel; returns what the node is told of it.
    fn carry_out(&mut self, host: usize, operation: Operation) -> Result<Option<Input>, Violation> {
        match operation {
            Operation::Wire { holder, wiring } => {
                let stands = self.hosts[host].kernel.ports.contains_key(&wiring.host_name);
                if !stands && !self.healed && self.dice.chance(self.scenario.wire_failures) {
                    let refusal = Refusal::new(Code::Internal, "no such namespace", "look again");
                    return Ok(Some(Input::WireFailed { holder, refusal }));
                }
                let port =
                    Port { holder: Some(holder.clone()), addresses: kernel::addresses(&wiring) };
                self.plug(host, &wiring.host_name, port)?;
                Ok(Some(Input::Wired { holder, netns_identity: (4, 1) }))
            }
            Operation::Unwire { holder, host_name } => {
                self.unplug(host, &host_name)?;
                Ok(Some(Input::Unwired { holder }))
            }
            Operation::Program(desired) => {
                let wanted = desired.map(|desired| (desired.ports, desired.bridge.gateways));
                let (ports, gateways) = wanted.unwrap_or_default();
                let stands = self.hosts[host].kernel.ports.keys();
                let superfluous = stands.filter(|name| !ports.contains_key(*name));
                for name in superfluous.cloned().collect::<Vec<String>>() {
                    self.unplug(host, &name)?;
                }
                // A link that was never made is not repaired: its namespace is not known.
                for (name, wiring) in &ports {
                    let stands = self.hosts[host].kernel.ports.contains_key(name);
                    if !stands && wiring.netns_identity.is_some() {
                        let port = Port { holder: None, addresses: kernel::addresses(wiring) };
                        self.plug(host, name, port)?;
                    }
                }
                self.set_gateways(host, gateways)?;
                let newest = !self.hosts[host].kernel.has_newer_program();
                Ok(newest.then_some(Input::Programmed))
            }
        }
    }

    fn plug(&mut self, host: usize, name: &str, port: Port) -> Result<(), Violation> {
        let claimant = |port: &Port| match &port.holder {
            Some(holder) => (host, holder.to_string()),
            None => (host, name.to_owned()),
        };
        let old = self.hosts[host].kernel.ports.get(name).cloned();
        if let Some(old) = old {
            for address in &old.addresses {
                self.ledger.let_go(*address, &claimant(&old));
            }
        }
        for address in &port.addresses {
            self.ledger.hold(*address, claimant(&port))?;
        }
        self.hosts[host].kernel.ports.insert(name.to_owned(), port);
        Ok(())
    }

    fn unplug(&mut self, host: usize, name: &str) -> Result<(), Violation> {
        let Some(port) = self.hosts[host].kernel.ports.remove(name) else { return Ok(()) };
        let who = port.holder.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
        for address in &port.addresses {
            self.ledger.let_go(*address, &(host, who.clone()));
        }
        let promised = port.holder.is_some_and(|holder| {
            self.ledger
                .promise(host, &holder)
                .is_some_and(|promise| promise.attachment.host_interface.as_deref() == Some(name))
        });
        if promised {
            let text = format!("h{host} took {who}'s link {name} away, which nobody asked for");
            return Err(Violation::new("links", text));
        }
        Ok(())
    }

    fn set_gateways(
        &mut self,
        host: usize,
        gateways: Vec<std::net::IpAddr>,
    ) -> Result<(), Violation> {
        let claimant = (host, GATEWAY.to_owned());
        let old = std::mem::replace(&mut self.hosts[host].kernel.gateways, gateways.clone());
        for address in old {
            self.ledger.let_go(address, &claimant);
        }
        for address in gateways {
            self.ledger.hold(address, claimant.clone())?;
        }
        Ok(())
    }

    /// The node dies. Its links in the kernel stay.
    pub(crate) fn crash(&mut self, host: usize) {
        let now = self.queue.now();
        let this = &mut self.hosts[host];
        if !this.running {
            return;
        }
        self.counts.crashes += 1;
        self.trace.note((now, host), "crash", &[], String::new);
        self.wake_up(host);
        // It crashed before the checks of this step.
        if let Err(violation) = check::note_decree(self, host) {
            self.fail(violation);
        }
        self.kernel_at_crash(host);
        let this = &mut self.hosts[host];
        let made_it = self.dice.index(this.disk.open_len() + 1);
        let this = &mut self.hosts[host];
        this.disk.crash(made_it);
        let links: Vec<(usize, usize)> = this.links.values().copied().collect();
        for (connection, side) in links {
            self.forget_end(connection, side);
            let silent = self.dice.chance(500);
            self.tell_end(connection, 1 - side, silent);
        }
        self.forget_pending(host);
        if let Err(error) = self.hosts[host].stop(now) {
            self.fail(Violation::new("durable", format!("h{host} cannot start again: {error}")));
        }
        if let Err(violation) = check::update_owned(self, host) {
            self.fail(violation);
        }
        if !self.hosts[host].stays_down && !self.hosts[host].off {
            let at = now + self.dice.between(50_000, 4 * SECOND);
            self.queue.push(at, What::Act(Act::Restart(host)));
        }
    }

    /// What the kernel was at is done all the same, or was not begun.
    fn kernel_at_crash(&mut self, host: usize) {
        if self.hosts[host].kernel.busy
            && self.dice.chance(500)
            && let Some(operation) = self.hosts[host].kernel.queue.pop_front()
            && let Err(violation) = self.carry_out(host, operation)
        {
            self.fail(violation);
        }
    }

    /// Nobody knows what became of what was asked.
    fn forget_pending(&mut self, host: usize) {
        let pending = std::mem::take(&mut self.hosts[host].pending);
        for asked in pending.into_values() {
            match asked.request {
                Request::DnsAdd { name, .. } | Request::DnsRemove { name, .. } => {
                    self.ledger.unsure(host, &name);
                }
                // Whoever left before it could say so joins again, too.
                Request::Join { .. } | Request::Leave => self.join_again(host),
                Request::Init { .. } => self.found_again(),
                Request::Found { .. } => self.found_together_again(host),
                _ => {}
            }
        }
    }

    pub(crate) fn restart(&mut self, host: usize) {
        let now = self.queue.now();
        let this = &self.hosts[host];
        if this.running || this.stays_down || this.off {
            return;
        }
        self.trace.note((now, host), "restart", &[], String::new);
        if let Err(error) = self.hosts[host].start(now, &mut self.dice) {
            self.fail(Violation::new("durable", format!("h{host} cannot start again: {error}")));
            return;
        }
        self.started(host);
    }

    /// The machine is gone, with everything on it. A new one takes its address.
    pub(crate) fn recycle(&mut self, host: usize) {
        self.crash(host);
        self.counts.recycles += 1;
        if !self.hosts[host].replaced {
            self.disk_lost_at = Some(self.queue.now());
        }
        self.scrap_kernel(host);
        self.forget_dead();
        self.dead.push(self.hosts[host].id);
        if let Err(violation) = self.check_sizes() {
            return self.fail(violation);
        }
        self.replaced.push((self.queue.now(), self.hosts[host].id));
        let boot = self.hosts[host].boot;
        match Host::new(host, self.scenario.lease(), &mut self.dice) {
            Ok(mut new) => {
                new.boot = boot + 1;
                new.drift = self.hosts[host].drift;
                self.ids[host] = new.id;
                self.hosts[host] = new;
            }
            Err(error) => return self.fail(Violation::new("world", error)),
        }
        self.started(host);
        self.join_again(host);
    }

    /// Looks at all hosts; in large meshes not each time that one is replaced.
    fn check_sizes(&mut self) -> Result<(), Violation> {
        let each = 1 + self.hosts.len() as u64 / SIZES_EACH;
        if !self.counts.recycles.is_multiple_of(each) {
            return Ok(());
        }
        self.counts.peak(&self.hosts);
        let orderly = self.scenario.orderly >= 1000;
        match self.scenario.recycles {
            0 => Ok(()),
            _ => {
                let now = self.queue.now();
                check::forgotten::bounded(&self.hosts, &self.replaced, now)?;
                check::forgotten::forgotten(&self.hosts, &self.replaced, (now, orderly))
            }
        }
    }

    /// The machine's memory is gone, and with it all containers and links.
    pub(crate) fn scrap_kernel(&mut self, host: usize) {
        self.ledger.end_all(host);
        let ports = std::mem::take(&mut self.hosts[host].kernel.ports);
        for (name, port) in ports {
            let who = port.holder.map_or(name, |holder| holder.to_string());
            for address in port.addresses {
                self.ledger.let_go(address, &(host, who.clone()));
            }
        }
        for address in std::mem::take(&mut self.hosts[host].kernel.gateways) {
            self.ledger.let_go(address, &(host, GATEWAY.to_owned()));
        }
    }

    /// The state directory is lost. Links in the kernel stand until the node removes them.
    pub(crate) fn wipe(&mut self, host: usize) {
        self.crash(host);
        self.ledger.unsure_of_all(host);
        self.end_promises(host);
        self.hosts[host].disk.wipe();
        self.hosts[host].set_back = Some(SetBack::default());
        self.disk_lost_at = Some(self.queue.now());
        self.start_over(host);
    }
}
