//! What is allocated on a host lies in what it owns.

use super::Violation;
use crate::host::Host;

/// No address is held here that is somebody else's.
pub(crate) fn owned(host: &Host) -> Result<(), Violation> {
    match host.node.ipam().conflicts().first() {
        None => Ok(()),
        Some(conflict) => {
            let text = format!("h{}: {conflict:?}", host.index);
            Err(Violation::new("held", text))
        }
    }
}
