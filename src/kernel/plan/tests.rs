//! The plan is the difference, and nothing when there is none.

use super::*;
use crate::node::desired::{Bridge, Nexthop, Tunnel, vtep_mac};
use mesh_router::PeerId;

const BRIDGE: u32 = 5;
const TUNNEL: u32 = 6;

fn peer() -> PeerId {
    PeerId::new([2; 16])
}

fn desired() -> Desired {
    let nexthop = Nexthop {
        id: 100,
        via: peer(),
        endpoint: "192.0.2.2".parse().unwrap(),
        mac: vtep_mac(peer()),
        certain: true,
    };
    Desired {
        bridge: Bridge {
            name: "mesh0".to_owned(),
            mac: Mac([2; 6]),
            gateways: vec!["10.32.0.1".parse().unwrap()],
        },
        tunnel: Tunnel {
            name: "mesh-vx".to_owned(),
            vni: 7,
            port: 7781,
            mac: Mac([6; 6]),
            mtu_bytes: 1450,
        },
        nexthops: BTreeMap::from([(peer(), nexthop)]),
        routes: BTreeMap::from([
            ("10.32.0.0/24".parse().unwrap(), RouteTarget::Local),
            ("10.32.1.0/24".parse().unwrap(), RouteTarget::Peer(peer())),
        ]),
        ports: BTreeMap::new(),
        ranges: vec!["10.32.0.0/12".parse().unwrap()],
        unmasqueraded: Vec::new(),
    }
}

fn link(name: &str, index: u32, kind: &str, mac: Mac) -> (String, Link) {
    let link = Link {
        index,
        name: name.to_owned(),
        up: true,
        loopback: false,
        mtu_bytes: 1450,
        mac: Some(mac),
        master: None,
        makes_addresses: false,
        kind: kind.to_owned(),
        hairpin: false,
        operational: true,
        forwarding: true,
        vxlan_port: (kind == "vxlan").then_some(7781),
    };
    (name.to_owned(), link)
}

fn devices() -> Actual {
    let links = [
        link("mesh0", BRIDGE, "bridge", Mac([2; 6])),
        link("mesh-vx", TUNNEL, "vxlan", Mac([6; 6])),
    ];
    Actual { links: links.into(), ..Actual::default() }
}

fn subjects(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| format!("{:?} {}", step.flaw, step.subject)).collect()
}

#[test]
fn on_an_empty_host_the_devices_come_first_and_what_needs_them_waits() {
    let steps = plan(&desired(), &Actual::default(), &Transit::default());
    let wanted = [
        "Gone bridge mesh0",
        "Gone tunnel mesh-vx",
        "Gone unreachable route 10.32.0.0/12",
        "Gone nftables table meshwork",
    ];
    assert_eq!(subjects(&steps), wanted);
}

#[test]
fn routes_come_after_the_nexthops_and_addresses_that_they_name() {
    let steps = plan(&desired(), &devices(), &Transit::default());
    let wanted = [
        "Gone address 10.32.0.1/32",
        "Gone address fe80::1/64",
        "Gone neighbour fe80::202:202:202:202",
        "Gone nexthop 100",
        "Gone route 10.32.0.0/24",
        "Gone unreachable route 10.32.0.0/12",
        "Gone route 10.32.1.0/24",
        "Gone nftables table meshwork",
    ];
    let (mut seen, mut wanted) = (subjects(&steps), wanted.map(str::to_owned).to_vec());
    let at = |all: &[String], what: &str| all.iter().position(|line| line.ends_with(what));
    assert!(at(&seen, "nexthop 100") < at(&seen, "10.32.1.0/24"));
    assert!(at(&seen, "10.32.0.1/32") < at(&seen, "10.32.0.0/24"));
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted);
}

#[test]
fn an_uncertain_nexthop_is_made_but_never_changed_and_keeps_its_neighbour() {
    let mut desired = desired();
    desired.nexthops.values_mut().for_each(|nexthop| nexthop.certain = false);
    let mut actual = devices();
    let nexthop = |steps: &[Step]| steps.iter().any(|s| s.subject == Subject::Nexthop(100));
    assert!(nexthop(&plan(&desired, &actual, &Transit::default())));
    let gateway = "fe80::9".parse().unwrap();
    let endpoint = "192.0.2.9".parse().unwrap();
    let object = Object { id: 100, link: TUNNEL, gateway, endpoint, vni: 7 };
    actual.nexthops.insert(100, Some(object));
    let old = Neighbour { link: TUNNEL, address: gateway.into(), mac: Mac([9; 6]) };
    actual.neighbours.insert(old);
    let steps = plan(&desired, &actual, &Transit::default());
    assert!(!nexthop(&steps), "{steps:?}");
    assert!(!steps.iter().any(|step| step.flaw == Flaw::Extra), "{steps:?}");
    desired.nexthops.values_mut().for_each(|nexthop| nexthop.certain = true);
    assert!(nexthop(&plan(&desired, &actual, &Transit::default())));
}

#[test]
fn ports_in_transit_are_neither_orphans_nor_torn() {
    let mut actual = devices();
    for name in ["mwnew", "mwgone", "mworphan"] {
        let (name, mut link) = link(name, 20, "veth", Mac([8; 6]));
        link.master = Some(BRIDGE);
        actual.links.insert(name, link);
    }
    let transit = Transit {
        hands_off: BTreeSet::from(["mwgone".to_owned()]),
        wired: BTreeSet::from(["mwnew".to_owned()]),
    };
    let steps = plan(&desired(), &actual, &transit);
    let removed: Vec<_> = steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::DeleteLink(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(removed, ["mworphan"]);
}
