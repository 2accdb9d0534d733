//! Two machines with one identity: a disk was copied with its key.
//!
//! A process that starts draws its incarnation at random, so a peer that comes with a new one was
//! restarted. A peer that comes back with an *older* one was not: two processes use its key, and
//! take each other's links away in turns. Whoever sees that tells both, at each link, where the
//! other is. Who is told gives nothing away and does not vote until it has not been told for a
//! while, and dials so rarely that the two do not fight over links all the time.
//!
//! Deliberately absent: who of the two is the right one. Nobody but people can tell.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_router::{PeerId, Time, link::LinkUp};

use super::{Node, peers::PeerMessage};

/// How long two processes are remembered as twins after they were last seen to take turns. Chosen:
/// four times [`HOLD`].
const MEMORY: Duration = Duration::from_secs(12);
/// A twin that was met directly is met again by the next dial only, after a minute.
const MET_MEMORY: Duration = Duration::from_secs(90);
/// How long a host that was told of its twin dials nobody.
const HOLD: Duration = Duration::from_secs(3);
/// Earlier processes of one peer that are remembered.
const PAST_MAX: usize = 4;

/// The processes that came with one identity.
#[derive(Debug)]
struct Runs {
    /// The one that was linked last, where, and when.
    present: (u64, SocketAddr),
    at: Time,
    /// Those before it, the newest first.
    past: Vec<(u64, SocketAddr)>,
    /// When an earlier one was last seen to come back.
    returned: Option<Time>,
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
}

impl Clones {
    /// Notes who came, and gives the address of its twin if it has one.
    fn linked(&mut self, up: &LinkUp, now: Time) -> Option<SocketAddr> {
        let came = (up.incarnation, up.remote);
        let runs = self.runs.entry(up.peer).or_insert(Runs {
            present: came,
            at: now,
            past: Vec::new(),
            returned: None,
        });
        runs.at = now;
        if runs.present.0 != came.0 {
            if runs.past.iter().any(|(incarnation, _)| *incarnation == came.0) {
                runs.returned = Some(now);
            }
            runs.past.retain(|(incarnation, _)| *incarnation != came.0);
            runs.past.insert(0, runs.present);
            runs.past.truncate(PAST_MAX);
        }
        runs.present = came;
        runs.returned.filter(|at| now.since(*at) < MEMORY)?;
        runs.past.first().map(|(_, address)| *address)
    }

    fn told(&mut self, address: SocketAddr, memory: Duration, now: Time) {
        self.twin = Some(Twin { address, hold: now + HOLD, until: now + memory });
    }

    fn twin(&self, now: Time) -> Option<&Twin> {
        self.twin.as_ref().filter(|twin| twin.until > now)
    }

    /// When what was told is over.
    pub(super) fn poll_timeout(&self, now: Time) -> Option<Time> {
        self.twin(now).map(|twin| twin.until)
    }
}

impl Node {
    /// A peer came; before the router knows.
    pub(super) fn note_incarnation(&mut self, up: &LinkUp) -> Option<SocketAddr> {
        let now = self.now;
        let router = &self.router;
        self.clones
            .runs
            .retain(|peer, runs| router.link_to(*peer).is_some() || now.since(runs.at) < MEMORY);
        self.clones.linked(up, now)
    }

    /// Tells a peer that has just come where its twin is.
    pub(super) fn tell_twin(&mut self, up: &LinkUp, twin: SocketAddr) {
        if self.router.link_to(up.peer).is_some_and(|kept| kept.link == up.link) {
            let name = self.router.name_of(up.peer);
            let text = format!("{name} is two machines with one key, at {} and {twin}", up.remote);
            self.notice(true, text);
            self.send_to_peer(up.peer, &PeerMessage::Twin { address: twin });
        }
    }

    /// Somebody saw another machine with this host's identity.
    pub(super) fn told_of_twin(&mut self, address: SocketAddr) {
        self.note_twin(address, MEMORY);
    }

    /// This host met it itself.
    pub(super) fn met_twin(&mut self, address: SocketAddr) {
        self.note_twin(address, MET_MEMORY);
    }

    fn note_twin(&mut self, address: SocketAddr, memory: Duration) {
        let new = self.clones.twin(self.now).is_none();
        self.clones.told(address, memory, self.now);
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
    use mesh_router::link::LinkId;

    fn come(clones: &mut Clones, incarnation: u64, seconds: u64) -> Option<SocketAddr> {
        let remote = format!("192.0.2.{incarnation}:7780").parse().unwrap();
        let (link, peer) = (LinkId(seconds), PeerId::new([7; 16]));
        let up = LinkUp { link, peer, incarnation, remote, dialled: None };
        clones.linked(&up, Time::ZERO + Duration::from_secs(seconds))
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
