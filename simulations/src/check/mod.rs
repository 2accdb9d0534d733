//! What must hold, one file each; after every step for the node that made it.
//!
//! * [`ownership`]: no address has two owners, and in the end each has one.
//! * [`durable`]: the disk is never behind what others were told.
//! * [`held`]: what is allocated lies in what is owned.
//! * [`answers`]: a reply comes after disk and kernel; each request gets one.
//! * [`grants`]: one request for space gets one grant, told only when it is durable.
//! * [`decrees`]: what was decided together is one thing, and votes are durable.
//! * [`retired`]: what is inside a grant is retired before it.
//! * [`leases`]: who is removed while it runs has given its last address before.
//! * [`left`]: who has left had handed all over.
//! * [`conflicts`]: what is held twice, because somebody was removed by force, is shown.
//! * [`outdated`]: an old or lost disk serves what was given away only where nobody knew it that
//!   could be asked.
//! * [`clones`]: of two machines with one identity the copy gives nothing, and both say why.
//! * [`waiting`]: who is refused is told for whom was waited.
//! * [`convergence`], [`names`]: in the end all agree, and names mean what they should.
//! * [`replay`]: in the end a delta equals the full state. [`fragments`]: the ring is as small as
//!   what it says. [`forgotten`]: who left is not spoken of for ever.
//!
//! That no address is held twice is checked where it is held: in `crate::ledger`.

pub mod answers;
pub(crate) mod clones;
pub(crate) mod conflicts;
pub mod convergence;
pub(crate) mod decrees;
pub mod durable;
pub(crate) mod forgotten;
pub(crate) mod fragments;
pub(crate) mod grants;
pub mod held;
pub(crate) mod leases;
pub(crate) mod left;
mod messages;
pub mod names;
pub(crate) mod outdated;
pub mod ownership;
pub(crate) mod replay;
pub(crate) mod retired;
pub(crate) mod waiting;

use std::fmt;

use mesh_ipam::Block;
use mesh_router::{Kind, replica::Source};

use crate::world::World;

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker says so.
    pub checker: &'static str,
    /// What was seen.
    pub text: String,
    at: u64,
}

impl Violation {
    pub(crate) fn new(checker: &'static str, text: impl Into<String>) -> Self {
        Self { checker, text: text.into(), at: 0 }
    }

    pub(crate) fn at(self, at: u64) -> Self {
        Self { at, ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at / 1_000_000, self.at % 1_000_000);
        write!(f, "{} at {seconds}.{micros:06} s: {}", self.checker, self.text)
    }
}

/// What the checkers last saw of a node.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    revisions: [u64; Kind::COUNT],
    /// How often the ring's entries had changed.
    ring: u64,
    pub(crate) owned: Vec<Block>,
    held: usize,
    settled: bool,
}

impl Seen {
    /// Another node stands there: everything is to be looked at again.
    pub(crate) fn forget(&mut self) {
        self.revisions = [u64::MAX; Kind::COUNT];
        self.ring = u64::MAX;
    }
}

/// The checks after a step of one node.
pub(crate) fn step(world: &mut World, host: usize) -> Result<(), Violation> {
    outdated::note(world, host);
    let node = &world.hosts[host].node;
    let stores: [&dyn Source; Kind::COUNT] =
        [node.router().members(), node.ipam().store(), node.zone().store()];
    let revisions = stores.map(Source::revision);
    let ring = node.ipam().store().change_mark();
    let held = node.ipam().held_len();
    let settled = node.router().is_settled() && !node.is_unsure();
    let seen = &world.hosts[host].seen;
    // Most steps change nothing that is looked at.
    if revisions == seen.revisions && held == seen.held && settled == seen.settled {
        return Ok(());
    }
    for (kind, store) in Kind::ALL.into_iter().zip(stores) {
        durable::behind(world, host, (kind, store, seen.revisions[kind as usize]))?;
    }
    let ring_changed = ring != seen.ring || settled != seen.settled;
    if ring_changed || held != seen.held {
        if !world.forced {
            held::owned(&world.hosts, host)?;
        }
        leases::nothing_new(&world.hosts[host])?;
    }
    let seen = &mut world.hosts[host].seen;
    (seen.revisions, seen.ring, seen.held, seen.settled) = (revisions, ring, held, settled);
    if ring_changed {
        retired::before_grant(&world.hosts[host])?;
        ownership::disjoint(&world.hosts[host])?;
        note_decree(world, host)?;
        update_owned(world, host)?;
    }
    Ok(())
}

/// A node may have decided something, or heard of it: who was removed is excused from then on.
pub(crate) fn note_decree(world: &mut World, host: usize) -> Result<(), Violation> {
    // Each side goes on deciding without the other.
    if !world.forced {
        let removed = decrees::same(&mut world.decreed, &world.hosts[host])?;
        world.fence(&removed, host);
        world.removed(&removed);
    }
    Ok(())
}

/// A node's belief of what it owns is new.
pub(crate) fn update_owned(world: &mut World, host: usize) -> Result<(), Violation> {
    let node = &world.hosts[host].node;
    // Who is being told what it once wrote, or what has happened meanwhile, believes nothing yet.
    let settled = node.router().is_settled() && !node.is_unsure();
    // And who was removed may believe what it likes: it gives nothing any more.
    let settled = settled && !leases::is_fenced(&world.hosts[host]);
    let owned = if settled { node.ipam().owned_blocks() } else { Vec::new() };
    if owned != world.hosts[host].seen.owned {
        world.hosts[host].seen.owned = owned;
        if !world.forced {
            ownership::single(&world.hosts, host)?;
        }
    }
    Ok(())
}
