//! Whom to dial next: back-off with jitter, one attempt at a time per peer.
//!
//! It does not know why somebody is wanted; the router says who is, each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use rand::{Rng, RngExt};

use crate::{PeerId, Time, link::DialError};

/// The first back-off.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest back-off to a peer that others reach: it is there, so a path may open any time.
const BACKOFF_ALIVE_MAX: Duration = Duration::from_secs(2);
/// So many of those in that time; where there are more, each has its turn more rarely.
const ALIVE_PER_ROUND: u32 = 8;
/// The longest back-off to somebody whom nobody reaches.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// Where there are more, those are dialled together that are due within this much for each round.
const TOGETHER: Duration = Duration::from_millis(10);
/// Back-off after a refusal: a wrong token does not become right by trying.
const BACKOFF_REFUSED: Duration = Duration::from_secs(60);
/// Back-off after meeting a copy of this machine: once it is stopped, this host serves again.
const BACKOFF_TWIN: Duration = Duration::from_secs(5);
/// The peer with the greater id lets the other dial first, so that one link comes of it, not two.
const COURTESY: Duration = Duration::from_millis(400);

/// Who is dialled: a peer that is known, or an address behind which any peer may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Callee {
    /// A member.
    Peer(PeerId),
    /// A target given by hand.
    Target(SocketAddr),
}

/// Somebody to whom there should be a link.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Who.
    pub callee: Callee,
    /// Where, best first; tried in turn.
    pub endpoints: Vec<SocketAddr>,
    /// Let the other side begin.
    pub courteous: bool,
    /// Others reach it.
    pub alive: bool,
}

/// The state of dialling one callee.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where an attempt is under way.
    pub dialling: Option<SocketAddr>,
    /// Why the last one failed.
    pub error: Option<DialError>,
    attempts: u32,
    /// Tried in turn; nobody is wanted there any more when there are none.
    endpoints: Vec<SocketAddr>,
    at: Time,
    /// Others reach it.
    alive: bool,
}

/// All dialling.
///
/// Invariants: `queue` has exactly the calls that wait for their next attempt, `under_way` exactly
/// those that are at one, each where it says so itself.
#[derive(Debug, Default)]
pub struct Dialer {
    calls: BTreeMap<Callee, Call>,
    queue: BTreeSet<(Time, Callee)>,
    under_way: BTreeSet<(SocketAddr, Callee)>,
    /// How many are wanted whom others reach.
    alive: u32,
}

impl Dialer {
    /// Who is wanted from now on. Whoever is not is forgotten, unless an attempt is under way.
    pub fn review(&mut self, wanted: Vec<Wanted>, now: Time, rng: &mut impl Rng) {
        let alive = wanted.iter().filter(|want| want.alive).count();
        self.alive = u32::try_from(alive).unwrap_or(u32::MAX);
        let alive_max = BACKOFF_ALIVE_MAX * self.crowd();
        let mut before = std::mem::take(&mut self.calls);
        for want in wanted.into_iter().filter(|want| !want.endpoints.is_empty()) {
            let first = if want.courteous { COURTESY } else { Duration::ZERO };
            let mut call = before.remove(&want.callee).unwrap_or_else(|| Call {
                dialling: None,
                error: None,
                attempts: 0,
                endpoints: Vec::new(),
                at: now + first + jitter(first, rng),
                alive: want.alive,
            });
            if want.alive && !call.alive && !call.error.as_ref().is_some_and(DialError::is_refusal)
            {
                call.at = call.at.min(now + alive_max);
            }
            call.alive = want.alive;
            call.endpoints = want.endpoints;
            self.calls.insert(want.callee, call);
        }
        let under_way = before.into_iter().filter(|(_, call)| call.dialling.is_some());
        self.calls.extend(
            under_way.map(|(callee, call)| (callee, Call { endpoints: Vec::new(), ..call })),
        );
        let idle = self.calls.iter().filter(|(_, call)| call.dialling.is_none());
        self.queue = idle.map(|(callee, call)| (call.at, *callee)).collect();
    }

    /// The addresses to dial now.
    pub fn due(&mut self, now: Time) -> Vec<SocketAddr> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let until = now + TOGETHER * (self.crowd() - 1);
        let mut due = Vec::new();
        while let Some((at, callee)) = self.queue.pop_first() {
            if at > until {
                self.queue.insert((at, callee));
                break;
            }
            let call = self.calls.get_mut(&callee).expect("what is queued is a call");
            let endpoint = call.endpoints[call.attempts as usize % call.endpoints.len()];
            call.dialling = Some(endpoint);
            // Two callees at one address share the attempt: two links at once would come of it.
            if at_address(&self.under_way, endpoint).next().is_none() {
                due.push(endpoint);
            }
            self.under_way.insert((endpoint, callee));
        }
        due
    }

    /// How many times as long back-offs are to peers that others reach.
    fn crowd(&self) -> u32 {
        self.alive.div_ceil(ALIVE_PER_ROUND).max(1)
    }

    /// An attempt gave no link.
    pub fn failed(&mut self, target: SocketAddr, error: DialError, now: Time, rng: &mut impl Rng) {
        let crowd = self.crowd();
        for callee in at_address(&self.under_way, target).collect::<Vec<_>>() {
            self.under_way.remove(&(target, callee));
            let call = self.calls.get_mut(&callee).expect("what is under way is a call");
            call.dialling = None;
            if call.endpoints.is_empty() {
                self.calls.remove(&callee);
                continue;
            }
            call.attempts = call.attempts.saturating_add(1);
            // The next endpoint is tried at once, whatever this one said: an address may be right
            // in one network and somebody else's in another. The back-off is between rounds.
            let endpoints = u32::try_from(call.endpoints.len()).unwrap_or(u32::MAX).max(1);
            let rounds = call.attempts / endpoints;
            let span = if !call.attempts.is_multiple_of(endpoints) {
                BACKOFF_MIN
            } else if error == DialError::Twin {
                BACKOFF_TWIN
            } else if error.is_refusal() {
                BACKOFF_REFUSED
            } else {
                let (least, most) = match call.alive {
                    true => (BACKOFF_MIN * crowd, BACKOFF_ALIVE_MAX * crowd),
                    false => (BACKOFF_MIN, BACKOFF_MAX),
                };
                (least * (1 << rounds.min(8))).min(most)
            };
            call.at = now + span / 2 + jitter(span / 2, rng);
            call.error = Some(error.clone());
            self.queue.insert((call.at, callee));
        }
    }

    /// An attempt gave a link, to this peer. Whoever else was expected there is tried again later:
    /// another host has its address now.
    pub fn succeeded(&mut self, target: SocketAddr, peer: PeerId, now: Time, rng: &mut impl Rng) {
        let found = |callee: &Callee| !matches!(callee, Callee::Peer(other) if *other != peer);
        for callee in at_address(&self.under_way, target).filter(found).collect::<Vec<_>>() {
            self.under_way.remove(&(target, callee));
            self.calls.remove(&callee);
        }
        let other = DialError::Unreachable("another host has this address now".to_owned());
        self.failed(target, other, now, rng);
    }

    /// A link was made and closed at once: whoever is there is not to be dialled for a while.
    pub fn refused(
        &mut self,
        callee: Callee,
        (target, error): (SocketAddr, DialError),
        now: Time,
        rng: &mut impl Rng,
    ) {
        if self.calls.get(&callee).is_some_and(|call| call.dialling.is_some()) {
            return;
        }
        let at = now + BACKOFF_REFUSED / 2 + jitter(BACKOFF_REFUSED / 2, rng);
        let (error, endpoints) = (Some(error), vec![target]);
        let call = Call { dialling: None, error, attempts: 0, endpoints, at, alive: false };
        if let Some(before) = self.calls.insert(callee, call) {
            self.queue.remove(&(before.at, callee));
        }
        self.queue.insert((at, callee));
    }

    /// How dialling somebody stands.
    pub fn call(&self, callee: Callee) -> Option<&Call> {
        self.calls.get(&callee)
    }

    /// Dial this one at the next chance, whatever its back-off.
    pub fn hurry(&mut self, callee: Callee) {
        let Some(call) = self.calls.get_mut(&callee) else { return };
        if self.queue.remove(&(call.at, callee)) {
            self.queue.insert((Time::ZERO, callee));
        }
        call.at = Time::ZERO;
    }

    /// When the next attempt is due.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }
}

/// Who is being dialled at an address.
fn at_address(
    under_way: &BTreeSet<(SocketAddr, Callee)>,
    address: SocketAddr,
) -> impl Iterator<Item = Callee> {
    let from = under_way.range((address, Callee::Peer(PeerId::new([0; 16])))..);
    from.take_while(move |(at, _)| *at == address).map(|(_, callee)| *callee)
}

fn jitter(span: Duration, rng: &mut impl Rng) -> Duration {
    span.mul_f64(rng.random_range(0.0..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn wanted(alive: bool) -> Vec<Wanted> {
        let endpoints =
            vec!["192.0.2.1:7780".parse().unwrap(), "[2001:db8::1]:7780".parse().unwrap()];
        let callee = Callee::Peer(PeerId::new([1; 16]));
        vec![Wanted { callee, endpoints, courteous: false, alive }]
    }

    /// Fails every attempt for `span` and returns when each was made, in seconds.
    fn attempts(error: &DialError, alive: bool, span: Duration) -> Vec<f64> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (mut dialer, mut now, mut made) = (Dialer::default(), Time::ZERO, Vec::new());
        while now < Time::ZERO + span {
            dialer.review(wanted(alive), now, &mut rng);
            for target in dialer.due(now) {
                made.push(now.since(Time::ZERO).as_secs_f64());
                dialer.failed(target, error.clone(), now, &mut rng);
            }
            now = dialer.poll_timeout().unwrap().max(now + Duration::from_millis(1));
        }
        made
    }

    #[test]
    fn a_dead_host_is_dialled_ever_more_rarely() {
        let gone = DialError::Unreachable("timed out".into());
        let made = attempts(&gone, false, Duration::from_secs(600));
        assert!((60..140).contains(&made.len()), "{} attempts", made.len());
    }

    #[test]
    fn a_refusal_is_not_retried_in_a_tight_loop() {
        let made = attempts(&DialError::WrongSecret, false, Duration::from_secs(600));
        assert!(made.len() <= 2 * 21, "each of two endpoints at most every 30 s: {made:?}");
    }

    #[test]
    fn who_refused_once_linked_is_not_dialled_for_a_while() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut dialer = Dialer::default();
        let want = &wanted(false)[0];
        let refusal = (want.endpoints[0], DialError::OtherMesh);
        dialer.refused(want.callee, refusal, Time::ZERO, &mut rng);
        dialer.review(wanted(false), Time::ZERO, &mut rng);
        assert!(dialer.due(Time::ZERO + BACKOFF_REFUSED / 4).is_empty());
        assert_eq!(dialer.call(want.callee).unwrap().error, Some(DialError::OtherMesh));
        assert_eq!(dialer.due(Time::ZERO + BACKOFF_REFUSED).len(), 1);
    }

    #[test]
    fn a_copy_of_this_machine_is_met_again_soon() {
        let made = attempts(&DialError::Twin, false, Duration::from_secs(60));
        let last = |pair: &[f64]| pair[1] - pair[0] <= BACKOFF_TWIN.as_secs_f64();
        assert!(made.windows(2).all(last), "{made:?}");
    }

    #[test]
    fn a_refusal_at_one_endpoint_does_not_keep_from_the_next() {
        let made = attempts(&DialError::Ourselves, false, Duration::from_secs(5));
        assert_eq!(made.len(), 2, "{made:?}");
    }

    #[test]
    fn two_callees_at_one_address_share_one_attempt() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut both = wanted(false);
        let target = both[0].endpoints[0];
        both.push(Wanted {
            callee: Callee::Target(target),
            endpoints: vec![target],
            ..both[0].clone()
        });
        let mut dialer = Dialer::default();
        dialer.review(both.clone(), Time::ZERO, &mut rng);
        assert_eq!(dialer.due(Time::ZERO), [target]);
        dialer.failed(target, DialError::WrongSecret, Time::ZERO, &mut rng);
        assert!(both.iter().all(|want| dialer.call(want.callee).unwrap().error.is_some()));
    }

    #[test]
    fn where_many_are_reached_by_others_only_each_is_tried_more_rarely() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (mut dialer, mut now, mut made) = (Dialer::default(), Time::ZERO, 0);
        let endpoint = |n: u8| SocketAddr::from(([192, 0, 2, n], 7780));
        let all = (1..=200).map(|n| Wanted {
            callee: Callee::Peer(PeerId::new([n; 16])),
            endpoints: vec![endpoint(n)],
            courteous: false,
            alive: true,
        });
        dialer.review(all.collect(), now, &mut rng);
        let (first, all) = (Duration::from_secs(300), Duration::from_secs(900));
        while now < Time::ZERO + all {
            for target in dialer.due(now) {
                made += u32::from(now >= Time::ZERO + first);
                dialer.failed(target, DialError::Unreachable("no way".into()), now, &mut rng);
            }
            now = dialer.poll_timeout().unwrap().max(now + Duration::from_millis(1));
        }
        let most =
            (all - first).as_secs() / BACKOFF_ALIVE_MAX.as_secs() * u64::from(ALIVE_PER_ROUND);
        assert!(u64::from(made) <= 2 * most, "{made} attempts, back-off and its jitter: {most}");
        assert!(u64::from(made) >= most, "{made} attempts");
    }

    #[test]
    fn a_peer_that_others_reach_is_tried_every_two_seconds() {
        let gone = DialError::Unreachable("timed out".into());
        let made = attempts(&gone, true, Duration::from_secs(60));
        assert!(made.windows(2).all(|pair| pair[1] - pair[0] <= 2.01), "{made:?}");
    }
}
