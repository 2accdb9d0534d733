//! The loop that keeps the kernel as it shall be.
//!
//! It looks when a new desired state comes, shortly after the kernel says that anything changed,
//! and when nothing was heard for a while. A look reads what stands, plans, acts and reads
//! again, until there is nothing left to do. What fails is tried again, ever more rarely, and
//! stops nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;

use super::{
    Config,
    actual::{Actual, TableReader},
    apply::{self, Tools},
    container::Site,
    netlink::Netlink,
    plan::{Step, Subject, plan},
    ports::Ports,
    repairs::Repairs,
    underlay::Scene,
};
use crate::node::{
    desired::Desired,
    event::{Input, Underlay},
};

/// How long after an event one looks, so that a burst is one look.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often one looks when nothing is heard; issue: repaired within 5 s.
const IDLE: Duration = Duration::from_secs(2);
/// Devices first, then what stands on them, then once more to see that all is well.
const ROUNDS: usize = 4;
/// What fails is tried again after this, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// And at least so often.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the loop is told.
#[derive(Debug)]
pub(super) enum Order {
    /// This is wanted from now on.
    Program(Option<Box<Desired>>),
    /// Something may have changed.
    Look,
}

/// What others may read of the loop.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) repairs: Repairs,
    pub(super) problems: Vec<String>,
    pub(super) underlay: Underlay,
}

#[derive(Debug)]
struct Failure {
    text: String,
    delay: Duration,
    next: Instant,
}

/// What is wanted.
#[derive(Debug)]
enum Goal {
    /// Nothing was said yet: everything is left as it is.
    Unknown,
    Nothing,
    This(Box<Desired>),
}

/// The loop's own.
#[derive(Debug)]
pub(super) struct Reconciler {
    config: Config,
    tools: Tools,
    ports: Arc<Ports>,
    view: Arc<RwLock<View>>,
    inputs: Sender<Input>,
    goal: Goal,
    /// The newest state that stood in full: what of it is missing later, others have removed.
    stood: Option<Box<Desired>>,
    /// Whether `Programmed` is still to be said.
    announce: bool,
    failures: BTreeMap<Subject, Failure>,
}

#[expect(clippy::disallowed_methods, reason = "real time between retries of real IO")]
fn now() -> Instant {
    Instant::now()
}

impl Reconciler {
    /// Opens the sockets, in the network namespace of the caller.
    pub(super) fn open(
        config: Config,
        ports: Arc<Ports>,
        view: Arc<RwLock<View>>,
        inputs: Sender<Input>,
    ) -> io::Result<Self> {
        let tools = Tools {
            netlink: Netlink::open(netlink_sys::protocols::NETLINK_ROUTE)?,
            nft: TableReader::open()?,
        };
        Ok(Self {
            config,
            tools,
            ports,
            view,
            inputs,
            goal: Goal::Unknown,
            stood: None,
            announce: false,
            failures: BTreeMap::new(),
        })
    }

    /// Runs until it is stopped, which it notices at the next order.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>, stopped: &AtomicBool) {
        while !stopped.load(Ordering::Relaxed) {
            if let Err(error) = self.look() {
                tracing::warn!("the kernel's state could not be read: {error}");
            }
            match orders.recv_timeout(self.pause()) {
                Ok(Order::Look) => std::thread::sleep(DEBOUNCE),
                Ok(Order::Program(goal)) => self.accept(goal),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(order) = orders.try_recv() {
                if let Order::Program(goal) = order {
                    self.accept(goal);
                }
            }
        }
    }

    fn accept(&mut self, goal: Option<Box<Desired>>) {
        self.failures.clear();
        self.announce = true;
        match goal {
            Some(desired) => {
                self.ports.settle(&desired);
                self.goal = Goal::This(desired);
            }
            None => self.goal = Goal::Nothing,
        }
    }

    fn pause(&self) -> Duration {
        let next = self.failures.values().map(|failure| failure.next).min();
        next.map_or(IDLE, |next| next.saturating_duration_since(now()).min(IDLE))
    }

    fn look(&mut self) -> io::Result<()> {
        match &self.goal {
            Goal::Unknown => {}
            Goal::Nothing if self.announce => {
                let stood = self.stood.take();
                self.ports.set_site(None);
                apply::remove_all(&mut self.tools, stood.as_deref())?;
                self.announce = false;
                let _ended = self.inputs.blocking_send(Input::Programmed);
            }
            Goal::Nothing => {}
            Goal::This(desired) => {
                let desired = desired.clone();
                self.reconcile(&desired)?;
            }
        }
        self.look_at_underlay()
    }

    fn reconcile(&mut self, desired: &Desired) -> io::Result<()> {
        let mut repairing = true;
        for _ in 0..ROUNDS {
            let actual = Actual::read(&mut self.tools.netlink, &mut self.tools.nft, desired)?;
            self.announce_site(desired, &actual);
            let transit = self.ports.transit();
            let planned = plan(desired, &actual, &transit);
            let subjects: BTreeSet<_> = planned.iter().map(|step| step.subject.clone()).collect();
            self.failures.retain(|subject, _| subjects.contains(subject));
            if planned.is_empty() {
                self.stands(desired);
                break;
            }
            // Only what was right before is a repair. What follows from our own change is not.
            let before = match &self.stood {
                Some(stood) if repairing => plan(stood, &actual, &transit),
                _ => Vec::new(),
            };
            let due = self.due(planned);
            if due.is_empty() {
                break;
            }
            let results = apply::apply(&mut self.tools, desired, &due)?;
            let mut repaired = Vec::new();
            for (step, result) in due.into_iter().zip(results) {
                match result {
                    Ok(()) if before.contains(&step) => repaired.push(step),
                    Ok(()) => {}
                    Err(text) => self.failed(&step, text),
                }
            }
            repairing = !repaired.is_empty();
            self.record(&repaired);
        }
        let problems = self
            .failures
            .iter()
            .map(|(subject, failure)| format!("{subject}: {}", failure.text))
            .collect();
        self.view.write().unwrap_or_else(PoisonError::into_inner).problems = problems;
        Ok(())
    }

    /// Tells the wiring threads where containers' links go.
    fn announce_site(&self, desired: &Desired, actual: &Actual) {
        let bridge = actual.links.get(&desired.bridge.name).filter(|link| link.kind == "bridge");
        self.ports.set_site(bridge.map(|link| Site::new(link.index, desired)));
    }

    fn stands(&mut self, desired: &Desired) {
        if self.stood.as_deref() != Some(desired) {
            self.stood = Some(Box::new(desired.clone()));
        }
        if std::mem::take(&mut self.announce) {
            let _ended = self.inputs.blocking_send(Input::Programmed);
        }
    }

    /// Leaves out what failed a moment ago.
    fn due(&self, planned: Vec<Step>) -> Vec<Step> {
        let now = now();
        let waits = |step: &Step| self.failures.get(&step.subject).is_some_and(|f| f.next > now);
        planned.into_iter().filter(|step| !waits(step)).collect()
    }

    fn failed(&mut self, step: &Step, text: String) {
        let before = self.failures.get(&step.subject).map(|failure| failure.delay);
        if before.is_none() {
            tracing::warn!("{}: {text}", step.subject);
        }
        let delay = before.map_or(RETRY_FIRST, |delay| (delay * 2).min(RETRY_MAX));
        let failure = Failure { text, delay, next: now() + delay };
        self.failures.insert(step.subject.clone(), failure);
    }

    fn record(&self, repaired: &[Step]) {
        if repaired.is_empty() {
            return;
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        for line in view.repairs.record(repaired) {
            tracing::info!("repaired: {line}");
        }
    }

    fn look_at_underlay(&mut self) -> io::Result<()> {
        let own = match &self.goal {
            Goal::This(desired) => vec![desired.bridge.name.clone(), desired.tunnel.name.clone()],
            Goal::Unknown | Goal::Nothing => {
                apply::DEFAULT_DEVICES.iter().map(|name| (*name).to_owned()).collect()
            }
        };
        let underlay = Scene::read(&mut self.tools.netlink)?.underlay(&self.config, &own);
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.underlay != underlay {
            view.underlay = underlay.clone();
            drop(view);
            let _ended = self.inputs.blocking_send(Input::Underlay(underlay));
        }
        Ok(())
    }
}
