//! What a mesh decides together: founding, removal, ranges, the lease.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use meshwork::{
    api::types::Status,
    lab::{
        Call, Host, Lab, Output, cut, heal, mesh,
        testing::{Load, in_lab},
        wait_until,
    },
};
use serde_json::json;

use crate::{
    api::{Api, claim_many},
    fixture::{DEADLINE, PATIENCE, hosts},
};

/// From the start of `peer remove` to an address of the removed host's.
const TAKE_OVER_MAX: Duration = Duration::from_secs(2);
/// From the first link after a partition to equal rings.
const EQUAL_MAX: Duration = Duration::from_secs(2);
/// For how long it is looked whether twins are still known as such.
const LASTS: Duration = Duration::from_secs(5);
/// How long the partition lasts, in seconds; 120 is what was promised.
const PARTITION: &str = "MESHWORK_TEST_PARTITION_SECS";

/// Hosts of a mesh that was founded with these arguments by the first.
pub(crate) fn founded(count: u8, args: &[&str]) -> Result<(Lab, Vec<Host>)> {
    let (lab, mut hosts) = hosts(count)?;
    hosts[0].start(&[&["--init"], args].concat())?;
    hosts[0].wait_ready(PATIENCE)?;
    let token = hosts[0].token()?;
    let (first, others) = hosts.split_at_mut(1);
    for host in others {
        host.start_joining(&first[0], &token)?;
    }
    mesh::wait_complete(&mut hosts, PATIENCE)?;
    wait_electors(&hosts, hosts.len())?;
    Ok((lab, hosts))
}

/// Waits until so many vote, and all know it.
fn wait_electors(hosts: &[Host], count: usize) -> Result<()> {
    for host in hosts {
        wait_until(&format!("{count} electors on {}", host.name()), PATIENCE, || {
            let electors = host.status()?.ipam.electors;
            ensure!(electors.len() == count, "{electors:?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
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
pub(crate) fn held(hosts: &[Host]) -> Result<BTreeMap<String, Vec<String>>> {
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

pub(crate) fn ensure_equal(hosts: &[Host]) -> Result<()> {
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
        let begin = Instant::now();
        hosts[0].kill()?;
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
        // The same when it has long been noticed.
        hosts[4].kill()?;
        wait_called(&hosts[1], "h5", "suspect")?;
        let begin = Instant::now();
        let removed = hosts[1].meshctl(&["peer", "remove", "h5"])?;
        println!("removed in {:?} once the kill was noticed", begin.elapsed());
        ensure!(removed.success(), "{removed:?}");
        ensure_unique(&hosts[1..4]).map(drop)
    });
}

#[test]
fn of_two_sides_that_remove_each_other_one_wins() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(5, &[])?;
        let loser = hosts[3].container("kept")?;
        let (many, few) = hosts.split_at(3);
        cut_all(many, few)?;
        for (host, peers) in [(&many[0], few), (&few[0], many)] {
            peers.iter().try_for_each(|peer| wait_called(host, peer.name(), "suspect"))?;
        }
        let (won, lost) = std::thread::scope(|scope| {
            let won = scope.spawn(|| many[0].meshctl(&["peer", "remove", "h4", "h5"]));
            let remove = json!({ "peers": ["h1", "h2", "h3"] });
            let lost = Api::new(&few[0]).and_then(|mut api| api.post("/v1/peers/remove", &remove));
            (won.join().unwrap_or_else(|p| std::panic::resume_unwind(p)), lost)
        });
        let won = won?;
        ensure!(won.success(), "{won:?}");
        let lost = lost.err().context("both sides won")?.to_string();
        println!("the losers heard: {lost}");
        for word in ["3 of the 5 electors must agree and 2 did", "h1", "h2", "h3"] {
            ensure!(lost.contains(word), "{word:?} is not in {lost}");
        }
        // Somebody else is given what the container holds: a conflict that nothing prevents.
        let address = loser.v4()?.to_string();
        let other = claim(&hosts[0], &address, "other")?;
        ensure!(other.success(), "{other:?}");
        let (many, few) = hosts.split_at(3);
        heal_all(many, few)?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        // One line on each of the two, and a metric, with both who hold it.
        for (index, other) in [(3, "h1"), (0, "h4")] {
            let both = ["kept", "other", other, &address];
            let named = |line: &String| both.iter().all(|word| line.contains(word));
            let wanted = |status: &Status| status.ipam.conflicts.iter().all(named);
            let wanted = |status: &Status| status.ipam.conflicts.len() == 1 && wanted(status);
            let (status, _) = hosts[index].wait_status("in conflict", PATIENCE, wanted)?;
            println!("{}: {}", hosts[index].name(), status.ipam.conflicts[0]);
            let metrics = Api::new(&hosts[index])?.metrics()?;
            let metric = metrics.lines().find(|line| line.starts_with("meshwork_ipam_conflict{"));
            let metric = metric.context("no metric for it")?.to_owned();
            ensure!(named(&metric) && metric.ends_with(" 1"), "{metric}");
        }
        for host in &hosts[3..] {
            let told =
                host.status()?.ipam.told_anew.context("it does not say that it was removed")?;
            ensure!(
                told.contains("this host was removed from the mesh while it was away"),
                "{told}"
            );
            let page = host.meshctl_call(&["status"]).output()?;
            ensure!(said(&page).contains("told anew"), "{page:?}");
        }
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
fn of_two_sides_that_remove_each_other_by_force_one_stands_and_all_agree() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(5, &[])?;
        let (many, few) = hosts.split_at(3);
        let kept = [many[1].container("left")?.v4()?, few[1].container("right")?.v4()?];
        cut_all(many, few)?;
        for (host, peers) in [(&many[0], few), (&few[0], many)] {
            peers.iter().try_for_each(|peer| wait_called(host, peer.name(), "suspect"))?;
        }
        for (host, whom) in [(&many[0], &["h4", "h5"][..]), (&few[0], &["h1", "h2", "h3"])] {
            let removed = host.meshctl(&[&["peer", "remove", "--force"], whom].concat())?;
            ensure!(removed.success(), "{removed:?}");
        }
        // Each side goes on: it decides who votes, and gives away what the other holds.
        wait_electors(many, 3)?;
        wait_electors(few, 2)?;
        for (host, address) in [(&many[2], kept[1]), (&few[0], kept[0])] {
            let claimed = claim(host, &address.to_string(), "other")?;
            ensure!(claimed.success(), "{claimed:?}");
        }
        let (many, few) = hosts.split_at(3);
        heal_all(many, few)?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        wait_electors(&hosts, 5)?;
        wait_until("the rings to be equal", PATIENCE, || ensure_equal(&hosts).map(Some))?;
        for (index, address, both) in [
            (1, kept[0], ["left", "other", "h4"]),
            (3, kept[0], ["left", "other", "h2"]),
            (4, kept[1], ["right", "other", "h3"]),
            (2, kept[1], ["right", "other", "h5"]),
        ] {
            let address = address.to_string();
            let both = |line: &String| {
                line.contains(&address) && both.iter().all(|word| line.contains(word))
            };
            let named = |status: &Status| status.ipam.conflicts.iter().any(both);
            let (status, _) = hosts[index].wait_status("in conflict", PATIENCE, named)?;
            println!("{}: {:?}", hosts[index].name(), status.ipam.conflicts);
        }
        for (index, host) in hosts.iter().enumerate() {
            Api::new(host)?.claim_any(&format!("after{index}"))?;
        }
        let held = held(&hosts)?;
        let twice: Vec<_> = held.iter().filter(|(_, holders)| holders.len() > 1).collect();
        ensure!(twice.len() == 2, "{twice:?}");
        Ok(())
    });
}

#[test]
fn both_sides_of_a_partition_allocate_and_their_rings_are_equal_soon_after() {
    let span = std::env::var(PARTITION).ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let span = Duration::from_secs(span);
    in_lab(Load::Alone, DEADLINE + span, || {
        // So small that hosts must ask each other for space meanwhile.
        let (_lab, hosts) = founded(5, &["--range", "10.40.0.0/14"])?;
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
        ensure!(ensure_equal(&hosts).is_err(), "nothing happened to the ring");
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
        let (_lab, hosts) = founded(3, &[])?;
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

/// Starts a host that founds a mesh together with these others.
fn start_founder(host: &mut Host, others: &[IpAddr], founders: &str, token: &str) -> Result<()> {
    let file = host.directory().join("token");
    std::fs::write(&file, token)?;
    let file = file.to_string_lossy().into_owned();
    let mut args = vec!["--founders", founders, "--token-file", &file];
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    args.extend(others.iter().flat_map(|other| ["--join", other]));
    host.start(&args)
}

fn wait_reason(host: &mut Host, words: &str) -> Result<Status> {
    let says = |status: &Status| status.reason.as_ref().is_some_and(|text| text.contains(words));
    let (status, _) = host.wait_status(&format!("saying {words:?}"), PATIENCE, says)?;
    println!("{}: {}", host.name(), status.reason.as_deref().unwrap_or_default());
    Ok(status)
}

#[test]
fn three_hosts_found_a_mesh_in_any_order_and_a_fourth_joins() {
    in_lab(Load::Shared, DEADLINE, || {
        let (mut lab, mut hosts) = hosts(3)?;
        let token = hosts[0].meshctl_call(&["token", "new"]).ok()?.trim().to_owned();
        let all: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        start_founder(&mut hosts[1], &[all[0], all[2]], "3", &token)?;
        wait_reason(&mut hosts[1], "waiting for 2 of 3 founders")?;
        // A wrong number does no harm and is named.
        start_founder(&mut hosts[2], &[all[0], all[1]], "2", &token)?;
        wait_reason(&mut hosts[1], "192.0.2.3 was told 2 founders")?;
        hosts[2].terminate()?;
        std::fs::remove_dir_all(hosts[2].state_dir())?;
        // A restart in the middle.
        hosts[1].kill()?;
        start_founder(&mut hosts[1], &[all[0], all[2]], "3", &token)?;
        wait_reason(&mut hosts[1], "of 3 founders")?;
        start_founder(&mut hosts[2], &[all[0], all[1]], "3", &token)?;
        start_founder(&mut hosts[0], &[all[1], all[2]], "3", &token)?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        let mut fourth = lab.host()?;
        fourth.start_joining(&hosts[0], &token)?;
        hosts.push(fourth);
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        let all: Vec<Status> = hosts.iter().map(Host::status).collect::<Result<_>>()?;
        for status in &all {
            ensure!(status.mesh_id == all[0].mesh_id, "two meshes");
            ensure!(status.ipam.owned > 0, "{} owns nothing", status.peer.name);
        }
        let owned: u64 = all.iter().map(|status| status.ipam.owned).sum();
        ensure!(owned == 1 << 20, "{owned} addresses are owned");
        for (host, number) in hosts.iter().zip(0..) {
            Api::new(host)?.claim_any(&format!("x{number}"))?;
        }
        ensure_unique(&hosts).map(drop)
    });
}

#[test]
fn two_meshes_that_were_founded_apart_with_one_token_do_not_mix() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(4)?;
        let token = hosts[0].meshctl_call(&["token", "new"]).ok()?.trim().to_owned();
        let all: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        for (host, other) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
            start_founder(&mut hosts[host], &[all[other]], "2", &token)?;
        }
        for pair in hosts.chunks_mut(2) {
            mesh::wait_complete(pair, PATIENCE)?;
        }
        hosts[1].meshctl_call(&["connect", &all[2].to_string()]).ok()?;
        let told = wait_until("the refusal", PATIENCE, || {
            let targets = hosts[1].meshctl_json(&["status", "targets"])?.to_string();
            ensure!(targets.contains("founded apart with the same token"), "{targets}");
            Ok(Some(targets))
        })?;
        println!("{told:?}");
        std::thread::sleep(LASTS);
        for (index, host) in hosts.iter().enumerate() {
            let status = host.status()?;
            ensure!(status.peers.total == 2 && status.ready, "{}: {:?}", host.name(), status.peers);
            Api::new(host)?.claim_any(&format!("x{index}"))?;
        }
        ensure_equal(&hosts[..2])?;
        ensure_equal(&hosts[2..])
    });
}

#[test]
fn a_host_that_was_frozen_for_longer_than_the_lease_gives_nothing_that_it_lost() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(3, &["--lease", "10"])?;
        Api::new(&hosts[2])?.claim_any("kept")?;
        let epoch = hosts[0].status()?.ipam.epoch;
        let later = |status: &Status| status.ipam.epoch > epoch;
        hosts[2].freeze(true)?;
        hosts[0].wait_status("taking the space back", PATIENCE, later)?;
        hosts[2].freeze(false)?;
        let mut api = Api::new(&hosts[2])?;
        api.patience = Duration::from_millis(200);
        for round in 0..100 {
            match api.claim_any(&format!("c{round}")) {
                Ok(given) => {
                    println!("{given} was given after {round} refusals");
                    ensure!(later(&hosts[2].status()?), "{given} was given, and was another's");
                    break;
                }
                Err(error) => println!("refused: {error:#}"),
            }
        }
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        ensure_unique(&hosts).map(drop)
    });
}

#[test]
fn status_says_since_when_a_host_is_away_and_for_whom_its_removal_waits() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(5, &["--lease", "10"])?;
        hosts[4].kill()?;
        let away = |status: &Status| {
            let lease = status.ipam.lease.as_deref()?;
            let (_, rest) = lease.split_once("h5 was last reached ")?;
            rest.split_once(" s ago")?.0.parse::<u64>().ok()
        };
        let long = |status: &Status| away(status).is_some_and(|seconds| seconds >= 6);
        hosts[0].wait_status("counting h5's absence", PATIENCE, long)?;
        hosts[3].freeze(true)?;
        // One of the others sees to it, whoever has the smallest id.
        let waited = wait_until("somebody to wait for h4", PATIENCE, || {
            for host in &hosts[..3] {
                let reason = host.status()?.ipam.reason.unwrap_or_default();
                if reason.contains("h5 not removed") && reason.contains("not answered: h4") {
                    return Ok(Some(reason));
                }
            }
            Ok(None)
        });
        hosts[3].freeze(false)?;
        println!("{}", waited?.0);
        hosts[0].wait_status("the removal", PATIENCE, |status| status.peers.total == 4)?;
        Ok(())
    });
}

#[test]
fn an_isolated_host_stops_at_half_of_the_lease_and_loses_its_space_after_the_whole() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(3, &["--lease", "10"])?;
        let lease = hosts[1].status()?.ipam.lease.context("no lease in status")?;
        ensure!(lease.contains("after 5 s") && lease.contains("after 10 s"), "{lease}");
        let kept = Api::new(&hosts[2])?.claim_any("kept")?;
        let epoch = hosts[0].status()?.ipam.epoch;
        let (many, one) = hosts.split_at(2);
        cut_all(many, one)?;
        let cut = Instant::now();
        Api::new(&one[0])?.claim_any("early")?;
        wait_reason(&mut hosts[2], "half of the lease of 10 s is over")?;
        println!("stopped {:?} after the cut", cut.elapsed());
        // It asks each second; the last question that was answered counts, and that was before.
        ensure!(cut.elapsed() > Duration::from_millis(3500), "too early");
        let mut api = Api::new(&hosts[2])?;
        api.patience = Duration::from_millis(200);
        let refused = api.claim_any("late").err().context("it was served")?.to_string();
        ensure!(refused.contains("half of the lease"), "{refused}");
        let taken = |status: &Status| status.ipam.epoch > epoch;
        hosts[0].wait_status("taking the space back", PATIENCE, taken)?;
        println!("taken back {:?} after the cut", cut.elapsed());
        ensure!(cut.elapsed() > Duration::from_secs(9), "too early");
        hosts[1].wait_status("the removal", PATIENCE, |status| status.peers.total == 2)?;
        let (many, one) = hosts.split_at(2);
        heal_all(many, one)?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        // What was held and nobody else had got is the host's again.
        wait_until("no conflicts", PATIENCE, || {
            let conflicts = hosts[2].status()?.ipam.conflicts;
            ensure!(conflicts.is_empty(), "{conflicts:?}");
            Ok(Some(()))
        })?;
        let other = claim(&hosts[0], &kept, "other")?;
        ensure!(said(&other).contains("held there by kept"), "{other:?}");
        ensure_unique(&hosts).map(drop)
    });
}

/// Removes the mark beside the socket, as a restart of the machine does.
fn forget_mark(host: &Host) -> Result<()> {
    Ok(std::fs::remove_file(host.socket().with_extension("mark"))?)
}

#[test]
fn a_host_with_an_old_disk_gives_nothing_away_that_it_had_given_away() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = founded(2, &["--range", "10.40.0.0/24"])?;
        let old = hosts[0].directory().join("old");
        let copy = |from: &Path, to: &Path| Call::new("cp").args(["-a".as_ref(), from, to]).ok();
        hosts[0].terminate()?;
        copy(hosts[0].state_dir(), &old)?;
        hosts[0].start(&[])?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        let mine = Api::new(&hosts[0])?.claim_any("mine")?;
        let before = hosts[1].status()?.ipam.owned;
        let theirs: Vec<String> = (0..100)
            .map(|number| Api::new(&hosts[1])?.claim_any(&format!("y{number}")))
            .collect::<Result<_>>()?;
        ensure!(hosts[1].status()?.ipam.owned > before, "nothing was given away");
        hosts[0].terminate()?;
        std::fs::remove_dir_all(hosts[0].state_dir())?;
        copy(&old, hosts[0].state_dir())?;
        forget_mark(&hosts[0])?;
        cut(&hosts[0], &hosts[1])?;
        hosts[0].start(&[])?;
        wait_reason(&mut hosts[0], "waiting for one of: h2 (or start with --serve-alone)")?;
        let mut api = Api::new(&hosts[0])?;
        api.patience = Duration::from_millis(200);
        ensure!(
            api.claim_any("refused")
                .is_err_and(|error| error.to_string().contains("--serve-alone"))
        );
        // Whoever insists is served.
        hosts[0].terminate()?;
        let served = hosts[0].directory().join("served");
        copy(hosts[0].state_dir(), &served)?;
        forget_mark(&hosts[0])?;
        hosts[0].start(&["--serve-alone"])?;
        hosts[0].wait_ready(PATIENCE)?;
        hosts[0].terminate()?;
        std::fs::remove_dir_all(hosts[0].state_dir())?;
        copy(&served, hosts[0].state_dir())?;
        forget_mark(&hosts[0])?;
        // A peer tells it what it had given away.
        hosts[0].start(&[])?;
        heal(&hosts[0], &hosts[1])?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        wait_until("the rings to be equal", PATIENCE, || ensure_equal(&hosts).map(Some))?;
        for address in &theirs {
            let taken = claim(&hosts[0], address, "thief")?;
            ensure!(taken.code == Some(1), "{address} was given again: {taken:?}");
        }
        for number in 0..20 {
            Api::new(&hosts[0])?.claim_any(&format!("z{number}"))?;
        }
        println!("{mine} was the old disk's last");
        ensure_unique(&hosts).map(drop)
    });
}

#[test]
fn two_machines_with_one_key_are_told_of_each_other_and_give_nothing_away() {
    in_lab(Load::Shared, DEADLINE, || {
        let (mut lab, mut hosts) = founded(2, &[])?;
        hosts[1].terminate()?;
        let mut twin = lab.host()?;
        Call::new("cp").args(["-a".as_ref(), hosts[1].state_dir(), twin.state_dir()]).ok()?;
        hosts[1].start(&[])?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        twin.start(&[])?;
        let begin = Instant::now();
        let address = hosts[1].address();
        hosts.push(twin);
        for (index, other) in [(1, hosts[2].address()), (2, address)] {
            let status =
                wait_reason(&mut hosts[index], &format!("at {other}:7780, has this host's"))?;
            println!("after {:?}", begin.elapsed());
            ensure!(!status.ready, "it is ready");
            ensure!(status.ipam.conflicts.len() == 1, "{:?}", status.ipam.conflicts);
        }
        // It lasts as long as both are there, and ends with one of them.
        let begin = Instant::now();
        while begin.elapsed() < LASTS {
            for host in &hosts[1..] {
                let mut api = Api::new(host)?;
                api.patience = Duration::from_millis(100);
                let refused = api.claim_any("x").err().context("it was served")?.to_string();
                ensure!(refused.contains("has this host's identity"), "{refused}");
            }
        }
        hosts.pop().context("the twin")?.kill()?;
        let (_, took) = hosts[1].wait_ready(2 * PATIENCE)?;
        println!("ready {took:?} after the twin's end");
        Api::new(&hosts[1])?.claim_any("served").map(drop)
    });
}
