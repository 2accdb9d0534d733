//! Which addresses containers get, and who gets them afterwards; judged by kernel and packets.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use ipnetwork::IpNetwork;
use meshwork::api::types::Status;
use meshwork::lab::{
    Container, Host, Lab, NameQuery, mesh,
    testing::{Load, in_lab},
    wait_until,
};
use serde_json::{Value, json};

use crate::fixture::{ANSWER, DEADLINE, PATIENCE, full_name, hosts, meshed, reaches, wait_reach};

/// Attaches a container through the plugin, with more in the network's configuration.
fn add(host: &Host, id: &str, more: &Value) -> Result<Container> {
    let namespace = host.bare_container(id)?;
    let mut cni = host.cni("ADD", id, &namespace);
    let mut config = host.cni_config();
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    cni.config = config.to_string().into_bytes();
    let result: Value = serde_json::from_str(&host.cni_call(&cni).ok()?)?;
    let ips = result["ips"].as_array().context("no ips")?.iter();
    let networks = ips.filter_map(|ip| ip["address"].as_str()?.parse::<IpNetwork>().ok());
    let addresses = networks.map(|network| network.ip()).collect();
    Ok(Container { id: id.to_owned(), namespace, addresses, result })
}

/// The addresses that the kernel shows on a container's link, link-local ones left out.
fn in_kernel(container: &Container) -> Result<Vec<IpAddr>> {
    let shown = container.namespace.ip_json(&["address", "show", "dev", "eth0"])?;
    let infos = shown[0]["addr_info"].as_array().context("no addresses")?;
    let locals = infos.iter().filter(|info| info["scope"] == "global");
    Ok(locals.filter_map(|info| info["local"].as_str()?.parse().ok()).collect())
}

/// Asserts that a command failed with one line that holds these words.
fn refused(output: &meshwork::lab::Output, words: &str) -> Result<()> {
    let text = format!("{}{}", output.err, output.out);
    ensure!(output.code == Some(1) && text.contains(words), "{words:?} not in {output:?}");
    Ok(())
}

/// Two hosts of a mesh of two IPv4 ranges.
fn ranged() -> Result<(Lab, Vec<Host>)> {
    let (lab, mut hosts) = hosts(2)?;
    hosts[0].start(&["--init", "--range", "10.20.0.0/16", "--range", "10.10.0.0/16"])?;
    hosts[0].wait_ready(PATIENCE)?;
    let token = hosts[0].token()?;
    let (first, second) = hosts.split_at_mut(1);
    second[0].start_joining(&first[0], &token)?;
    mesh::wait_complete(&mut hosts, PATIENCE)?;
    Ok((lab, hosts))
}

#[test]
fn containers_of_different_ranges_reach_each_other_and_the_resolver() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = ranged()?;
        let subnet = json!({ "ipam": { "subnet": "10.10.1.0/24" } });
        let inward = json!({ "ipam": { "subnet": "10.10.1.0/24" }, "isDefaultGateway": false });
        let all = [
            add(&hosts[0], "a", &json!({}))?,
            add(&hosts[0], "b", &subnet)?,
            add(&hosts[1], "c", &json!({}))?,
            add(&hosts[1], "d", &inward)?,
        ];
        for (container, start) in all.iter().zip(["10.20.", "10.10.1.", "10.20.", "10.10.1."]) {
            let v4 = container.v4()?.to_string();
            ensure!(v4.starts_with(start), "{} got {v4}", container.id);
            container.v6()?;
        }
        for from in &all {
            for to in all.iter().filter(|to| to.id != from.id) {
                wait_reach(from, to, PATIENCE)?;
            }
            let server: IpAddr =
                from.result["dns"]["nameservers"][0].as_str().context("no resolver")?.parse()?;
            let resolver = NameQuery::new(&from.namespace, (server, 53).into())?;
            wait_until(&format!("{} to resolve names", from.id), PATIENCE, || {
                let answer = resolver.ask(&full_name("d"), RecordType::A, ANSWER)?;
                Ok((!answer.records.is_empty()).then_some(()))
            })?;
        }
        let listed = hosts[1].meshctl_json(&["ipam", "range", "list"])?;
        let listed: Vec<&str> =
            listed.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(listed[..2] == ["10.10.0.0/16", "10.20.0.0/16"] && listed.len() == 3, "{listed:?}");
        let bare = hosts[0].bare_container("x")?;
        let path = bare.path().display().to_string();
        let attach = ["attach", "x", "--netns", &path, "--subnet", "10.77.0.0/24"];
        refused(&hosts[0].meshctl(&attach)?, "in no range of the mesh")
    });
}

/// All of a small range is given; what is released on one host serves the other at once, and what
/// is added serves all, also a host that joins only now.
#[test]
fn a_full_mesh_gives_what_is_released_or_added() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(3)?;
        hosts[0].start(&["--init", "--range", "10.20.0.0/29", "--rest", "0"])?;
        hosts[0].wait_ready(PATIENCE)?;
        let token = hosts[0].token()?;
        let [first, second, third] = hosts.as_mut_slice() else { unreachable!("three hosts") };
        second.start_joining(first, &token)?;
        second.wait_ready(PATIENCE)?;
        let on_second = second.container("a")?;
        let mut given = vec![on_second.v4()?];
        for id in ["b", "c", "d"] {
            given.push(first.container(id)?.v4()?);
        }
        let full = format!("{:#}", first.container("e").err().context("a fifth address")?);
        ensure!(full.contains("every address of 10.20.0.0/29 is in use"), "{full}");
        let exhausted = |status: &Status| status.ipam.state == "exhausted";
        let (status, _) = first.wait_status("full", PATIENCE, exhausted)?;
        let why = status.ipam.reason.context("a reason")?;
        ensure!(why.contains("meshctl ipam range add"), "{why}");
        second.detach(&on_second)?;
        let released = first.container("h")?;
        ensure!(released.v4()? == given[0], "{:?}", released.addresses);
        first.meshctl_call(&["ipam", "range", "add", "10.21.0.0/28"]).ok()?;
        third.start_joining(first, &token)?;
        third.wait_ready(PATIENCE)?;
        let added = [second.container("f")?, third.container("g")?];
        first.wait_status("not full", PATIENCE, |status| status.ipam.state == "ready")?;
        let range: IpNetwork = "10.21.0.0/28".parse()?;
        for container in &added {
            ensure!(range.contains(container.v4()?), "{:?}", container.addresses);
            wait_reach(container, &released, PATIENCE)?;
        }
        wait_reach(&added[0], &added[1], PATIENCE)?;
        // What it had is its own again, though it is of the second range.
        let (had, [_, old]) = (added[1].v4()?, added);
        third.detach(&old)?;
        let again = third.attach("g", old.namespace)?;
        ensure!(again.v4()? == had, "{:?}", again.addresses);
        Ok(())
    });
}

#[test]
fn a_container_gets_all_addresses_that_are_named_for_it() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(2)?;
        let peer = add(&hosts[1], "peer", &json!({}))?;
        let v6 = peer.v6()?;
        let IpAddr::V6(near) = v6 else { anyhow::bail!("{v6} is no IPv6 address") };
        let v6 = std::net::Ipv6Addr::from(u128::from(near) + 0x77).to_string();
        let named = ["10.47.3.1", "10.47.3.2", v6.as_str()];
        let config = json!({ "capabilities": { "ips": true }, "runtimeConfig": { "ips": named } });
        let many = add(&hosts[0], "many", &config)?;
        let wanted: Vec<IpAddr> = named.iter().filter_map(|text| text.parse().ok()).collect();
        ensure!(many.addresses == wanted, "{:?}", many.addresses);
        let mut shown = in_kernel(&many)?;
        shown.sort();
        ensure!(shown == wanted, "the kernel shows {shown:?}");
        for address in wanted {
            wait_until(&format!("{address} to answer"), PATIENCE, || {
                ensure!(reaches(&peer, address)?, "no answer");
                Ok(Some(()))
            })?;
        }
        // Who has it is named, also when that is another host.
        let bare = hosts[1].bare_container("late")?;
        let path = bare.path().display().to_string();
        let attach = |address: &str| {
            hosts[1].meshctl(&["attach", "late", "--netns", &path, "--ip", address])
        };
        refused(&attach("10.47.3.2")?, "held there by many/eth0")?;
        refused(&attach("192.0.2.1")?, "in no range of the mesh")?;
        refused(&attach("10.32.0.0")?, "reserved")?;
        let free = attach("10.47.3.3")?;
        ensure!(free.success() && free.out.contains("10.47.3.3"), "{free:?}");
        Ok(())
    });
}

#[test]
fn a_container_that_is_made_anew_has_its_address_and_nobody_else_gets_it_meanwhile() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(1)?;
        let host = &hosts[0];
        let first = host.container("web")?;
        host.detach(&first)?;
        let other = host.container("other")?;
        ensure!(other.v4()? != first.v4()?, "a released address was given at once");
        first.namespace.remove()?;
        let again = host.container("web")?;
        ensure!(
            again.addresses == first.addresses,
            "{:?} became {:?}",
            first.addresses,
            again.addresses
        );
        reaches(&other, again.v4()?)?;

        // A claim outlives its containers and meshd.
        let claimed = again.v4()?;
        host.meshctl_call(&["ipam", "claim", &claimed.to_string(), "--for", "web"]).ok()?;
        host.detach(&again)?;
        again.namespace.remove()?;
        hosts[0].kill()?;
        hosts[0].start(&[])?;
        hosts[0].wait_ready(PATIENCE)?;
        let host = &hosts[0];
        let bare = host.bare_container("thief")?;
        let path = bare.path().display().to_string();
        let exact = ["attach", "thief", "--netns", &path, "--ip", &claimed.to_string()];
        refused(&host.meshctl(&exact)?, "held on this host by web")?;
        let third = host.container("web")?;
        ensure!(third.v4()? == claimed, "the claim was not used: {:?}", third.addresses);
        ensure!(reaches(&other, claimed)?, "no answer from {claimed}");
        let listed = host.meshctl_call(&["ipam", "list"]).ok()?;
        ensure!(listed.matches(&claimed.to_string()).count() == 2, "{listed}");

        // Released while it is used, it stays with the container.
        host.meshctl_call(&["ipam", "release", "web"]).ok()?;
        refused(&host.meshctl(&exact)?, "held on this host by web/eth0")?;
        ensure!(reaches(&other, claimed)?, "no answer from {claimed}");
        Ok(())
    });
}

/// More than a host has before it asks for space in a range of 64 addresses.
const ROUNDS: usize = 24;

#[test]
fn released_addresses_rest_as_long_as_the_configuration_says() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(3)?;
        hosts[0].start(&["--init", "--range", "10.20.0.0/26"])?;
        hosts[0].wait_ready(PATIENCE)?;
        let token = hosts[0].directory().join("token");
        std::fs::write(&token, hosts[0].token()?)?;
        let (target, token) = (hosts[0].address().to_string(), token.display().to_string());
        for (host, rest) in hosts[1..].iter_mut().zip(["3600", "0"]) {
            host.start(&["--join", &target, "--token-file", &token, "--rest", rest])?;
            host.wait_ready(PATIENCE)?;
            let mut seen = std::collections::BTreeSet::new();
            for round in 0..ROUNDS {
                let container = host.container(&format!("c{round}"))?;
                seen.insert(container.v4()?);
                host.detach(&container)?;
            }
            // Who lets addresses rest asks others for space first.
            let again = ROUNDS - seen.len();
            ensure!((again > 0) == (rest == "0"), "rest {rest}: {again} were given again");
        }
        Ok(())
    });
}
