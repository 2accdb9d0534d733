//! A host whose disk was set back asks those that it reaches. What none of them knows it cannot
//! hear: that is no fault, but it must have asked for as long as it says.

use crate::{host::Host, queue::SECOND, world::World};

/// For how long it asks, less what its clock may run too fast.
const ASKS_FOR: u64 = 9 * SECOND;

/// A step of a host that may have been set back and not served since.
pub(crate) fn note(world: &mut World, host: usize) {
    let this = &world.hosts[host];
    let Some((since, known)) = this.set_back.filter(|_| this.running) else { return };
    let serves = this.node.router().is_settled() && !this.node.is_unsure();
    if !serves {
        world.hosts[host].set_back = Some((since, this.node.ipam().store().seen(this.id)));
        return;
    }
    let asked = world.queue.now() >= since + ASKS_FOR;
    if asked && goes_on_without(&world.hosts, host, known) {
        world.excuse_all();
    }
    world.hosts[host].set_back = None;
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
