//! Hosts that cannot reach each other, and one in the middle that can.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use meshwork::{
    api::types::Path,
    lab::{
        Host, Pinger, cut, heal, mesh,
        testing::{Load, in_lab},
        wait_until,
    },
};

use crate::fixture::{DEADLINE, PATIENCE, full_name, meshed, resolver, wait_reach};

/// How long a change of the way may take, from the cut or its end.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// Pings of which one can tell where they went.
const BURST: u64 = 50;

/// The path of one host to another.
fn path(from: &Host, to: &Host) -> Result<Path> {
    let paths = from.status()?.paths;
    paths.into_iter().find(|path| path.name == to.name()).context("no path at all")
}

/// What a host's tunnel has received, as the kernel counts it.
fn tunnel_packets(host: &Host) -> Result<u64> {
    let links = host.namespace().ip_json(&["-s", "link", "show", "dev", "mesh-vx"])?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("no counter")
}

#[test]
fn ends_that_are_cut_off_go_through_the_middle_and_back() {
    in_lab(Load::Alone, DEADLINE, || {
        let (_lab, mut hosts) = meshed(3)?;
        let containers = mesh::populate(&hosts)?;
        let (from, to) = (&containers[0], &containers[2]);
        wait_reach(from, to, PATIENCE)?;
        let burst = || -> Result<u64> {
            let before = tunnel_packets(&hosts[1])?;
            let span = Duration::from_millis(BURST * 10);
            let pinged = Pinger::start(&from.namespace, to.v4()?, 100, span)?.finish()?;
            ensure!(pinged.lost() == 0, "{pinged:?}");
            Ok(tunnel_packets(&hosts[1])? - before)
        };
        let direct = burst()?;
        ensure!(direct < BURST, "{direct} packets went through the middle before the cut");

        cut(&hosts[0], &hosts[2])?;
        let took = wait_reach(from, to, CHANGE_MAX)?;
        let relayed = burst()?;
        println!("through the relay {took:?} after the cut; it saw {relayed} packets");
        // Question and answer of each ping.
        ensure!(relayed >= 2 * BURST, "only {relayed} packets went through the middle");
        ensure!(path(&hosts[0], &hosts[2])?.via.as_deref() == Some(hosts[1].name()));
        hosts[2].container("behind")?;
        let resolver = resolver(&hosts[0])?;
        wait_until("control traffic through the middle", PATIENCE, || {
            let kind = hickory_proto::rr::RecordType::A;
            let answer = resolver.ask(&full_name("behind"), kind, PATIENCE)?;
            Ok((!answer.records.is_empty()).then_some(()))
        })?;

        heal(&hosts[0], &hosts[2])?;
        let (_, took) = wait_until("the direct path to be back", CHANGE_MAX, || {
            let path = path(&hosts[0], &hosts[2])?;
            let back = crate::relay::path(&hosts[2], &hosts[0])?;
            ensure!(path.via.is_none() && back.via.is_none(), "{path:?}, {back:?}");
            Ok(Some(()))
        })?;
        let direct = burst()?;
        println!("direct again {took:?} after the cut's end");
        ensure!(direct < BURST, "{direct} packets still went through the middle");
        mesh::wait_complete(&mut hosts, PATIENCE)
    });
}
