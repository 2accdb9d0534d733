//! Replies come after disk and kernel, are fair, and there is one for each request.

use std::net::IpAddr;

use mesh_ipam::Holder;
use mesh_router::codec;
use meshwork::{
    api::types::{AttachRequest, Attachment},
    node::{
        attachment::Record,
        event::Table,
        request::{Refusal, Request},
    },
};

use super::{Violation, convergence, names};
use crate::{host::Host, ledger::Ledger};

/// An attach is answered when its record is durable, its link stands and its names resolve here.
pub(crate) fn attached(
    host: &Host,
    request: &AttachRequest,
    attachment: &Attachment,
) -> Result<(), Violation> {
    let wrong = |text: String| {
        let text = format!("h{} answers {}: {text}", host.index, attachment.container);
        Err(Violation::new("answers", text))
    };
    let holder =
        Holder { container: attachment.container.clone(), interface: attachment.interface.clone() };
    let addresses: Vec<IpAddr> =
        attachment.addresses.iter().map(ipnetwork::IpNetwork::ip).collect();
    let record = host.disk.get(Table::Attachments, &codec::encode(&holder));
    match record.map(codec::decode::<Record>) {
        Some(Ok(record)) if record.addresses == addresses => {}
        other => return wrong(format!("{addresses:?}, but the disk has {other:?}")),
    }
    if addresses.is_empty() || request.addresses.iter().any(|a| !addresses.contains(a)) {
        return wrong(format!("{addresses:?} for {:?}", request.addresses));
    }
    if request.netns.is_some() {
        let port = attachment.host_interface.as_ref().and_then(|n| host.kernel.ports.get(n));
        if port.is_none_or(|port| port.addresses != addresses) {
            return wrong(format!("with {addresses:?}, but the kernel has {port:?}"));
        }
    }
    for name in &attachment.names {
        let answer = names::resolve(&host.table, name);
        if let Some(address) = addresses.iter().find(|address| !answer.contains(address)) {
            return wrong(format!("{name} does not resolve to {address} yet"));
        }
    }
    Ok(())
}

/// What changes the state is answered only when nothing of it waits for the disk.
pub(crate) fn durable(host: &Host, request: &Request) -> Result<(), Violation> {
    let joins = matches!(request, Request::Init { .. } | Request::Join { .. });
    if !joins || knows_its_mesh(host) {
        return Ok(());
    }
    let text = format!("h{} is told that it is a member, and its disk does not know", host.index);
    Err(Violation::new("answers", text))
}

/// Whether a host would be a member after a restart.
pub(crate) fn knows_its_mesh(host: &Host) -> bool {
    host.disk.get(Table::Mesh, b"credentials").is_some()
}

/// A request that waits still, in words; joins may wait for space for ever.
pub(crate) fn unanswered(hosts: &[Host]) -> Option<String> {
    hosts.iter().find_map(|host| {
        let open = host.pending.values().find(|asked| match asked.request {
            Request::Join { .. } => convergence::free(hosts),
            _ => true,
        });
        open.map(|asked| format!("h{} has not answered {:?}", host.index, asked.request))
    })
}

/// When all is well an attach fails only when nobody has an address left.
pub(crate) fn fair_refusal(
    hosts: &[Host],
    host: usize,
    refusal: &Refusal,
) -> Result<(), Violation> {
    if !convergence::free(hosts) {
        return Ok(());
    }
    let text = format!("h{host} gives no address although there are some: {refusal}");
    Err(Violation::new("answers", text))
}

/// What was promised is still there.
pub(crate) fn kept(ledger: &Ledger, host: usize, held: &[Holder]) -> Result<(), Violation> {
    match ledger.holders(host).iter().find(|holder| !held.contains(holder)) {
        None => Ok(()),
        Some(holder) => Err(Violation::new("answers", format!("h{host} has forgotten {holder}"))),
    }
}

#[cfg(test)]
mod tests {
    use meshwork::node::request::Code;

    use super::*;
    use crate::{dice::Dice, host::Asked};

    #[test]
    fn an_answer_that_the_disk_does_not_bear_out_is_noticed() {
        let host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        let request = AttachRequest::new("c1".to_owned());
        let attachment = Attachment {
            container: "c1".into(),
            interface: "eth0".into(),
            netns: None,
            addresses: vec!["10.32.0.9/12".parse().unwrap()],
            gateways: vec![],
            routes: vec![],
            mac: String::new(),
            host_interface: None,
            bridge_mac: String::new(),
            bridge: String::new(),
            mtu: 0,
            names: vec![],
            nameservers: vec![],
            domain: String::new(),
        };
        assert!(attached(&host, &request, &attachment).is_err());
        assert!(durable(&host, &Request::Leave).is_ok());
        let range = "10.32.0.0/12".parse().unwrap();
        let credentials = meshwork::node::event::Credentials {
            mesh: mesh_router::MeshId::default(),
            secret: meshwork::node::event::Secret([0; 32]),
        };
        assert!(durable(&host, &Request::Init { credentials, ranges: vec![range] }).is_err());
    }

    #[test]
    fn a_request_without_an_answer_is_noticed() {
        let mut host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        assert_eq!(unanswered(std::slice::from_ref(&host)), None);
        let asked = Asked { request: Request::Status, probe: false };
        host.pending.insert(meshwork::node::event::RequestId(1), asked);
        assert!(unanswered(&[host]).is_some());
        let refusal = Refusal::new(Code::Exhausted, "no", "no");
        assert!(fair_refusal(&[], 0, &refusal).is_ok(), "nobody has anything");
    }
}
