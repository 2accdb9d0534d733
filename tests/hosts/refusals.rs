//! Wrong commands, wrong places, wrong peers: refused in one clear line, and nothing breaks.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use meshwork::lab::{
    Host,
    host::CONTROL_PORT,
    testing::{Load, in_lab},
    wait_until,
};

use crate::fixture::{DEADLINE, PATIENCE, hosts, meshed, wait_reach};

/// Datagrams of garbage, and their greatest length.
const GARBAGE: u32 = 2000;
const GARBAGE_BYTES_MAX: usize = 1400;
/// How often a wrong target may be dialled in the time that a test watches.
const DIALS_MAX: usize = 10;
const WATCHED: Duration = Duration::from_secs(4);

/// Asserts that a program refused, in one line that names something.
fn refused(output: &meshwork::lab::Output, codes: &[i32], names: &str) -> Result<()> {
    let code = output.code.context("ended by a signal")?;
    ensure!(codes.contains(&code), "{output:?}");
    let text = format!("{}{}", output.err, output.out);
    ensure!(text.contains(names), "{names} is not named: {text}");
    ensure!(!text.contains("panicked"), "{text}");
    Ok(())
}

#[test]
fn a_range_that_overlaps_a_route_of_the_host_is_refused_also_by_who_was_configured() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(2)?;
        let [host, second] = hosts.as_mut_slice() else { unreachable!("two hosts") };
        host.namespace().ip(&["route", "add", "10.40.0.0/16", "via", "192.0.2.254"])?;
        let range = ["--init", "--range", "10.40.128.0/17"];
        refused(&host.meshd_call(&range).output()?, &[1, 2], "10.40.0.0/16")?;
        let token = host.directory().join("token").to_string_lossy().into_owned();
        std::fs::write(&token, host.meshctl(&["token", "new"])?.out)?;
        let found = ["--founders", "2", "--join", "192.0.2.250", "--token-file", &token];
        refused(
            &host.meshd_call(&[&found[..], &range[1..]].concat()).output()?,
            &[1, 2],
            "10.40.0.0/16",
        )?;
        host.start(&[])?;
        wait_until("meshd to listen", PATIENCE, || Ok(host.status().ok()))?;
        let init = ["init", "--range", "10.32.0.0/11"];
        refused(&host.meshctl(&init)?, &[1], "10.40.0.0/16")?;
        let output = host.meshctl(&["init", "--range", "10.64.0.0/12"])?;
        ensure!(output.success(), "a free range was refused too: {output:?}");
        host.wait_ready(PATIENCE)?;
        second.namespace().ip(&["route", "add", "10.64.1.0/24", "via", "192.0.2.254"])?;
        std::fs::write(&token, host.token()?)?;
        let target = host.address().to_string();
        let join = ["--join", &target, "--token-file", &token];
        refused(&second.meshd_call(&join).output()?, &[1, 2], "10.64.1.0/24")
    });
}

#[test]
fn a_port_in_use_is_named() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = hosts(1)?;
        let any: SocketAddr = format!("[::]:{CONTROL_PORT}").parse()?;
        let _taken = hosts[0].namespace().inside(|| UdpSocket::bind(any))??;
        refused(&hosts[0].meshd_call(&["--init"]).output()?, &[1, 2], &CONTROL_PORT.to_string())
    });
}

#[test]
fn wrong_options_end_with_code_two() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = hosts(1)?;
        for (args, names) in [
            (&["--range", "10.32.0.0/40"][..], "range"),
            (&["--mtu", "many"], "mtu"),
            (&["--listen", "nowhere"], "listen"),
            (&["--encrypt", "maybe"], "encrypt"),
            (&["--no-such-option"], "--no-such-option"),
        ] {
            refused(&hosts[0].meshd_call(args).output()?, &[2], names)?;
        }
        refused(&hosts[0].meshctl(&["no-such-command"])?, &[2], "no-such-command")
    });
}

#[test]
fn a_damaged_token_is_refused_without_a_dial() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(2)?;
        let (first, second) = hosts.split_at_mut(1);
        first[0].start_founding()?;
        first[0].wait_ready(PATIENCE)?;
        let token = first[0].token()?;
        let target = first[0].address().to_string();
        second[0].start(&[])?;
        wait_until("meshd to listen", PATIENCE, || Ok(second[0].status().ok()))?;
        let damaged = &token[..token.len() - 2];
        let output = second[0].meshctl(&["join", &target, "--token", damaged])?;
        refused(&output, &[1, 2], "token")?;
        ensure!(!output.err.contains(damaged), "the message shows the secret");
        let output = second[0].meshctl(&["join", &target, "--token", &token])?;
        ensure!(output.success(), "{output:?}");
        second[0].wait_ready(PATIENCE).map(drop)
    });
}

/// How often a log tells of a link to this host.
fn mentions(host: &Host, of: &Host) -> usize {
    let addresses: Vec<String> = of.addresses().iter().map(ToString::to_string).collect();
    let log = host.log();
    log.lines().filter(|line| addresses.iter().any(|address| line.contains(address))).count()
}

#[test]
fn another_mesh_is_refused_in_words_and_not_dialled_in_a_loop() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(2)?;
        for host in &mut hosts {
            host.start_founding()?;
            host.wait_ready(PATIENCE)?;
        }
        let target = hosts[0].address().to_string();
        // Whether the command itself waits for the outcome is its own affair.
        hosts[1].meshctl(&["connect", &target])?;
        wait_until("the refusal to be told", PATIENCE, || {
            let status = hosts[1].status()?;
            let told = status.targets.iter().any(|target| target.reason.is_some())
                || status.connections.iter().any(|link| link.reason.is_some());
            ensure!(told, "{status:?}");
            Ok(Some(()))
        })?;
        let before = mentions(&hosts[1], &hosts[0]);
        std::thread::sleep(WATCHED);
        let dials = mentions(&hosts[1], &hosts[0]) - before;
        ensure!(dials <= DIALS_MAX, "{dials} lines about it in {WATCHED:?}");
        for host in &hosts {
            let status = host.status()?;
            ensure!(status.ready && status.peers.total == 1, "two meshes mixed: {status:?}");
        }
        Ok(())
    });
}

#[test]
fn garbage_on_the_port_changes_nothing() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(2)?;
        let containers = meshwork::lab::mesh::populate(&hosts)?;
        let target = SocketAddr::new(hosts[0].address(), CONTROL_PORT);
        hosts[1].namespace().inside(|| -> Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            // A multiplicative generator, Knuth 3.3.4: the same garbage in each run.
            let mut state: u64 = 1;
            for number in 0..GARBAGE {
                let length = 1 + number as usize * 7 % GARBAGE_BYTES_MAX;
                let bytes: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        state.to_be_bytes()[0]
                    })
                    .collect();
                socket.send_to(&bytes, target)?;
            }
            Ok(())
        })??;
        ensure!(hosts[0].is_running() && hosts[0].status()?.ready);
        ensure!(hosts[0].status()?.peers.alive == 2, "a peer was lost");
        wait_reach(&containers[1], &containers[0], PATIENCE).map(drop)
    });
}
