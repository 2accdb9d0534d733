//! What others break is put back within seconds, and told.

use std::time::Duration;

use super::rig::*;
use crate::node::desired::RouteTarget;

/// Issue 2, acceptance 4: repaired within 5 s.
const REPAIR: Duration = Duration::from_secs(5);

/// Breaks something with a shell command, and waits until packets flow and the kernel is as it was.
fn is_repaired(host: &mut Host, container: &Space, breakage: &str, told: &str) {
    let before = picture(host);
    let told_before = host.kernel().repairs();
    host.space.sh(breakage);
    eventually(REPAIR, || {
        let (after, repairs) = (picture(host), host.kernel().repairs());
        if after != before {
            return Err(format!("after {breakage:?}\n{before}\nbecame\n{after}"));
        }
        let ping = "ping -c 1 -W 1 10.32.2.20 && ping -c 1 -W 1 fd32::2:20";
        if !container.try_sh(ping).status.success() {
            return Err(format!("no packet passes after {breakage:?}"));
        }
        // The list is bounded, so it does not grow for ever.
        let newest = repairs.iter().rev().take(20);
        let tells =
            repairs != told_before && newest.into_iter().any(|repair| repair.what.contains(told));
        if tells { Ok(()) } else { Err(format!("{told:?} is not told in {repairs:?}")) }
    });
    assert_eq!(host.kernel().problems(), Vec::<String>::new(), "after {breakage:?}");
}

/// What `ip`, `nft` and `/proc` say about everything of ours, without numbers of devices.
fn picture(host: &Host) -> String {
    host.space.sh("ip -o link show mesh0 | sed 's/^[0-9]*: //'
         ip -o link show mesh-vx | sed 's/^[0-9]*: //'
         bridge link show | sed 's/^[0-9]*: //; s/@[^:]*//; s/link-netns [^ ]*//'
         ip -o addr show dev mesh0 | sed 's/^[0-9]*: //'
         ip neigh show dev mesh-vx nud permanent | sort
         ip nexthop show; ip route show proto 77; ip -6 route show proto 77
         nft list table inet meshwork || true
         for f in ipv4/ip_forward ipv6/conf/all/forwarding ipv4/conf/mesh0/proxy_arp \
             ipv4/conf/mesh-vx/rp_filter; do cat /proc/sys/net/$f || true; done")
}

#[test]
fn what_others_break_is_put_back_and_told() {
    isolated("repair::what_others_break_is_put_back_and_told", || {
        let mut hosts = mesh(2, Under::V4);
        let first = hosts[0].container(10);
        let _second = hosts[1].container(20);
        first.sh("ping -c 1 -W 5 10.32.2.20");
        let host = &mut hosts[0];
        assert_eq!(host.kernel().repairs(), Vec::new());
        for (breakage, told) in [
            ("ip link set mwtest10 nomaster", "port mwtest10 was changed; put right"),
            ("ip link set mwtest10 down", "port mwtest10 was changed; put right"),
            ("ip link set mwtest10 mtu 1300", "port mwtest10 was changed; put right"),
            ("ip link del mwtest10", "port mwtest10 was gone; put back"),
            ("ip route del 10.32.2.0/24", "route 10.32.2.0/24 was gone; put back"),
            ("ip route del 10.32.1.0/24", "route 10.32.1.0/24 was gone; put back"),
            ("ip -6 route del fd32::2:0/112", "route fd32::2:0/112 was gone; put back"),
            ("ip route replace unreachable 10.32.2.0/24 metric 77 proto 77", "route 10.32.2.0/24"),
            ("ip route add 10.33.0.0/24 dev mesh0 proto 77", "route 10.33.0.0/24 was there"),
            ("ip nexthop del id 102", "nexthop 102 was gone; put back"),
            ("ip nexthop flush", "nexthop 102 was gone; put back"),
            ("ip neigh flush dev mesh-vx nud permanent", "neighbour fe80:"),
            ("nft delete table inet meshwork", "nftables table meshwork was gone; put back"),
            ("nft flush chain inet meshwork postrouting", "nftables table meshwork was changed"),
            ("nft add rule inet meshwork postrouting drop", "nftables table meshwork was changed"),
            ("nft add element inet meshwork plain4 { 10.0.0.1 }", "table meshwork was changed"),
            ("ip link set mesh-vx mtu 1200", "tunnel mesh-vx was changed; put right"),
            ("ip link set mesh-vx down", "tunnel mesh-vx was changed; put right"),
            ("ip link del mesh-vx", "tunnel mesh-vx was gone; put back"),
            ("ip link set mesh0 down", "bridge mesh0 was changed; put right"),
            ("ip addr del 10.32.1.1/32 dev mesh0", "address 10.32.1.1/32 was gone; put back"),
            ("ip -6 addr flush dev mesh0", "address fe80::1/64 was gone; put back"),
            ("ip link del mesh0", "bridge mesh0 was gone; put back"),
            ("echo 0 > /proc/sys/net/ipv4/ip_forward", "setting ipv4/ip_forward was changed"),
            ("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", "ipv6/conf/all/forwarding was"),
            ("echo 0 > /proc/sys/net/ipv4/conf/mesh0/proxy_arp", "ipv4/conf/mesh0/proxy_arp was"),
            ("echo 1 > /proc/sys/net/ipv4/conf/mesh-vx/rp_filter", "mesh-vx/rp_filter was"),
        ] {
            is_repaired(host, &first, breakage, told);
        }
    });
}

#[test]
fn our_own_changes_are_no_repairs() {
    isolated("repair::our_own_changes_are_no_repairs", || {
        let mut hosts = mesh(2, Under::V4);
        let host = &mut hosts[0];
        let _first = host.container(10);
        host.desired.tunnel.mtu_bytes = 1400;
        host.program();
        host.desired.tunnel.port = 7999;
        host.program();
        host.desired.tunnel.vni = 78;
        host.route_via(2, 1, Under::V4);
        host.desired.bridge.gateways.truncate(1);
        host.desired.unmasqueraded.push(ip("10.32.1.10"));
        host.program();
        host.desired.routes.insert(net("10.40.0.0/24"), RouteTarget::Local);
        host.desired.routes.remove(&net("10.32.2.0/24"));
        host.program();
        host.unwire("mwtest10");
        host.desired.ports.clear();
        host.program();
        assert_eq!(host.kernel().repairs(), Vec::new());
        assert_eq!(host.kernel().problems(), Vec::<String>::new());
        let standing = host.space.sh("ip route show proto 77; ip -o link; nft list ruleset");
        assert!(standing.contains("10.40.0.0/24 dev mesh0"), "{standing}");
        assert!(!standing.contains("10.32.2.0/24"), "{standing}");
        assert!(!standing.contains("mwtest10"), "{standing}");
    });
}

#[test]
fn a_port_is_not_put_into_another_containers_namespace() {
    isolated("repair::a_port_is_not_put_into_another_containers_namespace", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        let container = host.container(10);
        host.desired.ports.get_mut("mwtest10").unwrap().netns_identity = Some((1, 1));
        host.program();
        host.space.sh("ip link del mwtest10; ip route del 10.32.1.0/24");
        eventually(REPAIR, || {
            let routes = host.space.sh("ip route show proto 77");
            if routes.contains("10.32.1.0/24") { Ok(()) } else { Err(routes) }
        });
        assert!(!host.space.sh("ip -o link").contains("mwtest10"));
        assert!(!container.sh("ip -o link").contains("eth0"));
    });
}

#[test]
fn a_device_of_somebody_else_is_left_alone_and_named() {
    isolated("repair::a_device_of_somebody_else_is_left_alone_and_named", || {
        let mut hosts = mesh(1, Under::V4);
        let host = &mut hosts[0];
        host.space.sh("ip link add theirs type bridge && ip link add mwalien type bridge");
        host.desired.tunnel.name = "theirs".to_owned();
        host.kernel().program(Some(Box::new(host.desired.clone())));
        eventually(REPAIR, || {
            let problems = host.kernel().problems();
            let wanted = "tunnel theirs: theirs exists and is no VXLAN but \"bridge\"";
            if problems == [wanted] { Ok(()) } else { Err(format!("{problems:?}")) }
        });
        let links = host.space.sh("ip -o link");
        assert!(links.contains("theirs") && links.contains("mwalien"), "{links}");
    });
}

#[test]
fn nothing_of_ours_is_left_after_leaving() {
    isolated("repair::nothing_of_ours_is_left_after_leaving", || {
        let mut hosts = mesh(2, Under::V4);
        let host = &mut hosts[0];
        host.space.sh("nft add table inet theirs; ip route add 198.51.100.0/24 via 192.0.2.2
             ip nexthop add id 7 dev up0");
        let _container = host.container(10);
        host.kernel().program(None);
        host.wait(|input| matches!(input, crate::node::event::Input::Programmed).then_some(()));
        let left = host.space.sh("ip -o link; ip route; ip -6 route; ip nexthop; nft list ruleset");
        for ours in ["mesh", "mwtest", "proto 77", "10.32.", "fd32:"] {
            assert!(!left.contains(ours), "{ours} in {left}");
        }
        for theirs in ["table inet theirs", "198.51.100.0/24", "id 7 dev up0"] {
            assert!(left.contains(theirs), "{theirs} not in {left}");
        }
    });
}
