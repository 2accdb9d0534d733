//! A host whose own picture of the mesh may be worth nothing: its disk may be an old one, or it was
//! removed while it was away. It asks the others before it serves, and is told anew what it lacks.

use std::{collections::BTreeSet, time::Duration};

use mesh_ipam::council::{DECREE, Upheaval};
use mesh_router::{Kind, Mutation, PeerId, Time, frame::Word, mutation};

use super::{Node, event::Disk, registering::Registration};

/// How long a host whose disk is surely the last run's waits for a peer after a start.
const COMPARE_TRUSTED: Duration = Duration::from_secs(2);
/// How long a host with a disk that may be an old one waits for the other peers once one has told
/// it everything: that one may lag. It waits for so long even if all have answered whom it knows:
/// one that none of them has heard of, for it joined after the image was made, may know more.
pub(super) const COMPARE_OTHERS: Duration = Duration::from_secs(10);
/// What counts at most as awake between two looks. Chosen: there is one each second.
const AWAKE_MAX: Duration = Duration::from_secs(2);
/// How long a host that knows nobody, but whose disk may be an old one, waits for somebody who
/// knows it.
const COMPARE_UNKNOWN: Duration = Duration::from_secs(5);

/// A host asks what has happened while it was down.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparing {
    /// For how long, and when that was added up last: a machine that sleeps hears nobody.
    waited: Duration,
    at: Time,
    /// How long that was when one first told it everything that did not have it from this host
    /// itself.
    told: Option<Duration>,
}

impl Node {
    /// Throws away what this host knows of the ring, and is told everything anew. Its containers
    /// keep running with what they have.
    pub(super) fn start_over(&mut self, upheaval: Upheaval) {
        let why = match upheaval {
            Upheaval::Removed => {
                "this host was removed from the mesh while it was away: its blocks are others' now"
                    .to_owned()
            }
            Upheaval::Forgotten => {
                "nobody remembers whether this host was one of the many removed meanwhile"
                    .to_owned()
            }
            Upheaval::Forked => {
                "hosts were removed by force where what was decided here was unknown: that is void"
                    .to_owned()
            }
            Upheaval::Tainted(peer) => format!(
                "this host heard things of {} that were not known when it was removed",
                self.router.name_of(peer)
            ),
        };
        self.notice(true, format!("{why}; asking the others for the ring as it is"));
        self.desk.promises_kept |= self.remembers && !self.doubtful;
        self.delete_ring();
        self.ipam.reset_ring();
        self.journal.forget_marks();
        self.recall_again(why);
        self.desk.forked = (upheaval == Upheaval::Forked).then_some(self.now);
    }

    /// A peer knows later writes of this host than the host itself.
    pub(super) fn is_behind(&mut self, peer: PeerId) {
        let deaf = mutation::on(Mutation::SettleUntold);
        if self.recalling || self.mesh.is_none() || !self.router.is_settled() || deaf {
            return;
        }
        let name = self.router.name_of(peer);
        let why = format!(
            "{name} knows later writes of this host than its own disk holds: an old disk was \
             restored"
        );
        self.notice(true, format!("{why}; asking the others for what is missing"));
        self.forget_remembering();
        self.ipam.abstain();
        self.recall_again(why);
    }

    fn recall_again(&mut self, why: String) {
        self.desk.told_anew = Some((self.now, why.clone()));
        self.remembers = false;
        self.leave_later();
        self.registration = Registration::anew();
        self.comparing = None;
        self.recall_reason = Some(why);
        self.router.unsettle();
        self.begin_recall();
    }

    /// Why this run of the host was told the ring anew, for status.
    pub(super) fn told_anew_words(&self) -> Option<String> {
        let (at, why) = self.desk.told_anew.as_ref()?;
        Some(format!("{} s ago: {why}", self.now.since(*at).as_secs()))
    }

    /// Before a host serves after a restart, a peer tells it what has happened meanwhile: it may
    /// have been removed, or its disk may be an old one. With a disk that is surely the last run's
    /// it may write meanwhile.
    pub(super) fn begin_comparing(&mut self, now: Time) {
        let trusted = self.config.disk != Disk::MayBeOld && !self.doubtful;
        let trusted = trusted || mutation::on(Mutation::ServeOldDisk);
        self.write_doubt(!trusted);
        if trusted {
            self.router.settle(now);
        } else {
            self.router.tell_though_unsettled();
            self.begin_recall();
        }
        self.router.ask_for_all();
        self.comparing = Some(Comparing { waited: Duration::ZERO, at: now, told: None });
    }

    /// The disk was lost, and a peer has told what it knew of that. It may lag, like one that tells
    /// a host with an old disk.
    pub(super) fn compare_what_was_lost(&mut self) {
        self.write_doubt(true);
        self.router.unsettle();
        self.router.tell_though_unsettled();
        let told = Some(Duration::ZERO);
        self.comparing = Some(Comparing { waited: Duration::ZERO, at: self.now, told });
    }

    pub(super) fn compare(&mut self) {
        let word = self.router.told_word();
        let hears = self.hears_others();
        let Some(comparing) = &mut self.comparing else { return };
        if hears {
            comparing.waited += self.now.since(comparing.at).min(AWAKE_MAX);
        }
        comparing.at = self.now;
        // Somebody new may have been told by this host itself.
        if word > Some(Word::Hearsay) {
            comparing.told.get_or_insert(comparing.waited);
        }
        let Comparing { waited, told, .. } = *comparing;
        let others = || self.standing_members().len().saturating_sub(1);
        let over = if word.is_some() && self.doubtful {
            told.is_some_and(|told| waited >= told + COMPARE_OTHERS)
        } else if word == Some(Word::Settled) || (word.is_some() && self.all_have_told()) {
            true
        } else {
            // A disk that is surely as the last run left it is only asked about for a moment.
            let patience = match (self.doubtful, others() == 0) {
                (false, true) => Some(Duration::ZERO),
                (true, true) => Some(COMPARE_UNKNOWN),
                (false, false) => Some(COMPARE_TRUSTED),
                (true, false) => self.config.serve_alone.then_some(COMPARE_UNKNOWN),
            };
            patience.is_some_and(|patience| waited >= patience)
        };
        let over = over && !self.may_be_copy();
        if over && !self.router.is_settled() {
            // At once, before anything is written.
            self.router.settle(self.now);
            self.end_recall();
        } else if over && !self.recalling {
            self.comparing = None;
            self.router.stop_asking();
            self.write_doubt(false);
        }
    }

    /// Whether the time counts. With a disk that may be an old one, who was told something by a
    /// peer and reaches nobody any more is told nothing else, however long it waits: it is alone.
    fn hears_others(&self) -> bool {
        let was_told = self.comparing.is_some_and(|comparing| comparing.told.is_some());
        let waits = self.doubtful && was_told && !self.config.serve_alone;
        !waits || !self.router.paths().is_empty()
    }

    /// Whether every other member has said what it knows, and none knows of later decrees: one may
    /// have removed this host. All may have been started at once, and ask each other.
    fn all_have_told(&self) -> bool {
        let decrees = self.ipam.store().seen(DECREE);
        let more = self.router.known_by_some(Kind::Ring, DECREE, decrees + 1);
        !more && self.all_have_greeted()
    }

    /// Whether every other member has said what it knows. Others may have linked, too: somebody who
    /// was removed, or is new.
    pub(super) fn all_have_greeted(&self) -> bool {
        let greeted: BTreeSet<PeerId> = self.router.greeted().chain([self.config.me]).collect();
        self.standing_members().is_subset(&greeted)
    }

    /// When a host that compares goes on without having been told anything.
    pub(super) fn compare_timeout(&self) -> Option<Time> {
        let Comparing { waited, at, told } = self.comparing.filter(|_| self.hears_others())?;
        let spans = [COMPARE_TRUSTED, COMPARE_UNKNOWN].into_iter();
        let next = spans.chain(told.map(|told| told + COMPARE_OTHERS)).find(|span| *span > waited);
        next.map(|span| at + (span - waited))
    }

    /// Whether this host asks what has happened while it was down.
    pub(super) fn is_comparing(&self) -> bool {
        self.comparing.is_some()
    }

    /// Why a host that may have an old disk does not serve yet.
    pub(super) fn comparing_words(&self) -> Option<String> {
        let told = self.comparing?.told.is_some() && self.doubtful && self.hears_others();
        let mut others = self.standing_members();
        others.remove(&self.config.me);
        if others.is_empty() {
            return Some("waiting a moment for peers that this host does not know of".to_owned());
        }
        if told {
            let span = COMPARE_OTHERS.as_secs();
            return Some(format!(
                "a peer has told this host what it knows; waiting {span} s for others, one of \
                 which may know more, for the disk was lost or may be an old one"
            ));
        }
        Some(format!(
            "after a start a peer is asked first what has happened meanwhile, for an old disk may \
             have been restored; waiting for one of: {} (or start with --serve-alone)",
            self.names(&others)
        ))
    }
}
