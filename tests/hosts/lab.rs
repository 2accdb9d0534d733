//! The lab itself: what the other tests stand on.

use std::{
    env, fs,
    net::IpAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use meshwork::lab::{
    self, Call, Host, Lab, OUTSIDE_V4, OUTSIDE_V6, Pinger, Programs, Underlay,
    testing::{Load, in_lab},
};

const DEADLINE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(500);

/// Programs that are never run: the lab does not depend on them.
fn no_programs() -> Programs {
    let none = PathBuf::from("/nonexistent");
    Programs { meshd: none.clone(), meshctl: none.clone(), mesh_cni: none }
}

fn reaches(from: &Host, to: IpAddr) -> Result<bool> {
    from.namespace().ping(to, PATIENCE)
}

#[test]
fn hosts_reach_each_other_and_the_outside() {
    in_lab(Load::Shared, DEADLINE, || {
        let mut lab = Lab::new(Underlay::Both, no_programs())?;
        let hosts = lab.hosts(3)?;
        for from in &hosts {
            for to in &hosts {
                for address in to.addresses() {
                    ensure!(reaches(from, *address)?, "{} to {address}", from.name());
                }
            }
            ensure!(reaches(from, OUTSIDE_V4.into())?, "{} to the outside", from.name());
            ensure!(reaches(from, OUTSIDE_V6.into())?, "{} to the outside, IPv6", from.name());
        }
        Ok(())
    });
}

#[test]
fn hosts_of_one_family_have_no_address_of_the_other() {
    in_lab(Load::Shared, DEADLINE, || {
        let mut lab = Lab::new(Underlay::V6, no_programs())?;
        let hosts = lab.hosts(2)?;
        ensure!(hosts[0].addresses().iter().all(IpAddr::is_ipv6));
        ensure!(reaches(&hosts[0], hosts[1].address())?);
        let v4 = hosts[0].namespace().ip_json(&["-4", "addr", "show", "dev", "eth0"])?;
        ensure!(v4.to_string().find("192.0.2").is_none(), "{v4}");
        Ok(())
    });
}

#[test]
fn a_cut_is_silent_and_complete_and_ends() {
    in_lab(Load::Shared, DEADLINE, || {
        let mut lab = Lab::new(Underlay::Both, no_programs())?;
        let hosts = lab.hosts(3)?;
        lab::cut(&hosts[0], &hosts[2])?;
        for address in hosts[2].addresses() {
            ensure!(!reaches(&hosts[0], *address)?, "{address} is cut off");
        }
        ensure!(!reaches(&hosts[2], hosts[0].address())?);
        ensure!(reaches(&hosts[1], hosts[0].address())?, "the middle sees one end");
        ensure!(reaches(&hosts[1], hosts[2].address())?, "and the other");
        lab::heal(&hosts[0], &hosts[2])?;
        for address in hosts[2].addresses() {
            lab::wait_until("the cut's end", DEADLINE, || {
                Ok(reaches(&hosts[0], *address)?.then_some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_one_way_cut_lets_the_other_way_through() {
    in_lab(Load::Shared, DEADLINE, || {
        let mut lab = Lab::new(Underlay::V4, no_programs())?;
        let hosts = lab.hosts(2)?;
        lab::cut_one_way(&hosts[0], &hosts[1])?;
        let arrived = |host: &Host| -> Result<u64> {
            let text = host.namespace().call("nstat").args(["-asz", "IcmpInEchos"]).ok()?;
            let count = text.lines().find_map(|line| line.strip_prefix("IcmpInEchos"));
            let count = count.and_then(|rest| rest.split_whitespace().next()).context("nstat")?;
            Ok(count.parse()?)
        };
        ensure!(!reaches(&hosts[1], hosts[0].address())?, "the answer is lost");
        ensure!(arrived(&hosts[0])? == 1, "the question arrived");
        ensure!(!reaches(&hosts[0], hosts[1].address())?);
        ensure!(arrived(&hosts[1])? == 0, "what comes the other way does not");
        Ok(())
    });
}

#[test]
fn an_unplugged_host_is_alone_until_it_is_plugged_in_again() {
    in_lab(Load::Shared, DEADLINE, || {
        let mut lab = Lab::new(Underlay::V4, no_programs())?;
        let hosts = lab.hosts(2)?;
        lab.unplug(&hosts[0])?;
        ensure!(!reaches(&hosts[0], hosts[1].address())?);
        lab.replug(&hosts[0])?;
        lab::wait_until("the host to be back", DEADLINE, || {
            Ok(reaches(&hosts[0], hosts[1].address())?.then_some(()))
        })?;
        Ok(())
    });
}

#[test]
fn pings_are_counted_exactly_with_and_without_loss() {
    in_lab(Load::Alone, DEADLINE, || {
        let mut lab = Lab::new(Underlay::V4, no_programs())?;
        let hosts = lab.hosts(2)?;
        let (from, to) = (hosts[0].namespace(), hosts[1].address());
        let second = Duration::from_secs(1);
        let pinged = Pinger::start(from, to, 500, second)?.finish()?;
        ensure!(pinged.sent == 500 && pinged.lost() == 0, "{pinged:?}");
        hosts[1].lose(300)?;
        let pinged = Pinger::start(from, to, 500, second)?.finish()?;
        ensure!((80..250).contains(&pinged.lost()), "a third was to be lost: {pinged:?}");
        hosts[1].lose(0)?;
        let pinged = Pinger::start(from, to, 500, second)?.finish()?;
        ensure!(pinged.lost() == 0, "{pinged:?}");
        Ok(())
    });
}

#[test]
fn a_limited_host_sends_no_faster_than_its_limit() {
    in_lab(Load::Alone, DEADLINE, || {
        let mut lab = Lab::new(Underlay::V4, no_programs())?;
        let hosts = lab.hosts(2)?;
        hosts[0].limit(Some(100))?;
        // 400 frames of 98 bytes are 314 kbit: 3.1 s at that rate, less the bucket and the queue.
        let (from, begin) = (hosts[0].namespace(), Instant::now());
        let span = Duration::from_secs(1);
        let pinged = Pinger::start(from, hosts[1].address(), 400, span)?.finish()?;
        let took = begin.elapsed();
        ensure!(took > Duration::from_millis(2700), "{pinged:?} in {took:?}");
        hosts[0].limit(None)?;
        ensure!(reaches(&hosts[0], hosts[1].address())?);
        Ok(())
    });
}

#[test]
fn a_call_is_killed_at_its_deadline_and_errors_carry_output() {
    in_lab(Load::Shared, DEADLINE, || {
        let slow = Call::new("sleep").args(["60"]).deadline(Duration::from_millis(100)).ok();
        ensure!(format!("{slow:?}").contains("more than 100ms"), "{slow:?}");
        let wrong = Call::new("sh").args(["-c", "echo because >&2; exit 3"]).ok();
        let text = format!("{wrong:?}");
        ensure!(text.contains("ended with 3") && text.contains("because"), "{text}");
        let echo = Call::new("cat").input("hello").ok()?;
        ensure!(echo == "hello", "{echo}");
        Ok(())
    });
}

/// Marks the processes of the test below, so that it finds them all.
const STAY: &str = "MESHWORK_TEST_STAY";

#[test]
fn nothing_is_left_of_a_lab_whose_first_or_outer_process_is_killed() {
    if env::var_os(STAY).is_some() {
        in_lab(Load::Shared, DEADLINE, || {
            let mut lab = Lab::new(Underlay::V4, no_programs())?;
            let host = lab.host()?;
            host.namespace().call("sleep").args(["1000"]).deadline(DEADLINE).ok().map(drop)
        });
        return;
    }
    let name = "lab::nothing_is_left_of_a_lab_whose_first_or_outer_process_is_killed";
    for victim in ["outer", "first"] {
        let mark = format!("{victim}-{}", std::process::id());
        let mut outer = Command::new(env::current_exe().unwrap())
            .args(["--exact", name])
            .env(STAY, &mark)
            .env("CI", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sleeping = lab::wait_until("the lab's host to sleep", DEADLINE, || {
            ensure!(outer.try_wait()?.is_none(), "labs are impossible here");
            Ok(marked(&mark).iter().any(|(_, what)| what.contains("sleep")).then_some(()))
        });
        if sleeping.is_err() && env::var_os("CI").is_none() {
            eprintln!("SKIP {name}: no labs here");
            return;
        }
        sleeping.unwrap();
        let first = marked(&mark).into_iter().find(|(_, what)| what.contains("--nocapture"));
        let pid = if victim == "outer" { outer.id() } else { first.unwrap().0 };
        Call::new("kill").args(["-9", &pid.to_string()]).ok().unwrap();
        outer.wait().unwrap();
        wait_unmarked(&mark);
    }
}

/// Waits until no process with the mark is left.
pub(crate) fn wait_unmarked(mark: &str) {
    lab::wait_until("every process to be gone", Duration::from_secs(5), || {
        let left = marked(mark);
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(Some(()))
    })
    .unwrap();
}

/// The live processes whose environment holds the mark, with their command lines.
fn marked(mark: &str) -> Vec<(u32, String)> {
    let mark = format!("{STAY}={mark}");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
    })
    .map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    })
    .collect()
}
