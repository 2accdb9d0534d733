//! Who has left owned nothing any more when it was told that it had: somebody else knows that.

use mesh_router::PeerId;

use super::Violation;
use crate::{host::Host, queue::SECOND};

/// The heir may have lost its disk while the leaver wrote down that it was through.
const AFTER_A_LOSS: u64 = 5 * SECOND;

/// Looks at all others when a host has left. Whoever is down may be the heir.
pub(crate) fn handed_over(
    hosts: &[Host],
    host: usize,
    (now, disk_lost_at): (u64, Option<u64>),
) -> Result<(), Violation> {
    let left = hosts[host].id;
    let mut others = hosts.iter().filter(|other| other.index != host);
    let lost = disk_lost_at.is_some_and(|at| now < at + AFTER_A_LOSS);
    let down = hosts.iter().any(|other| !other.running);
    // Whoever lost its own disk and left before anybody had told it what it owned knew of nothing.
    let untold = hosts[host].set_back.is_some();
    if lost || down || untold {
        return Ok(());
    }
    let members = others.clone().filter(|other| other.is_member()).count();
    if members == 0 || others.any(|other| other.is_member() && knows(other, left)) {
        return Ok(());
    }
    let text = format!("h{host} has left, and all others believe that it has addresses");
    Err(Violation::new("left", text))
}

/// Whether a host knows that another owns nothing.
fn knows(host: &Host, left: PeerId) -> bool {
    !host.node.ipam().owns_anything(left)
}
