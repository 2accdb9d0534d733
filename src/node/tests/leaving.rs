//! A host that leaves, and is back.

use std::collections::BTreeSet;

use mesh_ipam::{RingKey, RingValue, SpaceMessage, SpaceRequest};
use mesh_router::{
    codec,
    frame::{Digest, Frame, Word},
    member::{self, Info},
};

use super::{
    super::{leaving::Left, peers::PeerMessage},
    *,
};

/// A leave was interrupted: others may have dropped what this host had said, and take only what is
/// new.
#[test]
fn who_did_not_leave_after_all_says_everything_anew() {
    let mut host = Host::ready();
    host.attach("a");
    host.settle();
    let info = member::info(host.node.router.members(), host.node.config.me).unwrap().clone();
    host.node.router.describe(Info { left: true, ..info });
    host.wait(Duration::from_secs(1));
    host.settle();
    let said = host.node.zone.store().own_counter();
    let mut again = host.restart();
    again.settle();
    let me = again.node.config.me;
    assert!(!member::info(again.node.router.members(), me).unwrap().left);
    assert!(again.node.zone.store().own_counter() > said);
    let mut once_more = again.restart();
    once_more.settle();
    let counters = [&again, &once_more].map(|host| host.node.zone.store().own_counter());
    assert_eq!(counters[0], counters[1], "it says nothing anew that nobody dropped");
}

/// Found by simulation: who was told to leave again at once, and again, was forgotten by the heir
/// after two minutes, and said nothing that was new to it.
#[test]
fn who_could_not_leave_says_so_before_it_is_told_to_leave_again() {
    let mut host = Host::ready();
    let (heir, me) = (PeerId::new([2; 16]), host.node.config.me);
    grant(&mut host, heir);
    let asked = host.ask(Request::Leave);
    let (link, remote) = (LinkId(1), "192.0.2.5:7780".parse().unwrap());
    host.input(Input::LinkUp(LinkUp { link, peer: heir, incarnation: 1, remote, dialled: None }));
    let hello = Frame::Hello { vectors: Default::default(), founding: 0 };
    host.input(Input::Frame { link, bytes: hello.encode() });
    let has_left = |host: &Host| member::info(host.node.router.members(), me).unwrap().left;
    while !has_left(&host) {
        host.wait(Duration::from_millis(500));
        host.settle();
    }
    while host.node.is_leaving() {
        assert!(has_left(&host));
        host.now = host.now + Duration::from_millis(100);
        host.node.handle_input(Input::Timeout, host.now);
    }
    assert!(!has_left(&host));
    host.settle();
    let refused = host.replies[&asked].as_ref().unwrap_err();
    assert!(refused.message.contains("has not confirmed our blocks"), "{refused:?}");
}

/// Links a peer that has nothing to say.
fn link_up(host: &mut Host, number: u64, peer: PeerId) {
    let (link, remote) = (LinkId(number), "192.0.2.5:7780".parse().unwrap());
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    let hello = Frame::Hello { vectors: Default::default(), founding: 0 };
    host.input(Input::Frame { link, bytes: hello.encode() });
}

/// Five seconds in which these links say something.
fn go_on(host: &mut Host, links: &[u64]) {
    for _ in 0..10 {
        for link in links {
            let bytes = Frame::Heartbeat { digest: Digest::default() }.encode();
            host.input(Input::Frame { link: LinkId(*link), bytes });
        }
        host.persist();
        host.wire();
        host.wait(Duration::from_millis(500));
    }
}

/// Two hosts are switched off at once, and each may be the other's heir. Found by reading.
#[test]
fn who_leaves_has_another_confirm_if_its_heir_is_gone() {
    let [heir, other] = [2, 3].map(|n| PeerId::new([n; 16]));
    let mut host = Host::ready();
    for (number, peer) in [(1, heir), (2, other)] {
        grant(&mut host, peer);
        link_up(&mut host, number, peer);
    }
    let asked = host.ask(Request::Leave);
    go_on(&mut host, &[1, 2]);
    let info = member::info(host.node.router.members(), host.node.config.me);
    assert!(info.unwrap().left);
    let counter = host.node.ipam.store().own_counter();
    let confirms = codec::encode(&PeerMessage::TakenOver { counter });
    host.node.on_peer_message(other, &confirms);
    host.wait(Duration::from_millis(500));
    assert!(host.node.is_leaving(), "the heir may not have the blocks yet");
    host.node.router.unsettle();
    host.node.on_peer_message(heir, &confirms);
    assert!(host.node.is_leaving(), "it is being told the ring anew");
    host.node.router.settle(host.now);
    host.input(Input::LinkDown { link: LinkId(1), reason: "it left".to_owned() });
    go_on(&mut host, &[2]);
    assert!(matches!(host.replies[&asked], Ok(Reply::Done)), "{:?}", host.replies[&asked]);
}

/// It was given something by one that had not heard that it left. Found by reading.
#[test]
fn what_belongs_to_a_host_that_has_left_is_taken_back() {
    let mut host = Host::ready();
    let gone = PeerId::new([2; 16]);
    grant(&mut host, gone);
    let says = |host: &mut Host, left: bool| {
        let info = Info { name: "h2".into(), endpoints: vec![], incarnation: 1, left };
        let members = host.node.router.members_mut();
        members.write(member::MemberKey::Info(gone), member::MemberValue::Info(info));
        for _ in 0..4 {
            go_on(host, &[]);
        }
        host.node.ipam.owns_anything(gone)
    };
    assert!(says(&mut host, false), "it is only away");
    assert!(!says(&mut host, true));
}

/// The wish to vote no more stood in the way of every other. Found by reading.
#[test]
fn who_could_not_leave_in_time_votes_and_proposes_as_before() {
    let mut host = Host::ready();
    grant(&mut host, PeerId::new([2; 16]));
    let asked = host.ask_for(Request::Leave, Duration::from_secs(2));
    go_on(&mut host, &[]);
    let refused = host.replies[&asked].as_ref().unwrap_err();
    assert!(refused.message.contains("votes no more"), "{refused:?}");
    let range = "10.99.0.0/16".parse().unwrap();
    let asked = host.ask(Request::RangeAdd(range));
    go_on(&mut host, &[]);
    assert!(host.replies[&asked].is_ok(), "{:?}", host.replies[&asked]);
}

/// It used to write, which it must not, and panicked. Found by reading.
#[test]
fn who_is_told_the_ring_anew_while_it_leaves_gives_nothing_away_meanwhile() {
    let mut host = Host::ready();
    let peer = PeerId::new([2; 16]);
    link_up(&mut host, 1, peer);
    let info = Info { name: "h2".into(), endpoints: vec![], incarnation: 1, left: false };
    let members = host.node.router.members_mut();
    members.write(member::MemberKey::Info(peer), member::MemberValue::Info(info));
    host.ask(Request::Leave);
    go_on(&mut host, &[1]);
    let indeed = codec::encode(&PeerMessage::WouldIndeed);
    host.node.start_over(mesh_ipam::council::Upheaval::Forgotten);
    host.node.on_peer_message(peer, &indeed);
    assert!(host.node.is_leaving() && !host.node.router.is_settled());
}

/// Whoever is asked first may never have heard of the heir, nor of the leave.
#[test]
fn whoever_left_waits_for_its_heirs_too() {
    let mut host = Host::ready();
    let (heir, me) = (PeerId::new([2; 16]), host.node.config.me);
    let left = Left {
        mesh: credentials().mesh,
        counter: host.node.ipam.store().own_counter() + 1,
        heirs: BTreeSet::from([heir]),
        promises: mesh_ipam::council::acceptor::Acceptor::default(),
        all_promises: true,
    };
    host.node.left = Some(left);
    host.node.begin_recall();
    host.wait(Duration::from_secs(1));
    assert!(host.node.recalling, "the heir was not asked");
    assert_eq!(host.node.leave_unheard(), BTreeSet::from([heir]));
    host.node.denied.insert(heir);
    assert!(host.node.leave_unheard().is_empty(), "{me} may own its blocks again");
    host.node.router.settle(host.now);
    host.wait(Duration::from_secs(1));
    assert!(!host.node.recalling);
}

/// Of five electors three had left and were back, and nobody could be removed for want of their
/// votes. Found on real hosts.
#[test]
fn whoever_left_votes_when_it_is_back_unless_its_disk_may_be_an_old_one() {
    let mut host = Host::ready();
    host.node.exit();
    host.settle();
    for (known, votes) in [(Disk::Same, true), (Disk::MayBeOld, false), (Disk::Same, false)] {
        let disk = std::mem::take(&mut host.disk);
        host = Host::start_as(NodeConfig { disk: known, ..config() }, disk);
        host.settle();
        assert_eq!(host.node.left.as_ref().unwrap().all_promises, votes);
    }
    for all_promises in [true, false] {
        let mut host = Host::start(host.disk.clone());
        host.node.left.as_mut().unwrap().all_promises = all_promises;
        host.node.enter(credentials());
        host.node.begin_recall();
        host.node.router.settle(host.now);
        host.wait(Duration::from_secs(1));
        assert!(!host.node.recalling, "{:?}", host.node.unready_because());
        assert_eq!(host.node.ipam.abstains(), !all_promises);
    }
}

/// After a start it has forgotten whom it had asked for space.
#[test]
fn whoever_leaves_after_a_start_has_every_owner_confirm_that_it_reaches() {
    let [heir, linked, away] = [2, 3, 4].map(|n| PeerId::new([n; 16]));
    let mut host = Host::ready();
    for peer in [heir, linked, away] {
        grant(&mut host, peer);
    }
    let mut again = host.restart();
    for (host, waits_for) in [(&mut host, vec![heir]), (&mut again, vec![heir, linked])] {
        for (link, peer) in [(LinkId(1), heir), (LinkId(2), linked)] {
            let remote = "192.0.2.3:7780".parse().unwrap();
            host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
        }
        assert_eq!(host.node.unconfirmed(heir), BTreeSet::from_iter(waits_for));
    }
}

/// Somebody who is back may wait for a host that nobody else has heard of.
#[test]
fn whoever_nobody_has_heard_of_is_removed_by_a_whole_id_only() {
    let mut host = Host::ready();
    let whole = PeerId::new([5; 16]).to_string();
    let remove = |name: &str| Request::PeerRemove { peers: vec![name.to_owned()], force: false };
    let part = host.ask(remove(&whole[..12]));
    assert_eq!(host.replies[&part].as_ref().unwrap_err().code, Code::NotFound);
    let all = host.ask(remove(&whole));
    host.settle();
    assert!(matches!(host.replies[&all], Ok(Reply::Removed(_))), "{:?}", host.replies[&all]);
}

#[test]
fn whoever_is_removed_by_force_is_removed_though_it_answers() {
    for force in [true, false] {
        let mut host = Host::ready();
        let peer = PeerId::new([5; 16]);
        let asked = host.ask(Request::PeerRemove { peers: vec![peer.to_string()], force });
        assert!(!host.replies.contains_key(&asked), "it is about to be agreed on");
        host.node.on_peer_message(peer, &codec::encode(&PeerMessage::IAmHere));
        host.settle();
        assert_eq!(host.replies[&asked].is_ok(), force, "{:?}", host.replies[&asked]);
    }
}

/// Nobody had asked it, for it could not be reached when its removal was asked for.
#[test]
fn who_is_back_while_its_removal_waits_for_others_is_asked_whether_it_runs() {
    let mut host = Host::ready();
    let [silent, peer] = [4, 5].map(|n| PeerId::new([n; 16]));
    grant(&mut host, silent);
    let peers = vec![peer.to_string()];
    let asked = host.ask(Request::PeerRemove { peers, force: false });
    host.settle();
    assert!(!host.replies.contains_key(&asked), "a member has not answered");
    let question = codec::encode(&PeerMessage::AreYouThere);
    let is_asked = |host: &Host| {
        let mut frames = host.sent.iter().filter_map(|bytes| Frame::decode(bytes).ok());
        frames.any(|frame| match frame {
            Frame::Routed { to, payload, .. } => to == peer && payload == question,
            _ => false,
        })
    };
    assert!(!is_asked(&host));
    let (link, remote) = (LinkId(1), "192.0.2.5:7780".parse().unwrap());
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    let hello = Frame::Hello { vectors: Default::default(), founding: 0 };
    host.input(Input::Frame { link, bytes: hello.encode() });
    host.wait(Duration::from_secs(1));
    assert!(is_asked(&host));
    host.node.on_peer_message(peer, &codec::encode(&PeerMessage::IAmHere));
    host.settle();
    let refused = host.replies[&asked].as_ref().unwrap_err();
    assert!(refused.message.contains("is alive"), "{refused:?}");
}

/// Gives a chunk to a peer of which nothing else is known.
pub(super) fn grant(host: &mut Host, peer: PeerId) {
    let range = host.node.ipam.ranges()[0];
    let (address, seen, own) = (None, 0, 0);
    let request = SpaceRequest { id: 1, range, address, seen, own, urgent: true, held_by: None };
    host.node.ipam.handle_message(peer, SpaceMessage::Request(request), host.now);
    host.settle();
}

/// Those who removed it took no news of it meanwhile: what one of them tells may lack its grants.
/// Found by simulation.
#[test]
fn whoever_was_removed_is_told_first_what_it_had_given_away() {
    let mut host = Host::ready();
    let (other, me) = (PeerId::new([2; 16]), host.node.config.me);
    grant(&mut host, other);
    host.node.begin_recall();
    let ring = host.node.ipam.store_mut();
    let cut = ring.own_counter() + 9;
    ring.write(RingKey::Removed(me), RingValue::Removed { cut, epoch: 2 });
    host.wait(Duration::from_secs(1));
    assert!(host.node.recalling, "it was told less");
    // There is no link to the other.
    let mut says = |counter| {
        let message = codec::encode(&PeerMessage::YouWrote { counter });
        host.node.on_peer_message(other, &message);
        host.node.leave_unheard()
    };
    assert_eq!(says(cut), BTreeSet::from([other]), "it will come");
    assert_eq!(says(cut - 1), BTreeSet::new());
    host.node.router.settle(host.now);
    host.wait(Duration::from_secs(1));
    assert!(!host.node.recalling, "nobody knows more");
}

/// A decree was wanted that only the votes could make of those who had been removed. Found by
/// simulation.
#[test]
fn whoever_was_removed_votes_again_unless_its_disk_was_lost() {
    for lost in [false, true] {
        let mut host = Host::ready();
        host.node.remembers = !lost;
        host.node.start_over(mesh_ipam::council::Upheaval::Removed);
        let removed = RingValue::Removed { cut: 0, epoch: 2 };
        host.node.ipam.store_mut().write(RingKey::Removed(host.node.config.me), removed);
        host.node.router.settle(host.now);
        host.wait(Duration::from_secs(1));
        assert!(!host.node.recalling, "{:?}", host.node.unready_because());
        assert_eq!(host.node.ipam.abstains(), lost);
    }
}

/// Its disk is lost, and the only one that it can ask was set back to an old image meanwhile. Found
/// by simulation.
#[test]
fn whoever_lost_its_disk_does_not_rely_on_one_that_may_be_old() {
    let mut host = Host::ready();
    grant(&mut host, PeerId::new([2; 16]));
    host.node.router.unsettle();
    host.node.begin_recall();
    let (link, peer) = (LinkId(1), PeerId::new([3; 16]));
    let remote = "192.0.2.3:7780".parse().unwrap();
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    let frame = |frame: Frame| Input::Frame { link, bytes: frame.encode() };
    host.input(frame(Frame::Hello { vectors: Default::default(), founding: 0 }));
    host.input(frame(Frame::Synced { pull: 1, word: Word::Disk }));
    assert!(host.node.recalling, "another member owns something, and was not heard");
    let why = host.node.unready_because().unwrap();
    assert!(why.contains("--serve-alone") && why.contains("02020202"), "{why}");
    host.wait(Duration::from_secs(2));
    host.input(frame(Frame::Heartbeat { digest: Digest::default() }));
    host.input(frame(Frame::Synced { pull: 2, word: Word::Settled }));
    assert!(!host.node.router.is_hearsay(), "the one that was asked has compared its own disk");
    assert!(host.node.recalling && host.node.is_unsure(), "but it may lag");
    go_on(&mut host, &[1]);
    assert!(host.node.recalling);
    for _ in 0..2 {
        go_on(&mut host, &[1]);
    }
    assert!(!host.node.recalling, "{:?}", host.node.unready_because());
}

/// It may have written before, though the peer that tells it the ring has never heard of it: two
/// writes had one number, and rings differed for ever. Found by simulation.
#[test]
fn whoever_has_its_key_but_not_its_disk_waits_for_others_and_leaves_numbers_out() {
    let join = |disk| {
        let mut host = Host::start_as(NodeConfig { disk, ..config() }, BTreeMap::new());
        host.node.enter(credentials());
        host.node.begin_recall();
        host.node.router.settle(host.now);
        host.wait(Duration::from_secs(1));
        host
    };
    let new = join(Disk::New);
    assert!(!new.node.recalling, "{:?}", new.node.unready_because());
    let mut lost = join(Disk::Same);
    assert!(lost.node.recalling);
    for host in [&mut lost, &mut new.restart()] {
        link_up(host, 1, PeerId::new([2; 16]));
        for _ in 0..4 {
            go_on(host, &[1]);
        }
        assert!(!host.node.recalling, "{:?}", host.node.unready_because());
    }
    let wrote = |host: &Host| host.node.router.members().own_counter();
    assert!(wrote(&new) < 10 && wrote(&lost) > 1 << 20, "{} {}", wrote(&new), wrote(&lost));
    assert!(lost.node.ipam.abstains() && !new.node.ipam.abstains());
}

/// Somebody who is away may have been given something that is not in the image.
#[test]
fn an_old_disk_waits_for_the_others_while_it_is_awake_and_hears_somebody_and_once_it_was_told() {
    let mut host = Host::ready();
    grant(&mut host, PeerId::new([2; 16]));
    let config = NodeConfig { disk: Disk::MayBeOld, ..config() };
    let mut host = Host::start_as(config, host.disk);
    let links = |host: &mut Host, link: u64| {
        let (link, peer) = (LinkId(link), PeerId::new([3; 16]));
        let remote = "192.0.2.3:7780".parse().unwrap();
        host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    };
    let says = |host: &mut Host, link: u64, frame: Frame| {
        host.input(Input::Frame { link: LinkId(link), bytes: frame.encode() });
    };
    let hears = |host: &mut Host, link: u64, seconds: u64| {
        for _ in 0..seconds {
            says(host, link, Frame::Heartbeat { digest: Digest::default() });
            host.wait(Duration::from_secs(1));
        }
        host.node.is_unsure()
    };
    links(&mut host, 1);
    assert!(hears(&mut host, 1, 20), "nobody has told it anything");
    says(&mut host, 1, Frame::Hello { vectors: Default::default(), founding: 0 });
    for pull in 1..9 {
        says(&mut host, 1, Frame::Synced { pull, word: Word::Settled });
    }
    assert!(hears(&mut host, 1, 5), "the other may know more");
    host.wait(Duration::from_secs(3600));
    assert!(host.node.is_unsure(), "it slept");
    assert!(hears(&mut host, 1, 20), "the link is lost: it is alone");
    links(&mut host, 2);
    assert!(!hears(&mut host, 2, 10));
}

/// Its own disk is in no doubt: it does not wait for whoever told it something and is gone.
#[test]
fn a_disk_in_no_doubt_is_compared_for_a_moment_only() {
    let mut host = Host::ready();
    grant(&mut host, PeerId::new([2; 16]));
    let mut host = Host::start_as(config(), host.disk);
    let (link, peer) = (LinkId(1), PeerId::new([3; 16]));
    let remote = "192.0.2.3:7780".parse().unwrap();
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    let hello = Frame::Hello { vectors: Default::default(), founding: 0 };
    let synced = (1..9).map(|pull| Frame::Synced { pull, word: Word::Disk });
    for frame in [hello].into_iter().chain(synced) {
        host.input(Input::Frame { link, bytes: frame.encode() });
    }
    assert_eq!(host.node.router.told_word(), Some(Word::Disk));
    host.input(Input::LinkDown { link, reason: "it broke".to_owned() });
    assert!(host.node.is_comparing());
    for _ in 0..3 {
        host.wait(Duration::from_secs(1));
    }
    assert!(!host.node.is_comparing());
}

/// Two hosts that were removed while their meshd was stopped, and start together, have no reason to
/// believe each other. Found by reading.
#[test]
fn who_asks_what_has_happened_says_that_it_may_not_know_it() {
    let mut host = Host::ready();
    grant(&mut host, PeerId::new([2; 16]));
    let mut host = Host::start_as(config(), host.disk);
    let words = |host: &mut Host, number: u64| {
        let (link, peer) = (LinkId(number), PeerId::new([3; 16]));
        let remote = "192.0.2.3:7780".parse().unwrap();
        host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
        let hello = Frame::Hello { vectors: Default::default(), founding: 0 };
        let want = Frame::Want { vectors: Default::default(), pull: 7 };
        host.sent.clear();
        for frame in [hello, want] {
            host.input(Input::Frame { link, bytes: frame.encode() });
            host.wait(Duration::from_millis(10));
        }
        let frames = host.sent.iter().map(|bytes| Frame::decode(bytes).unwrap());
        let word = |frame| match frame {
            Frame::Synced { word, .. } => Some(word),
            _ => None,
        };
        frames.filter_map(word).collect::<Vec<_>>()
    };
    assert!(host.node.is_comparing());
    assert_eq!(words(&mut host, 1), [Word::Disk]);
    host.wait(Duration::from_secs(3));
    assert!(!host.node.is_comparing());
    assert_eq!(words(&mut host, 2), [Word::Settled]);
}

/// The disk is a copy of one whose host had not been told all yet. Found by simulation.
#[test]
fn a_copy_waits_for_the_original_also_if_it_has_all_to_learn() {
    let mut joining = Host::start(BTreeMap::new());
    let targets = vec![at("192.0.2.3:7780")];
    joining.ask(Request::Join { credentials: credentials(), targets });
    joining.persist();
    let config = NodeConfig { disk: Disk::MayBeOld, ..config() };
    let mut host = Host::start_as(config, joining.disk);
    assert!(host.node.recalling && !host.node.is_comparing());
    let (link, peer) = (LinkId(1), PeerId::new([3; 16]));
    let remote = "192.0.2.3:7780".parse().unwrap();
    host.input(Input::LinkUp(LinkUp { link, peer, incarnation: 1, remote, dialled: None }));
    let address = "192.0.2.7:7780".parse().unwrap();
    host.node.on_peer_message(peer, &codec::encode(&PeerMessage::Before { address }));
    let frame = |frame: Frame| Input::Frame { link, bytes: frame.encode() };
    host.input(frame(Frame::Hello { vectors: Default::default(), founding: 0 }));
    let mut waits = |seconds: u64| {
        for _ in 0..seconds {
            host.input(frame(Frame::Heartbeat { digest: Digest::default() }));
            for pull in 1..20 {
                host.input(frame(Frame::Synced { pull, word: Word::Settled }));
            }
            host.wait(Duration::from_secs(1));
        }
        (host.node.recalling, host.node.unready_because().unwrap_or_default())
    };
    let (recalling, words) = waits(3);
    assert!(recalling && words.contains("192.0.2.7:7780"), "{words}");
    let (recalling, words) = waits(4);
    assert!(recalling && !words.contains("192.0.2.7:7780"), "it would have come back: {words}");
    assert!(!waits(12).0, "it may have written");
}

#[test]
fn whoever_was_heard_from_until_its_link_broke_is_told_to_the_next_with_its_key() {
    for silent in [0, 2] {
        let mut host = Host::ready();
        let up = |link, incarnation, remote: &str| {
            let (remote, peer) = (remote.parse().unwrap(), PeerId::new([3; 16]));
            LinkUp { link: LinkId(link), peer, incarnation, remote, dialled: None }
        };
        host.input(Input::LinkUp(up(1, 1, "192.0.2.3:7780")));
        host.wait(Duration::from_secs(3));
        let bytes = Frame::Heartbeat { digest: Digest::default() }.encode();
        host.input(Input::Frame { link: LinkId(1), bytes });
        host.input(Input::LinkDown { link: LinkId(1), reason: "it broke".to_owned() });
        host.wait(Duration::from_secs(silent));
        let said = host.node.note_incarnation(&up(2, 2, "192.0.2.9:7780"));
        let address = "192.0.2.3:7780".parse().unwrap();
        let before = codec::encode(&PeerMessage::Before { address });
        assert_eq!(said, (silent == 0).then_some(before));
    }
}

/// A grant came when its receiver was gone: that is shown until somebody takes the addresses.
#[test]
fn whose_addresses_nobody_can_use_is_shown_with_what_to_do() {
    let mut host = Host::ready();
    let gone = PeerId::new([5; 16]);
    grant(&mut host, gone);
    let stranded = host.node.status().ipam.stranded;
    let owned = host.node.ipam.owned_by(gone);
    assert!(owned > 0);
    assert_eq!(
        stranded,
        [format!(
            "{gone} is not known here and owns {owned} addresses; if it is gone for good, \
             `meshctl peer remove {gone}` takes them"
        )]
    );
    let remove = Request::PeerRemove { peers: vec![gone.to_string()], force: false };
    let removed = host.ask(remove);
    host.settle();
    assert!(
        matches!(host.replies[&removed], Ok(Reply::Removed(_))),
        "{:?}",
        host.replies[&removed]
    );
    assert_eq!(host.node.status().ipam.stranded, Vec::<String>::new());
}

/// It was removed by force where nobody knew of the grant.
#[test]
fn what_a_removed_host_owns_all_the_same_is_taken_back() {
    let mut host = Host::ready();
    let gone = PeerId::new([5; 16]);
    grant(&mut host, gone);
    let removed = RingValue::Removed { cut: 0, epoch: 1 };
    host.node.ipam.store_mut().write(RingKey::Removed(gone), removed);
    let mut wait = |seconds| {
        for _ in 0..seconds {
            host.wait(Duration::from_secs(1));
            host.settle();
        }
        host.node.ipam.owned_by(gone)
    };
    assert!(wait(1) > 0, "the ring may be on its way");
    assert_eq!(wait(5), 0);
}
