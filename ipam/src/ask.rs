//! Asking other peers for space, ahead of need: the requester's half of a small protocol.
//!
//! ```text
//!   idle --level low / want()--> asking(donor) --Granted--> awaiting the ring --owned--> done
//!              ^                  |   |   ^                        |
//!              |                  |   +---+ Refused or silent: next donor
//!              +--- back-off <----+ nobody left to ask      silent: same donor again
//! ```
//!
//! A grant is nothing but a ring write; the answer only says that one was made. So messages may be
//! lost, doubled or late: a request carries how much of the donor's and of its own writes its
//! sender had seen, from which a donor tells a repetition (see `donor`). Times are the caller's.

mod shortage;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use mesh_router::{PeerId, Time};

use crate::{
    allocate::Wanted,
    asked::Asked,
    block::Block,
    held::Holder,
    ipam::Ipam,
    space::{SpaceMessage, SpaceRefusal, SpaceRequest, Waiting},
    view::Owner,
};

/// How long a peer may take to answer. Chosen: ten times a round trip around the world.
pub const TRY: Duration = Duration::from_secs(1);
/// The longest pause after nobody could give anything, while a holder waits ...
pub const URGENT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// ... and while nobody does.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a claim of one address is pursued, and how long its refusal is remembered.
pub const EXACT_PATIENCE: Duration = Duration::from_secs(30);
/// How long space in a part of a range is asked for after the last holder wanted it.
const PART_PATIENCE: Duration = Duration::from_secs(60);
/// The pause before a request that was overtaken by a newer state is sent again.
const STALE_PAUSE: Duration = Duration::from_millis(50);
/// The longest name of a holder in a message.
pub(crate) const HOLDER_BYTES_MAX: usize = 128;
/// Requests under way at once; a claim beyond it is not begun.
pub const ASKS_MAX: usize = 256;
/// Messages that wait to be sent or to become durable; beyond it answers are left out, and the
/// requester asks again.
pub const OUTBOX_MAX: usize = 1024;

/// One thing that is asked for.
#[derive(Debug, Clone, Default)]
struct Ask {
    id: u64,
    since: Option<Time>,
    /// When to act next; zero for at once.
    due: Time,
    /// Who was asked and has not answered.
    donor: Option<PeerId>,
    /// The answer: the ring has to follow.
    granted: Option<Block>,
    /// Who refused in this round.
    refused: BTreeSet<PeerId>,
    last: Option<(PeerId, SpaceRefusal)>,
    /// When the first of this round was asked.
    began: Time,
    /// Rounds in which nobody could give anything.
    rounds: u32,
    /// Nobody was there to be asked: act as soon as somebody is.
    nobody: bool,
    /// In the last round, which began then, every owner was asked, and nobody had anything.
    exhausted: Option<Time>,
    urgent: bool,
    /// When a holder last wanted a part of a range.
    touched: Time,
    /// A claim was refused for good.
    answer: Option<SpaceRefusal>,
}

/// What is asked for, and messages to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space {
    reachable: BTreeSet<PeerId>,
    asks: BTreeMap<Wanted, Ask>,
    pub(crate) asked: Asked,
    last_id: u64,
    free: shortage::Free,
    /// To whom, what, and the own write that must be durable before.
    outbox: VecDeque<(PeerId, SpaceMessage, u64)>,
}

impl Space {
    pub(crate) fn send(&mut self, to: PeerId, message: SpaceMessage, durable: u64) {
        if self.outbox.len() < OUTBOX_MAX {
            self.outbox.push_back((to, message, durable));
        }
    }

    pub(crate) fn is_wanted(&self, address: IpAddr) -> bool {
        self.asks.contains_key(&Wanted::Exact(address))
    }

    /// The addresses of a range that are asked for, or were granted and not taken yet.
    pub(crate) fn wanted_in(&self, range: &Block) -> impl Iterator<Item = IpAddr> {
        let range = *range;
        self.asks.keys().filter_map(move |wanted| match wanted {
            Wanted::Exact(address) if range.contains(*address) => Some(*address),
            _ => None,
        })
    }

    pub(crate) fn answer_for(&self, address: IpAddr) -> Option<&SpaceRefusal> {
        self.asks.get(&Wanted::Exact(address))?.answer.as_ref()
    }

    pub(crate) fn forget(&mut self, address: IpAddr) {
        self.asks.remove(&Wanted::Exact(address));
    }

    pub(crate) fn stop_asking(&mut self) {
        self.asks.clear();
    }

    /// Forgets what was asked and answered; who can be reached stays so.
    pub(crate) fn reset(&mut self) {
        self.asks.clear();
        self.asked.clear();
        self.free = shortage::Free::default();
        self.outbox.clear();
    }
}

impl Ipam {
    /// Which peers messages can reach now.
    pub fn set_reachable(&mut self, peers: BTreeSet<PeerId>) {
        let news = peers.iter().any(|peer| !self.space.reachable.contains(peer));
        self.space.reachable = peers;
        if news {
            for ask in self.space.asks.values_mut().filter(|ask| ask.donor.is_none()) {
                if ask.answer.is_none() {
                    ask.due = Time::ZERO;
                }
            }
        }
    }

    /// Asks for a chunk of a range, whatever the level is: a holder waits.
    pub(crate) fn want(&mut self, range: Block, now: Time) {
        let may = self.may_ask(&range, ASKS_MAX);
        if self.leaving || self.pool_of(&range).is_none() || !may {
            return;
        }
        let ask = self.space.asks.entry(Wanted::Any(range)).or_default();
        ask.touched = ask.touched.max(now);
        if !ask.urgent {
            // Who had nothing to spare may have a little for one in need.
            ask.urgent = true;
            ask.exhausted = None;
            ask.rounds = 0;
            ask.refused.clear();
            if ask.donor.is_none() {
                ask.due = Time::ZERO;
            }
        }
    }

    /// Whether a range or a part of one may be asked for: new parts only while fewer than so many
    /// requests are under way.
    fn may_ask(&self, range: &Block, below: usize) -> bool {
        self.pools.contains_key(range)
            || self.space.asks.contains_key(&Wanted::Any(*range))
            || self.space.asks.len() < below
    }

    /// Asks an address's owner for it. An earlier refusal is forgotten. Returns false when as many
    /// requests are under way as may be.
    pub fn want_exact(&mut self, address: IpAddr) -> bool {
        let wanted = Wanted::Exact(address);
        if let Some(ask) = self.space.asks.get(&wanted)
            && ask.answer.is_none()
        {
            return true;
        }
        if self.leaving || self.range_of(address).is_none() || self.space.asks.len() >= ASKS_MAX {
            return false;
        }
        self.space.asks.insert(wanted, Ask { urgent: true, ..Ask::default() });
        true
    }

    /// Nobody wants this address any more: it is not set aside for a claim.
    pub fn forget_wish(&mut self, address: IpAddr) {
        self.space.forget(address);
    }

    /// Asks for no space any more, and gives none. What it had asked for may come yet
    /// ([`Ipam::may_give`]).
    pub fn begin_leaving(&mut self) {
        self.leaving = true;
        self.space.stop_asking();
    }

    /// Whom this host waits for, and since when.
    pub fn waiting_for(&self) -> Vec<Waiting> {
        let asks = self.space.asks.iter().filter(|(_, ask)| ask.answer.is_none());
        asks.map(|(wanted, ask)| Waiting {
            wanted: *wanted,
            asked: ask.donor,
            since: ask.since,
            refused: ask.last.clone(),
        })
        .collect()
    }

    /// When [`Ipam::handle_timeout`] wants to be called; [`Time::ZERO`] for at once.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.space.asks.values().map(|ask| ask.due).min()
    }

    /// The next message to be sent. Answers come out once their grant is durable, and to each peer
    /// in order.
    pub fn poll_message(&mut self) -> Option<(PeerId, SpaceMessage)> {
        let durable = self.ring.durable_counter();
        let mut held_up = BTreeSet::new();
        let ready = self.space.outbox.iter().position(|(to, _, needs)| {
            let ready = *needs <= durable && !held_up.contains(to);
            held_up.extend((!ready).then_some(*to));
            ready
        })?;
        self.space.outbox.remove(ready).map(|(to, message, _)| (to, message))
    }

    /// Takes a message of a peer.
    pub fn handle_message(&mut self, from: PeerId, message: SpaceMessage, now: Time) {
        match message {
            SpaceMessage::Request(request) => self.on_request(from, &request, now),
            SpaceMessage::Granted { id, block, free } => {
                self.hear_of_free(from, id, free);
                self.on_granted(from, id, block, now);
            }
            SpaceMessage::Refused { id, reason, free } => {
                self.hear_of_free(from, id, free);
                self.on_refused(from, id, reason, now);
            }
        }
    }

    fn on_granted(&mut self, from: PeerId, id: u64, block: Block, now: Time) {
        self.space.asked.granted(from, id, block);
        if let Some((_, ask)) = self.space.ask_of(from, id) {
            ask.granted = Some(block);
            ask.due = now + TRY;
            self.settle();
        }
    }

    fn on_refused(&mut self, from: PeerId, id: u64, reason: SpaceRefusal, now: Time) {
        self.space.asked.refused(from, id);
        let Some((wanted, ask)) = self.space.ask_of(from, id) else { return };
        ask.donor = None;
        ask.last = Some((from, reason.clone()));
        ask.due = Time::ZERO;
        let exact = matches!(wanted, Wanted::Exact(_));
        match reason {
            SpaceRefusal::Stale => ask.due = now + STALE_PAUSE,
            // The owner has spoken; others cannot say better.
            SpaceRefusal::Taken { .. } | SpaceRefusal::Leaving | SpaceRefusal::Full if exact => {
                ask.answer = Some(reason);
                ask.due = now + EXACT_PATIENCE;
            }
            // The ring will say who the owner is.
            _ if exact => ask.back_off(now),
            _ => {
                ask.refused.insert(from);
            }
        }
    }

    /// Does what is due: repeats, gives up, asks the next.
    pub fn handle_timeout(&mut self, now: Time) {
        for pool in self.pools.values_mut() {
            pool.ripen(now);
        }
        let due = self.space.asks.iter().filter(|(_, ask)| ask.due <= now);
        let due: Vec<Wanted> = due.map(|(wanted, _)| *wanted).collect();
        for wanted in due {
            self.act(wanted, now);
        }
    }

    fn act(&mut self, wanted: Wanted, now: Time) {
        let Some(mut ask) = self.space.asks.remove(&wanted) else { return };
        let since = *ask.since.get_or_insert(now);
        let exact = matches!(wanted, Wanted::Exact(_));
        if ask.answer.is_some() || (exact && now.since(since) >= EXACT_PATIENCE) {
            return;
        }
        if let Wanted::Exact(address) = wanted
            && self.held.holder(address).is_some()
            && self.owner(address) == Owner::Peer(self.me())
        {
            return;
        }
        if let Wanted::Any(part) = wanted
            && !self.pools.contains_key(&part)
            && now.since(ask.touched) >= PART_PATIENCE
        {
            return;
        }
        if ask.refused.is_empty() && ask.donor.is_none() {
            ask.began = now;
        }
        ask.urgent &= exact || now.since(ask.touched) < PART_PATIENCE;
        let silent = ask.donor.take();
        if let Wanted::Exact(address) = wanted
            && self.owner(address) == Owner::Peer(self.me())
        {
            // It stays set aside until it is taken.
            ask.due = since + EXACT_PATIENCE;
            self.space.asks.insert(wanted, ask);
            return;
        }
        if let Some(peer) = silent
            && ask.granted.is_none()
        {
            ask.last = Some((peer, SpaceRefusal::Silent));
            ask.refused.insert(peer);
        }
        // Who granted repeats its answer; another would grant a second time.
        let again = silent.filter(|_| ask.granted.take().is_some());
        match again.or_else(|| self.donor_for(&wanted, &ask.refused)) {
            Some(donor) => self.request(&wanted, &mut ask, donor, now),
            None => {
                ask.exhausted = self.nobody_has(&wanted, &ask).then_some(ask.began);
                ask.nobody = ask.refused.is_empty();
                ask.back_off(now);
            }
        }
        self.space.asks.insert(wanted, ask);
    }

    fn request(&mut self, wanted: &Wanted, ask: &mut Ask, donor: PeerId, now: Time) {
        let (range, address) = match *wanted {
            Wanted::Any(range) => (Some(range), None),
            Wanted::Exact(address) => (self.range_of(address), Some(address)),
        };
        let Some(range) = range else { return ask.back_off(now) };
        self.space.last_id += 1;
        ask.id = self.space.last_id;
        self.space.asked.ask(donor, ask.id);
        ask.donor = Some(donor);
        ask.nobody = false;
        ask.due = now + TRY;
        let request = SpaceRequest {
            id: ask.id,
            range,
            address,
            seen: self.ring.seen(donor),
            own: self.ring.own_counter(),
            urgent: ask.urgent,
            held_by: address.and_then(|address| self.held.holder(address)).map(words),
        };
        self.space.send(donor, SpaceMessage::Request(request), 0);
    }

    /// Whom to ask: an address's owner, or the reachable peer that has most of the range free, as
    /// far as this host knows.
    fn donor_for(&self, wanted: &Wanted, refused: &BTreeSet<PeerId>) -> Option<PeerId> {
        let me = self.me();
        let may = |peer: &PeerId| {
            *peer != me && self.space.reachable.contains(peer) && !refused.contains(peer)
        };
        match wanted {
            Wanted::Exact(address) => self.owner(*address).route().filter(may),
            Wanted::Any(range) => {
                let owners = self.owners_in(range).into_iter().filter(|(peer, _)| may(peer));
                let free = |peer, owned| self.space.free.of(range, peer, owned);
                owners
                    .max_by_key(|(peer, owned)| (free(*peer, *owned), *peer))
                    .map(|(peer, _)| peer)
            }
        }
    }

    /// Asks for more when the level is low, ahead of need. A holder wanted some then; zero for
    /// nobody. Parts leave half of the requests to those in need.
    pub(crate) fn keep_supplied(&mut self, range: &Block, touched: Time) {
        let low = self.ready_in(range) < self.low_water(range);
        if low && !self.leaving && self.may_ask(range, ASKS_MAX / 2) && self.has_others(range) {
            let ask = self.space.asks.entry(Wanted::Any(*range)).or_default();
            ask.touched = ask.touched.max(touched);
        }
    }

    /// Ends requests that the ring has answered, and begins those that it calls for.
    pub(crate) fn settle(&mut self) {
        self.settle_asked();
        let parts = self.space.asks.keys().filter_map(|wanted| match wanted {
            Wanted::Any(part) => Some(*part),
            Wanted::Exact(_) => None,
        });
        let ranges: BTreeSet<Block> = self.pools.keys().copied().chain(parts).collect();
        for range in &ranges {
            let ready = self.ready_in(range);
            let Some((whole, _)) = self.pool_of(range).filter(|_| ready < self.low_water(range))
            else {
                self.space.asks.remove(&Wanted::Any(*range));
                continue;
            };
            if whole == *range {
                self.keep_supplied(range, Time::ZERO);
            }
            let pool = &self.pools[&whole];
            let Some(ask) = self.space.asks.get_mut(&Wanted::Any(*range)) else { continue };
            ask.urgent &= ready == 0;
            let arrived = ask.granted.is_some_and(|block| {
                pool.owned().covers(block.first_number(), block.last_number())
            });
            if arrived || ask.nobody {
                let (urgent, since, touched) = (ask.urgent, ask.since, ask.touched);
                *ask = Ask { urgent, since, touched, ..Ask::default() };
            }
        }
        // A claim goes on as soon as the ring names another owner.
        for (wanted, ask) in &mut self.space.asks {
            let Wanted::Exact(address) = wanted else { continue };
            let owner = self.view.owner(*address).route();
            let refused_by = ask.last.as_ref().map(|(peer, _)| *peer);
            if ask.answer.is_none() && ask.donor.is_none() && owner != refused_by {
                ask.due = Time::ZERO;
            }
        }
    }
}

/// A holder for others to read, of bounded length.
pub(crate) fn words(holder: &Holder) -> String {
    let mut words = holder.to_string();
    words.truncate(words.floor_char_boundary(HOLDER_BYTES_MAX));
    words
}

impl Space {
    /// The request that this peer was asked with this number.
    fn ask_of(&mut self, from: PeerId, id: u64) -> Option<(Wanted, &mut Ask)> {
        let mut asks = self.asks.iter_mut();
        let (wanted, ask) = asks.find(|(_, ask)| ask.id == id && ask.donor == Some(from))?;
        Some((*wanted, ask))
    }
}

impl Ask {
    /// Nobody is left to be asked: begin anew after a pause that grows.
    fn back_off(&mut self, now: Time) {
        let most = if self.urgent { URGENT_PAUSE_MAX } else { PAUSE_MAX };
        self.due = now + (TRY * (1 << self.rounds.min(5))).min(most);
        self.rounds += 1;
        self.refused.clear();
        self.donor = None;
    }
}
