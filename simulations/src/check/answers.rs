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
    let free = convergence::free(hosts);
    hosts.iter().find_map(|host| {
        let open = host.pending.values().find(|asked| match asked.request {
            Request::Join { .. } => free,
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
