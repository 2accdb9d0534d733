//! How long things take, on this machine, with everything on it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use meshwork::lab::{
    cut, mesh,
    testing::{Load, in_lab},
};

use crate::fixture::{DEADLINE, PATIENCE, hosts, meshed, percentile};

const COLD_START_MAX: Duration = Duration::from_millis(1500);
const JOIN_MAX: Duration = Duration::from_secs(2);
/// Starts of which the median counts: one slow moment of a shared machine is not ours.
const STARTS: usize = 3;

#[test]
fn five_hosts_are_ready_soon_after_a_cold_start() {
    in_lab(Load::Alone, DEADLINE, || {
        let (_lab, mut hosts) = hosts(5)?;
        let begin = Instant::now();
        mesh::form(&mut hosts, PATIENCE)?;
        let founded = begin.elapsed();
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            for host in &mut hosts {
                host.terminate()?;
            }
            let begin = Instant::now();
            for host in &mut hosts {
                host.start(&[])?;
            }
            for host in &mut hosts {
                host.wait_ready(PATIENCE)?;
            }
            starts.push(begin.elapsed());
            mesh::wait_complete(&mut hosts, PATIENCE)?;
        }
        let median = percentile(&mut starts, 50);
        println!("five hosts: founded and complete in {founded:?}, restarted in {starts:?}");
        ensure!(median < COLD_START_MAX, "median {median:?} of {starts:?}");
        Ok(())
    });
}

#[test]
fn a_sixth_host_that_joins_is_ready_soon() {
    in_lab(Load::Alone, DEADLINE, || {
        let (mut lab, mut hosts) = meshed(5)?;
        let token = hosts[0].token()?;
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let mut sixth = lab.host()?;
            let begin = Instant::now();
            sixth.start_joining(&hosts[0], &token)?;
            sixth.wait_ready(PATIENCE)?;
            times.push(begin.elapsed());
            hosts.push(sixth);
        }
        let median = percentile(&mut times, 50);
        println!("joins: ready in {times:?}");
        ensure!(median < JOIN_MAX, "median {median:?} of {times:?}");
        mesh::wait_complete(&mut hosts, PATIENCE)
    });
}

#[test]
fn containers_start_while_every_peer_is_out_of_reach() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(5)?;
        for peer in &hosts[1..] {
            cut(&hosts[0], peer)?;
        }
        let mut times = Vec::new();
        for number in 0..20 {
            let begin = Instant::now();
            hosts[0].container(&format!("lonely{number}"))?;
            times.push(begin.elapsed());
        }
        let median = percentile(&mut times, 50);
        println!("ADD without any peer: median {median:?}");
        ensure!(median < Duration::from_secs(1), "it waited for somebody: {times:?}");
        Ok::<_, anyhow::Error>(())
    });
}

#[test]
fn a_median_is_the_middle() -> Result<()> {
    let mut samples: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
    ensure!(percentile(&mut samples, 50) == Duration::from_millis(50));
    ensure!(percentile(&mut samples, 99) == Duration::from_millis(99));
    ensure!(percentile(&mut samples[..1], 99) == Duration::from_millis(1));
    Ok(())
}
