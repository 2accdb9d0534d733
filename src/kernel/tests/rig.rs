//! Hosts and containers made of network namespaces, each test in a process of its own.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    process::{Command, Output},
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use mesh_ipam::Holder;
use mesh_router::PeerId;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::mpsc::{Receiver, channel};

use super::super::{Config, Kernel};
use crate::node::{
    desired::{
        BRIDGE_LINK_LOCAL, Bridge, Desired, Mac, Nexthop, RouteTarget, Tunnel, Wiring, bridge_mac,
        vtep_mac,
    },
    event::Input,
};

const INSIDE: &str = "MESHWORK_KERNEL_TEST";
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` in a process with network and mount namespaces of its own, as root of a user
/// namespace when the caller is not root.
pub(super) fn isolated(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let exe = std::env::current_exe().unwrap();
    let name = format!("kernel::tests::{name}");
    let output = command
        .arg(exe)
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("`unshare` of util-linux must be there");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "in its namespace the test failed:\n{text}");
    assert!(text.contains("1 passed"), "no test is called {name}:\n{text}");
    println!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "tests wait in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits until `look` says that all is well, and fails with what it said last.
pub(super) fn eventually(patience: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let end = now() + patience;
    while let Err(seen) = look() {
        assert!(now() < end, "still not after {patience:?}: {seen}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A network namespace; it ends with the value.
pub(super) struct Space(File);

impl Space {
    pub(super) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let space = Self(std::thread::spawn(make).join().unwrap());
        space.sh("ip link set lo up");
        space
    }

    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Does something within it.
    pub(super) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    act()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub(super) fn try_sh(&self, script: &str) -> Output {
        self.within(|| Command::new("sh").args(["-ec", script]).output().unwrap())
    }

    /// Runs a shell script within it, which must succeed, and answers what it wrote.
    pub(super) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {text}{error}");
        text
    }
}

pub(super) fn peer(number: u8) -> PeerId {
    PeerId::new([number; 16])
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// Which family the underlay has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    V4,
    V6,
}

impl Under {
    pub(super) fn address(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => ip(&format!("192.0.2.{host}")),
            Self::V6 => ip(&format!("2001:db8::{host}")),
        }
    }
}

/// A host with its kernel's keeper.
pub(super) struct Host {
    pub(super) number: u8,
    pub(super) space: Space,
    pub(super) kernel: Option<Kernel>,
    pub(super) inputs: Receiver<Input>,
    pub(super) desired: Desired,
}

impl Host {
    pub(super) fn start(&mut self) {
        let (sender, inputs) = channel(1024);
        let config = Config { advertise: Vec::new(), control_port: 7780 };
        self.kernel = Some(self.space.within(|| Kernel::start(config, sender).unwrap()));
        self.inputs = inputs;
    }

    pub(super) fn kernel(&self) -> &Kernel {
        self.kernel.as_ref().unwrap()
    }

    pub(super) fn wait<T>(&mut self, mut pick: impl FnMut(&Input) -> Option<T>) -> T {
        let end = now() + PATIENCE;
        loop {
            match self.inputs.try_recv() {
                Ok(input) => {
                    if let Some(found) = pick(&input) {
                        return found;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(now() < end, "no such input; problems: {:?}", self.kernel().problems());
        }
    }

    pub(super) fn program(&mut self) {
        self.kernel().program(Some(Box::new(self.desired.clone())));
        self.wait(|input| matches!(input, Input::Programmed).then_some(()));
    }

    /// The wiring of this host's container of that number.
    pub(super) fn wiring(&self, container: &Space, number: u8) -> Wiring {
        let host = self.number;
        Wiring {
            host_name: format!("mwtest{number}"),
            netns: container.path(),
            interface: "eth0".to_owned(),
            mac: Mac([2, 0, 0, 0, host, number]),
            addresses: vec![
                net(&format!("10.32.{host}.{number}/12")),
                net(&format!("fd32::{host}:{number}/128")),
            ],
            gateways: vec![ip(&format!("10.32.{host}.1")), BRIDGE_LINK_LOCAL.into()],
            routes: Vec::new(),
            mtu_bytes: 0,
            hairpin: true,
            netns_identity: None,
        }
    }

    /// Wires a new container and makes it part of the desired state.
    pub(super) fn container(&mut self, number: u8) -> Space {
        let container = Space::new();
        let mut wiring = self.wiring(&container, number);
        wiring.netns_identity = Some(self.wire(wiring.clone()).unwrap());
        self.desired.ports.insert(wiring.host_name.clone(), wiring);
        self.program();
        container
    }

    pub(super) fn wire(&mut self, wiring: Wiring) -> Result<(u64, u64), String> {
        self.kernel().wire(holder(&wiring.host_name), wiring);
        self.wait(|input| match input {
            Input::Wired { netns_identity, .. } => Some(Ok(*netns_identity)),
            Input::WireFailed { refusal, .. } => Some(Err(refusal.to_string())),
            _ => None,
        })
    }

    pub(super) fn unwire(&mut self, name: &str) {
        self.kernel().unwire(holder(name), name.to_owned());
        self.wait(|input| matches!(input, Input::Unwired { .. }).then_some(()));
    }

    /// Sends packets for peer `to` to the tunnel end of peer `via`.
    pub(super) fn route_via(&mut self, to: u8, via: u8, under: Under) {
        let nexthop = Nexthop {
            id: 100 + u32::from(to),
            via: peer(via),
            endpoint: under.address(via),
            mac: vtep_mac(peer(via)),
            certain: true,
        };
        self.desired.nexthops.insert(peer(to), nexthop);
    }
}

pub(super) fn holder(container: &str) -> Holder {
    Holder { container: container.to_owned(), interface: "eth0".to_owned() }
}

/// Hosts 1 to `count` on one underlay, each with the blocks `10.32.N.0/24` and `fd32::N:0/112`,
/// their keepers started and programmed.
pub(super) fn mesh(count: u8, under: Under) -> Vec<Host> {
    let wire = Space::new();
    wire.sh("ip link add br0 type bridge && ip link set br0 up");
    let mut hosts: Vec<_> = (1..=count).map(|number| host(number, count, under)).collect();
    for host in &mut hosts {
        let (n, path) = (host.number, host.space.path());
        wire.sh(&format!(
            "ip link add p{n} type veth peer name up0 netns {path}
             ip link set p{n} master br0 up"
        ));
        host.space.sh(&format!(
            "ip addr add {}/{} dev up0 && ip link set up0 up",
            under.address(n),
            if under == Under::V4 { "24" } else { "64 nodad" },
        ));
        host.start();
        host.program();
    }
    // The wire lives as long as a thread is in it.
    std::mem::forget(wire);
    hosts
}

fn host(number: u8, count: u8, under: Under) -> Host {
    let me = peer(number);
    let mut routes = BTreeMap::new();
    for other in 1..=count {
        let target =
            if other == number { RouteTarget::Local } else { RouteTarget::Peer(peer(other)) };
        routes.insert(net(&format!("10.32.{other}.0/24")), target);
        routes.insert(net(&format!("fd32::{other}:0/112")), target);
    }
    let desired = Desired {
        bridge: Bridge {
            name: "mesh0".to_owned(),
            mac: bridge_mac(me),
            gateways: vec![ip(&format!("10.32.{number}.1")), ip(&format!("fd32::{number}:1"))],
        },
        tunnel: Tunnel {
            name: "mesh-vx".to_owned(),
            vni: 77,
            port: 7781,
            mac: vtep_mac(me),
            mtu_bytes: 1430,
        },
        nexthops: BTreeMap::new(),
        routes,
        ports: BTreeMap::new(),
        ranges: vec![net("10.32.0.0/12"), net("fd32::/48")],
        unmasqueraded: Vec::new(),
    };
    let (_, inputs) = channel(1);
    let mut host = Host { number, space: Space::new(), kernel: None, inputs, desired };
    for other in (1..=count).filter(|other| *other != number) {
        host.route_via(other, other, under);
    }
    host
}
