//! Hosts made of network namespaces, for `meshctl demo` and for the tests in `tests/`.
//!
//! ```text
//!   outside 198.51.100.1 ─┐
//!   h1 192.0.2.1 ─────────┤ bridge "switch" in the lab's own root namespace
//!   h2 192.0.2.2 ─────────┤   (IPv6: 2001:db8::N, outside 2001:db8:ffff::1)
//!   h3 192.0.2.3 ─────────┘
//! ```
//!
//! A lab never touches the machine's own network: [`enter()`] runs the current program again as the
//! first process of fresh namespaces, with its own `/run`. When that process ends, however it ends,
//! the kernel removes every process, namespace, device, mount and file of the lab. So nothing here
//! cleans up on the way out, and nothing needs to.
//!
//! Hosts run the real programs, and are asked with the kernel's own tools. What a lab does not do:
//! model delay (this needs `netem`, which many kernels lack) or hide the machine's file system.
#![allow(clippy::disallowed_methods, reason = "a lab watches real programs in real time")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub mod call;
pub mod container;
pub mod enter;
pub mod host;
pub mod mesh;
pub mod name_query;
pub mod namespace;
pub mod needs;
pub mod pinger;
pub mod programs;
pub mod testing;

pub use call::{Call, Output};
pub use container::Container;
pub use enter::{Entered, enter};
pub use host::Host;
pub use name_query::{Answer, NameQuery};
pub use namespace::Namespace;
pub use pinger::{Pinged, Pinger};
pub use programs::Programs;

/// Where a lab keeps its files: on a tmpfs of its own.
pub const WORK_DIR: &str = "/run/meshwork-lab";
/// The address beyond the hosts' default gateway: a stand-in for the internet.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same over IPv6.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// How many hosts a lab may have: the addresses of one /24 less gateway and broadcast.
pub const HOSTS_MAX: u8 = 253;

const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
const SWITCH: &str = "switch";
/// Chosen: far from any wait that a person would accept, near enough to see progress.
const POLL: Duration = Duration::from_millis(10);

/// Which address families hosts have on their underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underlay {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// A switch with hosts on it and an outside behind them.
#[derive(Debug)]
pub struct Lab {
    underlay: Underlay,
    programs: Programs,
    outside: Namespace,
    hosts: u8,
}

impl Lab {
    /// Lays the switch and the outside.
    ///
    /// # Errors
    /// When the program is not in a lab (see [`enter()`]), or the kernel lacks bridges or veth
    /// pairs.
    pub fn new(underlay: Underlay, programs: Programs) -> Result<Self> {
        if !enter::is_inside() {
            bail!("a lab was begun outside of its namespaces; call lab::enter first");
        }
        std::fs::create_dir_all(WORK_DIR).context("cannot make the lab's work directory")?;
        Call::new("ip").args(["link", "set", "lo", "up"]).ok()?;
        Call::new("ip")
            .args(["link", "add", SWITCH, "type", "bridge", "stp_state", "0"])
            .args(["mcast_snooping", "0"])
            .ok()
            .context("the kernel makes no bridge: try `modprobe bridge veth vxlan` as root")?;
        Call::new("ip").args(["link", "set", SWITCH, "up"]).ok()?;
        let outside = Namespace::add("outside")?;
        let lab = Self { underlay, programs, outside, hosts: 0 };
        lab.plug(&lab.outside, "sw-outside", GATEWAY_V4, GATEWAY_V6)?;
        let (v4, v6) = (format!("{OUTSIDE_V4}/32"), format!("{OUTSIDE_V6}/128"));
        lab.outside.ip(&["addr", "add", &v4, "dev", "lo"])?;
        lab.outside.ip(&["addr", "add", &v6, "dev", "lo"])?;
        Ok(lab)
    }

    /// Adds the next host: `h1`, `h2`, and so on. Its `meshd` is not started yet.
    ///
    /// # Errors
    /// When there are [`HOSTS_MAX`] already, or the kernel refuses.
    pub fn host(&mut self) -> Result<Host> {
        if self.hosts == HOSTS_MAX {
            bail!("a lab has at most {HOSTS_MAX} hosts");
        }
        self.hosts += 1;
        let number = self.hosts;
        let name = format!("h{number}");
        let namespace = Namespace::add(&name)?;
        let v4 = Ipv4Addr::new(192, 0, 2, number);
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number));
        self.plug(&namespace, &format!("sw-{name}"), v4, v6)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        if self.underlay != Underlay::V6 {
            let gateway = GATEWAY_V4.to_string();
            namespace.ip(&["route", "add", "default", "via", &gateway])?;
            addresses.push(v4.into());
        }
        if self.underlay != Underlay::V4 {
            let gateway = GATEWAY_V6.to_string();
            namespace.ip(&["-6", "route", "add", "default", "via", &gateway])?;
            addresses.push(v6.into());
        }
        Host::new(name, namespace, addresses, self.programs.clone())
    }

    /// Adds several hosts.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn hosts(&mut self, count: u8) -> Result<Vec<Host>> {
        (0..count).map(|_| self.host()).collect()
    }

    /// The namespace that stands in for the internet.
    pub fn outside(&self) -> &Namespace {
        &self.outside
    }

    /// The programs that hosts run.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Pulls a host's cable out of the switch.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        let port = format!("sw-{}", host.name());
        Call::new("ip").args(["link", "set", &port, "down"]).ok().map(drop)
    }

    /// Puts it back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replug(&self, host: &Host) -> Result<()> {
        let port = format!("sw-{}", host.name());
        Call::new("ip").args(["link", "set", &port, "up"]).ok().map(drop)
    }

    /// Links a namespace with the switch and gives its end the addresses.
    fn plug(&self, to: &Namespace, port: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        Call::new("ip")
            .args(["link", "add", port, "type", "veth", "peer", "name", "eth0"])
            .args(["netns", to.name()])
            .ok()?;
        Call::new("ip").args(["link", "set", port, "master", SWITCH, "up"]).ok()?;
        if self.underlay != Underlay::V6 {
            to.ip(&["addr", "add", &format!("{v4}/24"), "dev", "eth0"])?;
        }
        if self.underlay != Underlay::V4 {
            to.ip(&["addr", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"])?;
        }
        to.ip(&["link", "set", "eth0", "up"])
    }
}

/// Drops every packet between two hosts, silently, in both directions.
///
/// # Errors
/// When nftables refuses.
pub fn cut(a: &Host, b: &Host) -> Result<()> {
    cut_one_way(a, b)?;
    cut_one_way(b, a)
}

/// Drops every packet that `to` gets from `from`.
///
/// # Errors
/// When nftables refuses.
pub fn cut_one_way(from: &Host, to: &Host) -> Result<()> {
    to.drop_from("add", from.addresses())
}

/// Ends a cut between two hosts.
///
/// # Errors
/// When nftables refuses, or there was no cut.
pub fn heal(a: &Host, b: &Host) -> Result<()> {
    a.drop_from("delete", b.addresses())?;
    b.drop_from("delete", a.addresses())
}

/// Asks until there is an answer, and then says how long that took.
///
/// `ask` gives `Ok(Some(answer))`, or else says what it saw (`Ok(None)`: nothing worth a word).
///
/// # Errors
/// After `deadline`, naming `what` was waited for and what was seen last.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let begin = Instant::now();
    loop {
        let seen = match ask() {
            Ok(Some(answer)) => return Ok((answer, begin.elapsed())),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if begin.elapsed() >= deadline {
            let error = seen.unwrap_or_else(|| anyhow::anyhow!("it did not come to pass"));
            return Err(error.context(format!("waited {deadline:?} for: {what}")));
        }
        std::thread::sleep(POLL);
    }
}

/// The last lines of each `meshd`'s log, for a failure's report.
pub fn log_tails(lines: usize) -> String {
    let mut text = String::new();
    let mut logs: Vec<PathBuf> = std::fs::read_dir(WORK_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("meshd.log"))
        .filter(|path| path.exists())
        .collect();
    logs.sort();
    for path in logs {
        text.push_str(&format!("--- end of {}\n{}\n", path.display(), tail(&path, lines)));
    }
    text
}

fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
