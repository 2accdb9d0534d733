//! The real meshctl against the real API server, with a scripted node behind it.
#![allow(clippy::unwrap_used, reason = "a failing test names the line")]

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mesh_router::{MeshId, PeerId};
use meshwork::{
    api::{
        server::{Api, ApiListener, serve},
        token,
        types::{Dns, Ipam, OwnPeer, PeerCounts, Record, Removed, Status},
    },
    daemon::handle::NodeHandle,
    node::{
        event::{Credentials, Secret},
        request::{Code, Refusal, Reply, Request},
    },
};
use serde_json::Value;

type Script = fn(&Request) -> Result<Reply, Refusal>;

/// A host whose node answers as told, for as long as the value lives.
struct Host {
    directory: PathBuf,
    asked: Arc<Mutex<Vec<Request>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Host {
    fn new(script: Script) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("meshctl-{}-{number}", std::process::id()));
        let socket = directory.join("meshd.sock");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (node, mut asks) = NodeHandle::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        runtime.spawn(async move {
            while let Some(ask) = asks.recv().await {
                seen.lock().unwrap().push(*ask.request.clone());
                let _ = ask.reply.send(script(&ask.request).map(Box::new));
            }
        });
        let api = Api::new(node, "mesh.internal", &socket);
        let listener = runtime.block_on(async { ApiListener::bind(&socket) }).unwrap();
        runtime.spawn(serve(listener, api, std::future::pending()));
        Self { directory, asked, _runtime: runtime }
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .env_clear()
            .env("MESHWORK_SOCKET", self.directory.join("meshd.sock"))
            .args(words)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn status(ready: bool) -> Status {
    Status {
        ready,
        reason: (!ready).then(|| "waiting for space from node-2".to_owned()),
        version: "0.1.0".to_owned(),
        mesh_id: Some(MeshId::new([7; 16])),
        peer: OwnPeer { id: PeerId::new([1; 16]), name: "node-1".to_owned(), addresses: vec![] },
        peers: PeerCounts { total: 1, alive: 1, suspect: 0, unreachable: 0 },
        connections: vec![],
        paths: vec![],
        ipam: Ipam {
            state: if ready { "ready" } else { "waiting" }.to_owned(),
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
            listen: vec![],
            records: 1,
            upstream: vec![],
        },
        targets: vec![],
        repairs: vec![],
    }
}

fn credentials() -> Credentials {
    Credentials { mesh: MeshId::new([7; 16]), secret: Secret([9; 32]) }
}

#[allow(clippy::unnecessary_wraps, reason = "it is a script")]
fn willing(request: &Request) -> Result<Reply, Refusal> {
    Ok(match request {
        Request::Status => Reply::Status(Box::new(status(true))),
        Request::Token => Reply::Token(credentials()),
        Request::DnsList => Reply::Records(vec![Record {
            name: "web.mesh.internal".to_owned(),
            addresses: vec!["10.32.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            origin: PeerId::new([1; 16]),
            host: "node-1".to_owned(),
            holder: "c1".to_owned(),
            hidden: false,
        }]),
        _ => Reply::Done,
    })
}

#[test]
fn status_exits_0_when_ready_and_1_with_the_reason_when_not() {
    let (code, out, _) = Host::new(willing).run(&["status"]);
    assert_eq!((code, out.lines().next()), (Some(0), Some("ready")));
    let waiting = Host::new(|_| Ok(Reply::Status(Box::new(status(false)))));
    let (code, out, _) = waiting.run(&["status"]);
    let first = out.lines().next();
    assert_eq!((code, first), (Some(1), Some("not ready: waiting for space from node-2")));
    let (code, out, err) = waiting.run(&["status", "paths"]);
    assert_eq!((code, out.as_str()), (Some(1), "no paths\n"));
    assert!(err.contains("waiting for space"), "{err}");
}

#[test]
fn json_is_the_apis_own() {
    let host = Host::new(willing);
    let (_, out, _) = host.run(&["status", "--json"]);
    let got: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got, serde_json::to_value(status(true)).unwrap());
    let (_, out, _) = host.run(&["--json", "status", "ipam"]);
    let got: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(got["ranges"][0], "10.32.0.0/12");
}

#[test]
fn answers_are_printed_for_people() {
    let host = Host::new(willing);
    let (code, out, _) = host.run(&["token", "show"]);
    assert_eq!((code, token::decode(&out)), (Some(0), Ok(credentials())));
    let (_, out, _) = host.run(&["dns", "lookup", "web"]);
    let want = "\
NAME               ADDRESSES           HOST    HOLDER
web.mesh.internal  10.32.0.7, fd00::7  node-1  c1
";
    assert_eq!(out, want);
    assert_eq!(host.run(&["detach", "c1"]), (Some(0), "detached c1\n".to_owned(), String::new()));
    assert_eq!(host.run(&["-q", "detach", "c1"]).1, "");
    assert_eq!(host.run(&["completions", "bash"]).0, Some(0));
}

#[test]
fn a_refusal_is_one_line_with_what_why_and_what_next() {
    let host = Host::new(|_| {
        Err(Refusal::new(Code::Conflict, "10.32.0.7 is held by c2", "choose another address"))
    });
    let words = ["ipam", "claim", "10.32.0.7", "--for", "printer"];
    let (code, out, err) = host.run(&words);
    let line = "meshctl: 10.32.0.7 is held by c2; choose another address\n";
    assert_eq!((code, out.as_str(), err.as_str()), (Some(1), "", line));
    let (code, _, err) = host.run(&[&words[..], &["--json"]].concat());
    let error: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, error["error"]["code"].as_str()), (Some(1), Some("conflict")));
}

#[test]
fn wrong_usage_exits_2_and_asks_nothing() {
    let host = Host::new(willing);
    for words in [
        &["attach", "c1"][..],
        &["attach", "c1", "--netns", "a", "--ip", "x"],
        &["init", "--range", "x"],
        &["peer", "remove"],
        &["ipam", "range", "add", "x"],
        &["join", "--token", "t"],
        &["dns", "add", "web"],
        &["bogus"],
        &[],
    ] {
        assert_eq!(host.run(words).0, Some(2), "{words:?}");
    }
    assert_eq!(host.asked(), []);
}

#[test]
fn attach_asks_for_what_was_typed() {
    let host = Host::new(|_| Err(Refusal::new(Code::NotReady, "not yet", "wait")));
    let words = "attach c1 --netns c1 --name web --name www --ip 10.32.0.7 --ip 10.32.0.8 \
                 --subnet 10.32.0.0/24 --ifname mesh0";
    host.run(&words.split(' ').collect::<Vec<_>>());
    let Request::Attach(request) = host.asked().remove(0) else { panic!("{:?}", host.asked()) };
    assert_eq!(request.netns.as_deref(), Some("/run/netns/c1"));
    assert_eq!(request.names, ["web", "www"]);
    assert_eq!(request.subnets, ["10.32.0.0/24".parse().unwrap()]);
    assert_eq!((request.addresses.len(), request.interface.as_str()), (2, "mesh0"));
}

#[test]
fn peer_remove_and_ipam_range_add_ask_for_what_was_typed_and_say_what_came_of_it() {
    let host = Host::new(|request| {
        Ok(match request {
            Request::PeerRemove { .. } => {
                let peers = vec![PeerId::new([2; 16]), PeerId::new([3; 16])];
                Reply::Removed(Removed { peers, addresses: 4096, epoch: 2 })
            }
            Request::Status => Reply::Status(Box::new(status(true))),
            _ => Reply::Done,
        })
    });
    let (code, out, _) = host.run(&["peer", "remove", "node-2", "node-3", "--force"]);
    let line = "removed node-2, node-3; 4096 IPv4 addresses came back; the ring's epoch is 2\n";
    assert_eq!((code, out.lines().next()), (Some(0), line.lines().next()));
    assert!(out.contains("if one of them still runs, an address may be given to two"), "{out}");
    assert_eq!(host.run(&["peer", "remove", "node-2", "node-3"]).1, line, "nothing to warn of");
    let (code, out, _) = host.run(&["ipam", "range", "add", "10.99.0.0/16"]);
    assert_eq!((code, out.as_str()), (Some(0), "10.99.0.0/16 is a range of the mesh now\n"));
    assert_eq!(host.run(&["ipam", "range", "list"]).1, "10.32.0.0/12\n");
    let peers = vec!["node-2".to_owned(), "node-3".to_owned()];
    assert_eq!(host.asked()[0], Request::PeerRemove { peers, force: true });
    assert_eq!(host.asked()[2], Request::RangeAdd("10.99.0.0/16".parse().unwrap()));
}

#[test]
fn a_token_for_founders_is_drawn_without_asking_anybody() {
    let host = Host::new(willing);
    let (code, out, _) = host.run(&["token", "new"]);
    assert_eq!(code, Some(0));
    assert_ne!(
        token::decode(&out).unwrap(),
        token::decode(&host.run(&["token", "new"]).1).unwrap()
    );
    assert_eq!(host.asked(), []);
}
