//! A host whose disk was set back, or lost, asks those that it reaches. What none of them knows it
//! cannot hear: that is no fault, but it must have asked for as long as it says.

use crate::{
    host::Host,
    queue::{Micros, SECOND},
    world::World,
};

/// For how long it reaches somebody at least, less what its clock may run too fast.
const ASKS_FOR: u64 = 9 * SECOND;

/// A host whose disk was set back or lost, until it serves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetBack {
    /// Up to where it was seen to know its own ring entries.
    known: u64,
    /// For how long it has reached somebody, and whether it did when it was looked at last.
    asked: Micros,
    reached: bool,
    at: Micros,
}

/// A step of a host that may have been set back, or lost its disk, and not served since.
pub(crate) fn note(world: &mut World, host: usize) {
    let (this, now) = (&world.hosts[host], world.queue.now());
    let Some(mut set_back) = this.set_back.filter(|_| this.running) else { return };
    let (node, serves) = (&this.node, this.node.router().is_settled() && !this.node.is_unsure());
    set_back.asked += if set_back.reached { now - set_back.at } else { 0 };
    if serves {
        if set_back.asked >= ASKS_FOR && goes_on_without(&world.hosts, host, set_back.known) {
            world.counts.outdated += 1;
            world.excuse_all();
        }
        world.hosts[host].set_back = None;
        return;
    }
    (set_back.at, set_back.reached) = (now, !node.router().paths().is_empty());
    set_back.known = node.ipam().store().seen(this.id);
    world.hosts[host].set_back = Some(set_back);
}

/// Whether somebody has ring entries of a host beyond what it knows, and nobody that it reaches.
fn goes_on_without(hosts: &[Host], host: usize, known: u64) -> bool {
    let this = &hosts[host];
    let knows = |other: &&Host| {
        let ring = other.node.ipam().store();
        let entries = ring.keys_of(this.id).filter_map(|key| ring.get(key));
        other.index != host && entries.map(|entry| entry.dot.counter).any(|counter| counter > known)
    };
    let paths = this.node.router().paths();
    let mut knowing = hosts.iter().filter(knows).peekable();
    knowing.peek().is_some() && knowing.all(|other| !paths.contains_key(&other.id))
}
