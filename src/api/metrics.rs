//! Prometheus's text: requests as they were counted, the rest from one status.

use std::time::Duration;

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::types::Status;

/// The media type of [`Metrics::text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    path: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OnPath {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Conflict {
    conflict: String,
}

/// What is counted while serving.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Served, Counter>,
    latency: Family<OnPath, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("meshwork");
        let requests = Family::<Served, Counter>::default();
        // 0.1 ms to 6.5 s.
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(1e-4, 4.0, 9));
        let latency = Family::<OnPath, Histogram, _>::new_with_constructor(buckets);
        registry.register("api_requests", "Requests of the local API", requests.clone());
        registry.register(
            "api_request_duration_seconds",
            "Time from a request of the local API to its answer",
            latency.clone(),
        );
        Self { registry, requests, latency }
    }

    /// Counts one request.
    pub(super) fn served(&self, path: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Served { path, status }).inc();
        self.latency.get_or_create(&OnPath { path }).observe(took.as_secs_f64());
    }

    /// The text, with what a status says if there is one.
    pub(super) fn text(&self, status: Option<&Status>) -> String {
        let mut text = String::new();
        let snapshot = snapshot(status);
        let written = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &snapshot))
            .and_then(|()| encode_eof(&mut text));
        if written.is_err() {
            tracing::error!("metrics cannot be written as text");
        }
        text
    }
}

fn snapshot(status: Option<&Status>) -> Registry {
    let mut registry = Registry::with_prefix("meshwork");
    let ready = status.is_some_and(|status| status.ready);
    registry.register("ready", "Whether attaches can be served", ConstGauge::new(i64::from(ready)));
    let Some(status) = status else { return registry };
    let (ipam, peers) = (&status.ipam, &status.peers);
    let established = status.connections.iter().filter(|link| link.state == "established").count();
    let counts = |alive, suspect, unreachable| {
        [("alive", alive), ("suspect", suspect), ("unreachable", unreachable)]
    };
    let by_state = Family::<State, Gauge<i64>>::default();
    for (state, count) in counts(peers.alive, peers.suspect, peers.unreachable) {
        by_state.get_or_create(&State { state: state.to_owned() }).set(signed(count));
    }
    registry.register("peers", "Hosts of the mesh, this one included, by state", by_state);
    let by_state = Family::<State, Gauge<i64>>::default();
    for path in &status.paths {
        by_state.get_or_create(&State { state: path.state.clone() }).inc();
    }
    registry.register("paths", "Ways of containers' packets to peers, by state", by_state);
    let gauges: [(&str, &str, i64); 8] = [
        ("connections", "Established control links", signed(established)),
        ("ipam_blocks", "Blocks that this host owns", signed(ipam.blocks)),
        ("ipam_addresses_owned", "IPv4 addresses that this host owns", wide(ipam.owned)),
        ("ipam_addresses_allocated", "Addresses held on this host", signed(ipam.allocated)),
        ("ipam_ring_entries", "Entries of the ring", signed(ipam.ring_entries)),
        ("ipam_conflicts", "Addresses given away twice", signed(ipam.conflicts.len())),
        ("dns_records", "Records of the mesh", signed(status.dns.records)),
        ("targets", "Targets that are dialled", signed(status.targets.len())),
    ];
    for (name, help, value) in gauges {
        registry.register(name, help, ConstGauge::new(value));
    }
    let conflicts = Family::<Conflict, Gauge<i64>>::default();
    for conflict in &ipam.conflicts {
        conflicts.get_or_create(&Conflict { conflict: conflict.clone() }).set(1);
    }
    registry.register("ipam_conflict", "1 for each, which says both holders", conflicts);
    registry.register(
        "kernel_repairs_remembered",
        "Repairs of the kernel's state that status still lists",
        ConstGauge::new(signed(status.repairs.len())),
    );
    registry
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn wide(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
