//! Who left is forgotten: what is known of members stays as large as the mesh, not as its past.

use std::{collections::BTreeSet, time::Duration};

use mesh_router::{PeerId, member};

use super::Violation;
use crate::{host::Host, queue::SECOND};

/// After this much nobody speaks of who left, if all members could be reached. Chosen: twice as
/// long as a node keeps it.
const FORGOTTEN_AFTER: u64 = 2 * 120 * SECOND;
/// Of so many somebody may speak for longer, because a member was away.
const REMEMBERED_MAX: usize = 256;

/// Rows of the membership for each host that is or was there lately: what it is, and how it is
/// reached.
const MEMBER_ROWS: usize = 2;
/// Elements of vectors: membership, ring, names.
const VECTORS: usize = 3;
/// Ring entries, live or not. Chosen: four times what was seen in `recycle`.
const RING_ENTRIES: usize = 2;

/// Machines that were replaced, each with the time when it was.
pub(crate) type Replaced = Vec<(u64, PeerId)>;

/// Checks how much each host keeps: no more than there are hosts and were lately.
pub(crate) fn bounded(hosts: &[Host], replaced: &Replaced, now: u64) -> Result<(), Violation> {
    let lately = replaced.iter().filter(|(at, _)| at + FORGOTTEN_AFTER >= now).count();
    let there = hosts.len() + lately + REMEMBERED_MAX;
    for host in hosts.iter().filter(|host| host.is_member()) {
        let (members, ring) = (host.node.router().members(), host.node.ipam().store());
        let vectors = [members.vector(), ring.vector(), host.node.zone().store().vector()];
        let origins = vectors.iter().map(|vector| vector.dots.len()).sum();
        for (what, size, most) in [
            ("rows of members", members.len(), MEMBER_ROWS * there),
            ("origins", origins, VECTORS * there),
            ("ring entries", ring.len(), RING_ENTRIES * there),
        ] {
            if size > most {
                let index = host.index;
                let text = format!("h{index} keeps {size} {what}, more than {most}: {lately} left");
                return Err(Violation::new("forgotten", text));
            }
        }
    }
    Ok(())
}

/// Checks what each host knows of machines that left and were replaced.
pub(crate) fn forgotten(
    hosts: &[Host],
    replaced: &Replaced,
    (now, orderly): (u64, bool),
) -> Result<(), Violation> {
    let long_ago = |(at, _): &&(u64, PeerId)| at + FORGOTTEN_AFTER < now;
    let gone: BTreeSet<PeerId> = replaced.iter().filter(long_ago).map(|(_, id)| *id).collect();
    let most = if orderly { 0 } else { REMEMBERED_MAX };
    for host in hosts.iter().filter(|host| host.is_member()) {
        let known = member::left(host.node.router().members());
        let known = known.filter(|peer| gone.contains(peer)).count();
        if known > most {
            let span = Duration::from_micros(FORGOTTEN_AFTER).as_secs();
            let text = format!("h{} knows {known} that left {span} s ago", host.index);
            return Err(Violation::new("forgotten", text));
        }
    }
    Ok(())
}
