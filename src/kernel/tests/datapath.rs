//! Packets between two hosts, through a relay, and over a restart.

use std::net::{IpAddr, UdpSocket};

use super::rig::*;

fn containers_reach_each_other(under: Under) {
    let mut hosts = mesh(2, under);
    let first = hosts[0].container(10);
    let _second = hosts[1].container(20);
    for target in ["10.32.2.20", "fd32::2:20", "10.32.1.1", "fd32::1:1", "10.32.2.1", "fd32::2:1"] {
        first.sh(&format!("ping -c 2 -i 0.01 -W 5 {target}"));
    }
    // The host itself, with its gateway address as the source.
    hosts[0].space.sh("ping -c 1 -W 5 10.32.2.20 && ping -c 1 -W 5 fd32::2:20");
    // Nothing is lost or sent twice to oneself.
    first.sh("ping -c 1 -s 1402 -M do -W 5 10.32.2.20");
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

/// A ping in the background, 500 packets a second, for so many packets.
fn ping(container: &Space, target: &str, count: u32) -> std::process::Child {
    container.within(|| {
        std::process::Command::new("ping")
            .args(["-q", "-i", "0.002", "-W", "1", "-c", &count.to_string(), target])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    })
}

fn assert_nothing_lost(ping: std::process::Child) {
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" 0% packet loss"), "{text}");
}

#[test]
fn a_relay_takes_over_and_hands_back_without_a_lost_packet() {
    isolated("datapath::a_relay_takes_over_and_hands_back_without_a_lost_packet", || {
        for under in [Under::V4, Under::V6] {
            let mut hosts = mesh(3, under);
            let first = hosts[0].container(10);
            let _third = hosts[2].container(30);
            first.sh("ping -c 1 -W 5 10.32.3.30");
            let pings = [ping(&first, "10.32.3.30", 800), ping(&first, "fd32::3:30", 800)];
            for via in [2, 3, 2] {
                hosts[0].route_via(3, via, under);
                hosts[0].program();
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            pings.into_iter().for_each(assert_nothing_lost);
            // It does go through the relay, and cutting the direct way is no matter.
            for (host, other) in [(0, 3), (2, 1)] {
                let address = under.address(other);
                let family = if under == Under::V4 { "ip" } else { "ip6" };
                hosts[host].space.sh(&format!(
                    "nft add table inet cut
                     nft 'add chain inet cut out {{ type filter hook output priority 0; }}'
                     nft add rule inet cut out {family} daddr {address} drop"
                ));
            }
            hosts[2].route_via(1, 2, under);
            hosts[2].program();
            let text = first.sh("ping -c 1 -W 5 10.32.3.30; ping -c 1 -W 5 fd32::3:30");
            assert!(text.contains("ttl=61"), "host, relay and host have each taken one: {text}");
        }
    });
}

#[test]
fn a_restart_loses_no_packet_and_changes_nothing() {
    isolated("datapath::a_restart_loses_no_packet_and_changes_nothing", || {
        let mut hosts = mesh(2, Under::V4);
        let first = hosts[0].container(10);
        let _second = hosts[1].container(20);
        first.sh("ping -c 1 -W 5 10.32.2.20");
        let shown = "ip -o link; ip addr show mesh0; ip addr show mesh-vx; ip nexthop; ip route
             ip -6 route show proto 77; nft list ruleset";
        let before = hosts[0].space.sh(shown);
        let monitor = hosts[0].space.within(|| {
            std::process::Command::new("ip")
                .args(["monitor", "link", "address", "route", "nexthop"])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        });
        let ping = ping(&first, "10.32.2.20", 1000);
        for _ in 0..3 {
            hosts[0].kernel = None;
            // As just after a start: the peers' ways are only guessed, and guessed wrong.
            hosts[0].route_via(2, 9, Under::V4);
            hosts[0].desired.nexthops.values_mut().for_each(|nexthop| nexthop.certain = false);
            hosts[0].start();
            hosts[0].program();
            hosts[0].route_via(2, 2, Under::V4);
            hosts[0].program();
        }
        assert_nothing_lost(ping);
        let mut monitor = monitor;
        monitor.kill().unwrap();
        let told = monitor.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&told.stdout);
        for ours in ["mesh", "mwtest", "10.32.", "fd32", "id 102"] {
            assert!(!told.contains(ours), "{ours} was touched: {told}");
        }
        assert_eq!(hosts[0].space.sh(shown), before);
        assert!(!before.contains("scope link \n"), "only fe80::1 is link-local: {before}");
        assert_eq!(hosts[0].kernel().repairs(), Vec::new());
    });
}

#[test]
fn what_leaves_the_mesh_is_masqueraded_and_nothing_else() {
    isolated("datapath::what_leaves_the_mesh_is_masqueraded_and_nothing_else", || {
        let mut hosts = mesh(2, Under::V4);
        let first = hosts[0].container(10);
        let second = hosts[1].container(20);
        // Host 2 is the outside world too: it sees who asks.
        let seen = |target: &str, space: &Space| {
            let server = space.within(|| UdpSocket::bind((ip(target), 9)).unwrap());
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            first.within(|| {
                let client = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"));
                let target = match ip(target) {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                    v6 @ IpAddr::V6(_) => v6,
                };
                client.unwrap().send_to(b"who am I", (target, 9)).unwrap();
            });
            server.recv_from(&mut [0; 16]).unwrap().1.ip()
        };
        assert_eq!(seen("192.0.2.2", &hosts[1].space), ip("192.0.2.1"));
        assert_eq!(seen("10.32.2.20", &second), ip("10.32.1.10"));
        assert_eq!(seen("fd32::2:20", &second), ip("fd32::1:10"));
        hosts[0].desired.unmasqueraded.push(ip("10.32.1.10"));
        hosts[0].program();
        assert_eq!(seen("192.0.2.2", &hosts[1].space), ip("10.32.1.10"));
        let table = hosts[0].space.sh("nft list table inet meshwork");
        for wanted in [
            "type nat hook postrouting priority srcnat; policy accept;",
            "elements = { 10.32.1.10 }",
            "ip saddr 10.32.0.0/12 masquerade comment \"from 10.32.0.0/12: masquerade\"",
            "ip6 saddr fd32::/48 masquerade",
            "ip daddr 10.32.0.0/12 return",
            "ip saddr @plain4 return",
            "oifname \"mesh-vx\" return",
        ] {
            assert!(table.contains(wanted), "{wanted} not in {table}");
        }
    });
}

#[test]
fn an_address_that_nobody_owns_is_unreachable_and_does_not_leave_the_mesh() {
    isolated(
        "datapath::an_address_that_nobody_owns_is_unreachable_and_does_not_leave_the_mesh",
        || {
            let mut hosts = mesh(1, Under::V4);
            hosts[0].space.sh("ip route add default via 192.0.2.9");
            let first = hosts[0].container(10);
            for target in ["10.47.0.1", "fd32::99:1"] {
                assert!(!first.try_sh(&format!("ping -c 1 -W 1 {target}")).status.success());
                let route = hosts[0].space.try_sh(&format!("ip route get {target}"));
                let error = String::from_utf8_lossy(&route.stderr).into_owned();
                assert!(error.contains("unreachable") || error.contains("No route"), "{error}");
            }
        },
    );
}

#[test]
fn the_underlay_is_told_at_the_start_and_when_it_changes() {
    use crate::node::event::Input;
    isolated("datapath::the_underlay_is_told_at_the_start_and_when_it_changes", || {
        let space = Space::new();
        space.sh("ip link add up0 mtu 1400 type veth peer name far
             ip link set up0 up && ip link set far up
             ip addr add 192.0.2.7/24 dev up0 && ip addr add 2001:db8::7/64 dev up0 nodad
             ip link add docker0 type bridge && ip link set docker0 up
             ip addr add 172.17.0.1/16 dev docker0
             ip addr add 169.254.1.1/16 dev up0");
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        host.space = space;
        host.start();
        let told = |input: &Input| match input {
            Input::Underlay(underlay) => Some(underlay.clone()),
            _ => None,
        };
        let underlay = host.wait(told);
        let endpoints: Vec<String> = underlay.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(endpoints, ["192.0.2.7:7780", "[2001:db8::7]:7780"]);
        assert_eq!(underlay.mtu_bytes, 1400);
        assert!(underlay.routes.contains(&net("172.17.0.0/16")), "{underlay:?}");
        host.program();
        host.space.sh("ip link set up0 mtu 1300 && ip route add 10.0.0.0/8 dev up0");
        host.wait(|input| {
            let underlay = told(input)?;
            let all = underlay.mtu_bytes == 1300 && underlay.routes.contains(&net("10.0.0.0/8"));
            (all && underlay.endpoints.len() == 2).then_some(())
        });
    });
}

#[test]
fn five_thousand_blocks_are_programmed_in_a_moment() {
    isolated("datapath::five_thousand_blocks_are_programmed_in_a_moment", || {
        let mut hosts = mesh(2, Under::V4);
        let host = &mut hosts[0];
        let target = crate::node::desired::RouteTarget::Peer(peer(2));
        for block in 0..5000_u32 {
            let text =
                format!("10.{}.{}.{}/29", 40 + block / 8192, block / 32 % 256, block % 32 * 8);
            host.desired.routes.insert(net(&text), target);
        }
        let start = now();
        host.program();
        let taken = start.elapsed();
        let idle = now();
        host.program();
        println!("5,000 routes wired in {taken:?}, compared in {:?}", idle.elapsed());
        let count = host.space.sh("ip route show proto 77 | grep -c nhid");
        assert_eq!(count.trim(), "5001");
        assert!(taken < std::time::Duration::from_secs(5), "{taken:?}");
    });
}
