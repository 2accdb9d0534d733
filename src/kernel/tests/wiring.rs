//! Containers' links: made, adopted, removed, and refused without a trace.

use super::rig::*;
use crate::node::desired::{Mac, Wiring};

#[test]
fn a_container_gets_exactly_what_its_wiring_says() {
    isolated("wiring::a_container_gets_exactly_what_its_wiring_says", || {
        let mut hosts = mesh(1, Under::V4);
        let container = hosts[0].container(10);
        let seen = container.sh("ip -o addr; ip -o link; ip route; ip -6 route");
        for wanted in [
            "inet 10.32.1.10/12",
            "inet6 fd32::1:10/128",
            "inet6 fe80::ff:fe00:10a/64",
            "mtu 1430",
            "02:00:00:00:01:0a",
            "default via 10.32.1.1 dev eth0",
            "10.32.0.0/12 dev eth0",
            "default via fe80::1 dev eth0",
            "lo: <LOOPBACK,UP",
        ] {
            assert!(seen.contains(wanted), "{wanted} not in {seen}");
        }
        assert!(!seen.contains("tentative"), "{seen}");
        let port = hosts[0].space.sh("bridge -d link show dev mwtest10; ip -o addr show mwtest10");
        assert!(port.contains("master mesh0") && port.contains("hairpin on"), "{port}");
        assert!(!port.contains("inet6"), "{port}");
        // The first packet passes at once.
        hosts[0].space.sh("ping -c 1 -W 5 10.32.1.10 && ping -c 1 -W 5 fd32::1:10");
    });
}

#[test]
fn without_a_default_gateway_only_the_mesh_is_reached() {
    isolated("wiring::without_a_default_gateway_only_the_mesh_is_reached", || {
        let mut hosts = mesh(2, Under::V4);
        let _far = hosts[1].container(20);
        let near = Space::new();
        let mut wiring = hosts[0].wiring(&near, 10);
        wiring.gateways.clear();
        wiring.routes = vec![net("198.51.100.0/24"), net("2001:db8:1::/48")];
        wiring.mtu_bytes = 1300;
        hosts[0].wire(wiring).unwrap();
        near.sh("ping -c 1 -W 5 10.32.2.20 && ping -c 1 -W 5 fd32::2:20");
        let routes = near.sh("ip route; ip -6 route; ip -o link");
        assert!(!routes.contains("default via"), "{routes}");
        assert!(routes.contains("198.51.100.0/24 via 10.32.1.1 dev eth0"), "{routes}");
        assert!(routes.contains("2001:db8:1::/48 via fe80::1 dev eth0"), "{routes}");
        assert!(routes.contains("mtu 1300"), "{routes}");
    });
}

#[test]
fn wiring_twice_changes_nothing_and_unwiring_twice_neither() {
    isolated("wiring::wiring_twice_changes_nothing_and_unwiring_twice_neither", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        let container = Space::new();
        let wiring = host.wiring(&container, 10);
        let identity = host.wire(wiring.clone()).unwrap();
        let before = host.space.sh("ip -o link show mwtest10");
        assert_eq!(host.wire(wiring), Ok(identity));
        assert_eq!(host.space.sh("ip -o link show mwtest10"), before);
        host.unwire("mwtest10");
        assert!(!container.sh("ip -o link").contains("eth0"));
        host.unwire("mwtest10");
    });
}

#[test]
fn a_wiring_that_fails_leaves_nothing_and_says_why() {
    isolated("wiring::a_wiring_that_fails_leaves_nothing_and_says_why", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        let container = Space::new();
        container.sh("ip link add taken type bridge");
        let good = host.wiring(&container, 10);
        let file = std::env::temp_dir().join(format!("kernel-test-{}", std::process::id()));
        std::fs::write(&file, "no namespace").unwrap();
        let own = "/proc/thread-self/ns/net".to_owned();
        let bad = |change: &dyn Fn(&mut Wiring)| {
            let mut wiring = good.clone();
            change(&mut wiring);
            wiring
        };
        let plain = file.to_string_lossy().into_owned();
        let (host_dir, mount) = ("/nowhere/net".to_owned(), "/proc/self/ns/mnt".to_owned());
        for (wiring, why) in [
            (bad(&|w| w.netns.clone_from(&host_dir)), "\"/nowhere/net\""),
            (bad(&|w| w.netns.clone_from(&plain)), "is not a namespace"),
            (bad(&|w| w.netns.clone_from(&own)), "is the host's own"),
            (bad(&|w| w.netns.clone_from(&mount)), "cannot be entered"),
            (bad(&|w| w.interface = "taken".to_owned()), "interface taken already"),
            (bad(&|w| w.interface = "a/b".to_owned()), "\"a/b\" cannot be the name"),
            (bad(&|w| w.interface = String::new()), "\"\" cannot be the name"),
            (bad(&|w| w.interface = "sixteen-bytes-xx".to_owned()), "cannot be the name"),
            (bad(&|w| w.mac = Mac([1, 0, 0, 0, 0, 1])), "01:00:00:00:00:01"),
            (bad(&|w| w.mtu_bytes = 20), "20 bytes"),
            // The kernel itself refuses these, when the pair stands already.
            (bad(&|w| w.routes = vec![net("10.0.0.0/8")]), ""),
        ] {
            let mut wiring = wiring;
            if why.is_empty() {
                wiring.gateways = vec![ip("0.0.0.0")];
            }
            let error = host.wire(wiring).expect_err(why);
            assert!(error.contains(why), "{why} not in {error}");
            assert!(!host.space.sh("ip -o link").contains("mwtest10"), "after {error}");
            assert!(!container.sh("ip -o link").contains("eth0"), "after {error}");
        }
        std::fs::remove_file(file).unwrap();
        host.wire(good).unwrap();
    });
}

#[test]
fn many_are_wired_and_unwired_at_once() {
    isolated("wiring::many_are_wired_and_unwired_at_once", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        let containers: Vec<_> = (1..=40).map(|_| Space::new()).collect();
        let wirings: Vec<_> = containers
            .iter()
            .zip(10..)
            .map(|(container, number)| host.wiring(container, number))
            .collect();
        let start = now();
        for wiring in &wirings {
            host.kernel().wire(holder(&wiring.host_name), wiring.clone());
        }
        for _ in &wirings {
            host.wait(|input| match input {
                crate::node::event::Input::Wired { .. } => Some(()),
                crate::node::event::Input::WireFailed { refusal, .. } => panic!("{refusal}"),
                _ => None,
            });
        }
        println!("40 containers wired in {:?}", start.elapsed());
        let start = now();
        for wiring in &wirings {
            host.kernel().unwire(holder(&wiring.host_name), wiring.host_name.clone());
        }
        for _ in &wirings {
            host.wait(|input| {
                matches!(input, crate::node::event::Input::Unwired { .. }).then_some(())
            });
        }
        println!("40 containers unwired in {:?}", start.elapsed());
        assert!(!host.space.sh("ip -o link").contains("mwtest"));
    });
}

#[test]
fn a_wiring_takes_milliseconds() {
    isolated("wiring::a_wiring_takes_milliseconds", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        let mut taken: Vec<_> = (10..50)
            .map(|number| {
                let container = Space::new();
                let wiring = host.wiring(&container, number);
                let start = now();
                host.wire(wiring).unwrap();
                let wired = start.elapsed();
                // The first packet needs no second try: the port forwards at once.
                host.space.sh(&format!("ping -c 1 -W 5 10.32.1.{number}"));
                std::mem::forget(container);
                wired
            })
            .collect();
        taken.sort();
        println!("wired in {:?} (median), {:?} (p90)", taken[20], taken[36]);
        assert!(taken[20] < std::time::Duration::from_millis(20), "{taken:?}");
    });
}
