//! What people see of a status.

use mesh_router::{MeshId, PeerId};

use super::*;
use crate::api::types::{Connection, Dns, OwnPeer, Path, PeerCounts};

fn status() -> Status {
    let peer = PeerId::new([0x11; 16]);
    Status {
        ready: true,
        reason: None,
        version: "0.1.0".to_owned(),
        mesh_id: Some(MeshId::new([0xab; 16])),
        peer: OwnPeer {
            id: peer,
            name: "node-1".to_owned(),
            addresses: vec!["192.0.2.1:7780".parse().unwrap()],
        },
        peers: PeerCounts { total: 3, alive: 2, suspect: 1, unreachable: 0 },
        connections: vec![Connection {
            peer,
            name: "node-2".to_owned(),
            address: "192.0.2.2:7780".parse().unwrap(),
            state: "established".to_owned(),
            rtt_ms: Some(0.31),
            reason: None,
        }],
        paths: vec![Path {
            peer,
            name: "node-2".to_owned(),
            kind: "vxlan".to_owned(),
            via: None,
            mtu: 1450,
            state: "down".to_owned(),
            reason: "no probe came back".to_owned(),
        }],
        ipam: Ipam {
            state: "ready".to_owned(),
            reason: None,
            ranges: vec!["10.32.0.0/12".parse().unwrap()],
            blocks: 1,
            owned: 4096,
            allocated: 2,
            ring_entries: 4,
            ring_digest: "00ff".into(),
            conflicts: vec![],
            stranded: vec![],
            epoch: 1,
            electors: vec![],
            lease: None,
            told_anew: None,
        },
        dns: Dns {
            domain: "mesh.internal".to_owned(),
            listen: vec!["10.32.0.1:53".parse().unwrap()],
            records: 2,
            upstream: vec![],
        },
        targets: vec![],
        repairs: vec![Repair { at_secs: 1000, what: "route 10.33.0.0/16".to_owned() }],
    }
}

#[test]
fn a_summary_begins_with_readiness_and_names_what_is_wrong() {
    let text = summary(&status(), Duration::from_secs(1010));
    let want = "\
ready
host         node-1 (11111111), meshd 0.1.0
addresses    192.0.2.1:7780
mesh         abababababababababababababababab
peers        2 of 3 alive, 1 suspect
connections  1 of 1 established
paths        0 of 1 up
ipam         ready: 2 held, 4096 owned in 1 block, 4 in the ring, of 10.32.0.0/12
dns          mesh.internal with 2 records on 10.32.0.1:53, else -
path         to node-2 is down: no probe came back
repaired     route 10.33.0.0/16, 10 s ago (1 repair remembered)";
    assert_eq!(text, want);
}

#[test]
fn a_host_that_is_not_ready_says_why_first() {
    let mut status = Status { ready: false, mesh_id: None, ..status() };
    assert!(headline(&status).contains("in no mesh; `meshctl init`"), "{}", headline(&status));
    status.reason = Some("no peer has space".to_owned());
    assert_eq!(headline(&status), "not ready: no peer has space");
}

#[test]
fn tables_show_each_link_and_path() {
    let (links, ways) = (connections(&status()), paths(&status()));
    assert!(links.ends_with("node-2  192.0.2.2:7780  established  310 us  -"), "{links}");
    assert!(ways.ends_with("node-2  vxlan  -    1450  down   no probe came back"), "{ways}");
    assert_eq!(targets(&status()), "no targets");
}

#[test]
fn spans_are_short() {
    for (millis, text) in [(1, "1.0 ms"), (59_000, "59 s"), (600_000, "10 min"), (9_000_000, "2 h")]
    {
        assert_eq!(span(Duration::from_millis(millis)), text);
    }
}
