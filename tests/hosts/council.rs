//! What a mesh decides together: founding, removal, ranges, the lease.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use meshwork::{
    api::types::Status,
    lab::{
        Host, Lab, Output, cut, heal, mesh,
        testing::{Load, in_lab},
        wait_until,
    },
};

use crate::{
    api::{Api, claim_many},
    fixture::{DEADLINE, PATIENCE, hosts, meshed},
};

/// From the start of `peer remove` to an address of the removed host's.
const TAKE_OVER_MAX: Duration = Duration::from_secs(2);
/// From the first link after a partition to equal rings.
const EQUAL_MAX: Duration = Duration::from_secs(2);
/// How long the partition lasts, in seconds; 120 is what was promised.
const PARTITION: &str = "MESHWORK_TEST_PARTITION_SECS";

/// Hosts of a mesh that was founded with these arguments by the first.
fn founded(count: u8, args: &[&str]) -> Result<(Lab, Vec<Host>)> {
    let (lab, mut hosts) = hosts(count)?;
    hosts[0].start(&[&["--init"], args].concat())?;
    hosts[0].wait_ready(PATIENCE)?;
    let token = hosts[0].token()?;
    let (first, others) = hosts.split_at_mut(1);
    for host in others {
        host.start_joining(&first[0], &token)?;
    }
    mesh::wait_complete(&mut hosts, PATIENCE)?;
    Ok((lab, hosts))
}

fn cut_all(one: &[Host], other: &[Host]) -> Result<()> {
    for a in one {
        other.iter().try_for_each(|b| cut(a, b))?;
    }
    Ok(())
}

fn heal_all(one: &[Host], other: &[Host]) -> Result<()> {
    for a in one {
        other.iter().try_for_each(|b| heal(a, b))?;
    }
    Ok(())
}

fn claim(host: &Host, address: &str, holder: &str) -> Result<Output> {
    host.meshctl(&["ipam", "claim", address, "--for", holder])
}

fn said(output: &Output) -> String {
    format!("{}{}", output.err, output.out)
}

/// Waits until a host calls another so.
fn wait_called(host: &Host, peer: &str, state: &str) -> Result<()> {
    wait_until(&format!("{peer} to be {state}"), PATIENCE, || {
        let peers = host.meshctl_json(&["peer", "list"])?;
        let peers = peers.as_array().context("no list")?;
        let found = peers.iter().find(|found| found["name"] == peer).context("not listed")?;
        ensure!(found["state"] == state, "{found}");
        Ok(Some(()))
    })
    .map(drop)
}

/// All addresses that are held on these hosts, each with its holders.
fn held(hosts: &[Host]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for host in hosts {
        let list = host.meshctl_json(&["ipam", "list"])?;
        for allocation in list.as_array().context("no list")? {
            let address = allocation["address"].as_str().context("no address")?;
            let holder = format!("{} on {}", allocation["holder"], host.name());
            held.entry(address.to_owned()).or_default().push(holder);
        }
    }
    Ok(held)
}

fn ensure_unique(hosts: &[Host]) -> Result<usize> {
    let held = held(hosts)?;
    let twice: Vec<_> = held.iter().filter(|(_, holders)| holders.len() > 1).collect();
    ensure!(twice.is_empty(), "held twice: {twice:?}");
    Ok(held.len())
}

fn ensure_equal(hosts: &[Host]) -> Result<()> {
    let all: Vec<Status> = hosts.iter().map(Host::status).collect::<Result<_>>()?;
    let digests: Vec<&str> = all.iter().map(|status| status.ipam.ring_digest.as_str()).collect();
    ensure!(digests.iter().all(|digest| *digest == digests[0]), "the rings are {digests:?}");
    Ok(())
}

#[test]
fn the_space_of_a_killed_host_is_used_by_the_others_once_it_is_removed() {
    in_lab(Load::Alone, DEADLINE, || {
        let (_lab, mut hosts) = founded(5, &["--range", "10.40.0.0/22"])?;
        let mut api = Api::new(&hosts[0])?;
        let given: Vec<String> =
            (0..4).map(|number| api.claim_any(&format!("x{number}"))).collect::<Result<_>>()?;
        let owned = hosts[0].status()?.ipam.owned;
        ensure!(owned >= 512, "the first host owns {owned} of 1024");
        let refused = hosts[1].meshctl(&["peer", "remove", "h1"])?;
        ensure!(said(&refused).contains("h1 is alive: it answered just now"), "{refused:?}");
        hosts[0].kill()?;
        wait_called(&hosts[1], "h1", "suspect")?;
        let begin = Instant::now();
        let removed = hosts[1].meshctl(&["peer", "remove", "h1"])?;
        let decided = begin.elapsed();
        ensure!(removed.success(), "{removed:?}");
        for (host, address) in hosts[1..].iter().zip(&given) {
            let claimed = claim(host, address, "again")?;
            ensure!(claimed.success(), "{address} on {}: {claimed:?}", host.name());
        }
        let took = begin.elapsed();
        println!("removed in {decided:?}; all four had an address of its space after {took:?}");
        ensure!(took < TAKE_OVER_MAX, "{took:?}");
        // At once after a kill it is waited until the host is surely silent.
        hosts[4].kill()?;
        let begin = Instant::now();
        let removed = hosts[1].meshctl(&["peer", "remove", "h5"])?;
        println!("removed at once after the kill in {:?}", begin.elapsed());
        ensure!(removed.success(), "{removed:?}");
        ensure_unique(&hosts[1..4]).map(drop)
    });
}

#[test]
fn of_two_sides_that_remove_each_other_one_wins() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(5)?;
        let loser = hosts[3].container("kept")?;
        let (many, few) = hosts.split_at(3);
        cut_all(many, few)?;
        for (host, peers) in [(&many[0], &few[..]), (&few[0], many)] {
            peers.iter().try_for_each(|peer| wait_called(host, peer.name(), "suspect"))?;
        }
        let (won, lost) = std::thread::scope(|scope| {
            let won = scope.spawn(|| many[0].meshctl(&["peer", "remove", "h4", "h5"]));
            let remove = &["peer", "remove", "h1", "h2", "h3"];
            let lost = few[0].meshctl_call(remove).deadline(Duration::from_secs(60)).output();
            (won.join().unwrap_or_else(|p| std::panic::resume_unwind(p)), lost)
        });
        let (won, lost) = (won?, lost?);
        ensure!(won.success(), "{won:?}");
        ensure!(lost.code == Some(1) && said(&lost).contains("3 of the 5"), "{lost:?}");
        println!("the losers heard: {}", lost.err);
        ["h1", "h2", "h3"].iter().try_for_each(|name| {
            ensure!(said(&lost).contains(name), "{name} is not named: {lost:?}");
            Ok(())
        })?;
        // Somebody else is given what the container holds: a conflict that nothing prevents.
        let address = loser.v4()?.to_string();
        let other = claim(&hosts[0], &address, "other")?;
        ensure!(other.success(), "{other:?}");
        let (many, few) = hosts.split_at(3);
        heal_all(many, few)?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        for index in [3, 0] {
            let wanted = |status: &Status| status.ipam.conflicts.len() == 1;
            let (status, _) = hosts[index].wait_status("in conflict", PATIENCE, wanted)?;
            println!("{}: {}", hosts[index].name(), status.ipam.conflicts[0]);
            ensure!(status.ipam.conflicts[0].contains(&address), "{:?}", status.ipam.conflicts);
        }
        ensure!(hosts[3].log().contains("was removed from the mesh"), "the host does not say it");
        // Nothing else is held twice, and the container keeps what it has.
        for (index, host) in hosts.iter().enumerate() {
            Api::new(host)?.claim_any(&format!("after{index}"))?;
        }
        let held = held(&hosts)?;
        let twice: Vec<_> = held.iter().filter(|(_, holders)| holders.len() > 1).collect();
        ensure!(twice.len() == 1 && *twice[0].0 == address, "{twice:?}");
        ensure!(held[&address].len() == 2, "{held:?}");
        Ok(())
    });
}

#[test]
fn both_sides_of_a_partition_allocate_and_their_rings_are_equal_soon_after() {
    let span = std::env::var(PARTITION).ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let span = Duration::from_secs(span);
    in_lab(Load::Alone, DEADLINE + span, || {
        let (_lab, hosts) = meshed(5)?;
        let (many, few) = hosts.split_at(3);
        cut_all(many, few)?;
        let begin = Instant::now();
        wait_called(&many[0], "h5", "suspect")?;
        wait_called(&few[1], "h1", "suspect")?;
        let sides = std::thread::scope(|scope| {
            let one = scope.spawn(|| claim_many(&many[1], "one", 1000));
            let other = claim_many(&few[1], "other", 1000);
            (one.join().unwrap_or_else(|p| std::panic::resume_unwind(p)), other)
        });
        ensure!(sides.0?.len() == 1000 && sides.1?.len() == 1000, "too few were given");
        println!("2,000 allocations were done {:?} after the cut", begin.elapsed());
        std::thread::sleep(span.saturating_sub(begin.elapsed()));
        heal_all(many, few)?;
        let linked = |status: Status| {
            let peers = status.connections.iter().filter(|link| link.state == "established");
            peers.filter(|link| ["h4", "h5"].contains(&link.name.as_str())).count()
        };
        wait_until("the first link", PATIENCE, || {
            let links: usize = many.iter().map(|h| h.status().map(linked)).sum::<Result<_>>()?;
            ensure!(links > 0, "no link");
            Ok(Some(()))
        })?;
        let first = Instant::now();
        wait_until("the rings to be equal", PATIENCE, || ensure_equal(&hosts).map(Some))?;
        println!("the rings were equal {:?} after the first link", first.elapsed());
        ensure!(first.elapsed() < EQUAL_MAX, "{:?}", first.elapsed());
        let count = ensure_unique(&hosts)?;
        ensure!(count == 2000, "{count} are held");
        ensure!(hosts.iter().all(|h| h.status().is_ok_and(|s| s.ipam.conflicts.is_empty())));
        Ok(())
    });
}

#[test]
fn a_range_is_added_from_any_host() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(3)?;
        hosts[2].meshctl_call(&["ipam", "range", "add", "10.99.0.0/20"]).ok()?;
        for host in &hosts {
            wait_until(&format!("the range on {}", host.name()), PATIENCE, || {
                let ranges = host.meshctl_json(&["ipam", "range", "list"])?.to_string();
                ensure!(ranges.contains("10.99.0.0/20"), "{ranges}");
                Ok(Some(()))
            })?;
        }
        let refused = hosts[0].meshctl(&["ipam", "range", "add", "10.99.8.0/24"])?;
        ensure!(refused.code == Some(1), "{refused:?}");
        ensure!(said(&refused).contains("overlaps the mesh's range 10.99.0.0/20"), "{refused:?}");
        for (host, number) in hosts.iter().zip(1..) {
            let claimed = claim(host, &format!("10.99.0.{number}"), "x")?;
            ensure!(claimed.success(), "{claimed:?}");
        }
        Ok(())
    });
}
