//! The end of a run: nothing goes wrong any more, and within a bound everything must be well.

use std::collections::BTreeSet;

use mesh_ipam::Holder;
use mesh_router::{Kind, PeerId};
use meshwork::{
    api::types::AttachRequest,
    node::{Node, event::RequestId, request::Request},
};

use crate::{
    check::{self, Violation},
    host::Host,
    queue::SECOND,
    world::World,
};

/// How often it is looked whether all is well.
const LOOK_EVERY: u64 = SECOND / 4;
/// How long a container's attach may take at the end, in milliseconds.
const PROBE_PATIENCE: u64 = 10_000;
/// After how long whoever is gone is removed by force: when no majority was left to decide it, or
/// those are not back whose vote counts only with all others' since they lost their disks.
const FORCE_AFTER: u64 = 40 * SECOND;
/// How long two machines with one identity may take to find out.
const TOLD_WITHIN: u64 = 30 * SECOND;
/// How long it takes the one that stays to believe that it is alone.
const ALONE_WITHIN: u64 = 25 * SECOND;
/// How long it takes until all is shown that is held twice.
const SHOWN_WITHIN: u64 = 70 * SECOND;
/// How often that is tried.
const PROBES: u32 = 6;
/// For how long nobody writes anything in the end, and how often that is waited for.
const STILL_FOR: u64 = 2 * SECOND;
const STILL_LOOKS: u32 = 10;
/// Hosts are tried one after the other; if they are more, several at once. Chosen: none of the
/// smaller meshes has so many.
const WAVES: usize = 16;

impl World {
    pub(crate) fn end(&mut self) {
        self.unmask();
        let healed_at = self.queue.now();
        self.bury();
        self.settle("after all faults ended");
        self.reconcile();
        self.counts.settled_micros = self.queue.now() - healed_at;
        let hosts: Vec<usize> = (0..self.hosts.len()).collect();
        for wave in hosts.chunks(1 + hosts.len() / WAVES) {
            self.probe(wave);
        }
        self.settle("after the last attaches");
        self.come_to_rest();
        // What was written last may be on its way: who bars somebody takes news of it late.
        self.settle("at rest");
        if self.violation.is_none()
            && let Err(violation) = self.final_checks()
        {
            self.fail(violation);
        }
    }

    /// Two machines with one identity both say so, for as long as there are two.
    fn unmask(&mut self) {
        let Some((copy, original)) = self.twins else { return };
        self.run_until(self.queue.now() + TOLD_WITHIN);
        for _ in 0..SECOND * 10 / LOOK_EVERY {
            self.run_until(self.queue.now() + LOOK_EVERY);
            for (host, twin) in [(copy, original), (original, copy)] {
                let where_it_is = self.hosts[twin].endpoint.ip();
                // Whoever was joining and lost that with its disk is nobody's twin.
                let both = self.hosts[host].is_member() && self.hosts[twin].is_member();
                if self.violation.is_none()
                    && both
                    && let Err(violation) = check::clones::named(&self.hosts[host], where_it_is)
                {
                    self.fail(violation);
                }
            }
        }
        self.tell_apart();
        self.run_until(self.queue.now() + ALONE_WITHIN);
    }

    /// After a removal by force all know again whose is what; and whatever is held twice is shown.
    fn reconcile(&mut self) {
        if !std::mem::take(&mut self.forced) || self.violation.is_some() {
            return;
        }
        // What the side that lost had decided is void, and its numbers are used again.
        self.decreed.clear();
        for host in self.hosts.iter().filter(|host| host.is_member()) {
            let known = check::decrees::same(&mut self.decreed, host);
            if let Err(violation) = known {
                return self.fail(violation);
            }
        }
        self.run_until(self.queue.now() + SHOWN_WITHIN);
        let shown = check::conflicts::shown(&self.hosts, &self.ledger);
        let all = || (0..self.hosts.len()).try_for_each(|host| self.owns_alone(host));
        if let Err(violation) = shown.and_then(|()| all()) {
            return self.fail(violation);
        }
        // A range that was added on a side that lost is gone.
        self.widened = false;
        self.ledger.accept();
    }

    fn owns_alone(&self, host: usize) -> Result<(), Violation> {
        check::ownership::single(&self.hosts, host)
    }

    /// Has whoever is switched off removed, if the scenario does so; then it comes back, or not.
    fn bury(&mut self) {
        let until = self.queue.now() + self.scenario.heal_seconds * SECOND;
        let force_at = self.queue.now() + FORCE_AFTER;
        while self.violation.is_none() && self.dead_members().next().is_some() {
            if self.queue.now() >= until {
                return self.fail(Violation::new("removal", "who is switched off stays a member"));
            }
            self.have_dead_removed(self.queue.now() >= force_at);
            self.run_until(self.queue.now() + SECOND);
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].off && !self.hosts[host].stays_down && self.dice.chance(500) {
                self.power_on(host);
            } else if self.hosts[host].off {
                self.hosts[host].stays_down = true;
            }
        }
    }

    fn have_dead_removed(&mut self, force: bool) {
        let by = self.dice.index(self.hosts.len());
        // Two who force the same thing at once would both take the blocks: one does, who may have
        // no lease any more.
        let can = |host: &Host| host.is_member() && host.node.router().is_settled();
        let first = self.hosts.iter().position(can).filter(|_| force);
        // Who forces makes sure first that those who do not answer are off, containers and all.
        for host in 0..self.hosts.len() {
            if force && self.hosts[host].stays_down && !self.hosts[host].off {
                self.hosts[host].off = true;
                self.scrap_kernel(host);
            }
        }
        // And takes the blocks of those that it has never heard of: they are started.
        let dead: BTreeSet<PeerId> = self.dead_members().collect();
        let unheard = |host: &Host| host.off && !host.stays_down && !dead.contains(&host.id);
        let unheard: Vec<usize> =
            self.hosts.iter().filter(|host| unheard(host)).map(|host| host.index).collect();
        if force && !unheard.is_empty() {
            return unheard.into_iter().for_each(|host| self.power_on(host));
        }
        self.remove_dead(first.unwrap_or(by), first.is_some());
    }

    /// Does what hosts ask for that wait for one that is gone for good: whoever was given the
    /// blocks of one that left, and died before it told anybody, has to be removed.
    fn bury_awaited(&mut self, force: bool) {
        let whys = self.hosts.iter().filter(|host| host.is_member());
        let whys = whys.filter_map(|host| host.node.unready_because());
        let whys: Vec<String> = whys.filter(|why| why.contains("peer remove")).collect();
        let names = |host: usize| {
            let name = format!("h{host}");
            let word = |why: &String| why.split(|c: char| !c.is_alphanumeric()).any(|w| w == name);
            whys.iter().any(word)
        };
        for host in 0..self.hosts.len() {
            self.hosts[host].off |= self.hosts[host].stays_down && names(host);
        }
        if self.dead_members().next().is_some() {
            self.have_dead_removed(force);
        }
    }

    /// Waits until everything is well, at most as long as the scenario says.
    fn settle(&mut self, when: &str) {
        let begin = self.queue.now();
        let until = begin + self.scenario.heal_seconds * SECOND;
        // Only then a person does what is asked for.
        let bury_at = begin + self.scenario.heal_seconds * SECOND / 3;
        let mut unwell = None;
        while self.violation.is_none() && self.queue.now() < until {
            self.run_until(self.queue.now() + LOOK_EVERY);
            unwell = self.unwell();
            if unwell.is_none() {
                return;
            }
            if self.queue.now() >= bury_at {
                self.bury_awaited(self.queue.now() >= begin + FORCE_AFTER);
            }
        }
        if let Some(what) = unwell {
            let text = format!("{when}, {} s were not enough: {what}", self.scenario.heal_seconds);
            self.fail(Violation::new("convergence", text));
        }
    }

    /// Once all is well nobody writes anything any more, or soon nobody does.
    fn come_to_rest(&mut self) {
        let written = |world: &Self| -> Vec<[u64; Kind::COUNT]> {
            let members = world.hosts.iter().filter(|host| host.is_member());
            let own = |node: &Node| {
                let zone = node.zone().store().own_counter();
                [node.router().members().own_counter(), node.ipam().store().own_counter(), zone]
            };
            members.map(|host| own(&host.node)).collect()
        };
        for _ in 0..STILL_LOOKS {
            let before = written(self);
            self.run_until(self.queue.now() + STILL_FOR);
            if self.violation.is_some() || written(self) == before {
                return;
            }
        }
        let text = "hosts go on writing though all is well";
        self.fail(Violation::new("convergence", text));
    }

    /// What is not well yet.
    fn unwell(&self) -> Option<String> {
        // Who was restarted while founding goes on with it, and nobody is told.
        let founded = |host: &Host| !host.node.ipam().ranges().is_empty();
        if !self.founded && !self.hosts.iter().any(founded) {
            return Some("no mesh was founded".to_owned());
        }
        check::answers::unanswered(&self.hosts)
            .or_else(|| check::convergence::differences(&self.hosts))
            .or_else(|| check::convergence::unreturned(&self.hosts))
            .or_else(|| check::names::missing(&self.hosts, &self.ledger))
            .or_else(|| self.too_long())
    }

    /// Whether the ring is longer than it need be. Who is gone for good tidies nothing.
    fn too_long(&self) -> Option<String> {
        let host = self.hosts.iter().find(|host| host.is_member()).filter(|_| !self.bereft)?;
        check::fragments::too_long(check::fragments::size(host))
    }

    /// A container more on each of these hosts: if there is space anywhere, it gets some.
    fn probe(&mut self, hosts: &[usize]) {
        let mut hosts = hosts.to_vec();
        hosts.retain(|host| self.violation.is_none() && self.hosts[*host].is_member());
        for attempt in 1..=PROBES {
            let ask = |host: &usize| self.ask_probe(*host, attempt == PROBES);
            let asked: Vec<(usize, RequestId, Holder)> = hosts.iter().map(ask).collect();
            let until = self.queue.now() + PROBE_PATIENCE * 1000 + SECOND;
            let waits = |world: &Self| {
                asked.iter().any(|(host, id, _)| world.hosts[*host].pending.contains_key(id))
            };
            while self.violation.is_none() && self.queue.now() < until && waits(self) {
                self.run_until(self.queue.now() + SECOND / 20);
            }
            let refused = asked
                .iter()
                .filter(|(host, _, holder)| self.ledger.promise(*host, holder).is_none());
            hosts = refused.map(|(host, ..)| *host).collect();
            let done = hosts.is_empty() || !check::convergence::free(&self.hosts);
            if done || self.violation.is_some() {
                return;
            }
            // An address that was claimed for somebody who gave up is set aside for half a minute.
            self.run_until(self.queue.now() + (SECOND << (attempt - 1)));
        }
    }

    /// Asks a host for one container more. Who has just heard that nobody has space may say so for
    /// a moment; at the `last` attempt that is a violation, if somebody has.
    fn ask_probe(&mut self, host: usize, last: bool) -> (usize, RequestId, Holder) {
        self.last_container += 1;
        let mut request = AttachRequest::new(format!("probe{}", self.last_container));
        request.names.push(format!("probe{host}"));
        request.netns = Some(format!("/run/netns/probe{host}"));
        let (container, interface) = (request.container.clone(), request.interface.clone());
        let request = Request::Attach(Box::new(request));
        let id = self.ask_as(host, request, (PROBE_PATIENCE, last));
        (host, id, Holder { container, interface })
    }

    fn final_checks(&mut self) -> Result<(), Violation> {
        // Who was destroyed, or stays down without having been removed, owns its part for ever.
        if !self.bereft {
            check::ownership::covered(&self.hosts)?;
            let ranges = 1 + usize::from(self.widened);
            check::ownership::ranges(&self.hosts, ranges)?;
        }
        if let Some(host) = self.hosts.iter().find(|host| host.is_member()) {
            let size = check::fragments::size(host);
            self.counts.peak(&self.hosts);
            self.counts.ring = size.entries as u64;
            self.counts.ring_live = size.live as u64;
            self.counts.fragments = size.fragments as u64;
        }
        for host in self.hosts.iter().filter(|host| host.is_member()) {
            check::replay::equal(host)?;
        }
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_member() {
                let held = self.allocations(host);
                check::names::stale(&self.hosts[host], &held)?;
                check::answers::kept(&self.ledger, host, &held)?;
            }
        }
        Ok(())
    }
}
