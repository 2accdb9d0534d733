//! Packets between containers.

use std::time::Duration;

use anyhow::{Result, ensure};
use meshwork::lab::{
    Container, OUTSIDE_V4, Pinger, mesh,
    testing::{Load, in_lab},
};

use crate::fixture::{ANSWER, DEADLINE, PATIENCE, meshed, reaches, wait_reach};

const PER_SECOND: u32 = 500;

#[test]
fn every_container_reaches_every_other_over_both_families() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(3)?;
        let containers = mesh::populate(&hosts)?;
        for from in &containers {
            for to in &containers {
                wait_reach(from, to, PATIENCE)?;
            }
        }
        Ok(())
    });
}

#[test]
fn traffic_survives_the_end_of_every_meshd_and_its_return_without_a_lost_packet() {
    in_lab(Load::Alone, DEADLINE, || {
        let (_lab, mut hosts) = meshed(5)?;
        let containers = mesh::populate(&hosts)?;
        let pairs = [(0, 1), (1, 4), (2, 3)];
        for (from, to) in pairs {
            wait_reach(&containers[from], &containers[to], PATIENCE)?;
        }
        let span = Duration::from_secs(8);
        let mut pingers = Vec::new();
        for (from, to) in pairs {
            let ends: (&Container, &Container) = (&containers[from], &containers[to]);
            let namespace = &ends.0.namespace;
            for address in [ends.1.v4()?, ends.1.v6()?] {
                pingers.push((Pinger::start(namespace, address, PER_SECOND, span)?, address));
            }
        }
        for host in &mut hosts {
            host.kill()?;
        }
        std::thread::sleep(Duration::from_secs(1));
        for host in &mut hosts {
            host.start(&[])?;
        }
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        for (pinger, _) in &mut pingers {
            ensure!(pinger.is_running(), "the pings ended before the hosts were back");
        }
        for (pinger, address) in pingers {
            let pinged = pinger.finish()?;
            println!("to {address}: {} of {} answered", pinged.received, pinged.sent);
            ensure!(pinged.lost() == 0, "lost {} packets to {address}", pinged.lost());
        }
        Ok(())
    });
}

#[test]
fn traffic_to_outside_the_mesh_is_masqueraded() {
    in_lab(Load::Shared, DEADLINE, || {
        let (lab, hosts) = meshed(1)?;
        let container = hosts[0].container("c1")?;
        // The outside has no route to containers: an answer proves the host's own address.
        let back = lab.outside().ping(container.v4()?, ANSWER)?;
        ensure!(!back, "the outside must not know the way to a container");
        ensure!(reaches(&container, OUTSIDE_V4.into())?, "no answer from the outside");
        Ok(())
    });
}

#[test]
fn a_detached_container_is_gone_from_the_kernel_and_from_the_names() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(2)?;
        let containers = mesh::populate(&hosts)?;
        wait_reach(&containers[0], &containers[1], PATIENCE)?;
        let ports = |host: &meshwork::lab::Host| -> Result<usize> {
            let links = host.namespace().ip_json(&["link", "show", "master", "mesh0"])?;
            Ok(links.as_array().map_or(0, Vec::len))
        };
        let before = ports(&hosts[1])?;
        hosts[1].detach(&containers[1])?;
        hosts[1].detach(&containers[1])?;
        ensure!(!reaches(&containers[0], containers[1].v4()?)?);
        meshwork::lab::wait_until("the port to be gone", PATIENCE, || {
            let now = ports(&hosts[1])?;
            ensure!(now + 1 == before, "{now} ports, before {before}");
            Ok(Some(()))
        })?;
        ensure!(hosts[1].status()?.ipam.allocated == 0);
        Ok(())
    });
}
