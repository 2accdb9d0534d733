//! What is allocated on a host lies in what it owns.

use mesh_ipam::Owner;

use super::Violation;
use crate::host::Host;

/// No address is held here that is somebody else's: unless it was held when the host's blocks were
/// taken from it, or the host has yet to hear whether they were.
pub(crate) fn owned(hosts: &[Host], host: usize) -> Result<(), Violation> {
    let host = &hosts[host];
    if host.dispossessed || host.node.is_unsure() {
        return Ok(());
    }
    // That somebody else holds it, too, is for the checker of addresses.
    let foreign = |conflict: &mesh_ipam::Conflict| {
        conflict.owner != Owner::Peer(host.id) && !host.taken.contains(&conflict.address)
    };
    match host.node.ipam().conflicts().into_iter().find(foreign) {
        None => Ok(()),
        Some(conflict) => {
            let mut text = format!("h{}: {conflict:?}", host.index);
            for who in hosts.iter().filter(|who| who.is_member()) {
                let block = mesh_ipam::Block::single(conflict.address);
                text += &format!("; h{} ({}):", who.index, who.id.short());
                text += &super::ownership::entries(who, &block);
            }
            Err(Violation::new("held", text))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mesh_ipam::Holder;
    use mesh_router::codec::encode;
    use meshwork::node::{
        attachment::Record,
        event::{BatchId, Table, Write},
    };

    use super::*;
    use crate::dice::Dice;

    /// The host has held an address since before it was started.
    pub(in crate::check) fn hold(host: &mut Host, dice: &mut Dice) {
        let holder = Holder { container: "c1".into(), interface: "eth0".into() };
        let addresses = vec!["10.32.0.9".parse().unwrap()];
        let key = encode(&holder);
        let record = Record { holder, addresses, names: vec![], wiring: None, masquerade: true };
        let write = Write { table: Table::Attachments, key, value: Some(encode(&record)) };
        host.disk.begin(BatchId(1), vec![write], 0);
        host.disk.store(BatchId(1));
        host.start(0, dice).unwrap();
    }

    #[test]
    fn an_address_that_is_held_and_not_owned_is_noticed() {
        let mut dice = Dice::new(1, 0);
        let mut host = Host::new(0, None, &mut dice).unwrap();
        assert!(owned(std::slice::from_ref(&host), 0).is_ok());
        hold(&mut host, &mut dice);
        assert!(owned(std::slice::from_ref(&host), 0).is_err());
    }
}
