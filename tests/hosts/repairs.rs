//! What a clumsy hand breaks in the kernel comes back, and status says so.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meshwork::lab::{
    Container, Host, mesh,
    testing::{Load, in_lab},
    wait_until,
};

use crate::fixture::{DEADLINE, PATIENCE, meshed, wait_reach};

/// How long a repair may take.
const REPAIR_MAX: Duration = Duration::from_secs(5);

/// Two hosts with a container each that reach each other.
fn pair() -> Result<(meshwork::lab::Lab, Vec<Host>, Vec<Container>)> {
    let (lab, hosts) = meshed(2)?;
    let containers = mesh::populate(&hosts)?;
    wait_reach(&containers[0], &containers[1], PATIENCE)?;
    Ok((lab, hosts, containers))
}

/// Breaks something on the first host and asks that it comes back: `there` looks for it in the
/// kernel.
fn repaired(
    what: &str,
    hosts: &[Host],
    containers: &[Container],
    there: impl Fn(&Host) -> Result<bool>,
    broken: impl FnOnce(&Host) -> Result<()>,
) -> Result<()> {
    let host = &hosts[0];
    ensure!(there(host)?, "{what} was never there");
    let newest = host.status()?.repairs.last().cloned();
    broken(host)?;
    let (_, took) =
        wait_until(&format!("{what} to be back"), REPAIR_MAX, || Ok(there(host)?.then_some(())))?;
    wait_reach(&containers[0], &containers[1], REPAIR_MAX.saturating_sub(took))?;
    let (repairs, _) = wait_until("status to tell", REPAIR_MAX, || {
        let repairs = host.status()?.repairs;
        ensure!(repairs.last() != newest.as_ref(), "{repairs:?}");
        Ok(Some(repairs))
    })?;
    println!("{what}: back after {took:?}; {:?}", repairs.last().map(|repair| &repair.what));
    Ok(())
}

/// The names of the bridge's ports that are containers' links.
fn ports(host: &Host) -> Result<Vec<String>> {
    let links = host.namespace().ip_json(&["link", "show", "master", "mesh0"])?;
    let names = links.as_array().into_iter().flatten();
    let names = names.filter_map(|link| link["ifname"].as_str());
    Ok(names.filter(|name| name.starts_with("mw")).map(str::to_owned).collect())
}

/// What `ip` prints of a kind of object, as lines. Not as JSON: where there is an encapsulation,
/// iproute2 6.1 prints its `id` and `dst` under the same keys as the object's own.
fn lines(host: &Host, args: &[&str]) -> Result<Vec<String>> {
    let text = host.namespace().call("ip").args(args).ok()?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The mesh's IPv4 routes through nexthop objects: `10.32.64.0/18 nhid 77 ...`.
fn routes(host: &Host) -> Result<Vec<String>> {
    let mut routes = lines(host, &["-4", "route", "show"])?;
    routes.retain(|route| route.contains(" nhid "));
    Ok(routes.iter().filter_map(|route| Some(route.split(' ').next()?.to_owned())).collect())
}

/// The ids of the nexthop objects: `id 77 ...`.
fn nexthops(host: &Host) -> Result<Vec<String>> {
    let nexthops = lines(host, &["nexthop", "show"])?;
    Ok(nexthops.iter().filter_map(|hop| Some(hop.split(' ').nth(1)?.to_owned())).collect())
}

/// The tables of nftables that are not the lab's.
fn tables(host: &Host) -> Result<Vec<String>> {
    let text = host.namespace().call("nft").args(["list", "tables"]).ok()?;
    let tables = text.lines().filter(|line| !line.ends_with(" lab"));
    Ok(tables.map(|line| line.trim_start_matches("table ").to_owned()).collect())
}

fn has_link(host: &Host, name: &str) -> Result<bool> {
    let links = host.namespace().ip_json(&["link", "show"])?;
    Ok(links.as_array().into_iter().flatten().any(|link| link["ifname"] == name))
}

#[test]
fn a_port_that_was_taken_off_the_bridge_is_put_back() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        repaired(
            "the port",
            &hosts,
            &containers,
            |host| Ok(ports(host)?.len() == 1),
            |host| {
                let port = ports(host)?.pop().context("a port")?;
                host.namespace().ip(&["link", "set", &port, "nomaster"])
            },
        )
    });
}

#[test]
fn a_deleted_link_of_a_container_is_made_again() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        repaired(
            "the link",
            &hosts,
            &containers,
            |host| Ok(ports(host)?.len() == 1),
            |host| {
                let port = ports(host)?.pop().context("a port")?;
                host.namespace().ip(&["link", "delete", &port])
            },
        )
    });
}

#[test]
fn a_deleted_route_is_made_again() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        let before = routes(&hosts[0])?;
        ensure!(!before.is_empty(), "no route of the mesh");
        let there = |host: &Host| Ok(routes(host)? == before);
        repaired("the routes", &hosts, &containers, there, |host| {
            before.iter().try_for_each(|route| host.namespace().ip(&["route", "delete", route]))
        })
    });
}

#[test]
fn a_deleted_nexthop_is_made_again_with_its_routes() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        let (before, routes_before) = (nexthops(&hosts[0])?, routes(&hosts[0])?);
        let there = |host: &Host| {
            Ok(!before.is_empty() && nexthops(host)? == before && routes(host)? == routes_before)
        };
        repaired("the nexthops", &hosts, &containers, there, |host| {
            before.iter().try_for_each(|id| host.namespace().ip(&["nexthop", "delete", "id", id]))
        })
    });
}

#[test]
fn a_deleted_table_of_nftables_is_made_again() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        let before = tables(&hosts[0])?;
        let there = |host: &Host| Ok(!before.is_empty() && tables(host)? == before);
        repaired("the table", &hosts, &containers, there, |host| {
            before.iter().try_for_each(|table| host.nft(&format!("delete table {table}")))
        })
    });
}

#[test]
fn a_deleted_tunnel_is_made_again_with_all_that_rode_on_it() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        let before = routes(&hosts[0])?;
        let there = |host: &Host| Ok(has_link(host, "mesh-vx")? && routes(host)? == before);
        repaired("the tunnel", &hosts, &containers, there, |host| {
            host.namespace().ip(&["link", "delete", "mesh-vx"])
        })
    });
}

#[test]
fn a_deleted_bridge_is_made_again_with_its_ports() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, containers) = pair()?;
        let there = |host: &Host| Ok(has_link(host, "mesh0")? && ports(host)?.len() == 1);
        repaired("the bridge", &hosts, &containers, there, |host| {
            host.namespace().ip(&["link", "delete", "mesh0"])
        })
    });
}
