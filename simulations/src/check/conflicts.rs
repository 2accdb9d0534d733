//! What is held twice is shown, where somebody was removed by force and nothing could prevent it.

use mesh_router::PeerId;

use super::Violation;
use crate::{host::Host, ledger::Ledger};

/// Each host on which such an address is held says so, and one of them names who holds it
/// elsewhere.
pub(crate) fn shown(hosts: &[Host], ledger: &Ledger) -> Result<(), Violation> {
    for (address, claimants) in ledger.held_twice() {
        let there = claimants.iter().map(|(host, _)| &hosts[*host]);
        let there: Vec<&Host> = there.filter(|host| host.is_member()).collect();
        let said = |host: &Host| {
            let mut conflicts = host.node.ipam().conflicts().into_iter();
            conflicts.find(|conflict| conflict.address == address)
        };
        let said: Vec<_> = there.iter().map(|host| said(host)).collect();
        let named = said.iter().flatten().filter_map(|conflict| conflict.elsewhere.as_ref());
        // It may be held for a container that was never answered.
        let holder = |host: &Host| host.node.ipam().holder_of(address).map(ToString::to_string);
        let holds = |peer: PeerId, who: &str| {
            let there = hosts.iter().find(|host| host.id == peer).and_then(holder);
            there.is_some_and(|there| there.starts_with(who))
        };
        let named = named.filter(|(peer, who)| holds(*peer, who)).count();
        if there.len() > 1 && (named == 0 || said.contains(&None)) {
            let text = format!("{address} is held by {claimants:?}, and they say {said:?}");
            return Err(Violation::new("conflicts", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn an_address_that_is_held_twice_and_not_shown_is_noticed() {
        let mut ledger = Ledger::default();
        ledger.excused.extend([0, 1]);
        for host in [0, 1] {
            ledger.hold("10.32.0.9".parse().unwrap(), (host, "c1/eth0".to_owned())).unwrap();
        }
        let mut hosts: Vec<Host> =
            [0, 1].map(|index| Host::new(index, None, &mut Dice::new(1, 0)).unwrap()).into();
        assert!(shown(&hosts, &ledger).is_ok(), "they are in no mesh");
        for host in &mut hosts {
            host.credentials = Some(meshwork::node::event::Credentials {
                mesh: mesh_router::MeshId::new([1; 16]),
                secret: meshwork::node::event::Secret([1; 32]),
            });
        }
        assert!(shown(&hosts, &ledger).is_err());
    }
}
