//! The run itself: events in, node outputs out, checks after every step.
//!
//! A node is driven exactly as `meshwork::node::event` says. Carrying an output out never calls a
//! node: what follows is an event of its own, so every interleaving that delays allow is seen.

use std::net::SocketAddr;

use mesh_router::{MeshId, PeerId};
use meshwork::node::{
    event::{BatchId, Credentials, DialError, Input, Output, RequestId, Secret},
    request::Request,
};

use crate::{
    check::{self, Violation},
    dice::Dice,
    host::{Asked, Host},
    kernel::Operation,
    ledger::Ledger,
    net::{Net, Packet},
    plan::{self, Act},
    queue::{Micros, Queue, SECOND},
    report::Counts,
    scenario::Scenario,
    trace::Trace,
};

/// Wake-ups at one moment after which a node is said to spin.
const SPINS_MAX: u32 = 1000;

/// Something that will happen. `boot` names the start of the host that it is meant for.
#[derive(Debug)]
pub(crate) enum What {
    Act(Act),
    Wake {
        host: usize,
        token: u64,
    },
    /// A dial reaches its target.
    Knock {
        host: usize,
        boot: u32,
        target: SocketAddr,
    },
    DialFailed {
        host: usize,
        boot: u32,
        target: SocketAddr,
        error: DialError,
    },
    LinkUp {
        connection: usize,
        side: usize,
    },
    LinkDown {
        connection: usize,
        side: usize,
        reason: &'static str,
    },
    /// A frame that the other side sent arrives at this one.
    Arrival {
        connection: usize,
        side: usize,
        packet: Packet,
    },
    Activity {
        connection: usize,
        side: usize,
    },
    Sent {
        connection: usize,
        side: usize,
    },
    Stored {
        host: usize,
        boot: u32,
        batch: BatchId,
    },
    Persisted {
        host: usize,
        boot: u32,
        batch: BatchId,
    },
    /// The kernel's operation is done.
    KernelDone {
        host: usize,
        boot: u32,
    },
}

/// See the module.
#[derive(Debug)]
pub struct World {
    pub(crate) scenario: Scenario,
    pub(crate) queue: Queue<What>,
    pub(crate) hosts: Vec<Host>,
    /// Their ids, side by side: they are searched after every step.
    pub(crate) ids: Vec<PeerId>,
    pub(crate) net: Net,
    pub(crate) ledger: Ledger,
    /// For what happens; the plan has its own.
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) violation: Option<Violation>,
    /// All faults have ended.
    pub(crate) healed: bool,
    /// The answer to `init` was given.
    pub(crate) founded: bool,
    /// A host was destroyed or will not come back: its part of the space is lost.
    pub(crate) bereft: bool,
    pub(crate) credentials: Credentials,
    /// Which of the scenario's ranges the mesh has.
    pub(crate) range: usize,
    /// Destroyed machines.
    pub(crate) dead: Vec<PeerId>,
    /// Machines that were replaced.
    pub(crate) replaced: check::forgotten::Replaced,
    /// When a machine last lost what it had on disk.
    pub(crate) disk_lost_at: Option<u64>,
    /// A range was added.
    pub(crate) widened: bool,
    /// Somebody was removed without the consent of others: until the end an address may be held
    /// twice, and is then shown as a conflict.
    pub(crate) forced: bool,
    /// Two machines with one identity: the copy, and what it is a copy of.
    pub(crate) twins: Option<(usize, usize)>,
    /// What was decided together, for its checker.
    pub(crate) decreed: check::decrees::Decreed,
    last_request: u64,
    pub(crate) last_container: u64,
}

impl World {
    /// A world with so many hosts, all of them started and in no mesh, and the plan of this seed.
    ///
    /// # Errors
    /// When there are too many hosts.
    pub fn new(scenario: &Scenario, seed: u64, hosts: usize, lines: bool) -> anyhow::Result<Self> {
        let mut dice = Dice::new(seed, 0);
        let mut scenario = scenario.clone();
        if scenario.founders > 2 {
            let founders = dice.between(2, scenario.founders.into());
            scenario.founders = u16::try_from(founders).unwrap_or(2);
        }
        let mut queue = Queue::new();
        for (at, act) in plan::acts(&scenario, hosts, &mut Dice::new(seed, 1)) {
            queue.push(at, What::Act(act));
        }
        let made: Result<Vec<Host>, String> =
            (0..hosts).map(|index| Host::new(index, scenario.lease(), &mut dice)).collect();
        let made = made.map_err(anyhow::Error::msg)?;
        let mut world = Self {
            net: Net::new(hosts, &scenario, &mut dice),
            queue,
            ids: made.iter().map(|host| host.id).collect(),
            hosts: made,
            ledger: Ledger::default(),
            trace: Trace::new(lines),
            counts: Counts::default(),
            violation: None,
            healed: false,
            founded: false,
            bereft: false,
            credentials: Credentials {
                mesh: MeshId::new(dice.bytes()),
                secret: Secret(dice.bytes()),
            },
            range: dice.index(scenario.ranges.len()),
            dead: Vec::new(),
            replaced: Vec::new(),
            disk_lost_at: None,
            widened: false,
            twins: None,
            forced: false,
            decreed: check::decrees::Decreed::new(),
            last_request: 0,
            last_container: 0,
            dice,
            scenario,
        };
        for host in 0..hosts {
            let most = u64::from(world.scenario.drift) * 1000;
            let drift = world.dice.below(2 * most + 1);
            world.hosts[host].drift = drift as i64 - most as i64;
            world.started(host);
        }
        Ok(world)
    }

    /// Lets the plan run, ends all faults, and demands that everything becomes well.
    pub fn run(&mut self) {
        self.run_until(self.scenario.trouble_seconds * SECOND);
        self.heal();
        self.end();
        self.counts.virtual_micros = self.queue.now();
        self.counts.trace = self.trace.hash();
    }

    /// What did not hold, if something did not.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The result so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The trace's lines, if they were asked for.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.trace.take_lines()
    }

    pub(crate) fn run_until(&mut self, until: Micros) {
        while self.violation.is_none()
            && let Some(what) = self.queue.pop(until)
        {
            self.counts.steps += 1;
            self.happen(what);
        }
    }

    fn happen(&mut self, what: What) {
        if let Some(host) = self.concerns(&what)
            && let Some((_, missed)) = &mut self.hosts[host].suspended
        {
            missed.push(what);
            return;
        }
        match what {
            What::Act(act) => self.act(act),
            What::Wake { host, token } => self.wake(host, token),
            What::Knock { host, boot, target } => self.knock((host, boot), target),
            What::DialFailed { host, boot, target, error } => {
                if self.is_current(host, boot) {
                    self.input(host, Input::DialFailed { target, error });
                }
            }
            What::LinkUp { connection, side } => self.link_up(connection, side),
            What::LinkDown { connection, side, reason } => {
                self.link_down(connection, side, reason);
            }
            What::Arrival { connection, side, packet } => self.arrive(connection, side, packet),
            What::Activity { connection, side } => self.activity(connection, side),
            What::Sent { connection, side } => self.credit(connection, side),
            What::Stored { host, boot, batch } => self.stored((host, boot), batch),
            What::Persisted { host, boot, batch } => {
                if self.is_current(host, boot) {
                    self.input(host, Input::Persisted(batch));
                }
            }
            What::KernelDone { host, boot } => self.kernel_done((host, boot)),
        }
    }

    /// The host that an event needs to be awake.
    fn concerns(&self, what: &What) -> Option<usize> {
        match what {
            What::Act(act) => act.asks(),
            What::Wake { host, .. }
            | What::DialFailed { host, .. }
            | What::Stored { host, .. }
            | What::Persisted { host, .. }
            | What::KernelDone { host, .. } => Some(*host),
            // Somebody else's machine answers, or does not.
            What::Knock { .. } => None,
            What::LinkUp { connection, side }
            | What::LinkDown { connection, side, .. }
            | What::Arrival { connection, side, .. }
            | What::Activity { connection, side }
            | What::Sent { connection, side } => {
                Some(self.net.connections[*connection][*side].host)
            }
        }
    }

    pub(crate) fn is_current(&self, host: usize, boot: u32) -> bool {
        self.hosts[host].running && self.hosts[host].boot == boot
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        let at = self.queue.now();
        self.violation.get_or_insert_with(|| violation.at(at));
    }

    /// A node has just been made: does what it wants and tells it of its underlay.
    pub(crate) fn started(&mut self, host: usize) {
        self.drain(host);
        if self.hosts[host].running {
            let underlay = self.hosts[host].underlay();
            self.input(host, Input::Underlay(underlay));
        }
    }

    fn wake(&mut self, host: usize, token: u64) {
        if !self.hosts[host].running || self.hosts[host].wake_token != token {
            return;
        }
        self.hosts[host].wake_at = None;
        self.input(host, Input::Timeout);
    }

    /// Hands a node an input and does what it then wants.
    pub(crate) fn input(&mut self, host: usize, input: Input) {
        let now = self.queue.now();
        note(&mut self.trace, (now, host), &input);
        let timeout = matches!(input, Input::Timeout);
        let before = match &input {
            Input::Frame { bytes, .. } => check::grants::before(&self.hosts[host], bytes),
            _ => None,
        };
        let this = &mut self.hosts[host];
        let clock = this.clock(now);
        this.node.handle_input(input, clock);
        let granted = before.map_or(Ok(()), |before| check::grants::after(this, &before));
        if let Err(violation) = granted {
            self.fail(violation);
        }
        self.drain(host);
        let this = &mut self.hosts[host];
        if !this.running {
            return;
        }
        this.spins = if timeout { this.spins } else { 0 };
        self.set_alarm(host, timeout);
        if let Err(violation) = check::step(self, host) {
            self.fail(violation);
        }
    }

    fn drain(&mut self, host: usize) {
        while let Some(output) = self.hosts[host].node.poll_output() {
            match &mut self.hosts[host].armed {
                Some(0) => return self.crash(host),
                Some(left) => *left -= 1,
                None => {}
            }
            self.output(host, output);
        }
    }

    pub(crate) fn set_alarm(&mut self, host: usize, after_timeout: bool) {
        let now = self.queue.now();
        let this = &mut self.hosts[host];
        let Some(at) = this.node.poll_timeout().map(|time| this.world_time(time).max(now)) else {
            this.wake_at = None;
            this.wake_token += 1;
            return;
        };
        if after_timeout && at == now {
            this.spins += 1;
            if this.spins > SPINS_MAX {
                let text = format!("h{host} wants to be woken again and again at one moment");
                return self.fail(Violation::new("spins", text));
            }
        } else if at > now {
            this.spins = 0;
        }
        if this.wake_at != Some(at) {
            this.wake_at = Some(at);
            this.wake_token += 1;
            let token = this.wake_token;
            self.queue.push(at, What::Wake { host, token });
        }
    }

    fn output(&mut self, host: usize, output: Output) {
        let now = self.queue.now();
        match output {
            Output::Membership(credentials) => self.hosts[host].credentials = credentials,
            Output::Dial(target) => self.dial(host, target),
            Output::Send { link, urgent, bytes } => {
                let told = check::grants::durable(&self.hosts[host], &bytes)
                    .and_then(|()| check::decrees::durable(&self.hosts[host], &bytes));
                if let Err(violation) = told {
                    self.fail(violation);
                }
                self.send(host, link, urgent, bytes);
            }
            Output::Close { link, reason: _ } => self.close(host, link),
            Output::Persist { batch, writes } => self.persist(host, batch, writes),
            Output::Wire { holder, wiring } => {
                self.operate_kernel(host, Operation::Wire { holder, wiring });
            }
            Output::Unwire { holder, host_name } => {
                self.operate_kernel(host, Operation::Unwire { holder, host_name });
            }
            Output::Program(desired) => self.operate_kernel(host, Operation::Program(desired)),
            Output::Zone(change) => self.hosts[host].table.apply(change),
            Output::Reply { id, result } => self.reply(host, id, result),
            Output::Notice(notice) => {
                self.trace
                    .note((now, host), "notice", notice.text.as_bytes(), || notice.text.clone());
            }
        }
    }

    /// Somebody asks a node for something.
    pub(crate) fn ask(&mut self, host: usize, request: Request, patience_ms: u64) -> RequestId {
        self.ask_as(host, request, (patience_ms, false))
    }

    pub(crate) fn ask_as(
        &mut self,
        host: usize,
        request: Request,
        (patience_ms, probe): (u64, bool),
    ) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let asked = Asked { request: request.clone(), probe };
        self.hosts[host].pending.insert(id, asked);
        let patience = std::time::Duration::from_millis(patience_ms);
        self.input(host, Input::Request { id, request: Box::new(request), patience });
        id
    }
}

/// Notes an input in the trace.
fn note(trace: &mut Trace, at: (Micros, usize), input: &Input) {
    let words = || format!("{input:?}");
    match input {
        Input::Frame { link, bytes } => {
            trace.note(at, "frame", bytes, || match mesh_router::frame::Frame::decode(bytes) {
                Ok(frame) => format!("{} {}", link.0, brief(&format!("{frame:?}"))),
                Err(error) => format!("{} {error}", link.0),
            });
        }
        Input::Sent { link, bytes } => {
            let all = [link.0.to_le_bytes(), (*bytes as u64).to_le_bytes()];
            trace.note(at, "sent", all.as_flattened(), || format!("{} {bytes}", link.0));
        }
        Input::Timeout => trace.note(at, "timeout", &[], String::new),
        Input::Persisted(batch) => {
            trace.note(at, "persisted", &batch.0.to_le_bytes(), || batch.0.to_string());
        }
        Input::Programmed => trace.note(at, "programmed", &[], String::new),
        Input::LinkUp(up) => trace.note(at, "link up", up.peer.as_bytes(), words),
        Input::LinkDown { link, .. } => {
            trace.note(at, "link down", &link.0.to_le_bytes(), words);
        }
        Input::Activity { link } => trace.note(at, "activity", &link.0.to_le_bytes(), words),
        Input::Request { id, .. } => trace.note(at, "request", &id.0.to_le_bytes(), words),
        Input::Wired { holder, .. } => trace.note(at, "wired", holder.container.as_bytes(), words),
        Input::WireFailed { holder, .. } => {
            trace.note(at, "wire failed", holder.container.as_bytes(), words);
        }
        Input::Unwired { holder } => trace.note(at, "unwired", holder.container.as_bytes(), words),
        Input::PersistFailed { batch, .. } => {
            trace.note(at, "persist failed", &batch.0.to_le_bytes(), words);
        }
        Input::DialFailed { target, .. } => {
            trace.note(at, "dial failed", &target.port().to_le_bytes(), words);
        }
        Input::Twin { .. } => trace.note(at, "twin", &[], words),
        Input::Underlay(_) => trace.note(at, "underlay", &[], words),
    }
}

fn brief(text: &str) -> String {
    text.chars().take(400).collect()
}
