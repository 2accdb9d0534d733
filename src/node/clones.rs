//! Two machines with one identity: a disk was copied with its key.
//!
//! A process that starts draws its incarnation at random, so a peer that comes with a new one was
//! restarted. A peer that comes back with an *older* one was not: two processes use its key, and
//! take each other's links away in turns. Whoever sees that tells both, at each link, where the
//! other is. Who is told gives nothing away and does not vote until it has not been told for a
//! while, and dials so rarely that the two do not fight over links all the time.
//!
//! A copy starts from a disk of which nothing says that it is the last run's. So it is told, too,
//! if its peer heard from another process with its key just before: whoever was stopped in time is
//! not there, and whoever is takes its link back. Until that is clear the copy writes nothing.
//!
//! Deliberately absent: who of the two is the right one. Nobody but people can tell.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_router::{
    Mutation, PeerId, Time, codec,
    link::{LinkId, LinkUp},
    mutation,
    neighbour::{HEARTBEAT, SILENCE_MAX},
};

use super::{Node, peers::PeerMessage};

/// How long two processes are remembered as twins after they were last seen to take turns. Chosen:
/// more than the longest time between two dials, and [`HOLD`].
const MEMORY: Duration = Duration::from_secs(20);
/// How long a host that was told of its twin dials nobody.
const HOLD: Duration = Duration::from_secs(3);
/// Whoever was heard from so shortly before may be running. Chosen: two heartbeats.
const HEARD: Duration = HEARTBEAT.saturating_mul(2);
/// How long a host that starts waits for another with its key to come back. Chosen: it is told that
/// its link is gone at once, or finds out from silence, and dials.
const COMES_BACK: Duration = SILENCE_MAX.saturating_add(HEARTBEAT);
/// Earlier processes of one peer that are remembered.
const PAST_MAX: usize = 4;

/// The processes that came with one identity.
#[derive(Debug)]
struct Runs {
    /// The one that was linked last, where, and when.
    present: (u64, SocketAddr),
    at: Time,
    /// When it was last heard from, if its link is gone.
    heard: Option<Time>,
    /// Those before it, the newest first.
    past: Vec<(u64, SocketAddr)>,
    /// When an earlier one was last seen to come back.
    returned: Option<Time>,
    /// Where another was heard from just before the present one came, and when that came.
    before: Option<(SocketAddr, Time)>,
}

/// Another machine with this host's identity.
#[derive(Debug)]
struct Twin {
    address: SocketAddr,
    hold: Time,
    until: Time,
}

/// What is known of identities that are used twice.
#[derive(Debug, Default)]
pub(super) struct Clones {
    runs: BTreeMap<PeerId, Runs>,
    twin: Option<Twin>,
    /// Where this host's key was in use just before it started, and until when it is waited for.
    before: Option<(SocketAddr, Time)>,
}

impl Clones {
    /// Notes who came, and says what it is to be told of others with its key; of a link that is to
    /// be replaced, when it was heard from.
    fn linked(&mut self, up: &LinkUp, heard: Option<Time>, now: Time) -> Option<PeerMessage> {
        let came = (up.incarnation, up.remote);
        let runs = self.runs.entry(up.peer).or_insert(Runs {
            present: came,
            at: now,
            heard: None,
            past: Vec::new(),
            returned: None,
            before: None,
        });
        // A link that was not kept is a sign of life, too.
        let heard = [heard, runs.heard.take(), Some(runs.at)].into_iter().max().flatten();
        runs.at = now;
        if runs.present.0 != came.0 {
            if runs.past.iter().any(|(incarnation, _)| *incarnation == came.0) {
                runs.returned = Some(now);
            }
            let heard = heard.is_some_and(|at| now.since(at) < HEARD);
            runs.before = heard.then_some((runs.present.1, now));
            runs.past.retain(|(incarnation, _)| *incarnation != came.0);
            runs.past.insert(0, runs.present);
            runs.past.truncate(PAST_MAX);
        }
        runs.present = came;
        let (_, twin) = *runs.past.first()?;
        if runs.returned.is_some_and(|at| now.since(at) < MEMORY) {
            return Some(PeerMessage::Twin { address: twin });
        }
        // Its first link may be gone before it has heard that.
        let (address, _) = runs.before.filter(|(_, at)| now.since(*at) < COMES_BACK)?;
        Some(PeerMessage::Before { address })
    }

    fn told(&mut self, address: SocketAddr, now: Time) {
        self.twin = Some(Twin { address, hold: now + HOLD, until: now + MEMORY });
    }

    fn twin(&self, now: Time) -> Option<&Twin> {
        self.twin.as_ref().filter(|twin| twin.until > now)
    }

    /// When what was told is over.
    pub(super) fn poll_timeout(&self, now: Time) -> Option<Time> {
        let before = self.before(now).map(|(_, until)| until);
        self.twin(now).map(|twin| twin.until).into_iter().chain(before).min()
    }

    fn before(&self, now: Time) -> Option<(SocketAddr, Time)> {
        self.before.filter(|(_, until)| *until > now)
    }
}

impl Node {
    /// A peer came; before the router knows. What it is to be told of other machines with its key,
    /// before anything else: else it might believe first that it has been told all.
    pub(super) fn note_incarnation(&mut self, up: &LinkUp) -> Option<Vec<u8>> {
        let now = self.now;
        let router = &self.router;
        self.clones
            .runs
            .retain(|peer, runs| router.link_to(*peer).is_some() || now.since(runs.at) < MEMORY);
        let heard = router.heard_from(up.peer);
        let message = self.clones.linked(up, heard, now)?;
        if let PeerMessage::Twin { address } = message {
            let (name, here) = (self.router.name_of(up.peer), up.remote);
            let text = format!("{name} is two machines with one key, at {here} and {address}");
            self.notice(true, text);
        }
        Some(codec::encode(&message))
    }

    /// A link is gone; before the router knows.
    pub(super) fn note_gone(&mut self, link: LinkId) {
        let Some(up) = self.router.links().find(|up| up.link == link) else { return };
        if let Some(runs) = self.clones.runs.get_mut(&up.peer) {
            runs.heard = self.router.heard_from(up.peer);
        }
    }

    /// Somebody heard from another process with this host's key just before.
    pub(super) fn told_of_process_before(&mut self, address: SocketAddr) {
        let told = self.is_comparing() || self.recalling;
        if self.doubtful && told && self.clones.before.is_none() {
            self.clones.before = Some((address, self.now + COMES_BACK));
        }
    }

    /// That another machine may have this host's identity, while that is not clear.
    pub(super) fn before_words(&self) -> Option<String> {
        let (address, _) = self.clones.before(self.now)?;
        Some(format!(
            "a moment before this host started somebody at {address} had its identity; waiting to \
             see whether that is another machine"
        ))
    }

    /// Whether this disk may be a copy of one that is in use: what another machine with this key
    /// writes meanwhile is not known here.
    pub(super) fn may_be_copy(&self) -> bool {
        let twin = self.has_twin() || self.clones.before(self.now).is_some();
        self.doubtful && twin && !mutation::on(Mutation::ServeAsCopy)
    }

    /// Somebody, or this host itself, saw another machine with this host's identity.
    pub(super) fn note_twin(&mut self, address: SocketAddr) {
        let new = self.clones.twin(self.now).is_none();
        self.clones.told(address, self.now);
        if let Some(words) = self.twin_words().filter(|_| new) {
            self.notice(true, words);
        }
    }

    /// That another machine has this host's identity, if one has.
    pub(super) fn twin_words(&self) -> Option<String> {
        let twin = self.clones.twin(self.now)?;
        Some(format!(
            "another machine, at {}, has this host's identity: one is a copy of the other; no new \
             address is given until one of them is stopped and its state directory is removed",
            twin.address
        ))
    }

    /// Whether another machine has this host's identity.
    pub(super) fn has_twin(&self) -> bool {
        self.clones.twin(self.now).is_some()
    }

    /// Whether nobody is to be dialled for a moment.
    pub(super) fn holds_dials(&self) -> bool {
        self.clones.twin(self.now).is_some_and(|twin| twin.hold > self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come(clones: &mut Clones, incarnation: u64, seconds: u64) -> Option<SocketAddr> {
        let remote = format!("192.0.2.{incarnation}:7780").parse().unwrap();
        let (link, peer) = (LinkId(seconds), PeerId::new([7; 16]));
        let up = LinkUp { link, peer, incarnation, remote, dialled: None };
        match clones.linked(&up, None, Time::ZERO + Duration::from_secs(seconds)) {
            Some(PeerMessage::Twin { address }) => Some(address),
            _ => None,
        }
    }

    #[test]
    fn whoever_starts_is_told_at_each_link_who_was_heard_from_just_before() {
        let mut clones = Clones::default();
        let mut come = |incarnation: u64, heard: Option<u64>, seconds| {
            let remote = format!("192.0.2.{incarnation}:7780").parse().unwrap();
            let (link, peer) = (LinkId(seconds), PeerId::new([7; 16]));
            let up = LinkUp { link, peer, incarnation, remote, dialled: None };
            let heard = heard.map(|heard| Time::ZERO + Duration::from_secs(heard));
            match clones.linked(&up, heard, Time::ZERO + Duration::from_secs(seconds)) {
                Some(PeerMessage::Before { address }) => Some(address.to_string()),
                None => None,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(come(1, None, 0), None);
        let other = Some("192.0.2.1:7780");
        assert_eq!(come(2, Some(0), 1).as_deref(), other);
        assert_eq!(come(2, Some(1), 2).as_deref(), other, "its first link broke");
        assert_eq!(come(2, Some(8), 9), None, "it would have come back");
        assert_eq!(come(3, Some(9), 11), None, "nobody was heard from for two seconds");
        assert_eq!(come(4, None, 12).as_deref(), Some("192.0.2.3:7780"), "it was linked just now");
    }

    #[test]
    fn a_host_that_restarts_again_and_again_is_no_twin() {
        let mut clones = Clones::default();
        for incarnation in 1..20 {
            assert_eq!(come(&mut clones, incarnation, incarnation), None);
            assert_eq!(come(&mut clones, incarnation, incarnation), None, "only its link is new");
        }
    }

    #[test]
    fn two_that_take_turns_are_told_of_each_other_and_it_is_forgotten_when_one_stays() {
        let mut clones = Clones::default();
        assert_eq!(come(&mut clones, 1, 0), None);
        assert_eq!(come(&mut clones, 2, 1), None, "it may be a restart");
        assert_eq!(come(&mut clones, 1, 2), Some("192.0.2.2:7780".parse().unwrap()));
        assert_eq!(come(&mut clones, 2, 3), Some("192.0.2.1:7780".parse().unwrap()));
        assert_eq!(come(&mut clones, 2, 3 + MEMORY.as_secs()), None);
    }
}
