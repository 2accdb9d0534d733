//! What users wait for, measured on namespace hosts with the real programs:
//! `cargo build --release && cargo bench --bench hosts`.
//!
//! - CNI ADD and DEL, against Debian's `bridge` + `host-local` with `ipMasq` in the same run;
//! - durable allocations per second, 64 clients on the socket, state on a disk, and what one costs
//!   with 1,000, 10,000 and 100,000 held;
//! - resident memory of `meshd`, idle and with 10,000 names.
//!
//! `-- curve` measures allocations only, and fails when they are fewer or slower than promised.
//! One JSON line per figure follows its sentence. Nothing else is asserted: the tests do that.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use meshwork::lab::{self, Call, Entered, Host, Lab, Namespace, Programs, Underlay, mesh};
use serde_json::{Value, json};

const ROUNDS: usize = 30;
const CLIENTS: usize = 64;
/// What the curve must not fall below, and what the slowest of a hundred must not take longer
/// than.
const PER_SECOND_MIN: f64 = 10_000.0;
const P99_MS_MAX: f64 = 20.0;
/// How much more processor time an allocation may take at the end of the curve than at its
/// beginning.
const GROWTH_MAX: f64 = 1.5;
/// Measured at each point of the curve.
const ALLOCATIONS: usize = 6400;
/// How many addresses are held at each point of the curve.
const HELD: [usize; 3] = [1_000, 10_000, 100_000];
const NAMES: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Debian's package `containernetworking-plugins`.
const REFERENCE: &str = "/usr/lib/cni/bridge";

fn main() -> Result<ExitCode> {
    // `cargo test --benches` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    if let Entered::Outside(code) = lab::enter()? {
        return Ok(ExitCode::from(code));
    }
    let directory = Path::new(env!("CARGO_BIN_EXE_meshd")).parent().context("a path")?;
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-state");
    let _ = fs::remove_dir_all(&state);
    let result = run(Programs::in_directory(directory)?, &state);
    if result.is_err() {
        eprint!("{}", lab::log_tails(20));
    }
    let _ = fs::remove_dir_all(&state);
    result.map(|()| ExitCode::SUCCESS)
}

fn run(programs: Programs, state: &Path) -> Result<()> {
    let mut lab = Lab::new(Underlay::Both, programs)?;
    let mut hosts = lab.hosts(3)?;
    for host in &mut hosts {
        let directory = state.join(host.name());
        fs::create_dir_all(&directory)?;
        host.set_state_dir(directory);
    }
    mesh::form(&mut hosts, PATIENCE)?;
    if std::env::args().any(|arg| arg == "curve") {
        return curve(&hosts[1]);
    }
    memory(&hosts[0], "idle")?;
    plugins(&hosts[0])?;
    names(&hosts[0])?;
    memory(&hosts[0], "with 10,000 names of its own")?;
    lab::wait_until("the names on another host", PATIENCE, || {
        let records = hosts[2].status()?.dns.records;
        ensure!(records >= NAMES, "{records} records");
        Ok(Some(()))
    })?;
    memory(&hosts[2], "with 10,000 names of another host")?;
    curve(&hosts[1])?;
    memory(&hosts[1], "with 120,000 addresses held")
}

/// Prints a figure for people and for programs.
fn figure(sentence: &str, name: &str, value: &Value) {
    println!("{sentence}\n{}", json!({ "figure": name, "value": value }));
}

fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 100.0
}

/// The median and the 90th of a hundred.
fn middle_and_most(samples: &mut [Duration]) -> (f64, f64) {
    samples.sort();
    (millis(samples[samples.len() / 2]), millis(samples[samples.len() * 9 / 10]))
}

/// One plugin's ADD and DEL, each a process in a host's namespace.
struct Plugin {
    name: &'static str,
    binary: PathBuf,
    host: Namespace,
    config: String,
    adds: Vec<Duration>,
    dels: Vec<Duration>,
}

impl Plugin {
    fn call(&self, command: &str, id: &str, netns: &Namespace) -> Call {
        self.host
            .call(&self.binary)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/usr/lib/cni")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;MESH_NAME={id}"))
            .input(self.config.clone())
    }

    fn round(&mut self, number: usize) -> Result<()> {
        let id = format!("{}{number}", self.name);
        let netns = Namespace::add(&format!("bench-{id}"))?;
        for command in ["ADD", "DEL"] {
            let call = self.call(command, &id, &netns);
            let begin = Instant::now();
            call.ok().with_context(|| format!("{command} of {}", self.name))?;
            let took = begin.elapsed();
            if command == "ADD" { self.adds.push(took) } else { self.dels.push(took) }
        }
        netns.remove()
    }
}

fn plugins(host: &Host) -> Result<()> {
    let ours = |config: Value| config.to_string();
    let mut plugins = vec![Plugin {
        name: "meshwork",
        binary: host.programs().mesh_cni.clone(),
        host: host.namespace().clone(),
        config: ours(host.cni_config()),
        adds: Vec::new(),
        dels: Vec::new(),
    }];
    if Path::new(REFERENCE).exists() {
        plugins.push(reference()?);
    } else {
        println!("no reference: `apt-get install containernetworking-plugins iptables`");
    }
    // In turns, so that both meet the same machine.
    for number in 0..ROUNDS {
        plugins.iter_mut().try_for_each(|plugin| plugin.round(number))?;
    }
    let mut medians = Vec::new();
    for plugin in &mut plugins {
        let (add, add_most) = middle_and_most(&mut plugin.adds);
        let (del, del_most) = middle_and_most(&mut plugin.dels);
        let name = plugin.name;
        let sentence = format!(
            "CNI, {name}: ADD {add} ms (p90 {add_most}), DEL {del} ms (p90 {del_most}), with the \
             start of the process"
        );
        figure(&sentence, &format!("cni_{name}"), &json!({ "add_ms": add, "del_ms": del }));
        medians.push(add);
    }
    if let [ours, theirs] = medians[..] {
        let ratio = (ours / theirs * 100.0).round() / 100.0;
        figure(
            &format!("CNI ADD takes {ratio} of the reference's time"),
            "cni_ratio",
            &ratio.into(),
        );
    }
    Ok(())
}

/// Debian's plugins, on a host of their own.
fn reference() -> Result<Plugin> {
    let config = json!({
        "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "ref0",
        "isGateway": true, "ipMasq": true,
        "ipam": {
            "type": "host-local",
            "ranges": [[{ "subnet": "10.99.0.0/16" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dataDir": format!("{}/host-local", lab::WORK_DIR),
        },
    });
    Ok(Plugin {
        name: "reference",
        binary: REFERENCE.into(),
        host: Namespace::add("reference")?,
        config: config.to_string(),
        adds: Vec::new(),
        dels: Vec::new(),
    })
}

/// A connection to the local API that is kept.
struct Api(BufReader<UnixStream>);

impl Api {
    fn new(host: &Host) -> Result<Self> {
        let stream = UnixStream::connect(host.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        let head = "Host: localhost\r\nContent-Type: application/json";
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.0.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.0.read_line(&mut line)? > 0, "meshd hung up");
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        ensure!(status.contains(" 200 "), "{path}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

/// What allocations cost, while more and more are held.
fn curve(host: &Host) -> Result<()> {
    let mut clients = (0..CLIENTS).map(|_| Api::new(host)).collect::<Result<Vec<_>>>()?;
    let (mut held, mut first_us) = (0, None);
    for wanted in HELD {
        if wanted > held {
            allocate(&mut clients, wanted - held, held)?;
            held = wanted;
        }
        let (begin, before) = (Instant::now(), cpu(host)?);
        let mut times = allocate(&mut clients, ALLOCATIONS, held)?;
        let per_second = (times.len() as f64 / begin.elapsed().as_secs_f64()).round();
        // What it costs whoever else uses the machine meanwhile.
        let cpu_us = ((cpu(host)? - before).as_secs_f64() * 1e6 / times.len() as f64).round();
        held += times.len();
        let (p50, p90) = middle_and_most(&mut times);
        let p99 = millis(times[times.len() * 99 / 100]);
        let sentence = format!(
            "with {wanted} held: {per_second} durable allocations/s by {CLIENTS} clients, each \
             p50 {p50} ms (p90 {p90}, p99 {p99}) and {cpu_us} us of meshd's processor time",
        );
        let value = json!({
            "held": wanted, "per_second": per_second, "cpu_us": cpu_us,
            "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
        });
        figure(&sentence, "allocations", &value);
        ensure!(per_second >= PER_SECOND_MIN, "fewer than {PER_SECOND_MIN} a second");
        ensure!(p99 < P99_MS_MAX, "the slowest of a hundred took {P99_MS_MAX} ms or more");
        let first_us = *first_us.get_or_insert(cpu_us);
        ensure!(cpu_us <= GROWTH_MAX * first_us, "more than {GROWTH_MAX} times the {first_us} us");
    }
    Ok(())
}

/// The processor time that a host's meshd has used, user's and system's.
fn cpu(host: &Host) -> Result<Duration> {
    let pid = host.pid().context("meshd does not run")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): fields 14 and 15, in ticks of 10 ms; the name in field 2 ends with the last `)`.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// All clients ask for one address after the other, without links; gives how long each took.
fn allocate(clients: &mut [Api], count: usize, before: usize) -> Result<Vec<Duration>> {
    let each = count.div_ceil(clients.len());
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(client, api)| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let mut times = Vec::with_capacity(each);
                    for number in 0..each {
                        let begin = Instant::now();
                        let id = format!("a{client}-{}", before + number);
                        api.post("/v1/attach", &json!({ "container": id }))?;
                        times.push(begin.elapsed());
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for client in running {
            all.extend(client.join().unwrap_or_else(|p| std::panic::resume_unwind(p))?);
        }
        Ok(all)
    })
}

fn names(host: &Host) -> Result<()> {
    let mut api = Api::new(host)?;
    let begin = Instant::now();
    for number in 0..NAMES {
        let address = format!("10.200.{}.{}", number / 250, 1 + number % 250);
        api.post("/v1/dns/add", &json!({ "name": format!("n{number}"), "addresses": [address] }))?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    figure(
        &format!("{NAMES} names added by one client in {seconds:.1} s"),
        "names_per_second",
        &(NAMES as f64 / seconds).round().into(),
    );
    Ok(())
}

fn memory(host: &Host, when: &str) -> Result<()> {
    let pid = host.pid().context("meshd does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    let mib = (kib / 102.4).round() / 10.0;
    figure(&format!("meshd {when}: {mib} MiB resident"), "rss_mib", &json!({ when: mib }));
    Ok(())
}
