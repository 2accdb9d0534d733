//! What befalls machines beyond a crash: suspended, switched off, set back to an old image, cloned.

use mesh_ipam::council::DECREE;
use mesh_router::PeerId;
use meshwork::node::request::Request;

use crate::{
    check::{Violation, leases::Fenced, outdated::SetBack},
    host::Host,
    net::IDLE_MAX,
    operate::PATIENCE,
    plan::{Act, Leap},
    queue::SECOND,
    world::{What, World},
};

/// Ranges that are added; only some of them can be at once.
const ADDED: [&str; 5] =
    ["10.64.0.0/24", "10.64.0.0/25", "10.64.0.64/26", "10.65.0.0/28", "fd00:64::/112"];

impl World {
    /// The host sees nothing until it is woken: its process, or its whole machine, is stopped.
    pub(crate) fn suspend(&mut self, host: usize) {
        let now = self.queue.now();
        let this = &mut self.hosts[host];
        if self.healed || !this.running || this.suspended.is_some() {
            return;
        }
        this.suspended = Some((now, Vec::new()));
    }

    /// It goes on: its clock stood still meanwhile, or went on, or is hours ahead.
    pub(crate) fn resume(&mut self, host: usize, leap: Leap) {
        let now = self.queue.now();
        let this = &mut self.hosts[host];
        let Some(since) = this.suspended.as_ref().map(|(since, _)| *since) else { return };
        let slept = this.clock(now).since(this.clock(since));
        match leap {
            Leap::None => {}
            Leap::Back => this.shift_clock(-i64::try_from(slept.as_micros()).unwrap_or(0)),
            Leap::Ahead(micros) => this.shift_clock(micros),
        }
        let ends: Vec<(usize, usize)> = this.links.values().copied().collect();
        self.wake_up(host);
        if now - since >= IDLE_MAX {
            for (connection, side) in ends {
                self.tell_end(connection, 1 - side, false);
                self.tell_end(connection, side, false);
            }
        }
        self.set_alarm(host, false);
    }

    /// What a suspended host missed reaches it now.
    pub(crate) fn wake_up(&mut self, host: usize) {
        let Some((_, missed)) = self.hosts[host].suspended.take() else { return };
        for what in missed {
            self.queue.push(0, what);
        }
    }

    /// The machine is switched off, in an orderly way or not: its containers are gone.
    pub(crate) fn power_off(&mut self, host: usize) {
        // Before there are three electors, nobody could remove the only one without force.
        let electors = self.hosts.iter().map(|host| host.node.ipam().electors().len()).max();
        if !self.hosts[host].is_member() || !self.is_spare(host) || electors < Some(3) {
            return;
        }
        self.hosts[host].off = true;
        self.crash(host);
        self.scrap_kernel(host);
    }

    pub(crate) fn power_on(&mut self, host: usize) {
        // Whoever asked for its removal may have crashed before it could say that it was decided.
        let id = self.hosts[host].id;
        if self.hosts.iter().any(|other| other.node.ipam().is_removed(id)) {
            self.removed(&[id]);
        }
        self.hosts[host].off = false;
        self.hosts[host].doubtful_disk = true;
        self.restart(host);
        self.join_again(host);
    }

    /// Hosts that are destroyed or switched off and have not been removed, though somebody who runs
    /// has heard of them: one that was cut off while it joined was never a member.
    pub(crate) fn dead_members(&self) -> impl Iterator<Item = PeerId> {
        let off = self.hosts.iter().filter(|host| host.off).map(|host| host.id);
        off.chain(self.dead.iter().copied()).filter(|dead| self.is_missed(*dead))
    }

    /// Whether somebody who runs counts on a host that is gone.
    fn is_missed(&self, gone: PeerId) -> bool {
        self.hosts.iter().filter(|host| host.is_member()).any(|host| {
            let info = mesh_router::member::info(host.node.router().members(), gone);
            let removed = host.node.ipam().is_removed(gone);
            info.is_some_and(|info| !info.left && !removed) || host.node.ipam().owns_anything(gone)
        })
    }

    /// Keeps the list of destroyed machines short: of those that left, or were removed, where that
    /// is known.
    pub(crate) fn forget_dead(&mut self) {
        let mut dead = std::mem::take(&mut self.dead);
        dead.retain(|gone| {
            let known = self.hosts.iter().filter(|host| host.is_member()).any(|host| {
                let info = mesh_router::member::info(host.node.router().members(), *gone);
                info.is_some_and(|info| info.left) || host.node.ipam().is_removed(*gone)
            });
            !known || self.is_missed(*gone)
        });
        self.dead = dead;
    }

    /// Asks a host to remove those that are switched off.
    pub(crate) fn remove_dead(&mut self, by: usize, force: bool) {
        let peers: Vec<String> = self.dead_members().map(|peer| peer.to_string()).collect();
        let asker = &self.hosts[by];
        if !asker.is_member() || peers.is_empty() {
            return;
        }
        let asked =
            |asked: &crate::host::Asked| matches!(asked.request, Request::PeerRemove { .. });
        if !asker.pending.values().any(asked) {
            self.ask(by, Request::PeerRemove { peers, force }, PATIENCE);
        }
    }

    /// The machine is taken out of service: it leaves, or it is destroyed and removed by others.
    pub(crate) fn replace(&mut self, host: usize) {
        if !self.hosts[host].is_member() || !self.is_spare(host) || self.hosts[host].replaced {
            return;
        }
        if self.dice.chance(self.scenario.orderly) {
            self.hosts[host].replaced = true;
            return self.leave(host);
        }
        self.recycle(host);
        self.have_removed();
    }

    /// Somebody who runs is asked soon to remove whoever is destroyed.
    pub(crate) fn have_removed(&mut self) {
        let by = self.dice.index(self.hosts.len());
        let at = self.queue.now() + self.dice.below(SECOND);
        self.queue.push(at, What::Act(Act::Remove(by)));
    }

    /// A host knows that these were removed. Those of them that run may not.
    pub(crate) fn fence(&mut self, peers: &[PeerId], by: usize) {
        if self.forced {
            return;
        }
        let decree = self.hosts[by].node.ipam().store().seen(DECREE);
        for host in self.hosts.iter_mut().filter(|host| peers.contains(&host.id)) {
            host.fenced = Some(Fenced::of(host, decree));
            host.seen.owned.clear();
        }
    }

    /// These were removed by force: who knows more of them than the host that did it, and may have
    /// been given something by them, has to ask for what it holds.
    pub(crate) fn dispossess_witnesses(&mut self, removed: &[PeerId], by: usize) {
        let seen = |host: &Host, peer: PeerId| host.node.ipam().store().seen(peer);
        // A decree that the host did not know is void, and so is who was removed by it.
        let decreed = seen(&self.hosts[by], DECREE);
        // And who is removed by force may go on: that it was removed before, and has come back,
        // counts no more.
        for host in &mut self.hosts {
            let is_removed = removed.contains(&host.id);
            host.fenced.take_if(|fenced| is_removed || fenced.is_beyond(decreed));
        }
        for peer in removed {
            let cut = seen(&self.hosts[by], *peer);
            for host in self.hosts.iter_mut().filter(|host| seen(host, *peer) > cut) {
                host.dispossessed = true;
                self.ledger.excused.insert(host.index);
            }
        }
    }

    /// The removal of these was decided.
    pub(crate) fn removed(&mut self, peers: &[PeerId]) {
        for host in 0..self.hosts.len() {
            if peers.contains(&self.hosts[host].id) {
                self.hosts[host].removed = true;
                self.take_away(host);
            }
        }
    }

    /// A host's blocks may be others' from now on: what it holds now may be given to somebody else.
    fn take_away(&mut self, host: usize) {
        let this = &mut self.hosts[host];
        this.taken.extend(this.node.ipam().held().map(|(address, _)| address));
        self.ledger.excuse_what_is_held(host, &this.taken);
    }

    pub(crate) fn add_range(&mut self, host: usize) {
        if self.hosts[host].is_member() {
            let range = self.dice.pick(&ADDED).parse().expect("a constant");
            self.ask(host, Request::RangeAdd(range), PATIENCE);
        }
    }

    /// A host is asked to remove another that may well run.
    pub(crate) fn oust(&mut self, by: usize, whom: usize) {
        if by != whom && self.hosts[by].is_member() && self.is_spare(whom) {
            let peers = vec![self.hosts[whom].id.to_string()];
            self.ask(by, Request::PeerRemove { peers, force: false }, 4 * PATIENCE);
        }
    }

    /// One of the founders begins, or begins again.
    pub(crate) fn found_together(&mut self, host: usize) {
        let founders = usize::from(self.scenario.founders).min(self.hosts.len());
        let this = &self.hosts[host];
        let asked = this.pending.values().any(|a| matches!(a.request, Request::Found { .. }));
        if asked || crate::check::answers::knows_its_mesh(this) && this.node.is_ready() {
            return;
        }
        if !this.running || this.credentials.is_some() {
            return self.found_together_again(host);
        }
        let founding = &self.hosts[..founders];
        let others = founding.iter().filter(|other| other.index != host);
        let request = Request::Found {
            credentials: self.credentials.clone(),
            ranges: vec![self.scenario.ranges[self.range]],
            founders: self.scenario.founders.min(u16::try_from(founders).unwrap_or(u16::MAX)),
            targets: others.map(|other| other.endpoint.into()).collect(),
        };
        self.ask(host, request, 4 * PATIENCE);
    }

    pub(crate) fn found_together_again(&mut self, host: usize) {
        let at = self.queue.now() + SECOND / 2;
        self.queue.push(at, What::Act(Act::FoundTogether(host)));
    }

    /// An image of the disk is kept.
    pub(crate) fn snapshot(&mut self, host: usize) {
        // An image from before the first peer joined looks like that of a mesh of one host: whoever
        // is set back to it cannot know that there is anybody to ask.
        let alone = self.hosts[host].node.ipam().electors().len() < 2;
        if self.hosts[host].is_member() && !alone {
            self.hosts[host].image = Some(self.hosts[host].disk.clone());
        }
    }

    /// The machine is set back to its image, or only its state directory is.
    pub(crate) fn restore_image(&mut self, host: usize) {
        let Some(image) = self.hosts[host].image.take() else { return };
        self.crash(host);
        if self.dice.chance(500) {
            self.scrap_kernel(host);
        } else {
            self.ledger.unsure_of_all(host);
            self.end_promises(host);
        }
        self.hosts[host].disk.restore(&image);
        self.disk_lost_at = Some(self.queue.now());
        self.hosts[host].doubtful_disk = true;
        self.hosts[host].set_back = Some(SetBack::default());
        // Its disk is from before it was removed: it holds what it held then.
        self.hosts[host].fenced = None;
        self.start_over(host);
        self.take_away(host);
    }

    /// A machine is made anew from another's disk, its key included; what it was before is gone.
    pub(crate) fn clone_machine(&mut self, host: usize, from: usize) {
        let spare = self.is_spare(host) && self.twins.is_none();
        if host == from || !self.hosts[from].is_member() || !spare {
            return;
        }
        self.recycle(host);
        self.crash(host);
        let (id, mut disk) = (self.hosts[from].id, self.hosts[from].disk.clone());
        disk.crash(self.dice.index(disk.open_len() + 1));
        (self.hosts[host].id, self.ids[host]) = (id, id);
        self.hosts[host].disk = disk;
        self.hosts[host].doubtful_disk = true;
        self.twins = Some((host, from));
        self.start_over(host);
        // What its disk says of containers is not of its own.
        self.take_away(host);
    }

    /// A person stops one of two machines with one identity, and makes it anew with its own.
    pub(crate) fn tell_apart(&mut self) {
        let Some((copy, original)) = self.twins.take() else { return };
        let gone = if self.dice.chance(500) { copy } else { original };
        let id = self.hosts[gone].id;
        let disk = self.hosts[gone].disk.clone();
        self.hosts[copy + original - gone].disk.outlives(&disk);
        self.recycle(gone);
        self.dead.retain(|dead| *dead != id);
    }

    /// Removes hosts without the consent of anybody.
    pub(crate) fn force(&mut self, by: usize, whom: &[usize]) {
        let asker = &self.hosts[by];
        if !asker.is_member() || !asker.node.is_ready() {
            return;
        }
        let peers = whom.iter().map(|host| self.hosts[*host].id.to_string()).collect();
        self.excuse_all();
        self.ask(by, Request::PeerRemove { peers, force: true }, PATIENCE);
    }

    /// Something may be held twice from now on that nothing could prevent: it is to be shown.
    pub(crate) fn excuse_all(&mut self) {
        self.forced = true;
        for host in &mut self.hosts {
            host.dispossessed = true;
            self.ledger.excused.insert(host.index);
        }
    }

    /// Promises that a lost or older disk need not know of are not kept.
    pub(crate) fn end_promises(&mut self, host: usize) {
        for holder in self.ledger.holders(host) {
            self.ledger.end(host, &holder);
        }
    }

    /// The disk is another: a node starts from it.
    pub(crate) fn start_over(&mut self, host: usize) {
        let now = self.queue.now();
        if let Err(error) = self.hosts[host].stop(now) {
            return self.fail(Violation::new("world", error));
        }
        self.restart(host);
        self.join_again(host);
    }
}
