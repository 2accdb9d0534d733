//! A network namespace with a name.

use std::{fs::File, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::Call;

/// Where iproute2 binds namespaces to names.
const NAMES: &str = "/run/netns";

/// A network namespace, bound to `/run/netns/NAME`.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with its loopback up and duplicate address detection off (the lab's addresses
    /// are unique, and two seconds per address would hide what is measured).
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn add(name: &str) -> Result<Self> {
        Call::new("ip").args(["netns", "add", name]).ok()?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip(&["link", "set", "lo", "up"])?;
        for which in ["all", "default"] {
            namespace.set_sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NAMES).join(&self.name)
    }

    /// A call of a program that will run in it.
    pub fn call(&self, program: impl AsRef<std::ffi::OsStr>) -> Call {
        let net = format!("--net={}", self.path().display());
        Call::new("nsenter").args([net]).args([program])
    }

    /// Runs `ip` on it.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        Call::new("ip").args(["-n", &self.name]).args(args).ok().map(drop)
    }

    /// Runs `ip -j` on it and parses the answer. Not for routes and nexthops with an encapsulation:
    /// iproute2 prints keys of both levels twice, and the last one wins.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = Call::new("ip").args(["-j", "-n", &self.name]).args(args).ok()?;
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text).with_context(|| format!("ip -j {args:?} printed no JSON"))
    }

    /// Sets a kernel parameter below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.inside(|| std::fs::write(&path, value))?
            .with_context(|| format!("cannot write {value:?} to {path} of {}", self.name))
    }

    /// Runs a closure on a thread that is in the namespace: sockets made there are there for good.
    ///
    /// # Errors
    /// When the thread cannot enter.
    ///
    /// # Panics
    /// When the closure does.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || -> Result<T> {
                let file = File::open(&path)
                    .with_context(|| format!("no namespace at {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
                Ok(body())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Pings once, and says whether the answer came within `patience`.
    ///
    /// # Errors
    /// When `ping` cannot be run at all.
    pub fn ping(&self, address: std::net::IpAddr, patience: Duration) -> Result<bool> {
        let seconds = format!("{:.1}", patience.as_secs_f64());
        let output = self
            .call("ping")
            .args(["-n", "-q", "-c", "1", "-W", &seconds, &address.to_string()])
            .output()?;
        Ok(output.success())
    }

    /// Removes it. Whatever still runs in it keeps it alive without a name.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn remove(self) -> Result<()> {
        Call::new("ip").args(["netns", "delete", &self.name]).ok().map(drop)
    }
}
