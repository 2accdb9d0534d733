//! What a run is made of: sizes, times, and how often what goes wrong.

use std::time::Duration;

use anyhow::{Context, bail};
use ipnetwork::IpNetwork;
use mesh_router::Mutation;
use serde::{Deserialize, Serialize};

/// How a run goes. Chances are per mille, times in milliseconds unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// For reports.
    pub name: String,
    /// How long things go wrong.
    pub trouble_seconds: u64,
    /// How long after that everything must be well.
    pub heal_seconds: u64,
    /// One of these is the mesh's IPv4 range.
    pub ranges: Vec<IpNetwork>,
    /// Operations per host and minute.
    pub operations_per_minute: u32,
    /// The longest one-way delay of a link; each link draws its own.
    pub delay_max: u64,
    /// Frames that need to be sent again, on the worst link.
    pub loss: u32,
    /// Urgent frames and dials that arrive twice.
    pub duplicate: u32,
    /// Links that are narrow.
    pub narrow: u32,
    /// Partitions in a run, at most.
    pub partitions: u64,
    /// Crashes in a run, at most.
    pub crashes: u64,
    /// Disk faults in a run, at most.
    pub disk_faults: u64,
    /// Links that die in a run, at most.
    pub link_deaths: u64,
    /// The longest that a disk takes for a batch, most of the time.
    pub disk_max: u64,
    /// The longest that an operation of the kernel takes.
    pub kernel_max: u64,
    /// Operations that are claims of one address, instead of attaches.
    pub claims: u32,
    /// Containers that cannot be wired.
    pub wire_failures: u32,
    /// Runs in which a host leaves.
    pub leave: u32,
    /// Runs in which a host is destroyed and another takes its place.
    pub recycle: u32,
    /// Runs in which a host loses its disk.
    pub wipe: u32,
    /// Runs in which a host stays down.
    pub stays_down: u32,
    /// Pairs of hosts whose connection flaps, in a run, at most.
    pub flaps: u64,
    /// Hosts that are suspended, or whose clock leaps, in a run, at most.
    pub suspensions: u64,
    /// By how much clocks run too fast or too slow, at most.
    pub drift: u32,
    /// Deltas that are lost on a link that lives: see `BEYOND`.
    pub delta_loss: u32,
    /// Deltas are cut anywhere: needs the feature `mutations`.
    pub cut_deltas: bool,
    /// Runs in which a host gets back an old image of its disk.
    pub restore: u32,
    /// Runs in which a host is a clone of another.
    pub clone: u32,
    /// Runs in which two sides that are cut off remove the other, or the same host, by force.
    pub force: u32,
    /// Runs in which a host is switched off and removed.
    pub remove: u32,
    /// Runs in which a host is asked to remove another that runs: without a lease it would go on
    /// giving addresses.
    pub oust: u32,
    /// Runs in which ranges are added; then containers ask for addresses of parts of ranges, too.
    pub range_add: u32,
    /// Up to so many hosts found the mesh together; 0: the first does it alone.
    pub founders: u16,
    /// Who is away for so long is removed; 0: nobody is by a timer. With it partitions last longer
    /// and no clock stands still: a lease needs clocks that run.
    pub lease_seconds: u32,
    /// Of hosts that are recycled one after the other those that leave before.
    pub orderly: u32,
    /// Hosts that are recycled in a run, one after the other, whatever `recycle` says.
    pub recycles: u64,
    /// How many others each host can reach directly, about; 0: all. The rest it reaches through
    /// them.
    pub reaches: u32,
    /// The rule that is broken, in a build with the feature `mutations`.
    #[serde(skip)]
    pub mutation: Option<Mutation>,
}

impl Default for Scenario {
    fn default() -> Self {
        let ranges = ["10.32.0.0/12", "10.32.0.0/24", "10.32.0.0/24", "10.32.0.0/26"];
        Self {
            name: "default".to_owned(),
            trouble_seconds: 12,
            heal_seconds: 60,
            ranges: ranges.iter().map(|range| range.parse().expect("a constant")).collect(),
            operations_per_minute: 180,
            delay_max: 60,
            loss: 100,
            duplicate: 50,
            narrow: 100,
            partitions: 3,
            crashes: 4,
            disk_faults: 1,
            link_deaths: 4,
            disk_max: 4,
            kernel_max: 15,
            claims: 50,
            wire_failures: 20,
            leave: 150,
            recycle: 150,
            wipe: 100,
            stays_down: 100,
            flaps: 1,
            suspensions: 1,
            drift: 30,
            delta_loss: 0,
            cut_deltas: false,
            restore: 0,
            clone: 0,
            force: 0,
            remove: 0,
            oust: 0,
            range_add: 0,
            founders: 0,
            lease_seconds: 0,
            orderly: 1000,
            recycles: 0,
            reaches: 0,
            mutation: None,
        }
    }
}

impl Scenario {
    /// The lease of the mesh.
    pub(crate) fn lease(&self) -> Option<Duration> {
        let seconds = u64::from(self.lease_seconds);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// A scenario by name, or from a JSON file that says what differs from the default.
    ///
    /// # Errors
    /// When it is neither.
    pub fn load(what: &str) -> anyhow::Result<Self> {
        if let Some(named) = Self::named(what) {
            return Ok(named);
        }
        let text = std::fs::read_to_string(what).with_context(|| {
            format!("{what} is no file and none of {}", crate::named::NAMES.join(", "))
        })?;
        let scenario: Self =
            serde_json::from_str(&text).with_context(|| format!("{what} is no scenario"))?;
        if scenario.ranges.is_empty() || scenario.ranges.iter().any(|range| !range.is_ipv4()) {
            bail!("{what}: `ranges` must name IPv4 ranges");
        }
        Ok(scenario)
    }
}
