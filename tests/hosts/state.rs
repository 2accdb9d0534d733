//! Disks that are full, read-only, damaged or in use.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use meshwork::lab::{
    Call, Host,
    testing::{Load, in_lab},
    wait_until,
};

use crate::fixture::{DEADLINE, PATIENCE, hosts, meshed};

/// How many claims fit on a full disk at most before one must be refused.
const CLAIMS_MAX: usize = 300;

/// Mounts a small file system of its own for the host's state.
fn mount(host: &Host, options: &str) -> Result<()> {
    fs::create_dir_all(host.state_dir())?;
    let target = host.state_dir();
    Call::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).args([target]).ok().map(drop)
}

/// Fills a file system to its last byte.
fn fill(path: &Path) -> Result<()> {
    let block = vec![0u8; 4096];
    let mut file = fs::File::create(path)?;
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    Ok(())
}

fn claim(host: &Host, holder: &str) -> Result<meshwork::lab::Output> {
    host.meshctl(&["ipam", "claim", "10.32.7.7", "--for", holder])
}

#[test]
fn a_full_disk_refuses_and_serves_again_when_there_is_room() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(1)?;
        let host = &mut hosts[0];
        mount(host, "size=16m,mode=0700")?;
        host.start_founding()?;
        host.wait_ready(PATIENCE)?;
        let ballast = host.state_dir().join("ballast");
        fill(&ballast)?;
        let mut refused = None;
        for number in 0..CLAIMS_MAX {
            let ip = format!("10.32.{}.{}", 8 + number / 200, 1 + number % 200);
            let output = host.meshctl(&["ipam", "claim", &ip, "--for", &format!("f{number}")])?;
            if !output.success() {
                refused = Some((ip, output.err));
                break;
            }
        }
        let (ip, text) = refused.context("the disk was full, and everything was promised")?;
        let lower = text.to_lowercase();
        ensure!(lower.contains("disk") || lower.contains("space"), "no word of the disk: {text}");
        ensure!(host.is_running(), "a full disk ended meshd");
        fs::remove_file(ballast)?;
        meshwork::lab::wait_until("room to be used", PATIENCE, || {
            let output = host.meshctl(&["ipam", "claim", &ip, "--for", "later"])?;
            ensure!(output.success(), "{}", output.err);
            Ok(Some(()))
        })?;
        Ok(())
    });
}

#[test]
fn an_unwritable_state_directory_is_named() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = hosts(1)?;
        mount(&hosts[0], "ro")?;
        let output = hosts[0].meshd_call(&["--init"]).output()?;
        ensure!(matches!(output.code, Some(1 | 2)), "{output:?}");
        let state = hosts[0].state_dir().to_string_lossy().into_owned();
        ensure!((output.err + &output.out).contains(&state), "the directory is not named");
        Ok(())
    });
}

#[test]
fn a_damaged_state_file_is_moved_aside_and_the_host_joins_again() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(2)?;
        let token = hosts[0].token()?;
        hosts[1].terminate()?;
        let file = hosts[1].state_dir().join("state.redb");
        let length = fs::metadata(&file).context("state.redb")?.len();
        fs::write(&file, vec![0x5a; usize::try_from(length)?])?;
        let (first, second) = hosts.split_at_mut(1);
        second[0].start_joining(&first[0], &token)?;
        second[0].wait_ready(PATIENCE)?;
        let aside = fs::read_dir(second[0].state_dir())?.flatten().any(|entry| {
            let same = entry.metadata().is_ok_and(|meta| meta.len() == length);
            entry.file_name() != "state.redb" && same
        });
        ensure!(aside, "the damaged file was not kept");
        ensure!(second[0].log().contains("state.redb"), "the log does not name it");
        second[0].container("again").map(drop)
    });
}

/// A founder that lost its state soon after ended again at each start, though it was told whom to
/// join through. Found by chaos.
#[test]
fn whoever_lost_its_state_and_kept_nobody_joins_through_whom_it_is_given() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(2)?;
        let token = hosts[0].token()?;
        let file = hosts[0].state_dir().join("membership.json");
        let (mut kept, _) = wait_until("the other host to be kept", PATIENCE, || {
            let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
            Ok(Some(kept).filter(|kept| kept["targets"].as_array().is_some_and(|a| !a.is_empty())))
        })?;
        hosts[0].kill()?;
        kept["targets"] = serde_json::json!([]);
        fs::write(&file, kept.to_string())?;
        fs::remove_file(hosts[0].state_dir().join("state.redb"))?;
        let refused = hosts[0].meshd_call(&["--init"]).output()?;
        ensure!(refused.code == Some(1), "{refused:?}");
        for words in ["its state is lost", "--join", "membership.json"] {
            ensure!(refused.err.contains(words), "{words}: {}", refused.err);
        }
        let (first, second) = hosts.split_at_mut(1);
        first[0].start_joining(&second[0], &token)?;
        let (_, took) = first[0].wait_ready(PATIENCE)?;
        println!("ready {took:?} after it lost its state");
        Ok(())
    });
}

#[test]
fn a_second_meshd_on_one_state_directory_is_refused() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts) = meshed(1)?;
        let output = hosts[0].meshd_call(&["--listen", "[::]:7790"]).output()?;
        ensure!(matches!(output.code, Some(1 | 2)), "{output:?}");
        let state = hosts[0].state_dir().to_string_lossy().into_owned();
        ensure!((output.err + &output.out).contains(&state), "the directory is not named");
        ensure!(hosts[0].status()?.ready, "the first one was disturbed");
        Ok(())
    });
}

#[test]
fn a_claim_outlives_a_killed_meshd() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = meshed(1)?;
        let host = &mut hosts[0];
        ensure!(claim(host, "me")?.success());
        host.kill()?;
        host.start(&[])?;
        host.wait_ready(Duration::from_secs(10))?;
        let other = claim(host, "somebody-else")?;
        ensure!(other.code == Some(1) && other.err.contains("me"), "{other:?}");
        Ok(())
    });
}
