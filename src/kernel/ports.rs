//! Wiring and unwiring on threads of their own.
//!
//! Orders about one port are carried out one after the other; orders about different ports do not
//! wait for each other. Removing a veth waits for the kernel's grace periods (tens of
//! milliseconds), so removals have their own thread, which takes all that wait at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_ipam::Holder;
use tokio::sync::mpsc;

use super::{
    container::{self, Site},
    link,
    netlink::Netlink,
    plan::Transit,
};
use crate::node::{
    desired::{Desired, Wiring},
    event::Input,
    request::{Code, Refusal},
};

/// Chosen: the kernel does most of it under one lock, so more threads would only wait for it.
const WIRE_THREADS: usize = 2;
/// How long a wiring waits for the bridge: just after a start it is being made.
const BRIDGE_PATIENCE: Duration = Duration::from_secs(5);

/// An order about one port.
#[derive(Debug)]
enum Job {
    Wire(Holder, Box<Wiring>),
    Unwire(Holder, String),
}

impl Job {
    fn port(&self) -> &str {
        match self {
            Self::Wire(_, wiring) => &wiring.host_name,
            Self::Unwire(_, name) => name,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that may be begun.
    wires: VecDeque<Job>,
    unwires: VecDeque<Job>,
    /// Ports that are being worked on, with the jobs that wait for that.
    busy: BTreeMap<String, VecDeque<Job>>,
    /// Wired, and the desired state does not say so yet.
    wired: BTreeSet<String>,
    /// Unwired, and the desired state does not say so yet.
    gone: BTreeSet<String>,
    /// The host, once the bridge stands.
    site: Option<Site>,
    stopped: bool,
}

impl State {
    fn begin(&mut self, job: Job) {
        match job {
            Job::Wire(..) => self.wires.push_back(job),
            Job::Unwire(..) => self.unwires.push_back(job),
        }
    }

    /// Ends the work on a port and begins the next job for it.
    fn end(&mut self, port: &str) {
        let Some(mut waiting) = self.busy.remove(port) else { return };
        if let Some(next) = waiting.pop_front() {
            self.busy.insert(port.to_owned(), waiting);
            self.begin(next);
        }
    }
}

/// The ports that are being wired and unwired.
#[derive(Debug, Default)]
pub(super) struct Ports {
    state: Mutex<State>,
    changed: Condvar,
}

impl Ports {
    /// Starts the threads, in the network namespace of the caller.
    pub(super) fn start(self: &Arc<Self>, inputs: &mpsc::Sender<Input>) -> io::Result<()> {
        for _ in 0..WIRE_THREADS {
            let netlink = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE)?;
            let (ports, inputs) = (Arc::clone(self), inputs.clone());
            let thread = std::thread::Builder::new().name("mesh-wire".to_owned());
            thread.spawn(move || ports.run_wires(netlink, &inputs))?;
        }
        let netlink = Netlink::open(netlink_sys::protocols::NETLINK_ROUTE)?;
        let (ports, inputs) = (Arc::clone(self), inputs.clone());
        let thread = std::thread::Builder::new().name("mesh-unwire".to_owned());
        thread.spawn(move || ports.run_unwires(netlink, &inputs))?;
        Ok(())
    }

    /// Ends the threads after what they are doing.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn wire(&self, holder: Holder, wiring: Wiring) {
        self.submit(Job::Wire(holder, Box::new(wiring)));
    }

    pub(super) fn unwire(&self, holder: Holder, host_name: String) {
        self.submit(Job::Unwire(holder, host_name));
    }

    fn submit(&self, job: Job) {
        let mut state = self.lock();
        if let Some(waiting) = state.busy.get_mut(job.port()) {
            waiting.push_back(job);
        } else {
            state.busy.insert(job.port().to_owned(), VecDeque::new());
            state.begin(job);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Says how the host stands; `None` while it has no bridge.
    pub(super) fn set_site(&self, site: Option<Site>) {
        self.lock().site = site;
        self.changed.notify_all();
    }

    /// A newer desired state has come: what it says about ports is true again.
    pub(super) fn settle(&self, desired: &Desired) {
        let mut state = self.lock();
        state.wired.retain(|port| !desired.ports.contains_key(port));
        state.gone.retain(|port| desired.ports.contains_key(port));
    }

    /// The ports that the newest desired state may be wrong about.
    pub(super) fn transit(&self) -> Transit {
        let state = self.lock();
        let hands_off = state.busy.keys().chain(&state.gone).cloned().collect();
        Transit { hands_off, wired: state.wired.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_wires(&self, mut netlink: Netlink, inputs: &mpsc::Sender<Input>) {
        while let Some((holder, wiring)) = self.next_wire() {
            let result = self.site().and_then(|site| container::wire(&mut netlink, &wiring, &site));
            let mut state = self.lock();
            if result.is_ok() {
                state.gone.remove(&wiring.host_name);
                state.wired.insert(wiring.host_name.clone());
            }
            state.end(&wiring.host_name);
            drop(state);
            self.changed.notify_all();
            let input = match result {
                Ok(netns_identity) => Input::Wired { holder, netns_identity },
                Err(refusal) => Input::WireFailed { holder, refusal },
            };
            if inputs.blocking_send(input).is_err() {
                return;
            }
        }
    }

    fn next_wire(&self) -> Option<(Holder, Box<Wiring>)> {
        let mut state = self.lock();
        loop {
            match state.wires.pop_front() {
                _ if state.stopped => return None,
                Some(Job::Wire(holder, wiring)) => return Some((holder, wiring)),
                Some(Job::Unwire(..)) => unreachable!("removals are in the other queue"),
                None => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn site(&self) -> Result<Site, Refusal> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), BRIDGE_PATIENCE, |state| {
                state.site.is_none() && !state.stopped
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.site.clone().ok_or_else(|| {
            Refusal::new(
                Code::NotReady,
                "the bridge does not stand yet",
                "see `meshctl status` for what keeps it from being made, and try again",
            )
        })
    }

    fn run_unwires(&self, mut netlink: Netlink, inputs: &mpsc::Sender<Input>) {
        while let Some(jobs) = self.next_unwires() {
            let names: Vec<_> = jobs.iter().map(|(_, name)| name.as_str()).collect();
            if let Err(error) = remove(&mut netlink, &names) {
                // What is left carries our mark and is not desired: the next look removes it.
                tracing::warn!("ports {names:?} could not be removed: {error}");
            }
            let mut state = self.lock();
            for (_, name) in &jobs {
                state.wired.remove(name);
                state.gone.insert(name.clone());
                state.end(name);
            }
            drop(state);
            self.changed.notify_all();
            for (holder, _) in jobs {
                if inputs.blocking_send(Input::Unwired { holder }).is_err() {
                    return;
                }
            }
        }
    }

    fn next_unwires(&self) -> Option<Vec<(Holder, String)>> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            let jobs: Vec<_> = state
                .unwires
                .drain(..)
                .filter_map(|job| match job {
                    Job::Unwire(holder, name) => Some((holder, name)),
                    Job::Wire(..) => None,
                })
                .collect();
            if !jobs.is_empty() {
                return Some(jobs);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Removes devices, all in one go, so that they wait for the same grace periods.
fn remove(netlink: &mut Netlink, names: &[&str]) -> io::Result<()> {
    if let [name] = names {
        let _gone_already = netlink.request(link::delete(name))?;
        return Ok(());
    }
    let grouped = netlink.perform(names.iter().map(|name| link::set_group(name)).collect())?;
    if grouped.iter().any(Result::is_ok) {
        netlink.request(link::delete_group())??;
    }
    Ok(())
}
