//! Who is removed while it runs gives no new address from then on, although it cannot know yet: its
//! lease has run out before.

use std::{collections::BTreeSet, net::IpAddr};

use mesh_ipam::council::DECREE;

use super::Violation;
use crate::host::Host;

/// What a host held when its removal was decided, and the decree that it has not heard of.
#[derive(Debug)]
pub(crate) struct Fenced {
    held: BTreeSet<IpAddr>,
    decree: u64,
}

impl Fenced {
    /// The removal of a host is in the ring of another that knows the decrees up to here.
    pub(crate) fn of(host: &Host, decree: u64) -> Self {
        let held = host.node.ipam().held().map(|(address, _)| address).collect();
        Self { held, decree }
    }

    /// Whether who knows the decrees up to here does not know of it.
    pub(crate) fn is_beyond(&self, decree: u64) -> bool {
        self.decree > decree
    }
}

/// Whether a host was removed and has not heard of it yet.
pub(crate) fn is_fenced(host: &Host) -> bool {
    let decree = host.fenced.as_ref().map_or(0, |fenced| fenced.decree);
    host.node.ipam().store().seen(DECREE) < decree
}

/// Checks a host that may have been removed.
pub(crate) fn nothing_new(host: &Host) -> Result<(), Violation> {
    let Some(fenced) = host.fenced.as_ref().filter(|_| host.running && is_fenced(host)) else {
        return Ok(());
    };
    match host.node.ipam().held().find(|(address, _)| !fenced.held.contains(address)) {
        None => Ok(()),
        Some((address, holder)) => {
            let text =
                format!("h{} gave {address} to {holder} after its removal was decided", host.index);
            Err(Violation::new("leases", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::held, dice::Dice};

    #[test]
    fn an_address_that_is_given_after_the_removal_is_noticed() {
        let mut dice = Dice::new(1, 0);
        let mut host = Host::new(0, None, &mut dice).unwrap();
        host.fenced = Some(Fenced::of(&host, 7));
        assert!(is_fenced(&host) && nothing_new(&host).is_ok());
        held::tests::hold(&mut host, &mut dice);
        assert!(nothing_new(&host).is_err());
        host.fenced = Some(Fenced::of(&host, 7));
        assert!(nothing_new(&host).is_ok(), "it had it before");
    }
}
