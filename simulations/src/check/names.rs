//! Names mean what they should, on every host.

use std::net::IpAddr;

use mesh_dns::{Answer, BY_HAND, Name, QueryName, QueryType, Table};
use mesh_ipam::Holder;

use super::Violation;
use crate::{
    host::{DOMAIN, Host, domain},
    ledger::Ledger,
};

/// The first name that does not resolve as it should, in words.
pub(crate) fn missing(hosts: &[Host], ledger: &Ledger) -> Option<String> {
    for host in hosts.iter().filter(|host| host.is_member()) {
        for ((origin, holder), promise) in ledger.promises() {
            let addresses: Vec<IpAddr> =
                promise.attachment.addresses.iter().map(ipnetwork::IpNetwork::ip).collect();
            for name in &promise.attachment.names {
                let what = unresolved((host, &hosts[*origin]), name, &addresses);
                if let Some(what) = what {
                    return Some(format!("{what} ({holder})"));
                }
            }
        }
        for (origin, name, addresses) in ledger.names() {
            let name = format!("{name}.{DOMAIN}");
            let addresses: Vec<IpAddr> = addresses.iter().copied().collect();
            let what = unresolved((host, &hosts[origin]), &name, &addresses);
            if what.is_some() {
                return what;
            }
        }
        let (kept, known) = (host.table.len(), host.node.zone().records().count());
        if kept != known {
            return Some(format!("h{}'s resolver has {kept} records of {known}", host.index));
        }
    }
    None
}

fn unresolved((host, origin): (&Host, &Host), name: &str, addresses: &[IpAddr]) -> Option<String> {
    let answer = resolve(&host.table, name);
    let hidden = origin.stays_down;
    if hidden && !host.node.zone().is_hidden(origin.id) {
        return Some(format!(
            "h{} shows the names of h{}, which is down",
            host.index, origin.index
        ));
    }
    let missing = addresses.iter().find(|address| !answer.contains(address));
    match missing {
        Some(address) if !hidden => Some(format!(
            "{name} of h{} does not resolve to {address} on h{}, but to {answer:?}{}",
            origin.index,
            host.index,
            if host.node.zone().is_hidden(origin.id) { ", for it is hidden" } else { "" }
        )),
        _ => None,
    }
}

/// What a resolver answers for a name.
pub(crate) fn resolve(table: &Table, name: &str) -> Vec<IpAddr> {
    let Ok(name) = Name::in_domain(name, &domain()) else { return Vec::new() };
    match table.answer(&QueryName::from(&name), QueryType::Any) {
        Answer::Addresses(addresses) => addresses,
        _ => Vec::new(),
    }
}

/// A host's own records are of holders that it has.
pub(crate) fn stale(host: &Host, held: &[Holder]) -> Result<(), Violation> {
    for (key, _) in host.node.zone().records().filter(|(key, _)| key.origin == host.id) {
        let there = held.iter().any(|h| format!("{}/{}", h.container, h.interface) == key.holder);
        if !there && key.holder != BY_HAND {
            let text = format!("h{}: {} of {}, which is gone", host.index, key.name, key.holder);
            return Err(Violation::new("names", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_dns::ZoneChange;
    use mesh_router::PeerId;

    use super::*;

    #[test]
    fn a_hidden_or_missing_name_has_no_addresses() {
        let (origin, address) = (PeerId::new([1; 16]), "10.32.0.9".parse().unwrap());
        let mut table = Table::new(domain());
        let name = Name::in_domain("web", &domain()).unwrap();
        let holder = "c1/eth0".to_owned();
        table.apply(ZoneChange::Set { origin, name, holder, addresses: vec![address] });
        assert_eq!(resolve(&table, "web"), [address]);
        assert!(resolve(&table, "other").is_empty());
        table.apply(ZoneChange::Hide(origin));
        assert!(resolve(&table, "web").is_empty());
    }
}
