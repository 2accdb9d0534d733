//! One host: a namespace on the switch, a directory, and a `meshd`.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{sys::signal, unistd::Pid};

use super::{Call, Namespace, OUTSIDE_V4, Output, Programs, WORK_DIR, wait_until};
use crate::api::types::Status;

/// The control port, meshd's default.
pub const CONTROL_PORT: u16 = 7780;
/// How long a clean stop may take.
const STOP: Duration = Duration::from_secs(10);
/// How long the socket may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A host of a lab.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: Namespace,
    addresses: Vec<IpAddr>,
    programs: Programs,
    directory: PathBuf,
    state_dir: PathBuf,
    meshd: Option<Child>,
}

impl Host {
    pub(super) fn new(
        name: String,
        namespace: Namespace,
        addresses: Vec<IpAddr>,
        programs: Programs,
    ) -> Result<Self> {
        let directory = Path::new(WORK_DIR).join(&name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        fs::write(directory.join("resolv.conf"), format!("nameserver {OUTSIDE_V4}\n"))?;
        let state_dir = directory.join("state");
        let host = Self { name, namespace, addresses, programs, directory, state_dir, meshd: None };
        host.lay_cuts()?;
        Ok(host)
    }

    /// Its name: `h1` for the first.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its underlay addresses, IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its first underlay address.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }

    /// The directory with its state, socket, log and configuration.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The state directory of its `meshd`.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Puts the state elsewhere than on the lab's tmpfs: on a disk, where writes take their time.
    /// What is left there is the caller's to remove.
    pub fn set_state_dir(&mut self, directory: PathBuf) {
        self.state_dir = directory;
    }

    /// The socket of its `meshd`.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("meshd.sock")
    }

    /// What its `meshd` said so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("meshd.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The arguments that every `meshd` of this host gets.
    fn own_args(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let resolv_conf = path(self.directory.join("resolv.conf"));
        [
            ("--name", self.name.clone()),
            ("--state-dir", path(self.state_dir.clone())),
            ("--socket", path(self.socket())),
            ("--resolv-conf", resolv_conf),
        ]
        .into_iter()
        .flat_map(|(key, value)| [key.to_owned(), value])
        .collect()
    }

    /// A run of `meshd` that is expected to end by itself, for tests of what it refuses.
    pub fn meshd_call(&self, args: &[&str]) -> Call {
        self.namespace.call(&self.programs.meshd).args(self.own_args()).args(args)
    }

    /// Starts `meshd`. A host with state needs no arguments.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn start(&mut self, args: &[&str]) -> Result<()> {
        if self.is_running() {
            bail!("meshd of {} runs already", self.name);
        }
        let path = self.directory.join("meshd.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let child = self
            .meshd_call(args)
            .into_command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start meshd of {}", self.name))?;
        self.meshd = Some(child);
        Ok(())
    }

    /// Whether its `meshd` runs.
    pub fn is_running(&mut self) -> bool {
        self.meshd.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The process id of its `meshd`, in the lab.
    pub fn pid(&self) -> Option<u32> {
        self.meshd.as_ref().map(Child::id)
    }

    /// Ends `meshd` with SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.end(signal::Signal::SIGKILL).map(drop)
    }

    /// Stops `meshd` where it is (SIGSTOP), or has it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.signal(if frozen { signal::Signal::SIGSTOP } else { signal::Signal::SIGCONT })
    }

    /// Ends `meshd` with SIGTERM, and says how it ended.
    ///
    /// # Errors
    /// When it does not run, or does not end within 10 s.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end(signal::Signal::SIGTERM)
    }

    fn signal(&self, with: signal::Signal) -> Result<()> {
        let name = &self.name;
        let child = self.meshd.as_ref().with_context(|| format!("no meshd runs on {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        signal::kill(pid, with).with_context(|| format!("cannot signal meshd of {name}"))
    }

    fn end(&mut self, with: signal::Signal) -> Result<ExitStatus> {
        self.signal(with)?;
        let child = self.meshd.as_mut().context("it was just signalled")?;
        let (status, _) = wait_until("the end of meshd", STOP, || Ok(child.try_wait()?))?;
        self.meshd = None;
        Ok(status)
    }

    /// A call of `meshctl` on this host.
    pub fn meshctl_call(&self, args: &[&str]) -> Call {
        let socket = self.socket();
        self.namespace
            .call(&self.programs.meshctl)
            .args([Path::new("--socket"), socket.as_path()])
            .args(args)
    }

    /// What `meshctl` said and how it ended.
    ///
    /// # Errors
    /// When it could not be run to its end.
    pub fn meshctl(&self, args: &[&str]) -> Result<Output> {
        self.meshctl_call(args).output()
    }

    /// What `meshctl --json` printed.
    ///
    /// # Errors
    /// When it ended with another code than 0 or printed no JSON.
    pub fn meshctl_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.meshctl_call(args).args(["--json"]).ok()?;
        serde_json::from_str(&text)
            .with_context(|| format!("meshctl {args:?} --json printed no JSON: {text}"))
    }

    /// The host's status, straight from its socket.
    ///
    /// # Errors
    /// When nobody answers there, or with something else.
    pub fn status(&self) -> Result<Status> {
        let body = self.get("/v1/status")?;
        serde_json::from_str(&body).with_context(|| format!("{} answered: {body}", self.name))
    }

    /// The body of an answer of the local API. HTTP/1.0, so that it comes in one piece.
    ///
    /// # Errors
    /// When nobody answers on the socket.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.socket())
            .with_context(|| format!("meshd of {} does not listen", self.name))?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        Ok(body.to_owned())
    }

    /// Waits until attaches can be served; gives the status, and how long that took.
    ///
    /// # Errors
    /// After `deadline`, or as soon as `meshd` has ended, with the last status or its log.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<(Status, Duration)> {
        self.wait_status("ready", deadline, |status| status.ready)
    }

    /// Waits until the status is as one wants it.
    ///
    /// # Errors
    /// As [`Host::wait_ready`].
    pub fn wait_status(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<(Status, Duration)> {
        let what = format!("{} to be {what}", self.name);
        let mut ended = false;
        let result = wait_until(&what, deadline, || {
            if !self.is_running() {
                ended = true;
                return Ok(Some(None));
            }
            let status = self.status()?;
            if wanted(&status) {
                return Ok(Some(Some(status)));
            }
            bail!("status was {}", serde_json::to_string(&status)?)
        });
        match result? {
            (Some(status), took) => Ok((status, took)),
            (None, _) => bail!("meshd of {} has ended; it said:\n{}", self.name, self.log()),
        }
    }

    /// The token with which others join this host's mesh.
    ///
    /// # Errors
    /// When the host is in no mesh.
    pub fn token(&self) -> Result<String> {
        Ok(self.meshctl_call(&["token", "show"]).ok()?.trim().to_owned())
    }

    /// Lays the table in which cuts and loss are kept. They act on what arrives, before anything
    /// else sees it, so that a sender never learns of it.
    fn lay_cuts(&self) -> Result<()> {
        self.nft(
            "table inet lab {
                set cut4 { type ipv4_addr; }
                set cut6 { type ipv6_addr; }
                chain loss { }
                chain arrival {
                    type filter hook prerouting priority -310;
                    iifname eth0 ip saddr @cut4 drop
                    iifname eth0 ip6 saddr @cut6 drop
                    iifname eth0 jump loss
                }
            }",
        )
    }

    pub(super) fn drop_from(&self, verb: &str, addresses: &[IpAddr]) -> Result<()> {
        for address in addresses {
            let set = if address.is_ipv4() { "cut4" } else { "cut6" };
            self.nft(&format!("{verb} element inet lab {set} {{ {address} }}"))?;
        }
        Ok(())
    }

    /// Runs nftables commands on the host.
    ///
    /// # Errors
    /// When nftables refuses.
    pub fn nft(&self, commands: &str) -> Result<()> {
        self.namespace.call("nft").args(["-f", "-"]).input(commands).ok().map(drop)
    }

    /// Loses this many of a thousand packets that arrive, at random; 0 ends it.
    ///
    /// # Errors
    /// When nftables refuses.
    pub fn lose(&self, per_mille: u16) -> Result<()> {
        self.nft("flush chain inet lab loss")?;
        if per_mille > 0 {
            let rule = format!("numgen random mod 1000 < {per_mille} drop");
            self.nft(&format!("add rule inet lab loss {rule}"))?;
        }
        Ok(())
    }

    /// Limits what the host sends, with a queue of 100 ms; `None` ends it.
    ///
    /// # Errors
    /// When the kernel lacks the token bucket filter.
    pub fn limit(&self, kbit_per_second: Option<u32>) -> Result<()> {
        // A bucket of two full frames: less would let none through.
        const BURST: &str = "3200";
        let tc = |args: &[&str]| self.namespace.call("tc").args(args).ok().map(drop);
        match kbit_per_second {
            None => tc(&["qdisc", "delete", "dev", "eth0", "root"]),
            Some(rate) => {
                let rate = format!("{rate}kbit");
                let head = ["qdisc", "replace", "dev", "eth0", "root", "tbf", "rate"];
                tc(&[&head[..], &[&rate, "burst", BURST, "latency", "100ms"]].concat())
            }
        }
    }

    /// The programs that it runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }
}
