//! A host that joins: for the first time, once more, and out of another mesh.

use super::{leaving::grant, *};

fn other_mesh() -> Credentials {
    Credentials { mesh: MeshId::new([8; 16]), secret: Secret([6; 32]) }
}

fn join(credentials: Credentials, target: &str) -> Request {
    Request::Join { credentials, targets: vec![at(target)] }
}

fn refusal(host: &Host, id: u64) -> &Refusal {
    host.replies[&id].as_ref().unwrap_err()
}

#[test]
fn a_host_without_allocations_goes_to_the_mesh_that_it_is_told_to_join() {
    let mut host = Host::ready();
    let id = host.ask_for(join(other_mesh(), "192.0.2.9:7780"), Duration::from_secs(60));
    host.settle();
    assert!(!host.replies.contains_key(&id), "nobody has answered yet");
    assert_eq!(host.node.mesh_id(), Some(other_mesh().mesh));
    assert!(host.node.ipam.ranges().is_empty() && !host.node.router.is_settled());
    let words = host.node.unready_because().unwrap();
    assert!(words.contains("waiting for a host of the mesh: 192.0.2.9:7780"), "{words}");
    let again = host.restart();
    assert_eq!(again.node.mesh_id(), Some(other_mesh().mesh));
    assert!(again.node.slots.is_empty() && again.node.ipam.ranges().is_empty());
    let words = again.node.unready_because().unwrap();
    assert_eq!(words, "waiting for a host of the mesh: 192.0.2.9:7780: not answered yet");
    host.wait(Duration::from_secs(60));
    assert!(refusal(&host, id).message.contains("no host of the mesh answered"));
    assert_eq!(host.node.mesh_id(), None);
}

type Tie = fn(&mut Host);

#[test]
fn a_host_that_would_lose_something_stays_in_its_mesh() {
    let tie = |text: &'static str, tie: Tie| (text, tie);
    for (words, tie) in [
        tie("holds addresses for a/eth0", |host| {
            host.attach("a");
        }),
        tie("holds addresses for db", |host| {
            let (address, holder) = ("10.32.0.77".parse().ok(), "db".to_owned());
            host.ask(Request::Claim { address, holder });
        }),
        tie("with 02020202", |host| grant(host, PeerId::new([2; 16]))),
        tie("has published names", |host| {
            let (name, addresses) = ("x".to_owned(), vec!["192.0.2.77".parse().unwrap()]);
            host.ask(Request::DnsAdd { name, addresses });
        }),
    ] {
        let mut host = Host::ready();
        tie(&mut host);
        host.settle();
        let before = host.view();
        let (founders, targets) = (2, vec![at("192.0.2.9:7780")]);
        let found = Request::Found { credentials: other_mesh(), ranges: vec![], founders, targets };
        for request in [join(other_mesh(), "192.0.2.9:7780"), found] {
            let id = host.ask(request);
            let refusal = refusal(&host, id);
            assert_eq!(refusal.code, Code::Conflict);
            assert!(refusal.message.contains(words), "{refusal}");
        }
        assert_eq!(host.view(), before);
        assert!(host.node.is_ready());
    }
}

/// It was told a wrong address the first time.
#[test]
fn whoever_is_told_once_more_to_join_its_mesh_dials_there_too() {
    let mut host = Host::start(BTreeMap::new());
    let first = host.ask_for(join(credentials(), "192.0.2.8:7780"), Duration::from_secs(1 << 31));
    host.settle();
    let mut again = host.restart();
    for host in [&mut host, &mut again] {
        let second = host.ask_for(join(credentials(), "192.0.2.9:7780"), Duration::from_secs(9));
        host.settle();
        let targets: Vec<_> = host.node.router.targets().map(|(at, _)| at.to_string()).collect();
        assert_eq!(targets, ["192.0.2.8:7780", "192.0.2.9:7780"]);
        host.wait(Duration::from_secs(9));
        assert!(refusal(host, second).message.contains("no host of the mesh answered"));
        assert_eq!(host.node.mesh_id(), Some(credentials().mesh), "it goes on");
    }
    assert!(refusal(&host, first).message.contains("once more"));
    assert_eq!(again.restart().node.router.targets().count(), 2, "on disk");

    let mut member = Host::ready();
    let id = member.ask(join(credentials(), "192.0.2.9:7780"));
    member.settle();
    assert!(matches!(member.replies[&id], Ok(Reply::Joined(_))), "{:?}", member.replies[&id]);
    assert!(member.node.is_ready());
}

/// In some clusters a host has a name only when it is up.
#[test]
fn names_that_cannot_be_resolved_are_waited_for_in_words() {
    let target = |name: &str, found: Result<&str, &str>| JoinTarget {
        target: name.to_owned(),
        found: found.map(|at| vec![at.parse().unwrap()]).map_err(ToOwned::to_owned),
    };
    let unknown = target("host2", Err("host2 cannot be resolved"));
    let third = target("host3", Ok("192.0.2.3:7780"));
    let for_ever = Duration::from_secs(1 << 31);
    let found = |founders: u16, targets: &[JoinTarget]| Request::Found {
        credentials: credentials(),
        ranges: vec![],
        founders,
        targets: targets.to_vec(),
    };
    let mut host = Host::start(BTreeMap::new());
    let first = host.ask_for(found(3, std::slice::from_ref(&unknown)), for_ever);
    host.settle();
    assert!(!host.replies.contains_key(&first), "it waits");
    host.ask_for(found(3, &[unknown, third.clone()]), for_ever);
    host.settle();
    assert_eq!(refusal(&host, first).code, Code::Superseded);
    assert_eq!(
        host.node.unready_because().unwrap(),
        "waiting for 2 of 3 founders: host2 cannot be resolved; host3 (192.0.2.3:7780): not \
         answered yet"
    );
    let error = DialError::ForeignMesh;
    host.input(Input::DialFailed { target: "192.0.2.3:7780".parse().unwrap(), error });
    let words = host.node.unready_because().unwrap();
    assert!(words.ends_with("host3 (192.0.2.3:7780): it belongs to another mesh"), "{words}");
    assert_eq!(host.node.mesh_id(), Some(credentials().mesh), "it goes on");
    let mut host = host.restart();
    assert!(host.node.unready_because().unwrap().starts_with("waiting for 2 of 3 founders"));
    let other = host.ask_for(found(2, std::slice::from_ref(&third)), for_ever);
    let refused = refusal(&host, other);
    assert!(refused.message.contains("with 3 founders"), "two groups could found it: {refused}");
    let same = host.ask_for(found(3, &[third]), for_ever);
    host.settle();
    assert!(!host.replies.contains_key(&same), "it goes on");
    host.ask_for(join(other_mesh(), "192.0.2.4:7780"), for_ever);
    host.settle();
    assert_eq!(refusal(&host, same).code, Code::Superseded, "it gave that mesh up");
    assert_eq!(host.node.mesh_id(), Some(other_mesh().mesh));
}

/// It waited for space until a peer said that its disk is an old one. Found by simulation.
#[test]
fn whoever_was_told_all_is_a_member_also_if_it_is_in_doubt_when_its_patience_ends() {
    for told in [true, false] {
        let mut host = Host::start(BTreeMap::new());
        let id = host.ask_for(join(credentials(), "192.0.2.8:7780"), Duration::from_secs(9));
        host.settle();
        if told {
            host.node.router.settle(host.now);
            host.wait(Duration::from_secs(1));
            host.node.is_behind(PeerId::new([3; 16]));
        }
        host.wait(Duration::from_secs(9));
        let words = &refusal(&host, id).message;
        assert_eq!(host.node.mesh_id().is_some(), told, "{words}");
        assert_eq!(words.starts_with("joined, but not ready"), told, "{words}");
    }
}

#[test]
fn whoever_cannot_leave_before_it_was_told_all_says_so() {
    let mut host = Host::start(BTreeMap::new());
    host.ask_for(join(credentials(), "192.0.2.8:7780"), Duration::from_secs(1 << 31));
    host.settle();
    let leave = host.ask(Request::Leave);
    host.wait(Duration::from_secs(60));
    let refusal = refusal(&host, leave);
    assert!(refusal.message.contains("192.0.2.8:7780") && refusal.hint.contains("state directory"));
}

#[test]
fn ranges_that_containers_cannot_use_are_refused() {
    let mut host = Host::start(BTreeMap::new());
    for range in [
        "127.0.0.0/8",
        "169.254.7.0/24",
        "224.0.0.0/8",
        "0.1.0.0/16",
        "fe80::/64",
        "ff02::/112",
        "::ffff:0:0/96",
        "::/64",
    ] {
        let ranges = vec![range.parse().unwrap()];
        let id = host.ask(Request::Init { credentials: credentials(), ranges });
        let refusal = refusal(&host, id);
        assert!(refusal.message.contains("no container can have"), "{range}: {refusal}");
    }
    assert_eq!(host.node.mesh_id(), None);
}
