//! The real binary, as a runtime calls it, against a small server that speaks the API's real types.
#![allow(clippy::unwrap_used, reason = "a failing test names the line")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use meshwork::{
    api::{
        spool::Spool,
        types::{AttachRequest, Attachment, ErrorBody, Holder},
    },
    node::request::{Code, Refusal},
};
use serde_json::{Value, json};

/// What the server answers to a path and a body.
type Answers = dyn Fn(&str, &[u8]) -> Result<Value, Refusal> + Send + Sync;

/// A directory of its own with a socket in it.
struct Host {
    directory: PathBuf,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Host {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("mesh-cni-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self { directory, asked: Arc::default() }
    }

    /// With a server that answers as told.
    fn serving(
        answers: impl Fn(&str, &[u8]) -> Result<Value, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let host = Self::new();
        let listener = UnixListener::bind(host.socket()).unwrap();
        let (answers, asked): (Arc<Answers>, _) = (Arc::new(answers), host.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &*answers, &asked);
            }
        });
        host
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("meshd.sock")
    }

    fn spool(&self) -> Vec<Holder> {
        Spool::beside(&self.socket()).list().unwrap()
    }

    fn config(&self, version: &str, more: Value) -> String {
        let mut config = json!({
            "cniVersion": version, "name": "mesh", "type": "mesh-cni", "socket": self.socket(),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config.to_string()
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

fn serve(stream: UnixStream, answers: &Answers, asked: &Mutex<Vec<(String, Value)>>) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or("").to_owned();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    asked.lock().unwrap().push((path.clone(), serde_json::from_slice(&body).unwrap_or_default()));
    let (status, text) = match answers(&path, &body) {
        Ok(value) => ("200 OK", value.to_string()),
        Err(error) => ("409 Conflict", serde_json::to_string(&ErrorBody { error }).unwrap()),
    };
    let length = text.len();
    let _ = write!(reader.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{text}");
}

/// meshd's answer to an attach, as the real one fills it.
fn attachment(body: &[u8]) -> Value {
    let request: AttachRequest = serde_json::from_slice(body).unwrap();
    let linked = request.netns.is_some();
    serde_json::to_value(Attachment {
        container: request.container,
        interface: request.interface,
        netns: request.netns,
        addresses: vec!["10.32.0.7/12".parse().unwrap(), "fd00::7/128".parse().unwrap()],
        gateways: vec!["10.32.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
        routes: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        mac: "02:00:00:00:00:07".to_owned(),
        host_interface: linked.then(|| "mw0123456789ab".to_owned()),
        bridge_mac: "22:00:00:00:00:01".to_owned(),
        bridge: "mesh0".to_owned(),
        mtu: 1450,
        names: request.names,
        nameservers: vec!["10.32.0.1".parse().unwrap()],
        domain: "mesh.internal".to_owned(),
    })
    .unwrap()
}

fn attaching(path: &str, body: &[u8]) -> Result<Value, Refusal> {
    match path {
        "/v1/attach" => Ok(attachment(body)),
        "/v1/check" => Ok(attachment(br#"{"container":"c1","netns":"/proc/self/ns/net"}"#)),
        _ => Ok(json!({ "done": true })),
    }
}

fn call(command: &str, input: &str, more: &[(&str, &str)]) -> Output {
    call_binary(env!("CARGO_BIN_EXE_mesh-cni").into(), command, input, more)
}

fn call_binary(binary: PathBuf, command: &str, input: &str, more: &[(&str, &str)]) -> Output {
    let mut process = Command::new(binary);
    process.env_clear().env("CNI_COMMAND", command);
    let usual = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    for (key, value) in usual.iter().chain(more) {
        process.env(key, value);
    }
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    // A plugin that ends before it has read everything is right, too.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn success(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The error object; checks what all of them have.
fn failure(output: &Output) -> (u64, String) {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(object["cniVersion"].is_string(), "{object}");
    let text = format!("{} {}", object["msg"].as_str().unwrap(), object["details"]);
    (object["code"].as_u64().unwrap(), text)
}

#[test]
fn version_lists_all_versions_and_answers_in_the_one_asked_for() {
    for (input, version) in [("", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let answer: Value = serde_json::from_str(&success(&call("VERSION", input, &[]))).unwrap();
        let all = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        assert_eq!(answer, json!({ "cniVersion": version, "supportedVersions": all }));
    }
}

#[test]
fn add_answers_in_the_shape_of_each_version() {
    let host = Host::serving(attaching);
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let output = call("ADD", &host.config(version, json!({})), &[]);
        let answer: Value = serde_json::from_str(&success(&output)).unwrap();
        let mut want = json!({
            "cniVersion": version,
            "interfaces": [
                { "name": "mesh0", "mac": "22:00:00:00:00:01" },
                { "name": "mw0123456789ab", "mac": "" },
                { "name": "eth0", "mac": "02:00:00:00:00:07", "sandbox": "/proc/self/ns/net" },
            ],
            "ips": [
                { "address": "10.32.0.7/12", "gateway": "10.32.0.1", "interface": 2 },
                { "address": "fd00::7/128", "gateway": "fe80::1", "interface": 2 },
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "gw": "10.32.0.1" }, { "dst": "::/0", "gw": "fe80::1" },
            ],
            "dns": {
                "nameservers": ["10.32.0.1"], "domain": "mesh.internal",
                "search": ["mesh.internal"],
            },
        });
        if version.starts_with('0') {
            want["ips"][0]["version"] = "4".into();
            want["ips"][1]["version"] = "6".into();
        }
        if version == "1.1.0" {
            for at in 0..3 {
                want["interfaces"][at]["mtu"] = 1450.into();
            }
        }
        assert_eq!(answer, want, "{version}");
    }
}

#[test]
fn add_passes_on_what_configuration_runtime_and_args_say() {
    let host = Host::serving(attaching);
    let config = host.config(
        "1.0.0",
        json!({
            "mtu": 1400, "isDefaultGateway": false, "hairpinMode": false, "ipMasq": false,
            "routes": [{ "dst": "192.0.2.0/24" }],
            "dns": { "search": ["example.org"], "options": ["ndots:2"] },
            "capabilities": { "ips": true, "aliases": true },
            "runtimeConfig": {
                "ips": ["10.32.0.7/12"], "mac": "02:00:00:00:00:07",
                "aliases": { "mesh": ["db", "Web.Shop", "not_dns"], "other": ["no"] },
                "portMappings": [{ "hostPort": 80 }],
                "dns": { "Servers": ["192.0.2.53"], "Searches": null, "Options": null },
            },
            "args": { "cni": { "ips": ["fd00::7", "10.32.0.7"] } },
            "cni.dev/attachments": [], "io.example": 1, "ipam": { "subnet": "10.32.0.0/24" },
        }),
    );
    let args =
        "IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;MESH_NAME=front;X=1;IP=10.32.0.9";
    let output = call("ADD", &config, &[("CNI_ARGS", args)]);
    let answer: Value = serde_json::from_str(&success(&output)).unwrap();
    assert_eq!(answer["dns"]["search"], json!(["example.org", "mesh.internal"]));
    assert_eq!(answer["dns"]["options"], json!(["ndots:2"]));
    assert_eq!(answer["dns"]["nameservers"], json!(["192.0.2.53"]));
    let (path, body) = host.asked().remove(0);
    let want = json!({
        "container": "c1", "interface": "eth0", "netns": "/proc/self/ns/net",
        "names": ["front", "web.shop", "db"],
        "addresses": ["10.32.0.7", "fd00::7", "10.32.0.9"], "subnets": ["10.32.0.0/24"],
        "mac": "02:00:00:00:00:07", "mtu": 1400, "default_gateway": false, "hairpin": false,
        "masquerade": false, "routes": ["192.0.2.0/24"], "patience_ms": 10_000,
    });
    assert_eq!((path.as_str(), body), ("/v1/attach", want));
}

#[test]
fn as_ipam_of_another_plugin_it_gives_addresses_and_makes_no_link() {
    let host = Host::serving(attaching);
    let config = json!({
        "cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "eth0", "mtu": "any",
        "ipam": { "type": "mesh-cni", "socket": host.socket() },
    })
    .to_string();
    let answer: Value = serde_json::from_str(&success(&call("ADD", &config, &[]))).unwrap();
    assert_eq!(answer.get("interfaces"), None);
    assert_eq!(answer["ips"][0], json!({ "address": "10.32.0.7/12", "gateway": "10.32.0.1" }));
    success(&call("DEL", &config, &[]));
    let asked = host.asked();
    assert_eq!(asked[0].1["netns"], Value::Null);
    assert_eq!(
        asked[1],
        ("/v1/detach".to_owned(), json!({ "container": "c1", "interface": "eth0" }))
    );
}

#[test]
fn the_name_it_is_called_by_is_the_type_it_serves() {
    let host = Host::serving(attaching);
    let other_name = host.directory.join("weave-ipam");
    symlink(env!("CARGO_BIN_EXE_mesh-cni"), &other_name).unwrap();
    let config = json!({
        "cniVersion": "1.0.0", "name": "lan", "type": "bridge",
        "ipam": { "type": "weave-ipam", "socket": host.socket() },
    })
    .to_string();
    success(&call_binary(other_name, "ADD", &config, &[]));
}

#[test]
fn bad_configurations_are_refused_naming_what_is_wrong() {
    let host = Host::new();
    let with = |more: Value| host.config("1.0.0", more);
    for (input, code, words) in [
        ("{".to_owned(), 6, "no JSON object"),
        ("[]".to_owned(), 6, "no JSON object"),
        (String::new(), 6, "no JSON object"),
        (host.config("9.9.9", json!({})), 1, "supported are 0.3.0, 0.3.1"),
        (r#"{"name":"mesh","type":"mesh-cni"}"#.to_owned(), 1, "not supported"),
        (with(json!({ "isGateway": true })), 7, "isGateway: unknown key"),
        (with(json!({ "ipmasq": true })), 7, "did you mean \\\"ipMasq\\\"?"),
        (with(json!({ "colour": true })), 7, "known are socket, mtu"),
        (with(json!({ "mtu": "big" })), 6, "mtu: invalid type"),
        (with(json!({ "mtu": -1 })), 6, "mtu: invalid value"),
        (with(json!({ "routes": [{ "dst": "x" }] })), 6, "routes: "),
        (with(json!({ "routes": [{ "dst": "::/0", "gw": "fe80::1" }] })), 7, "routes[0].gw"),
        (with(json!({ "dns": { "servers": [] } })), 6, "dns: unknown field `servers`"),
        (with(json!({ "ipam": { "type": "host-local" } })), 7, "ipam.type: \"host-local\""),
        (with(json!({ "ipam": { "subnet": "10.0.0.0" } })), 7, "it is no CIDR"),
        (with(json!({ "ipam": { "subnet": "10.0.0.1/8" } })), 7, "behind the prefix"),
        (with(json!({ "ipam": { "subnt": "10.0.0.0/8" } })), 7, "did you mean \\\"subnet\\\"?"),
        (with(json!({ "args": { "cni": { "ips": ["x"] } } })), 7, "args.cni.ips"),
        (with(json!({ "name": "" })), 7, "name: "),
        (with(json!({ "socket": "meshd.sock" })), 7, "no absolute path"),
        (with(json!({ "runtimeConfig": { "ips": ["x"] } })), 7, "runtimeConfig.ips"),
    ] {
        let (got, text) = failure(&call("ADD", &input, &[]));
        assert!(got == code && text.contains(words), "{input}: {got} {text}");
    }
    assert_eq!(host.spool(), []);
}

#[test]
fn a_bad_environment_is_refused_naming_the_variable() {
    let host = Host::new();
    let config = host.config("1.0.0", json!({}));
    for (command, variable, value, words) in [
        ("", "X", "", "CNI_COMMAND is not set"),
        ("REMOVE", "X", "", "none of ADD, DEL"),
        ("GC", "X", "", "GC is not supported yet"),
        ("ADD", "CNI_CONTAINERID", "", "CNI_CONTAINERID is not set"),
        ("DEL", "CNI_CONTAINERID", "../x", "CNI_CONTAINERID: "),
        ("ADD", "CNI_IFNAME", "", "CNI_IFNAME is not set"),
        ("ADD", "CNI_IFNAME", "a/b", "CNI_IFNAME: "),
        ("ADD", "CNI_NETNS", "", "CNI_NETNS is not set"),
        ("ADD", "CNI_NETNS", "/nonexistent", "there is no network namespace"),
        ("ADD", "CNI_ARGS", "X=1", "unknown key \"X\""),
        ("ADD", "CNI_ARGS", "IP=x", "IP=x is no address"),
    ] {
        let (code, text) = failure(&call(command, &config, &[(variable, value)]));
        assert!(code == 4 && text.contains(words), "{command} {variable}={value}: {code} {text}");
    }
}

#[test]
fn without_meshd_add_says_try_again_and_del_succeeds_and_leaves_a_note() {
    let host = Host::new();
    let config = host.config("1.1.0", json!({}));
    let (code, text) = failure(&call("ADD", &config, &[]));
    assert!(
        code == 11 && text.contains("meshd is not running") && text.contains("try again later")
    );
    assert_eq!(host.spool(), [], "nothing was asked, so nothing is left to release");
    assert_eq!(failure(&call("STATUS", &config, &[])).0, 50);
    for _ in 0..2 {
        assert_eq!(success(&call("DEL", &config, &[("CNI_NETNS", "")])), "");
    }
    let holder = Holder { container: "c1".to_owned(), interface: "eth0".to_owned() };
    assert_eq!(host.spool(), [holder]);
}

#[test]
fn an_add_whose_answer_is_lost_leaves_a_note() {
    let host = Host::new();
    let listener = UnixListener::bind(host.socket()).unwrap();
    let broken = std::thread::spawn(move || drop(listener.accept().unwrap().0));
    let (code, _) = failure(&call("ADD", &host.config("1.0.0", json!({})), &[]));
    assert_eq!((code, host.spool().len()), (11, 1));
    broken.join().unwrap();
}

#[test]
fn refusals_keep_their_words_and_get_codes_of_their_own() {
    for (kind, code, deleted) in [
        (Code::Invalid, 100, false),
        (Code::NotFound, 101, true),
        (Code::Conflict, 102, true),
        (Code::NotReady, 11, true),
        (Code::Exhausted, 103, true),
        (Code::Timeout, 11, true),
        (Code::Internal, 104, true),
    ] {
        let host = Host::serving(move |_, _| Err(Refusal::new(kind, "it is so", "do this")));
        let config = host.config("1.0.0", json!({}));
        assert_eq!(failure(&call("ADD", &config, &[])), (code, "it is so \"do this\"".to_owned()));
        assert_eq!(host.spool(), [], "a refused attach changed nothing");
        assert_eq!(call("DEL", &config, &[]).status.success(), deleted, "{kind:?}");
        let kept = deleted && kind != Code::NotFound;
        assert_eq!(host.spool().len(), usize::from(kept), "{kind:?}");
    }
}

#[test]
fn check_compares_with_the_previous_result() {
    let host = Host::serving(attaching);
    let ips = |four: &str| json!([{ "address": four }, { "address": "fd00::7/128" }]);
    let config = |ips: Value| host.config("1.0.0", json!({ "prevResult": { "ips": ips } }));
    assert_eq!(success(&call("CHECK", &config(ips("10.32.0.7/12")), &[])), "");
    assert_eq!(failure(&call("CHECK", &config(ips("10.32.0.8/12")), &[])).0, 110);
    assert_eq!(failure(&call("CHECK", &host.config("1.0.0", json!({})), &[])).0, 7);
    assert_eq!(failure(&call("CHECK", &host.config("0.3.1", json!({})), &[])).0, 1);
    assert_eq!(failure(&call("STATUS", &host.config("1.0.0", json!({})), &[])).0, 1);
}
