//! The driver's side of the transport: dialling, sending, closing, arriving.

use std::net::SocketAddr;

use meshwork::node::event::{DialError, Input, LinkId, LinkUp};

use crate::{
    net::{DIAL_MAX, End, IDLE_MAX, Packet},
    world::{What, World},
};

/// First byte of a frame that is a delta.
const DELTA: u8 = 4;
/// Credits for sent bytes are given so often, in microseconds.
const CREDIT_EVERY: u64 = 20_000;

impl World {
    pub(crate) fn dial(&mut self, host: usize, target: SocketAddr) {
        self.counts.dials += 1;
        let boot = self.hosts[host].boot;
        let Some(other) = self.hosts.iter().position(|other| other.endpoint == target) else {
            return self.dial_fails((host, boot), target, (DIAL_MAX, unreachable()));
        };
        let way = self.net.way(host, other);
        let delay = way.delay + self.dice.below(way.delay + 200);
        let now = self.queue.now();
        self.queue.push(now + delay, What::Knock { host, boot, target });
        if !self.healed && self.dice.chance(self.scenario.duplicate) {
            let later = now + delay + self.dice.below(2_000_000);
            self.queue.push(later, What::Knock { host, boot, target });
        }
    }

    fn dial_fails(
        &mut self,
        (host, boot): (usize, u32),
        target: SocketAddr,
        (delay, error): (u64, DialError),
    ) {
        let at = self.queue.now() + delay;
        self.queue.push(at, What::DialFailed { host, boot, target, error });
    }

    /// A dial reaches its target: a connection is made, unless something is against it.
    pub(crate) fn knock(&mut self, (host, boot): (usize, u32), target: SocketAddr) {
        if !self.is_current(host, boot) {
            return;
        }
        let other = self.hosts.iter().position(|other| other.endpoint == target);
        let other = other.expect("only targets that are hosts are knocked at");
        let back = self.net.way(other, host).delay;
        let failure = if self.net.is_cut(host, other) || self.net.is_cut(other, host) {
            Some((DIAL_MAX, unreachable()))
        } else if other == host {
            Some((0, DialError::Ourselves))
        } else if self.hosts[other].id == self.hosts[host].id && self.hosts[other].running {
            let remote = self.hosts[host].endpoint;
            self.input(other, Input::Twin { remote });
            Some((back, DialError::Twin))
        } else if !self.hosts[other].running || self.hosts[other].suspended.is_some() {
            Some((if self.dice.chance(500) { back } else { DIAL_MAX }, unreachable()))
        } else if self.hosts[other].credentials.is_none() {
            Some((back, DialError::NotMember))
        } else if self.hosts[host].credentials != self.hosts[other].credentials {
            Some((back, DialError::WrongSecret))
        } else {
            None
        };
        match failure {
            Some(failure) => self.dial_fails((host, boot), target, failure),
            None => self.connect((host, other), target),
        }
    }

    fn connect(&mut self, (host, other): (usize, usize), target: SocketAddr) {
        let connection = self.net.connections.len();
        let (there, back) = (self.net.way(host, other).delay, self.net.way(other, host).delay);
        let now = self.queue.now();
        let up_at = [
            now + back + self.dice.below(there + 500),
            now + back + self.dice.below(2 * there + 500),
        ];
        let mut end = |side: usize, index: usize| {
            let host = &mut self.hosts[index];
            let link = host.next_link();
            host.links.insert(link, (connection, side));
            End::new((index, host.boot), link, up_at[side])
        };
        let mut ends = [end(0, host), end(1, other)];
        ends[0].dialled = Some(target);
        self.net.connections.push(ends);
        for (side, at) in up_at.into_iter().enumerate() {
            self.queue.push(at, What::LinkUp { connection, side });
        }
    }

    pub(crate) fn link_up(&mut self, connection: usize, side: usize) {
        let ends = &self.net.connections[connection];
        let (end, other) = (&ends[side], &ends[1 - side]);
        let (host, far) = (end.host, other.host);
        let (current, dialled) = (self.is_current(host, end.boot), end.dialled);
        let (boot, link) = (end.boot, end.link);
        if end.closed || !current {
            return;
        }
        let cut = self.net.is_cut(host, far) || self.net.is_cut(far, host);
        let cut = cut || self.hosts[far].suspended.is_some();
        if other.closed || cut || self.hosts[host].credentials.is_none() {
            self.forget_end(connection, side);
            self.tell_end(connection, 1 - side, cut);
            if let Some(target) = dialled {
                self.dial_fails((host, boot), target, (1, unreachable()));
            }
            return;
        }
        self.net.connections[connection][side].up = true;
        self.counts.links += 1;
        let up = LinkUp {
            link,
            peer: self.hosts[far].id,
            incarnation: self.hosts[far].incarnation,
            remote: self.hosts[far].endpoint,
            dialled,
        };
        self.input(host, Input::LinkUp(up));
    }

    pub(crate) fn send(&mut self, host: usize, link: LinkId, urgent: bool, bytes: Vec<u8>) {
        let Some(&(connection, side)) = self.hosts[host].links.get(&link) else { return };
        if !urgent && self.loses_delta(&bytes) {
            return;
        }
        let end = &mut self.net.connections[connection][side];
        if !end.up {
            return;
        }
        self.counts.frames += 1;
        self.counts.bytes += bytes.len() as u64;
        let packet = end.packet(urgent, bytes);
        if urgent && !self.healed && self.dice.chance(self.scenario.duplicate) {
            self.put(connection, side, packet.clone());
        }
        self.put(connection, side, packet);
    }

    /// Whether a frame of the stream is dropped: a delta, where the scenario says so.
    fn loses_delta(&mut self, bytes: &[u8]) -> bool {
        !self.healed
            && self.scenario.delta_loss > 0
            && bytes.first() == Some(&DELTA)
            && self.dice.chance(self.scenario.delta_loss)
    }

    /// Puts a packet on its way.
    fn put(&mut self, connection: usize, side: usize, packet: Packet) {
        let ends = &mut self.net.connections[connection];
        let (from, to) = (ends[side].host, ends[1 - side].host);
        if self.net.is_cut(from, to) {
            self.net.connections[connection][side].parked.push(packet);
            return;
        }
        let (now, bytes) = (self.queue.now(), packet.bytes.len());
        let size = (bytes, packet.place.is_none());
        let (left, arrives) = self.net.travel((connection, side), size, now, &mut self.dice);
        let end = &mut self.net.connections[connection][side];
        end.credit += bytes;
        if !std::mem::replace(&mut end.credit_due, true) {
            self.queue.push(left.max(now + CREDIT_EVERY), What::Sent { connection, side });
        }
        if arrives > now + 500_000 && bytes > 1000 {
            let half = now + (arrives - now) / 2;
            self.queue.push(half, What::Activity { connection, side: 1 - side });
        }
        self.queue.push(arrives, What::Arrival { connection, side: 1 - side, packet });
    }

    /// Packets that waited for the end of a cut go on.
    pub(crate) fn unpark(&mut self, all: Vec<(usize, usize)>) {
        for (connection, side) in all {
            let parked = std::mem::take(&mut self.net.connections[connection][side].parked);
            for packet in parked {
                self.put(connection, side, packet);
            }
        }
    }

    pub(crate) fn arrive(&mut self, connection: usize, side: usize, packet: Packet) {
        let ends = &self.net.connections[connection];
        let (from, to) = (ends[1 - side].host, ends[side].host);
        if self.net.is_cut(from, to) {
            if !ends[1 - side].closed {
                self.net.connections[connection][1 - side].parked.push(packet);
            }
            return;
        }
        let end = &mut self.net.connections[connection][side];
        if !end.up {
            return;
        }
        let link = end.link;
        for bytes in end.receive(packet) {
            // The node may have closed the link, or died, over the frame before.
            if self.net.connections[connection][side].up {
                self.input(to, Input::Frame { link, bytes });
            }
        }
    }

    pub(crate) fn activity(&mut self, connection: usize, side: usize) {
        let end = &self.net.connections[connection][side];
        if end.up {
            let (host, link) = (end.host, end.link);
            self.input(host, Input::Activity { link });
        }
    }

    pub(crate) fn credit(&mut self, connection: usize, side: usize) {
        let end = &mut self.net.connections[connection][side];
        end.credit_due = false;
        let bytes = std::mem::take(&mut end.credit);
        if end.up {
            let (host, link) = (end.host, end.link);
            self.input(host, Input::Sent { link, bytes });
        }
    }

    /// The node ends a link.
    pub(crate) fn close(&mut self, host: usize, link: LinkId) {
        let Some(&(connection, side)) = self.hosts[host].links.get(&link) else { return };
        self.forget_end(connection, side);
        let ends = &self.net.connections[connection];
        let cut = self.net.is_cut(ends[side].host, ends[1 - side].host);
        self.tell_end(connection, 1 - side, cut);
    }

    pub(crate) fn link_down(&mut self, connection: usize, side: usize, reason: &'static str) {
        let end = &self.net.connections[connection][side];
        let (host, boot, link, up, dialled) = (end.host, end.boot, end.link, end.up, end.dialled);
        self.forget_end(connection, side);
        if !up {
            // It has not heard of the link yet, and never will; who dialled hears that it failed.
            if let Some(target) = dialled {
                self.dial_fails((host, boot), target, (1, unreachable()));
            }
            return;
        }
        self.input(host, Input::LinkDown { link, reason: reason.to_owned() });
    }

    pub(crate) fn forget_end(&mut self, connection: usize, side: usize) {
        let end = &mut self.net.connections[connection][side];
        end.close();
        // A machine in its predecessor's place may have given the number to another.
        let links = &mut self.hosts[end.host].links;
        if links.get(&end.link) == Some(&(connection, side)) {
            links.remove(&end.link);
        }
    }

    /// An end hears that the other is gone: soon, or only by its silence.
    pub(crate) fn tell_end(&mut self, connection: usize, side: usize, silent: bool) {
        let ends = &self.net.connections[connection];
        if ends[side].closed {
            return;
        }
        let delay = self.net.way(ends[1 - side].host, ends[side].host).delay;
        let (delay, reason) =
            if silent { (IDLE_MAX, "timed out") } else { (delay, "closed by the peer") };
        let at = self.queue.now() + delay;
        self.queue.push(at, What::LinkDown { connection, side, reason });
    }
}

fn unreachable() -> DialError {
    DialError::Unreachable("timed out".to_owned())
}
