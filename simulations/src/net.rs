//! The underlay and the transport: connections between hosts, and what happens to bytes on them.
//!
//! A connection is a reliable stream in order, beside which urgent frames travel each on its own:
//! they overtake the stream and each other, and come twice where the scenario says so. A real link
//! never doubles a frame; but what is urgent are messages that others pass on and that are asked
//! again, and a node must bear both in any order. What is lost is sent again, so loss is delay;
//! what is on its way when a connection dies is gone. A cut drops everything in one direction,
//! silently.

use std::{collections::BTreeMap, net::SocketAddr};

use meshwork::node::event::LinkId;

use crate::{
    dice::Dice,
    queue::{Micros, SECOND},
    scenario::Scenario,
};

/// After so long without a packet the transport itself gives a connection up.
pub(crate) const IDLE_MAX: Micros = 10 * SECOND;
/// How long a dial waits for an answer.
pub(crate) const DIAL_MAX: Micros = 3 * SECOND;
/// A lost packet is noticed after a round trip and this.
const RESEND: Micros = 20_000;

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way {
    pub(crate) delay: Micros,
    loss: u32,
    /// Bytes per second; 0 for no limit.
    rate: u64,
    cuts: u32,
    /// There is no way at all, and never will be.
    apart: bool,
}

/// A frame on its way.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    /// Its place in the stream; `None` for an urgent one.
    pub(crate) place: Option<u64>,
    pub(crate) bytes: Vec<u8>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) boot: u32,
    pub(crate) link: LinkId,
    pub(crate) dialled: Option<SocketAddr>,
    /// The node was told that the link is up, and not that it is down.
    pub(crate) up: bool,
    /// This end has given the connection up, or never had it.
    pub(crate) closed: bool,
    pub(crate) up_at: Micros,
    /// Bytes before are still being put on the wire.
    leaving: Micros,
    pub(crate) credit: usize,
    pub(crate) credit_due: bool,
    sent: u64,
    received: u64,
    early: BTreeMap<u64, Vec<u8>>,
    /// What this end sent into a cut.
    pub(crate) parked: Vec<Packet>,
}

impl End {
    pub(crate) fn new((host, boot): (usize, u32), link: LinkId, up_at: Micros) -> Self {
        Self {
            host,
            boot,
            link,
            dialled: None,
            up: false,
            closed: false,
            up_at,
            leaving: 0,
            credit: 0,
            credit_due: false,
            sent: 0,
            received: 0,
            early: BTreeMap::new(),
            parked: Vec::new(),
        }
    }

    /// The next frame of this end's stream.
    pub(crate) fn packet(&mut self, urgent: bool, bytes: Vec<u8>) -> Packet {
        let place = (!urgent).then_some(self.sent);
        self.sent += u64::from(!urgent);
        Packet { place, bytes }
    }

    /// A frame arrived at this end: what of it, and of what waited for it, the node gets now.
    pub(crate) fn receive(&mut self, packet: Packet) -> Vec<Vec<u8>> {
        let Some(place) = packet.place else { return vec![packet.bytes] };
        self.early.insert(place, packet.bytes);
        let mut ready = Vec::new();
        while let Some(bytes) = self.early.remove(&self.received) {
            self.received += 1;
            ready.push(bytes);
        }
        ready
    }

    /// Gives the connection up.
    pub(crate) fn close(&mut self) {
        self.up = false;
        self.closed = true;
        self.parked.clear();
        self.early.clear();
    }
}

/// A connection: the end that dialled, and the other.
pub(crate) type Connection = [End; 2];

/// See the module.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) connections: Vec<Connection>,
    ways: Vec<Vec<Way>>,
}

impl Net {
    pub(crate) fn new(hosts: usize, scenario: &Scenario, dice: &mut Dice) -> Self {
        let mut ways = vec![vec![Way::default(); hosts]; hosts];
        // A run is either of near hosts or of far ones, so that both are seen.
        let most = if dice.chance(500) { scenario.delay_max } else { scenario.delay_max.min(2) };
        for (from, to) in (0..hosts).flat_map(|from| (0..from).map(move |to| (from, to))) {
            let delay = dice.between(50, 50 + most * 1000);
            let loss = if dice.chance(300) { dice.below(u64::from(scenario.loss) + 1) } else { 0 };
            let rate = if dice.chance(scenario.narrow) { dice.between(4_000, 100_000) } else { 0 };
            let loss = u32::try_from(loss).unwrap_or(0);
            let apart = scenario.reaches > 0;
            ways[from][to] = Way { delay, loss, rate, cuts: 0, apart };
            ways[to][from] = Way { delay: delay + delay / 8, ..ways[from][to] };
        }
        // All in a circle, so that there is a way from each to each, and others by chance.
        for from in (0..hosts).filter(|_| scenario.reaches > 0) {
            let by_chance = (0..scenario.reaches.saturating_sub(2) / 2).map(|_| dice.index(hosts));
            for to in by_chance.chain([(from + 1) % hosts]).collect::<Vec<_>>() {
                ways[from][to].apart = false;
                ways[to][from].apart = false;
            }
        }
        Self { connections: Vec::new(), ways }
    }

    pub(crate) fn way(&self, from: usize, to: usize) -> Way {
        self.ways[from][to]
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.ways[from][to].cuts > 0 || self.ways[from][to].apart
    }

    /// Whether these two can ever be linked.
    pub(crate) fn is_apart(&self, one: usize, other: usize) -> bool {
        self.ways[one][other].apart
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.ways[from][to].cuts += 1;
    }

    /// Ends a cut; returns the connections with packets that can now go on, and their ends.
    pub(crate) fn mend(&mut self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let way = &mut self.ways[from][to];
        way.cuts = way.cuts.saturating_sub(1);
        if way.cuts > 0 {
            return Vec::new();
        }
        let mut parked = Vec::new();
        for (index, ends) in self.connections.iter().enumerate() {
            for side in 0..2 {
                let ours = (ends[side].host, ends[1 - side].host) == (from, to);
                if ours && !ends[side].parked.is_empty() {
                    parked.push((index, side));
                }
            }
        }
        parked
    }

    /// All cuts and all loss end.
    pub(crate) fn heal(&mut self) -> Vec<(usize, usize)> {
        let hosts = self.ways.len();
        let mut parked = Vec::new();
        for (from, to) in (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to))) {
            self.ways[from][to].cuts = self.ways[from][to].cuts.min(1);
            parked.extend(self.mend(from, to));
            self.ways[from][to].loss = 0;
        }
        parked
    }

    /// When a packet that an end sends now leaves it, and when it arrives.
    pub(crate) fn travel(
        &mut self,
        (connection, side): (usize, usize),
        (bytes, urgent): (usize, bool),
        now: Micros,
        dice: &mut Dice,
    ) -> (Micros, Micros) {
        let ends = &mut self.connections[connection];
        let way = self.ways[ends[side].host][ends[1 - side].host];
        let end = &mut ends[side];
        let wire = (bytes as u64 * SECOND).checked_div(way.rate).unwrap_or(0);
        end.leaving = end.leaving.max(now) + wire;
        // What is urgent goes before all that waits.
        let left = if urgent { now + wire } else { end.leaving };
        let mut arrives = left + way.delay + dice.below(way.delay / 4 + 20);
        while dice.chance(way.loss) {
            arrives += 2 * way.delay + RESEND;
        }
        (left, arrives.max(ends[1 - side].up_at + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_its_order_and_what_is_urgent_does_not_wait() {
        let mut end = End::new((0, 0), LinkId(1), 0);
        let first = end.packet(false, vec![1]);
        let second = end.packet(false, vec![2]);
        let urgent = end.packet(true, vec![3]);
        assert_eq!(end.receive(second), Vec::<Vec<u8>>::new());
        assert_eq!(end.receive(urgent), [[3]]);
        assert_eq!(end.receive(first), [[1], [2]]);
    }
}
