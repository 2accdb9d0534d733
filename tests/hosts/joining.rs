//! Hosts that were told something else first: another mesh, or a wrong address.

use anyhow::ensure;
use meshwork::lab::{
    mesh,
    testing::{Load, in_lab},
    wait_until,
};

use crate::fixture::{DEADLINE, PATIENCE, hosts, wait_reach};

/// Each was told to found a mesh, as who copies a command from host to host does.
#[test]
fn hosts_that_founded_meshes_apart_come_together_unless_they_would_lose_addresses() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(3)?;
        for host in &mut hosts {
            host.start_founding()?;
        }
        for host in &mut hosts {
            host.wait_ready(PATIENCE)?;
        }
        let first = hosts[0].container("first")?;
        let tokens = [hosts[0].token()?, hosts[1].token()?];
        let target = |host: usize| hosts[host].address().to_string();
        let (zero, one) = (target(0), target(1));
        let refused = hosts[0].meshctl(&["join", &one, "--token", &tokens[1]])?;
        ensure!(refused.code == Some(1) && refused.err.contains("first/eth0"), "{refused:?}");
        let joined = hosts[1].meshctl(&["join", &zero, "--token", &tokens[0]])?;
        ensure!(joined.success(), "{joined:?}");
        // By its configuration, after a restart.
        hosts[2].terminate()?;
        let (others, third) = hosts.split_at_mut(2);
        third[0].start_joining(&others[0], &tokens[0])?;
        mesh::wait_complete(&mut hosts, PATIENCE)?;
        for (host, name) in hosts[1..].iter().zip(["second", "third"]) {
            let container = host.container(name)?;
            ensure!(container.v4()? != first.v4()?, "one address twice");
            wait_reach(&container, &first, PATIENCE)?;
        }
        Ok(())
    });
}

#[test]
fn a_wrong_address_or_name_is_mended_by_a_right_one() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts) = hosts(3)?;
        hosts[0].start_founding()?;
        hosts[0].wait_ready(PATIENCE)?;
        let (token, right) = (hosts[0].token()?, hosts[0].address().to_string());
        let (first, others) = hosts.split_at_mut(1);
        for (host, wrong) in others.iter_mut().zip(["192.0.2.250", "nowhere.invalid"]) {
            let file = host.directory().join("token");
            std::fs::write(&file, &token)?;
            host.start(&["--join", wrong, "--token-file", &file.to_string_lossy()])?;
            wait_until("status to say for whom it waits", PATIENCE, || {
                let words = host.status()?.reason.unwrap_or_default();
                ensure!(words.contains(wrong), "{words}");
                Ok(Some(()))
            })?;
        }
        let joined = others[0].meshctl(&["join", &right, "--token", &token])?;
        ensure!(joined.success(), "{joined:?}");
        let again = others[0].meshctl(&["join", &right, "--token", &token])?;
        ensure!(again.success(), "who is a member already: {again:?}");
        others[1].terminate()?;
        others[1].start_joining(&first[0], &token)?;
        mesh::wait_complete(&mut hosts, PATIENCE)
    });
}
