//! One host: a node, and what it is driven by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use mesh_dns::{Name, Table};
use mesh_router::{PeerId, Time};
use meshwork::node::{
    Node, NodeConfig,
    event::{Credentials, Disk as DiskIs, LinkId, RequestId, Underlay},
    request::Request,
};

use crate::{
    check::{Seen, leases::Fenced, outdated::SetBack},
    dice::Dice,
    disk::Disk,
    kernel::Kernel,
    queue::Micros,
    world::What,
};

/// The mesh's domain in every run.
pub(crate) const DOMAIN: &str = "mesh.internal";

/// The unit of drift.
const MILLION: i128 = 1_000_000;

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The run's last question: with space left it must succeed.
    pub(crate) probe: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) id: PeerId,
    pub(crate) endpoint: SocketAddr,
    /// How often it was started; what is on its way to an earlier start is void.
    pub(crate) boot: u32,
    pub(crate) incarnation: u64,
    /// It was never started.
    new_key: bool,
    pub(crate) running: bool,
    /// It is switched off until somebody switches it on.
    pub(crate) off: bool,
    /// Once it has left, another machine takes its place.
    pub(crate) replaced: bool,
    /// The mesh has removed it.
    pub(crate) removed: bool,
    /// It will not be started again.
    pub(crate) stays_down: bool,
    /// Its clock's lead over the world's.
    lead: i64,
    /// By how much its clock runs faster than the world's, in millionths.
    pub(crate) drift: i64,
    /// It sees nothing: since when, and what it will see once it goes on.
    pub(crate) suspended: Option<(Micros, Vec<What>)>,
    /// What its disk once held.
    pub(crate) image: Option<Disk>,
    /// Its disk was set back or lost, and it does not serve yet.
    pub(crate) set_back: Option<SetBack>,
    /// Others were, or are to be, removed by force: its containers' addresses may be others'.
    pub(crate) dispossessed: bool,
    /// What it held when its blocks were taken from it, or its disk was set back: that may be
    /// others'.
    pub(crate) taken: BTreeSet<IpAddr>,
    /// How it was when it was removed.
    pub(crate) fenced: Option<Fenced>,
    /// The lease of a mesh that it founds.
    lease: Option<Duration>,
    /// Its disk is not for sure as its last run left it: set back, or the machine was restarted.
    pub(crate) doubtful_disk: bool,
    /// While it is down: what it would start as.
    pub(crate) node: Node,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) disk: Disk,
    pub(crate) kernel: Kernel,
    pub(crate) table: Table,
    /// Connection and side of each link.
    pub(crate) links: BTreeMap<LinkId, (usize, usize)>,
    last_link: u64,
    pub(crate) wake_at: Option<Micros>,
    pub(crate) wake_token: u64,
    /// Wake-ups in a row in which the time did not move.
    pub(crate) spins: u32,
    pub(crate) pending: BTreeMap<RequestId, Asked>,
    /// It crashes at the next input that has outputs, after so many of them.
    pub(crate) armed: Option<u64>,
    pub(crate) seen: Seen,
}

impl Host {
    pub(crate) fn new(
        index: usize,
        lease: Option<Duration>,
        dice: &mut Dice,
    ) -> Result<Self, String> {
        let number = u16::try_from(index + 1).map_err(|_| "too many hosts".to_owned())?;
        let [high, low] = number.to_be_bytes();
        let id = PeerId::new(dice.bytes());
        let mut host = Self {
            index,
            id,
            endpoint: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, high, low)), 7780),
            boot: 0,
            incarnation: 0,
            new_key: true,
            running: false,
            off: false,
            replaced: false,
            removed: false,
            stays_down: false,
            lead: 0,
            drift: 0,
            suspended: None,
            image: None,
            set_back: None,
            dispossessed: false,
            taken: BTreeSet::new(),
            fenced: None,
            lease,
            doubtful_disk: false,
            node: Node::restore(config(index, id, (0, 0)), Vec::new(), Time::ZERO)?,
            credentials: None,
            disk: Disk::new(id),
            kernel: Kernel::default(),
            table: Table::new(domain()),
            links: BTreeMap::new(),
            last_link: 0,
            wake_at: None,
            wake_token: 0,
            spins: 0,
            pending: BTreeMap::new(),
            armed: None,
            seen: Seen::default(),
        };
        host.start(0, dice)?;
        Ok(host)
    }

    /// Starts the node with what the disk holds.
    pub(crate) fn start(&mut self, now: Micros, dice: &mut Dice) -> Result<(), String> {
        self.boot += 1;
        self.seen.forget();
        self.incarnation = dice.number();
        self.lead = i64::try_from(dice.below(1 << 40)).unwrap_or(0);
        self.running = true;
        self.table = Table::new(domain());
        let drawn = (self.incarnation, dice.number());
        let mut config = config(self.index, self.id, drawn);
        config.disk = match (std::mem::take(&mut self.new_key), self.doubtful_disk) {
            (true, _) => DiskIs::New,
            (false, true) => DiskIs::MayBeOld,
            (false, false) => DiskIs::Same,
        };
        config.lease = self.lease;
        self.node = Node::restore(config, self.disk.rows(), self.clock(now))?;
        Ok(())
    }

    /// The node is gone: in its place stands what it would start as.
    pub(crate) fn stop(&mut self, now: Micros) -> Result<(), String> {
        self.running = false;
        self.seen.forget();
        self.armed = None;
        self.credentials = None;
        self.links.clear();
        self.wake_at = None;
        self.wake_token += 1;
        self.kernel.crash();
        let mut ghost = config(self.index, self.id, (0, 0));
        // Unless it is to ask its peers first, because its disk may be an old one or says so
        // itself, it counts with what it would serve from.
        if self.off || self.doubtful_disk {
            ghost.disk = DiskIs::MayBeOld;
        }
        self.node = Node::restore(ghost, self.disk.rows(), self.clock(now))?;
        Ok(())
    }

    /// The world's time on this host's clock.
    pub(crate) fn clock(&self, now: Micros) -> Time {
        let ticks = match self.drift {
            0 => i128::from(now),
            drift => i128::from(now) * (MILLION + i128::from(drift)) / MILLION,
        };
        Time::from_micros(u64::try_from(ticks + i128::from(self.lead)).unwrap_or(0))
    }

    /// Moves its clock, forwards only as the node sees it.
    pub(crate) fn shift_clock(&mut self, micros: i64) {
        self.lead += micros;
    }

    /// A time of this host's clock on the world's.
    pub(crate) fn world_time(&self, time: Time) -> Micros {
        let ticks = i128::from(time.as_micros()) - i128::from(self.lead);
        let rate = MILLION + i128::from(self.drift);
        let ticks = match rate {
            MILLION => ticks.max(0),
            rate => (ticks.max(0) * MILLION + rate - 1) / rate,
        };
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    pub(crate) fn next_link(&mut self) -> LinkId {
        self.last_link += 1;
        LinkId(self.last_link)
    }

    pub(crate) fn underlay(&self) -> Underlay {
        Underlay { endpoints: vec![self.endpoint], mtu_bytes: 1500, routes: Vec::new() }
    }

    /// It takes part: it runs and is a member.
    pub(crate) fn is_member(&self) -> bool {
        self.running && self.credentials.is_some()
    }
}

pub(crate) fn domain() -> Name {
    Name::parse(DOMAIN).expect("a constant that is a name")
}

fn config(index: usize, me: PeerId, (incarnation, seed): (u64, u64)) -> NodeConfig {
    NodeConfig {
        me,
        name: format!("h{index}"),
        incarnation,
        seed,
        domain: domain(),
        bridge: "mesh0".to_owned(),
        data_port: 7781,
        mtu_bytes: None,
        lease: None,
        serve_alone: false,
        rest: std::time::Duration::from_secs(60),
        version: "simulated".to_owned(),
        disk: DiskIs::Same,
    }
}
