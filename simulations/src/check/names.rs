//! Names mean what they should, on every host.

use std::net::IpAddr;

use mesh_dns::{Answer, BY_HAND, Name, QueryName, QueryType, Table};
use mesh_ipam::Holder;

use super::Violation;
use crate::{
    host::{DOMAIN, Host, domain},
    ledger::Ledger,
};

/// A name that somebody was promised.
struct Promised<'a> {
    /// The host that answers for it.
    origin: &'a Host,
    /// Who has it, if it is a container.
    holder: Option<&'a Holder>,
    name: String,
    query: Option<QueryName>,
    addresses: Vec<IpAddr>,
}

impl<'a> Promised<'a> {
    fn new(origin: &'a Host, holder: Option<&'a Holder>, name: &str, ip: Vec<IpAddr>) -> Self {
        Self { origin, holder, name: name.to_owned(), query: query(name), addresses: ip }
    }
}

/// The first name that does not resolve as it should, in words.
pub(crate) fn missing(hosts: &[Host], ledger: &Ledger) -> Option<String> {
    let of_containers = ledger.promises().flat_map(|((origin, holder), promise)| {
        let attachment = &promise.attachment;
        let addresses: Vec<IpAddr> =
            attachment.addresses.iter().map(ipnetwork::IpNetwork::ip).collect();
        attachment
            .names
            .iter()
            .map(move |name| Promised::new(&hosts[*origin], Some(holder), name, addresses.clone()))
    });
    let by_hand = ledger.names().map(|(origin, name, addresses)| {
        let addresses = addresses.iter().copied().collect();
        Promised::new(&hosts[origin], None, &format!("{name}.{DOMAIN}"), addresses)
    });
    let promised: Vec<Promised<'_>> = of_containers.chain(by_hand).collect();
    for host in hosts.iter().filter(|host| host.is_member()) {
        let what = promised.iter().find_map(|promised| unresolved(host, promised));
        if what.is_some() {
            return what;
        }
        let (kept, known) = (host.table.len(), host.node.zone().records().count());
        if kept != known {
            return Some(format!("h{}'s resolver has {kept} records of {known}", host.index));
        }
    }
    None
}

fn unresolved(host: &Host, promised: &Promised<'_>) -> Option<String> {
    let (origin, name) = (promised.origin, &promised.name);
    let is_hidden = || host.node.zone().is_hidden(origin.id);
    if origin.stays_down {
        let text = format!("h{} shows the names of h{}, which is down", host.index, origin.index);
        let known = host.node.zone().records().any(|(key, _)| key.origin == origin.id);
        return (known && !is_hidden()).then_some(text);
    }
    let answer = promised.query.as_ref().map(|query| answer(&host.table, query));
    let answer = answer.unwrap_or_default();
    let address = promised.addresses.iter().find(|address| !answer.contains(address))?;
    Some(format!(
        "{name} of h{} does not resolve to {address} on h{}, but to {answer:?}{}{}",
        origin.index,
        host.index,
        if is_hidden() { ", for it is hidden" } else { "" },
        promised.holder.map_or_else(String::new, |holder| format!(" ({holder})")),
    ))
}

/// What a resolver answers for a name.
pub(crate) fn resolve(table: &Table, name: &str) -> Vec<IpAddr> {
    query(name).map(|query| answer(table, &query)).unwrap_or_default()
}

fn query(name: &str) -> Option<QueryName> {
    Name::in_domain(name, &domain()).ok().map(|name| QueryName::from(&name))
}

fn answer(table: &Table, query: &QueryName) -> Vec<IpAddr> {
    match table.answer(query, QueryType::Any) {
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
