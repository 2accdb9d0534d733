//! Which addresses an attach gets, and to whom they go afterwards.

use std::net::IpAddr;

use super::*;

impl Host {
    /// A host of a mesh with these ranges.
    fn with_ranges(ranges: &[&str]) -> Self {
        let mut host = Self::start(BTreeMap::new());
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        host.ask(Request::Init { credentials: credentials(), ranges });
        host.settle();
        assert!(host.node.is_ready(), "{:?}", host.node.unready_because());
        host
    }

    fn attach_with(
        &mut self,
        container: &str,
        change: impl FnOnce(&mut AttachRequest),
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut request = AttachRequest::new(container);
        change(&mut request);
        let id = self.ask(Request::Attach(Box::new(request)));
        self.settle();
        match self.replies.remove(&id).expect("it was answered") {
            Ok(Reply::Attached(attached)) => {
                Ok(attached.addresses.iter().map(ipnetwork::IpNetwork::ip).collect())
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    fn named(&mut self, container: &str, name: &str) -> Vec<IpAddr> {
        self.attach_with(container, |request| request.names = vec![name.to_owned()]).unwrap()
    }

    fn gone(&mut self, container: &str) {
        self.detach(container);
        self.settle();
    }

    fn claim(&mut self, address: &str, holder: &str) -> Result<(), Refusal> {
        let address = Some(ip(address));
        let id = self.ask(Request::Claim { address, holder: holder.to_owned() });
        self.settle();
        self.replies.remove(&id).expect("it was answered").map(drop)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_named_address_is_given_and_one_of_each_family_that_has_none() {
    let mut host = Host::ready();
    let named = [ip("10.32.0.77"), ip("10.33.0.1")];
    let given = host.attach_with("c", |request| request.addresses = named.to_vec()).unwrap();
    assert_eq!(given[..2], named);
    assert!(given.len() == 3 && given[2].is_ipv6(), "{given:?}");
    let range = host.node.ipam().ranges()[1];
    let IpAddr::V6(first) = range.first() else { panic!("ranges rise") };
    let v6 = std::net::Ipv6Addr::from(u128::from(first) + 0x1_0007);
    let both = [v6.into(), ip("10.32.0.78")];
    let given = host.attach_with("d", |request| request.addresses = both.to_vec()).unwrap();
    assert_eq!(given, both);
    let twice = vec![ip("10.32.0.79"); 3];
    assert_eq!(host.attach_with("e", |request| request.addresses = twice).unwrap().len(), 2);
}

#[test]
fn what_cannot_be_given_is_refused_with_the_reason_and_leaves_nothing() {
    let mut host = Host::ready();
    host.attach_with("web", |request| request.addresses = vec![ip("10.32.0.77")]).unwrap();
    let before = host.view();
    let subnet = |text: &str| vec![text.parse().unwrap()];
    for (change, code, words) in [
        (vec!["192.0.2.1"], Code::Invalid, "in no range"),
        (vec!["10.32.0.0"], Code::Invalid, "reserved"),
        (vec!["10.32.0.5", "10.32.0.77"], Code::Conflict, "held on this host by web/eth0"),
    ] {
        let addresses = change.into_iter().map(ip).collect();
        let refusal = host.attach_with("c", |request| request.addresses = addresses).unwrap_err();
        assert!(refusal.code == code && refusal.message.contains(words), "{refusal:?}");
    }
    let many = (1..=17).map(|n| ip(&format!("10.32.1.{n}"))).collect();
    let refusal = host.attach_with("c", |request| request.addresses = many).unwrap_err();
    assert!(refusal.message.contains("more than 16 addresses"), "{refusal}");
    for (text, words) in [("10.77.0.0/16", "in no range"), ("10.32.0.1/24", "host bits")] {
        let refusal = host.attach_with("c", |request| request.subnets = subnet(text)).unwrap_err();
        assert!(refusal.code == Code::Invalid && refusal.message.contains(words), "{refusal:?}");
    }
    let long = "c".repeat(240);
    assert_eq!(host.attach_with(&long, |_| {}).unwrap_err().code, Code::Invalid);
    assert_eq!(host.view(), before);
    assert!(host.attach_with(&long[1..], |request| request.names = vec!["long".into()]).is_ok());
}

#[test]
fn a_subnet_is_a_part_of_a_range_and_other_ranges_are_used_only_on_demand() {
    let mut host = Host::with_ranges(&["10.20.0.0/16", "10.10.0.0/16"]);
    let plain = host.attach_with("plain", |_| {}).unwrap();
    assert!(plain.len() == 2 && plain[0].to_string().starts_with("10.20."), "{plain:?}");
    for subnet in ["10.10.3.0/24", "10.20.7.0/28"] {
        let subnet: ipnetwork::IpNetwork = subnet.parse().unwrap();
        let given = host.attach_with(&subnet.to_string(), |request| request.subnets = vec![subnet]);
        let given = given.unwrap();
        assert!(given.len() == 2 && subnet.contains(given[0]), "{given:?}");
        let again = host.attach_with(&subnet.to_string(), |request| request.subnets = vec![subnet]);
        assert_eq!(again.unwrap(), given);
    }
    let gateways = host.node.gateway_addresses();
    assert!(gateways.len() == 2 && gateways[0].to_string().starts_with("10.20."), "{gateways:?}");
    let exact = host.attach_with("exact", |request| request.addresses = vec![ip("10.10.9.9")]);
    assert_eq!(exact.unwrap()[0], ip("10.10.9.9"));
}

#[test]
fn a_container_that_comes_back_gets_its_addresses_back() {
    let mut host = Host::ready();
    let first = host.named("id-1", "web");
    let other = host.named("other", "other");
    host.gone("id-1");
    assert_eq!(host.named("id-1", "web"), first, "the same id");
    host.gone("id-1");
    assert_eq!(host.named("id-2", "web"), first, "the same name");
    host.gone("id-2");
    let third = host.named("id-3", "db");
    assert!(!third.iter().any(|address| first.contains(address) || other.contains(address)));
    assert_eq!(host.named("id-2", "web"), first, "others passed over what rests");
}

#[test]
fn what_was_released_before_a_restart_rests_and_is_known_after_it() {
    let mut host = Host::ready();
    let other = host.named("other", "other");
    let [web, db] = [("id-1", "web"), ("id-2", "db")].map(|(id, name)| host.named(id, name));
    host.gone("id-1");
    host.gone("id-2");
    let mut host = host.restart();
    host.settle();
    let third = host.named("id-3", "third");
    assert!(!third.iter().any(|address| [&web, &db, &other].iter().any(|a| a.contains(address))));
    assert_eq!(host.named("id-4", "web"), web, "by name");
    host.gone("id-4");
    let mut host = host.restart();
    host.settle();
    assert_eq!(host.named("id-2", "other"), db, "by id");
    // Somebody else got it meanwhile.
    host.claim(&web[0].to_string(), "claim").unwrap();
    let mut host = host.restart();
    host.settle();
    assert!(!host.named("id-1", "web").contains(&web[0]));
    host.node.ipam.check_invariants();
}

#[test]
fn rests_on_the_disk_are_bounded_and_go_with_the_mesh() {
    let mut host = Host::ready();
    let rows = |host: &Host| host.disk.keys().filter(|(table, _)| *table == Table::Rests).count();
    for turn in 0..4100 {
        let (address, holder) = (Some(ip("10.32.0.77")), format!("c{turn}"));
        host.ask(Request::Claim { address, holder: holder.clone() });
        host.persist();
        host.ask(Request::Release { holder });
        host.persist();
    }
    assert_eq!(rows(&host), 4096);
    host.ask(Request::Leave);
    host.settle();
    assert_eq!(rows(&host), 0);
}

#[test]
fn a_claimed_address_is_lent_to_its_container_and_stays_claimed() {
    let mut host = Host::ready();
    host.claim("10.32.0.77", "db").unwrap();
    assert_eq!(host.named("id-1", "db")[0], ip("10.32.0.77"), "by name");
    let second = host.named("id-2", "db");
    assert_ne!(second[0], ip("10.32.0.77"), "one at a time");
    host.gone("id-1");
    let mut host = host.restart();
    host.settle();
    for _ in 0..2 {
        assert_eq!(host.attach_with("db", |_| {}).unwrap()[0], ip("10.32.0.77"), "by id");
        host.gone("db");
        assert_eq!(host.node.ipam().holder_of(ip("10.32.0.77")).unwrap().to_string(), "db");
    }
    host.attach_with("db", |_| {}).unwrap();
    let mut host = host.restart();
    host.settle();
    let refused = host.attach_with("x", |request| request.addresses = vec![ip("10.32.0.77")]);
    assert_eq!(refused.unwrap_err().code, Code::Conflict);
    host.ask(Request::Release { holder: "db".into() });
    host.settle();
    let holder = host.node.ipam().holder_of(ip("10.32.0.77")).unwrap().clone();
    assert_eq!(holder.to_string(), "db/eth0", "it stays with who uses it");
    host.gone("db");
    assert_eq!(host.node.ipam().holder_of(ip("10.32.0.77")), None);
}

#[test]
fn a_container_can_be_made_to_keep_the_address_that_it_has() {
    let mut host = Host::ready();
    let address = host.named("id-1", "db")[0];
    assert_eq!(host.claim(&address.to_string(), "web").unwrap_err().code, Code::Conflict);
    host.claim(&address.to_string(), "db").unwrap();
    let held: Vec<_> =
        host.node.allocations().into_iter().filter(|a| a.address == address).collect();
    assert_eq!(held.len(), 2, "the claim and the container");
    host.gone("id-1");
    assert!(host.named("id-2", "web").iter().all(|given| *given != address));
    assert_eq!(host.named("id-3", "db")[0], address);
}

#[test]
fn a_crowd_in_front_of_one_container_is_refused_beyond_its_bound() {
    let mut host = Host::ready();
    let ids: Vec<u64> = (0..70).map(|_| host.attach("web")).collect();
    host.settle();
    let refused = ids.iter().filter(|id| host.replies[id].is_err()).count();
    assert_eq!(refused, 6);
    let refusal = host.replies[&ids[69]].as_ref().unwrap_err();
    assert!(refusal.code == Code::NotReady && refusal.message.contains("64 requests wait"));
}

#[test]
fn targets_have_a_bound() {
    let mut host = Host::ready();
    let target = |n: u16| Request::Connect((std::net::Ipv4Addr::new(192, 0, 2, 7), n).into());
    let last = (1..=257).map(|n| host.ask(target(n))).last().unwrap();
    let again = host.ask(target(1));
    host.settle();
    let refusal = host.replies[&last].as_ref().unwrap_err();
    assert!(refusal.message.contains("256 targets"), "{refusal}");
    assert_eq!(host.replies[&again], Ok(Reply::Done));
}
