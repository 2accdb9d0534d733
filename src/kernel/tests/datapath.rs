use super::rig::*;

fn containers_reach_each_other(under: Under) {
    let mut hosts = mesh(2, under);
    let first = hosts[0].container(10);
    let _second = hosts[1].container(20);
    for target in ["10.32.2.20", "fd32::2:20", "10.32.1.1", "fd32::1:1", "10.32.2.1", "fd32::2:1"] {
        first.sh(&format!("ping -c 2 -i 0.01 -W 1 {target}"));
    }
    // The host itself, with its gateway address as the source.
    hosts[0].space.sh("ping -c 1 -W 1 10.32.2.20 && ping -c 1 -W 1 fd32::2:20");
    // Nothing is lost or sent twice to oneself.
    first.sh("ping -c 1 -s 1402 -M do -W 1 10.32.2.20");
    assert!(!first.try_sh("ping -c 1 -s 1403 -M do -W 1 10.32.2.20").status.success());
    assert_eq!(hosts[0].kernel().problems(), Vec::<String>::new());
    assert_eq!(hosts[0].kernel().repairs(), Vec::new());
}

#[test]
fn containers_reach_each_other_over_an_ipv4_underlay() {
    isolated("datapath::containers_reach_each_other_over_an_ipv4_underlay", || {
        containers_reach_each_other(Under::V4);
    });
}

#[test]
fn containers_reach_each_other_over_an_ipv6_underlay() {
    isolated("datapath::containers_reach_each_other_over_an_ipv6_underlay", || {
        containers_reach_each_other(Under::V6);
    });
}
