//! A real socket in front of a scripted loop.

use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh_router::{MeshId, PeerId};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::oneshot,
};
use utoipa::OpenApi as _;

use super::*;
use crate::{
    api::{
        client::{Client, ClientError},
        openapi::Description,
        token,
        types::{
            Allocation, AttachRequest, Attachment, ClaimRequest, Dns, Done, Holder, Ipam,
            JoinRequest, Joined, OwnPeer, Path as DataPath, PeerCounts, Record, Status, TokenBody,
        },
    },
    node::{
        event::{Credentials, Secret},
        request::{Code, JoinTarget, Refusal, Reply, Request as Asked},
    },
};

type Script = dyn Fn(&Asked) -> Result<Reply, Refusal> + Send + Sync;

/// A server over a scripted loop, in a directory of its own.
struct Served {
    directory: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<tokio::task::JoinHandle<io::Result<()>>>,
}

impl Served {
    async fn start(
        script: impl Fn(&Asked) -> Result<Reply, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let directory = scratch();
        Self::start_in(directory, Box::new(script)).await
    }

    async fn start_in(directory: PathBuf, script: Box<Script>) -> Self {
        let socket = directory.join("run/meshd.sock");
        let (node, mut asks) = NodeHandle::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                seen.lock().unwrap().push(*ask.request.clone());
                let _ = ask.reply.send(script(&ask.request).map(Box::new));
            }
        });
        let listener = ApiListener::bind(&socket).unwrap();
        let api = Api::new(node, "mesh.internal", &socket);
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, api, async { drop(stopped.await) }));
        Self { directory, asked, stop: Some(stop), server: Some(server) }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("run/meshd.sock")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// One exchange without the client's help.
    async fn raw(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server may answer before it has read a body that is too long.
        drop(stream.write_all(body.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn scratch() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("mesh-api-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn credentials() -> Credentials {
    Credentials { mesh: MeshId::new([7; 16]), secret: Secret([9; 32]) }
}

fn record(name: &str, addresses: &[&str], hidden: bool) -> Record {
    Record {
        name: format!("{name}.mesh.internal"),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        origin: PeerId::new([1; 16]),
        host: "node-1".to_owned(),
        holder: "by hand".to_owned(),
        hidden,
    }
}

fn attachment(request: &AttachRequest) -> Attachment {
    Attachment {
        container: request.container.clone(),
        interface: request.interface.clone(),
        netns: request.netns.clone(),
        addresses: vec!["10.32.0.7/12".parse().unwrap()],
        gateways: vec!["10.32.0.1".parse().unwrap()],
        routes: vec![],
        mac: "02:00:00:00:00:07".to_owned(),
        host_interface: None,
        bridge_mac: "22:00:00:00:00:01".to_owned(),
        bridge: "mesh0".to_owned(),
        mtu: 1450,
        names: request.names.clone(),
        nameservers: vec![],
        domain: "mesh.internal".to_owned(),
    }
}

fn status() -> Status {
    Status {
        ready: true,
        reason: None,
        version: "0".to_owned(),
        mesh_id: Some(MeshId::new([7; 16])),
        peer: OwnPeer { id: PeerId::new([1; 16]), name: "node-1".to_owned(), addresses: vec![] },
        peers: PeerCounts { total: 3, alive: 2, suspect: 1, unreachable: 0 },
        connections: vec![],
        paths: vec![DataPath {
            peer: PeerId::new([2; 16]),
            name: "node-2".to_owned(),
            kind: "vxlan".to_owned(),
            via: None,
            mtu: 1450,
            state: "up".to_owned(),
            reason: String::new(),
        }],
        ipam: Ipam {
            state: "ready".to_owned(),
            reason: None,
            ranges: vec![],
            blocks: 1,
            owned: 4096,
            allocated: 2,
            ring_entries: 4,
            ring_digest: "00ff".into(),
            conflicts: vec![r#"10.32.0.7 is held by a"b and by c"#.to_owned()],
            stranded: vec![],
            epoch: 1,
            electors: vec![],
            lease: None,
            told_anew: None,
        },
        dns: Dns {
            domain: "mesh.internal".to_owned(),
            listen: vec![],
            records: 5,
            upstream: vec![],
        },
        targets: vec![],
        repairs: vec![],
    }
}

/// A loop that answers everything in the right type.
fn willing(asked: &Asked) -> Result<Reply, Refusal> {
    Ok(match asked {
        Asked::Init { credentials, ranges } => {
            Reply::Joined(Joined { mesh_id: credentials.mesh, ranges: ranges.clone() })
        }
        Asked::Join { credentials, .. } => {
            Reply::Joined(Joined { mesh_id: credentials.mesh, ranges: vec![] })
        }
        Asked::Token => Reply::Token(credentials()),
        Asked::Status => Reply::Status(Box::new(status())),
        Asked::Peers => Reply::Peers(vec![]),
        Asked::Attach(request) => Reply::Attached(attachment(request)),
        Asked::Check { container, .. } => {
            Reply::Attached(attachment(&AttachRequest::new(container.clone())))
        }
        Asked::Allocations => Reply::Allocations(vec![]),
        Asked::Claim { address, holder } => Reply::Claimed(Allocation {
            address: address.unwrap_or_else(|| "10.32.0.9".parse().unwrap()),
            holder: holder.clone(),
            interface: String::new(),
        }),
        Asked::DnsList => Reply::Records(vec![
            record("web", &["10.32.0.7", "fd00::7"], false),
            record("web", &["10.32.0.8"], true),
            record("db", &["10.32.0.9"], false),
        ]),
        _ => Reply::Done,
    })
}

#[tokio::test]
async fn each_path_asks_the_node_and_answers_in_its_type() {
    let served = Served::start(willing).await;
    let client = served.client();
    let joined: Joined =
        client.post("/v1/init", &json!({ "ranges": ["10.0.0.0/8"] })).await.unwrap();
    assert_ne!(joined.mesh_id, MeshId::default());
    let targets = vec!["192.0.2.1".to_owned(), "[2001:db8::1]:9".to_owned()];
    let join = JoinRequest { targets, token: token::encode(&credentials()) };
    let joined: Joined = client.post("/v1/join", &join).await.unwrap();
    assert_eq!(joined.mesh_id, credentials().mesh);
    let body: TokenBody = client.get("/v1/token").await.unwrap();
    assert_eq!(token::decode(&body.token), Ok(credentials()));
    assert_eq!(client.get::<Status>("/v1/status").await.unwrap(), status());
    let attached: Attachment = client.post("/v1/attach", &AttachRequest::new("c1")).await.unwrap();
    assert_eq!((attached.container.as_str(), attached.interface.as_str()), ("c1", "eth0"));
    let claim = ClaimRequest { address: None, holder: "printer".to_owned() };
    let claimed: Allocation = client.post("/v1/ipam/claim", &claim).await.unwrap();
    assert_eq!(claimed.holder, "printer");
    for path in ["/v1/leave", "/v1/detach", "/v1/ipam/release", "/v1/dns/add", "/v1/dns/remove"] {
        let body = match path {
            "/v1/leave" => json!({}),
            "/v1/detach" => json!({ "container": "c1" }),
            "/v1/ipam/release" => json!({ "holder": "printer" }),
            _ => json!({ "name": "web", "addresses": ["10.32.0.7"] }),
        };
        assert_eq!(client.post::<_, Done>(path, &body).await.unwrap(), Done { done: true });
    }
    let forget = json!({ "target": "192.0.2.1" });
    client.post::<_, Done>("/v1/forget", &forget).await.unwrap();
    let asked = served.asked();
    assert_eq!(asked.last(), Some(&Asked::Forget("192.0.2.1:7780".parse().unwrap())));
    let target = |target: &str, found: &str| JoinTarget {
        target: target.to_owned(),
        found: Ok(vec![found.parse().unwrap()]),
    };
    let targets =
        vec![target("192.0.2.1", "192.0.2.1:7780"), target("2001:db8::1", "[2001:db8::1]:9")];
    assert_eq!(asked[1], Asked::Join { credentials: credentials(), targets });
}

#[tokio::test]
async fn lookup_answers_names_and_addresses_but_nothing_hidden() {
    let served = Served::start(willing).await;
    let client = served.client();
    for (query, want) in [
        ("name=web", vec!["10.32.0.7", "fd00::7"]),
        ("name=WEB.mesh.internal.", vec!["10.32.0.7", "fd00::7"]),
        ("name=web&type=A", vec!["10.32.0.7"]),
        ("name=web&type=AAAA", vec!["fd00::7"]),
        ("name=10.32.0.9&type=PTR", vec!["10.32.0.9"]),
    ] {
        let found: Vec<Record> = client.get(&format!("/v1/dns/lookup?{query}")).await.unwrap();
        let found: Vec<_> = found.iter().flat_map(|record| &record.addresses).collect();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{query}");
    }
    for (query, status) in [
        ("name=no", 404),
        ("name=10.32.0.8", 404),
        ("", 400),
        ("name=a&type=MX", 400),
        ("nam=a", 400),
    ] {
        let (got, body) = served.raw("GET", &format!("/v1/dns/lookup?{query}"), "").await;
        assert_eq!(got, status, "{query}: {body}");
        assert!(body["error"]["hint"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_has_the_one_shape_and_says_what() {
    let served = Served::start(willing).await;
    let long = format!("{{\"container\":\"{}\"}}", "x".repeat(reject::BODY_LEN_MAX));
    for (method, path, body, status, words) in [
        ("GET", "/", "", 404, "there is nothing at /"),
        ("GET", "/v1/nothing", "", 404, "/v1/nothing"),
        ("GET", "/v1/attach", "", 405, "does not understand GET"),
        ("DELETE", "/v1/status", "", 405, "does not understand DELETE"),
        ("POST", "/v1/attach", "{", 400, "EOF"),
        ("POST", "/v1/attach", "", 400, "missing field `container`"),
        ("POST", "/v1/attach", r#"{"container":"a","nams":[]}"#, 400, "unknown field `nams`"),
        ("POST", "/v1/attach", r#"{"container":"a","addresses":["x"]}"#, 400, "invalid IP"),
        ("POST", "/v1/attach", r#"{"container":7}"#, 400, "expected a string"),
        ("POST", "/v1/attach", long.as_str(), 413, "longer than 65536 bytes"),
        ("POST", "/v1/join", r#"{"targets":["a"],"token":"x"}"#, 400, "join token"),
        ("POST", "/v1/connect", r#"{"target":"a:b"}"#, 400, "is not a target"),
        ("POST", "/v1/dns/add", r#"{"name":"a"}"#, 400, "no address"),
        ("POST", "/v1/peers/remove", r#"{"peers":[]}"#, 400, "0 peers"),
        ("POST", "/v1/ipam/ranges", r#"{"range":"x"}"#, 400, "invalid address"),
    ] {
        let (got, body) = served.raw(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {body}");
        let error = &body["error"];
        assert!(error["message"].as_str().unwrap().contains(words), "{method} {path}: {body}");
        assert!(error["code"].is_string() && !error["hint"].as_str().unwrap().is_empty(), "{body}");
    }
    assert_eq!(served.asked(), [], "the node was not asked");
}

#[tokio::test]
async fn refusals_come_through_with_a_fitting_status() {
    for (code, status) in [
        (Code::Invalid, 400),
        (Code::NotFound, 404),
        (Code::Conflict, 409),
        (Code::Superseded, 409),
        (Code::NotReady, 503),
        (Code::Exhausted, 507),
        (Code::Timeout, 504),
        (Code::Internal, 500),
    ] {
        let refusal = Refusal::new(code, "so it is", "do this");
        let told = refusal.clone();
        let served = Served::start(move |_| Err(told.clone())).await;
        assert_eq!(served.raw("GET", "/v1/status", "").await.0, status);
        match served.client().get::<Status>("/v1/status").await {
            Err(ClientError::Refused(got)) => assert_eq!(got, refusal),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_type_is_our_bug_and_said_so() {
    let served = Served::start(|_| Ok(Reply::Done)).await;
    let (status, body) = served.raw("GET", "/v1/status", "").await;
    assert_eq!((status, &body["error"]["code"]), (500, &json!("internal")));
}

#[tokio::test]
async fn the_description_lists_each_path_with_bodies_and_refusals() {
    let served = Served::start(willing).await;
    let description = serde_json::to_value(Description::openapi()).unwrap();
    assert_eq!(served.raw("GET", "/v1/openapi.json", "").await, (200, description.clone()));
    let paths = description["paths"].as_object().unwrap();
    let mut listed: Vec<_> = paths.keys().map(String::as_str).collect();
    let mut served_paths = PATHS.to_vec();
    listed.sort_unstable();
    served_paths.sort_unstable();
    assert_eq!(listed, served_paths);
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let (status, _) = served.raw(&method.to_uppercase(), path, "").await;
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
            assert!(operation["responses"]["default"].is_object(), "{operation}");
            assert!(operation["responses"]["200"]["content"].is_object(), "{operation}");
        }
    }
    // Every reference leads somewhere.
    let text = description.to_string();
    for name in text.split("#/components/schemas/").skip(1) {
        let name = name.split('"').next().unwrap();
        assert!(description["components"]["schemas"][name].is_object(), "{name}");
    }
    let attach = &description["components"]["schemas"]["AttachRequest"]["properties"];
    assert_eq!(attach["addresses"]["items"]["type"], "string");
    for field in serde_json::to_value(AttachRequest::new("a")).unwrap().as_object().unwrap().keys()
    {
        assert!(attach[field].is_object(), "{field}");
    }
}

#[tokio::test]
async fn metrics_count_requests_and_show_the_status() {
    let served = Served::start(willing).await;
    served.raw("GET", "/v1/nothing", "").await;
    served.raw("GET", "/v1/status", "").await;
    let text = served.client().text("/metrics").await.unwrap();
    for line in [
        r#"meshwork_api_requests_total{path="/v1/status",status="200"} 1"#,
        r#"meshwork_api_requests_total{path="other",status="404"} 1"#,
        r#"meshwork_api_request_duration_seconds_count{path="/v1/status"} 1"#,
        r#"meshwork_peers{state="suspect"} 1"#,
        r#"meshwork_paths{state="up"} 1"#,
        "meshwork_ready 1",
        "meshwork_ipam_addresses_allocated 2",
        "meshwork_ipam_conflicts 1",
        r#"meshwork_ipam_conflict{conflict="10.32.0.7 is held by a\"b and by c"} 1"#,
        "meshwork_dns_records 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_socket_has_mode_660_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut served = Served::start(willing).await;
    let mode = std::fs::metadata(served.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    drop(served.stop.take());
    served.server.take().unwrap().await.unwrap().unwrap();
    assert!(!served.socket().exists());
    match served.client().get::<Status>("/v1/status").await {
        Err(error @ ClientError::NotRunning { .. }) => {
            assert!(error.to_string().starts_with("meshd is not running (no socket at "));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_live_socket_is_kept_and_a_stale_one_replaced() {
    let served = Served::start(willing).await;
    let error = ApiListener::bind(&served.socket()).unwrap_err().to_string();
    assert!(error.contains("another meshd answers there"), "{error}");
    served.client().get::<Status>("/v1/status").await.unwrap();

    let stale = served.directory.join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let error = Client::new(&stale).get::<Status>("/v1/status").await.unwrap_err().to_string();
    assert!(error.contains("nobody answers"), "{error}");
    drop(ApiListener::bind(&stale).unwrap());

    let file = served.directory.join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = ApiListener::bind(&file).unwrap_err().to_string();
    assert!(error.contains("something else than a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn one_client_survives_a_restart_of_meshd() {
    let mut first = Served::start(willing).await;
    let client = first.client();
    client.get::<Status>("/v1/status").await.unwrap();
    drop(first.stop.take());
    first.server.take().unwrap().await.unwrap().unwrap();
    let second = Served::start_in(first.directory.clone(), Box::new(willing)).await;
    client.get::<Status>("/v1/status").await.unwrap();
    assert_eq!(second.asked(), [Asked::Status]);
}

#[tokio::test]
async fn a_late_detach_is_carried_out_at_the_start_and_struck() {
    let directory = scratch();
    let spool = Spool::beside(&directory.join("run/meshd.sock"));
    let holder = Holder { container: "c1".to_owned(), interface: "eth0".to_owned() };
    spool.add(&holder).unwrap();
    let served = Served::start_in(directory, Box::new(willing)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while spool.contains(&holder) {
        assert!(tokio::time::Instant::now() < deadline, "asked so far: {:?}", served.asked());
        tokio::task::yield_now().await;
    }
    let detach = Asked::Detach { container: "c1".to_owned(), interface: Some("eth0".to_owned()) };
    assert_eq!(served.asked(), [detach]);
}

#[tokio::test]
async fn an_attach_comes_after_the_late_detach_of_the_same_container() {
    let served = Served::start(willing).await;
    // The first look at the spool is over before the note is written, or it takes it: both right.
    let spool = Spool::beside(&served.socket());
    let holder = Holder { container: "c1".to_owned(), interface: "eth0".to_owned() };
    spool.add(&holder).unwrap();
    let request = AttachRequest::new("c1");
    served.client().post::<_, Attachment>("/v1/attach", &request).await.unwrap();
    let detach = Asked::Detach { container: "c1".to_owned(), interface: Some("eth0".to_owned()) };
    assert_eq!(served.asked(), [detach, Asked::Attach(Box::new(request))]);
    assert!(!spool.contains(&holder));
}
