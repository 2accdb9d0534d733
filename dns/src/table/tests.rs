//! What is answered, question by question.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

fn peer(n: u8) -> PeerId {
    PeerId::new([n; 16])
}

fn name(text: &str) -> Name {
    Name::in_domain(text, &Name::parse("mesh.internal").unwrap()).unwrap()
}

fn set(origin: u8, text: &str, holder: &str, addresses: &[&str]) -> ZoneChange {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    ZoneChange::Set { origin: peer(origin), name: name(text), holder: holder.into(), addresses }
}

fn unset(origin: u8, text: &str, holder: &str) -> ZoneChange {
    ZoneChange::Unset { origin: peer(origin), name: name(text), holder: holder.into() }
}

fn table(changes: Vec<ZoneChange>) -> Table {
    let mut table = Table::new(Name::parse("mesh.internal").unwrap());
    table.set_ranges(vec!["10.32.0.0/12".parse().unwrap(), "fd00:1::/48".parse().unwrap()]);
    changes.into_iter().for_each(|change| table.apply(change));
    table
}

fn ask(table: &Table, text: &str, kind: QueryType) -> Answer {
    table.answer(&QueryName::from(&Name::parse(text).unwrap()), kind)
}

fn addresses(all: &[&str]) -> Answer {
    Answer::Addresses(all.iter().map(|text| text.parse().unwrap()).collect())
}

fn no_data(zone: &str) -> Answer {
    Answer::NoData { zone: zone.into() }
}

fn name_error(zone: &str) -> Answer {
    Answer::NameError { zone: zone.into() }
}

const ZONE: &str = "mesh.internal";

#[test]
fn each_type_gets_its_addresses() {
    let table = table(vec![set(1, "web", "c1", &["10.32.0.1", "fd00:1::1"])]);
    assert_eq!(ask(&table, "WEB.mesh.internal", QueryType::A), addresses(&["10.32.0.1"]));
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::Aaaa), addresses(&["fd00:1::1"]));
    let both = addresses(&["10.32.0.1", "fd00:1::1"]);
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::Any), both);
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::Other), no_data(ZONE));
    assert_eq!(ask(&table, "www.mesh.internal", QueryType::A), name_error(ZONE));
    assert_eq!(ask(&table, "a.web.mesh.internal", QueryType::A), name_error(ZONE));
    assert_eq!(ask(&table, "web.example.com", QueryType::A), Answer::NotOurs);
    assert_eq!(ask(&table, "internal", QueryType::A), Answer::NotOurs);
}

#[test]
fn a_name_without_the_family_exists() {
    let table = table(vec![set(1, "web", "c1", &["10.32.0.1"])]);
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::Aaaa), no_data(ZONE));
}

#[test]
fn names_between_the_domain_and_a_name_exist() {
    let mut table = table(vec![set(1, "pod.ns", "c1", &["10.32.0.1"])]);
    assert_eq!(ask(&table, "ns.mesh.internal", QueryType::A), no_data(ZONE));
    assert_eq!(ask(&table, "n.mesh.internal", QueryType::A), name_error(ZONE));
    table.apply(ZoneChange::Hide(peer(1)));
    assert_eq!(ask(&table, "ns.mesh.internal", QueryType::A), name_error(ZONE));
}

#[test]
fn the_domain_itself_is_a_zone() {
    let table = table(vec![]);
    let authority = Answer::Authority { zone: ZONE.into() };
    assert_eq!(ask(&table, "mesh.internal", QueryType::Soa), authority);
    assert_eq!(ask(&table, "mesh.internal", QueryType::A), no_data(ZONE));
}

#[test]
fn several_origins_and_holders_add_up_and_go_one_by_one() {
    let mut table = table(vec![
        set(1, "web", "c1", &["10.32.0.1"]),
        set(1, "web", "c2", &["10.32.0.2", "10.32.0.1"]),
        set(2, "web", "c1", &["10.32.0.3"]),
    ]);
    let all = addresses(&["10.32.0.1", "10.32.0.2", "10.32.0.3"]);
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::A), all);
    table.apply(unset(1, "web", "c2"));
    table.apply(unset(1, "web", "c9"));
    let two = addresses(&["10.32.0.1", "10.32.0.3"]);
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::A), two);
    assert_eq!(
        ask(&table, "1.0.32.10.in-addr.arpa", QueryType::Ptr),
        Answer::Pointers(vec![name("web")])
    );
    assert_eq!(
        ask(&table, "2.0.32.10.in-addr.arpa", QueryType::Ptr),
        name_error("32.10.in-addr.arpa")
    );
    table.apply(ZoneChange::Clear);
    assert!(table.is_empty() && table.reverse.is_empty());
}

#[test]
fn hidden_records_are_as_if_absent_and_come_back() {
    let mut table = table(vec![
        set(1, "web", "c1", &["10.32.0.1"]),
        set(2, "web", "c1", &["10.32.0.2"]),
        set(2, "db", "c2", &["10.32.0.3"]),
    ]);
    table.apply(ZoneChange::Hide(peer(2)));
    assert_eq!(ask(&table, "web.mesh.internal", QueryType::A), addresses(&["10.32.0.1"]));
    assert_eq!(ask(&table, "db.mesh.internal", QueryType::A), name_error(ZONE));
    let reverse = name_error("32.10.in-addr.arpa");
    assert_eq!(ask(&table, "3.0.32.10.in-addr.arpa", QueryType::Ptr), reverse);
    table.apply(ZoneChange::Show(peer(2)));
    assert_eq!(ask(&table, "db.mesh.internal", QueryType::A), addresses(&["10.32.0.3"]));
}

#[test]
fn only_addresses_in_the_ranges_are_looked_up_backwards_here() {
    let table = table(vec![set(1, "web", "c1", &["10.32.0.1", "fd00:1::1", "192.168.0.1"])]);
    let six = Name::reverse("fd00:1::1".parse().unwrap());
    let pointers = Answer::Pointers(vec![name("web")]);
    assert_eq!(ask(&table, six.as_str(), QueryType::Ptr), pointers);
    assert_eq!(
        ask(&table, six.as_str(), QueryType::A),
        no_data("0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa")
    );
    assert_eq!(ask(&table, "1.0.168.192.in-addr.arpa", QueryType::Ptr), Answer::NotOurs);
    assert_eq!(ask(&table, "10.in-addr.arpa", QueryType::Soa), Answer::NotOurs);
    let part = no_data("40.10.in-addr.arpa");
    assert_eq!(ask(&table, "1.40.10.in-addr.arpa", QueryType::Soa), part);
}

#[test]
fn big_answers_are_cut_and_shuffled() {
    let changes = (0..=255_u8).flat_map(|a| {
        [0, 1].map(|b| set(1, "web", &format!("c{a}.{b}"), &[&format!("10.32.{b}.{a}")]))
    });
    let table = table(changes.collect());
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut first = ask(&table, "web.mesh.internal", QueryType::A);
    let mut second = first.clone();
    first.shuffle(&mut rng);
    second.shuffle(&mut rng);
    let (Answer::Addresses(first), Answer::Addresses(second)) = (first, second) else {
        panic!("addresses")
    };
    assert_eq!((first.len(), second.len()), (ANSWER_RECORDS_MAX, ANSWER_RECORDS_MAX));
    assert_ne!(first, second);
}
