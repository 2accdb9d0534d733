//! Steps carried out: many in one call where netlink lets us, and each with its own result.

use std::io;

use super::{
    actual::{TableReader, links},
    address, container, link, neighbour,
    netlink::{KernelError, Message, Netlink},
    nexthop, nft,
    plan::{Action, PORT_PREFIX, Step},
    route, sysctl,
};
use crate::node::desired::Desired;

/// The names of bridge and tunnel when nothing else was said.
pub(super) const DEFAULT_DEVICES: [&str; 2] = ["mesh0", "mesh-vx"];

/// The sockets that changes are made with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) netlink: Netlink,
    pub(super) nft: TableReader,
}

/// Takes the steps in their order and answers what became of each.
pub(super) fn apply(
    tools: &mut Tools,
    desired: &Desired,
    steps: &[Step],
) -> io::Result<Vec<Result<(), String>>> {
    let mut results = Vec::with_capacity(steps.len());
    let mut messages = Vec::new();
    for step in steps {
        if let Some(message) = message(&step.action, desired) {
            messages.push(message);
            continue;
        }
        let flushed = tools.netlink.perform(std::mem::take(&mut messages))?;
        results.extend(flushed);
        let result = other(tools, &step.action, desired);
        results.push(result.map_err(|text| KernelError { errno: 0, text: Some(text) }));
    }
    results.extend(tools.netlink.perform(messages)?);
    Ok(steps.iter().zip(results).map(|(step, result)| judge(step, result)).collect())
}

/// What is gone already need not be removed.
fn judge(step: &Step, result: Result<(), KernelError>) -> Result<(), String> {
    use nix::libc::{EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH};
    let removes = matches!(
        step.action,
        Action::DeleteLink(_)
            | Action::DeleteAddress(..)
            | Action::DeleteNeighbour(..)
            | Action::DeleteNexthop(_)
            | Action::DeleteRoute(_)
    );
    match result {
        Err(error) if error.errno == 0 => Err(error.text.unwrap_or_default()),
        Err(error) if removes && [EADDRNOTAVAIL, ENODEV, ENOENT, ESRCH].contains(&error.errno) => {
            Ok(())
        }
        result => result.map_err(|error| error.to_string()),
    }
}

/// The one message that takes this step, if it is one.
fn message(action: &Action, desired: &Desired) -> Option<Message> {
    let bridge = &desired.bridge;
    Some(match action {
        Action::CreateBridge => {
            link::create_bridge(&bridge.name, bridge.mac, desired.tunnel.mtu_bytes)
        }
        Action::CreateTunnel => link::create_tunnel(&desired.tunnel),
        Action::DeleteLink(name) => link::delete(name),
        Action::Raise(index) => link::raise(*index),
        Action::MakeNoAddresses(index) => link::make_no_addresses(*index),
        Action::SetMtu(index, mtu_bytes) => link::set_mtu(*index, *mtu_bytes),
        Action::SetMac(index, mac) => link::set_mac(*index, *mac),
        Action::SetMaster(index, master) => link::set_master(*index, *master),
        Action::RaisePort(name, hairpin) => link::raise_port(name, *hairpin),
        Action::PutAddress(index, network) => address::put(*index, *network),
        Action::DeleteAddress(index, network) => address::delete(*index, *network),
        Action::PutNeighbour(neighbour) => neighbour::put(neighbour),
        Action::DeleteNeighbour(index, address) => neighbour::delete(*index, *address),
        Action::PutNexthop(object) => nexthop::put(object),
        Action::DeleteNexthop(id) => nexthop::delete(*id),
        Action::PutRoute(route) => route::put(route),
        Action::DeleteRoute(route) => route::delete(route),
        Action::Refuse(_)
        | Action::SetPortMtu(..)
        | Action::Rewire(_)
        | Action::SetSysctl(_)
        | Action::PutTable(_) => return None,
    })
}

fn other(tools: &mut Tools, action: &Action, desired: &Desired) -> Result<(), String> {
    let netlink = &mut tools.netlink;
    match action {
        Action::Refuse(why) => Err(why.clone()),
        Action::SetPortMtu(wiring, mtu_bytes) => {
            container::set_mtu(netlink, wiring, *mtu_bytes).map_err(|refusal| refusal.message)
        }
        Action::Rewire(wiring) => {
            let links = links(netlink).map_err(|error| error.to_string())?;
            let bridge = links.get(&desired.bridge.name).ok_or("there is no bridge")?;
            let site = container::Site::new(bridge.index, desired);
            container::wire(netlink, wiring, &site).map(drop).map_err(|refusal| refusal.message)
        }
        Action::SetSysctl(wanted) => {
            let ready = if wanted.path == sysctl::FORWARDING_V6 {
                links(netlink).and_then(|links| sysctl::keep_advertised_routes(links.values()))
            } else {
                Ok(())
            };
            ready.and_then(|()| sysctl::ensure(wanted)).map_err(|error| error.to_string())
        }
        Action::PutTable(ruleset) => {
            nft::put(tools.nft.netlink(), ruleset).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    }
}

/// Removes everything that bears our mark: ports, bridge, tunnel, routes, nexthops, table.
pub(super) fn remove_all(tools: &mut Tools, stood: Option<&Desired>) -> io::Result<()> {
    let netlink = &mut tools.netlink;
    let (bridge, tunnel) = match stood {
        Some(desired) => (desired.bridge.name.as_str(), desired.tunnel.name.as_str()),
        None => (DEFAULT_DEVICES[0], DEFAULT_DEVICES[1]),
    };
    let links = links(netlink)?;
    let bridge = links.get(bridge).filter(|link| link.kind == "bridge");
    let ports = links.values().filter(|link| {
        let desired = stood.is_some_and(|stood| stood.ports.contains_key(&link.name));
        let ours = bridge.is_some_and(|bridge| link.master == Some(bridge.index));
        link.name.starts_with(PORT_PREFIX) && link.kind == "veth" && (desired || ours)
    });
    let ports: Vec<_> = ports.map(|link| link.name.as_str()).collect();
    let mut messages = Vec::new();
    for v4 in [true, false] {
        let routes = netlink.dump(route::dump(v4, true))?;
        messages.extend(routes.iter().filter_map(route::parse).map(|route| route::delete(&route)));
    }
    let nexthops = netlink.dump(nexthop::dump())?;
    let ids = nexthops.iter().filter_map(nexthop::parse).map(|(id, _)| id);
    messages.extend(ids.map(nexthop::delete));
    // All devices in one go, so that they wait for the same grace periods.
    let doomed = ports.iter().copied().chain(bridge.map(|link| link.name.as_str()));
    let tunnel = links.get(tunnel).filter(|link| link.vxlan_port.is_some());
    let doomed: Vec<_> = doomed.chain(tunnel.map(|link| link.name.as_str())).collect();
    messages.extend(doomed.iter().map(|name| link::set_group(name)));
    if !doomed.is_empty() {
        messages.push(link::delete_group());
    }
    // What is gone in the meantime was to be removed anyway.
    netlink.perform(messages)?;
    nft::delete(tools.nft.netlink())
}
