//! The pure node: router, ring and zone behind one closed pair of enums.
//!
//! Nothing here does IO, reads a clock or draws randomness. The daemon and the simulator drive the
//! same object; [`event`] says how, and in which order things happen.
//!
//! * [`event`]: what happens to a node, and what it wants done. [`request`]: what is asked of it.
//! * [`desired`]: the kernel state that follows.
//! * `journal`: writes on their way to the disk. `rows`: what they look like.
//! * `attachment`, `attaching`, `standing`: what containers are given, and the states that this
//!   goes through. `needs`: which addresses they ask for; `claims`, `rests`: set aside, released.
//! * `membership`: init and join. `recall`: being told what one once wrote. `queue`: waiting.
//!   `leaving`: leave. `peers`, `absent`: what follows from who can be reached.
//! * `council`, `removing`: what is decided together with others.
//! * `comparing`: after a start, a removal or with an old disk. `clones`: two with one identity.
//! * `acknowledge`: answers that wait for the disk.
//! * `naming`: records by hand. `plan`, `status`: pure views of the whole.

mod absent;
mod acknowledge;
mod attaching;
pub mod attachment;
mod claims;
mod clones;
mod comparing;
mod council;
pub mod desired;
pub mod event;
mod joining;
mod journal;
mod lease;
mod leaving;
mod membership;
mod naming;
mod needs;
mod peers;
mod plan;
mod queue;
mod recall;
mod registering;
mod removing;
pub mod request;
mod requests;
mod rests;
mod rows;
mod standing;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use mesh_dns::{Name, Zone};
use mesh_ipam::{Holder, Ipam};
use mesh_router::{Effect, PeerId, Replicas, Router, Time};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::{
    attachment::Slot,
    event::{BatchId, Credentials, DialError, Input, Notice, Output, RequestId, Row, Underlay},
    joining::Joining,
    journal::Journal,
    leaving::Leaving,
    request::{Code, Refusal, Request},
};

/// Requests that may wait until the host is ready: a reboot starts some hundred containers at once.
const QUEUED_MAX: usize = 4096;
/// A change of ports only is published this much later, for repairs: they are wired directly.
const PORTS_DELAY: Duration = Duration::from_millis(200);

/// What a node is told once, at its start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// This host's id.
    pub me: PeerId,
    /// Its name.
    pub name: String,
    /// Drawn at random at each start.
    pub incarnation: u64,
    /// Seed of the node's random numbers (jitter, device names); not for secrets.
    pub seed: u64,
    /// The mesh's domain.
    pub domain: Name,
    /// Name of the bridge.
    pub bridge: String,
    /// UDP port of the tunnel.
    pub data_port: u16,
    /// MTU for containers; `None`: the underlay's less the tunnel's overhead.
    pub mtu_bytes: Option<u32>,
    /// The lease that the mesh is founded with; `None`: dead hosts are removed by people only.
    pub lease: Option<Duration>,
    /// Serve from a disk that may be an old image although no peer can tell.
    pub serve_alone: bool,
    /// For how long a released address goes to nobody else, unless there is no other.
    pub rest: Duration,
    /// Version of the program, for status.
    pub version: String,
    /// What is known of its disk.
    pub disk: event::Disk,
}

/// Requests that wait until the host is ready, each until its time.
type Queued = Vec<(RequestId, Box<Request>, Time)>;

/// The node of one host.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    router: Router,
    ipam: Ipam,
    zone: Zone,
    journal: Journal,
    mesh: Option<Credentials>,
    joining: Option<Joining>,
    leaving: Option<Leaving>,
    /// This host lost its disk, or never had one, and is being told what it once wrote.
    recalling: bool,
    /// The disk holds all that this host ever wrote: it is not told again after a restart.
    remembers: bool,
    left: Option<leaving::Left>,
    past: recall::Past,
    /// Peers that know nothing of this host's leave, though it is back.
    denied: BTreeSet<PeerId>,
    registration: registering::Registration,
    /// What this host says of itself may have changed.
    describe_due: bool,
    /// The mesh is being founded together with others.
    founding: Option<council::Founding>,
    desk: council::Desk,
    clones: clones::Clones,
    /// It waits for a peer to tell what has happened while it was down.
    comparing: Option<comparing::Comparing>,
    /// It was a member before it was started, and has forgotten whom it had asked for space.
    resumed: bool,
    /// Its disk may be an old one, and nobody has been asked yet.
    doubtful: bool,
    /// Why it is told again what it once wrote, if that was not a lost disk.
    recall_reason: Option<String>,
    /// How many changes of the council's promises were handed to the disk.
    promises_written: u64,
    slots: BTreeMap<Holder, Slot>,
    /// Holders whose record the kernel must know of, and more: many are addresses only.
    in_kernel: BTreeSet<Holder>,
    rests: rests::Rests,
    /// The ring's change mark when the host's own addresses were last found to be complete.
    gateway_kept: Option<u64>,
    /// Claimed addresses that a container uses, and which.
    lent: BTreeMap<IpAddr, Holder>,
    /// The holders whose slot is in `Waiting`.
    waiting: BTreeSet<Holder>,
    /// They may get what they wait for now, but for what the ring says.
    waiting_due: bool,
    /// The ring's change mark when it was last looked whether they do.
    waiting_mark: u64,
    /// The holders whose slot waits for a batch.
    storing: BTreeMap<BatchId, Vec<Holder>>,
    queued: Queued,
    acknowledgements: acknowledge::Held,
    underlay: Option<Underlay>,
    /// The kernel has once stood as it should.
    programmed: bool,
    /// When to publish the desired kernel state.
    program_at: Option<Time>,
    /// When that was last done.
    programmed_at: Time,
    /// Peers that cannot be reached, since when, and whether their names are hidden already.
    absent: absent::Absent,
    peers_generation: u64,
    /// How many entries the members, and how many origins the zone had, when they were reviewed.
    peers_heard: (usize, usize),
    peers_reviewed: Time,
    /// The replicas' revisions when the peers were last sent what they lack.
    pumped: [u64; mesh_router::Kind::COUNT],
    keeping: peers::Keeping,
    rng: ChaCha8Rng,
    outputs: VecDeque<Output>,
    now: Time,
}

impl Node {
    /// A node with what the disk held (nothing, at the first start).
    ///
    /// # Errors
    /// A sentence about a row that no version of this program wrote. Nothing may then be served
    /// from this state: the caller moves it aside.
    pub fn restore(config: NodeConfig, rows: Vec<Row>, now: Time) -> Result<Self, String> {
        let me = config.me;
        let mut node = Self {
            router: Router::new(me, config.seed),
            ipam: Ipam::new(me),
            zone: Zone::new(me),
            journal: Journal::default(),
            mesh: None,
            joining: None,
            leaving: None,
            recalling: false,
            remembers: false,
            left: None,
            past: recall::Past::default(),
            denied: BTreeSet::new(),
            registration: registering::Registration::default(),
            describe_due: true,
            founding: None,
            desk: council::Desk::default(),
            clones: clones::Clones::default(),
            comparing: None,
            resumed: false,
            doubtful: false,
            recall_reason: None,
            promises_written: 0,
            slots: BTreeMap::new(),
            in_kernel: BTreeSet::new(),
            rests: rests::Rests::default(),
            gateway_kept: None,
            lent: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_due: false,
            waiting_mark: 0,
            storing: BTreeMap::new(),
            queued: Vec::new(),
            acknowledgements: acknowledge::Held::new(),
            underlay: None,
            programmed: false,
            program_at: None,
            programmed_at: Time::ZERO,
            absent: absent::Absent::default(),
            peers_generation: 0,
            peers_heard: (0, 0),
            peers_reviewed: Time::ZERO,
            pumped: [0; mesh_router::Kind::COUNT],
            keeping: peers::Keeping::default(),
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            outputs: VecDeque::new(),
            now,
            config,
        };
        for row in rows {
            node.restore_row(row)?;
        }
        node.resume(now);
        node.settle_down();
        Ok(node)
    }

    /// Something happened.
    pub fn handle_input(&mut self, input: Input, now: Time) {
        self.now = self.now.max(now);
        let now = self.now;
        self.waiting_due |= !matches!(input, Input::Frame { .. } | Input::Timeout);
        match input {
            // It came up while this host left: nothing of that mesh is to be taken in any more.
            Input::LinkUp(up) if self.mesh.is_none() => {
                let reason = "this host is in no mesh".to_owned();
                self.outputs.push_back(Output::Close { link: up.link, reason });
            }
            Input::LinkUp(up) => {
                self.joined_link(&up);
                let message = self.note_incarnation(&up);
                self.router.link_up(up, message, &replicas(&mut self.ipam, &mut self.zone), now);
            }
            Input::LinkDown { link, reason } => {
                self.note_gone(link);
                self.router.link_down(link, &reason, now);
            }
            Input::Frame { link, bytes } => {
                let mut replicas = replicas(&mut self.ipam, &mut self.zone);
                self.router.on_frame(link, &bytes, &mut replicas, now);
            }
            Input::Activity { link } => {
                self.router.activity(link, now);
                if !self.is_due() {
                    return;
                }
            }
            Input::Sent { link, bytes } => {
                self.router.sent(link, bytes);
                if !self.router.pump_due() && !self.is_due() {
                    return;
                }
            }
            Input::DialFailed { target, error } => self.dial_failed(target, error),
            Input::Twin { remote } => self.note_twin(remote),
            Input::Persisted(batch) => self.persisted(batch),
            Input::PersistFailed { batch, reason } => self.persist_failed(batch, reason),
            Input::Wired { holder, netns_identity } => self.wired(&holder, netns_identity),
            Input::WireFailed { holder, refusal } => self.wire_failed(&holder, refusal),
            Input::Unwired { holder } => self.unwired(&holder),
            Input::Programmed => self.kernel_programmed(),
            Input::Underlay(underlay) => self.underlay_changed(underlay),
            Input::Request { id, request, patience } => self.request(id, *request, patience),
            Input::Timeout => {}
        }
        self.settle_down();
    }

    /// What to do next; `None` when there is nothing until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to hand in [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        let waits = self.queued.iter().map(|(_, _, until)| *until);
        let asks = self.waiting.iter().filter_map(|holder| self.slots[holder].waits_until());
        waits
            .chain(asks)
            .chain(self.router.poll_timeout())
            .chain(self.ipam.poll_timeout())
            .chain(self.journal.poll_timeout())
            .chain(self.program_at)
            .chain(self.peers_due().filter(|_| self.mesh.is_some()))
            .chain(self.absent.poll_timeout())
            .chain(self.joining.as_ref().and_then(Joining::poll_timeout))
            .chain(self.leaving.as_ref().map(|of| of.poll_timeout(self.router.is_settled())))
            .chain(self.council_timeout())
            .chain(self.clones.poll_timeout(self.now))
            .chain(self.registration_timeout())
            .min()
    }

    /// Whether something is to be done now although nothing happened.
    fn is_due(&self) -> bool {
        self.poll_timeout().is_some_and(|at| at <= self.now)
    }

    /// The ring and this host's addresses, for checkers.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Whether this host is still asking what has happened while it was down: what it believes to
    /// own may be others' by now, and it gives nothing away. For checkers.
    pub fn is_unsure(&self) -> bool {
        self.recalling || self.is_doubtful()
    }

    /// The names, for checkers.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The peers, for checkers.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// Whether attaches can be served.
    pub fn is_ready(&self) -> bool {
        let ready = self.mesh.is_some()
            && self.journal.failure().is_none()
            && !self.is_leaving()
            && self.router.is_settled()
            && !self.is_doubtful()
            && self.has_gateway()
            && self.programmed;
        debug_assert_eq!(ready, self.unready_because().is_none(), "it is said why");
        ready
    }

    /// All that follows from an input, in the order that is law: what is written goes to the disk
    /// first; only what is durable is announced; only then is anybody answered.
    fn settle_down(&mut self) {
        let now = self.now;
        self.journal.timeout(now);
        self.waiting_due |= self.ipam.poll_timeout().is_some_and(|at| at <= now);
        self.ipam.handle_timeout(now);
        self.finish_founding();
        self.end_recall();
        self.router.timeout(&replicas(&mut self.ipam, &mut self.zone), now);
        self.deliver();
        self.progress_council();
        self.progress_membership();
        self.review_peers();
        self.progress_registration();
        self.keep_gateway();
        self.progress_waiting();
        self.progress_queue();
        self.ask_for_space();
        self.keep_short();
        self.write_promises();
        self.absorb_changes();
        self.flush();
        self.pump();
        self.forward_effects();
        self.publish_plan();
    }

    /// Sends to the peers what they lack, if there may be anything: a pump looks at every link and
    /// origin, and most inputs change nothing that is told.
    fn pump(&mut self) {
        let revisions = [
            self.router.members().revision(),
            self.ipam.store().revision(),
            self.zone.store().revision(),
        ];
        if self.router.pump_due() || revisions != self.pumped {
            self.pumped = revisions;
            let founding = self.ipam.epoch().founding;
            self.router.set_founding(founding, &replicas(&mut self.ipam, &mut self.zone));
            self.router.pump(&replicas(&mut self.ipam, &mut self.zone), self.now);
        }
    }

    /// Messages from other nodes.
    fn deliver(&mut self) {
        let mut others = Vec::new();
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::Deliver { from, payload } => self.on_peer_message(from, &payload),
                Effect::Behind { peer } => self.is_behind(peer),
                other => others.push(other),
            }
        }
        for effect in others {
            self.forward(effect);
        }
    }

    fn forward_effects(&mut self) {
        while let Some(effect) = self.router.poll_effect() {
            self.forward(effect);
        }
    }

    fn forward(&mut self, effect: Effect) {
        self.outputs.push_back(match effect {
            Effect::Dial(target) if self.holds_dials() => {
                let why = "another machine has this host's identity: it is not dialled for now";
                return self.dial_failed(target, DialError::Unreachable(why.to_owned()));
            }
            Effect::Dial(target) => Output::Dial(target),
            Effect::Send { link, urgent, bytes } => Output::Send { link, urgent, bytes },
            Effect::Close { link, reason } => Output::Close { link, reason },
            Effect::Notice { warning, text } => Output::Notice(Notice { warning, text }),
            Effect::Deliver { from, payload } => {
                self.on_peer_message(from, &payload);
                return;
            }
            Effect::Behind { peer } => return self.is_behind(peer),
        });
    }

    fn flush(&mut self) {
        let marks = [
            self.router.members().own_counter(),
            self.ipam.store().own_counter(),
            self.zone.store().own_counter(),
            self.ipam.promises().0,
        ];
        if let Some((batch, writes)) = self.journal.flush(marks) {
            self.outputs.push_back(Output::Persist { batch, writes });
        }
        self.acknowledge_unchanged();
    }

    fn persisted(&mut self, batch: BatchId) {
        let Some([members, ring, zone, promises]) = self.journal.persisted(batch) else { return };
        self.ipam.promises_durable(promises);
        self.router.members_mut().mark_durable(members);
        self.ipam.store_mut().mark_durable(ring);
        self.zone.store_mut().mark_durable(zone);
        // Announce before anybody is answered.
        self.pump();
        self.forward_effects();
        self.stored(batch);
        self.acknowledge_upto(batch);
    }

    fn persist_failed(&mut self, batch: BatchId, reason: String) {
        self.notice(true, format!("the state cannot be written: {reason}"));
        self.journal.failed(batch, reason, self.now);
        if !self.journal.is_writing() {
            self.router.members_mut().mark_failed();
            self.ipam.store_mut().mark_failed();
            self.zone.store_mut().mark_failed();
        }
        self.store_failed(batch);
        self.acknowledge_failure(batch);
    }
}

/// The replicas that the router does not own.
fn replicas<'a>(ipam: &'a mut Ipam, zone: &'a mut Zone) -> Replicas<'a> {
    Replicas { ring: ipam, zone }
}

fn not_in_a_mesh() -> Refusal {
    Refusal::new(
        Code::NotReady,
        "this host is in no mesh",
        "run `meshctl init` to found one, or `meshctl join ADDR --token T` to join one",
    )
}

#[cfg(test)]
mod tests;
