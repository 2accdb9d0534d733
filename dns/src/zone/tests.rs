//! The zone's replicas: what they agree on, whatever was lost or collected.

use mesh_router::store::Cursor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn peer(n: u8) -> PeerId {
    PeerId::new([n; 16])
}

fn name(text: &str) -> Name {
    Name::in_domain(text, &Name::parse("mesh.internal").unwrap()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends what `to` lacks of `from`, at most `budget` bytes, until there is no more.
fn sync(from: &mut Zone, to: &mut Zone, budget: usize) {
    from.store.mark_durable(from.store.own_counter());
    let mut cursor = Cursor::at(to.store.announced());
    loop {
        let delta = from.store.delta(&cursor, |_| true, budget);
        if !delta.bytes.is_empty() {
            assert!(to.absorb(&delta.bytes).unwrap());
            to.take_changes();
        }
        if !delta.more {
            return;
        }
        cursor = delta.cursor;
    }
}

fn records(zone: &Zone) -> Vec<(RecordKey, Vec<IpAddr>)> {
    zone.records().map(|(key, all)| (key.clone(), all.to_vec())).collect()
}

fn tombstones(zone: &Zone) -> usize {
    zone.store.iter().filter(|(_, entry)| entry.value == RecordValue::Tombstone).count()
}

#[test]
fn putting_the_same_twice_writes_once() {
    let mut zone = Zone::new(peer(1));
    assert_eq!(zone.put(&name("web"), "c1", vec![ip("10.32.0.2"), ip("10.32.0.1")]), Ok(true));
    assert_eq!(zone.put(&name("web"), "c1", vec![ip("10.32.0.1"), ip("10.32.0.2")]), Ok(false));
    assert_eq!(zone.take_changes().len(), 1);
    assert!(zone.remove(&name("web"), "c1"));
    assert!(!zone.remove(&name("web"), "c1"));
    assert_eq!(zone.store.own_counter(), 2);
}

#[test]
fn a_change_says_what_the_resolver_must_do() {
    let mut zone = Zone::new(peer(1));
    zone.put(&name("web"), "c1", vec![ip("10.32.0.1")]).unwrap();
    let [change] = &zone.take_changes()[..] else { panic!("one change") };
    let (origin, holder) = (peer(1), "c1".to_owned());
    let set = ZoneChange::Set {
        origin,
        name: name("web"),
        holder: holder.clone(),
        addresses: vec![ip("10.32.0.1")],
    };
    assert_eq!(zone.zone_change(change), Some(set));
    zone.remove_holder("c1");
    let [change] = &zone.take_changes()[..] else { panic!("one change") };
    let unset = ZoneChange::Unset { origin, name: name("web"), holder };
    assert_eq!(zone.zone_change(change), Some(unset));
}

#[test]
fn removing_a_holder_leaves_its_neighbours_alone() {
    let mut zone = Zone::new(peer(5));
    for holder in ["c", "c1", "c10", "c2"] {
        zone.put(&name("web"), holder, vec![ip("10.32.0.1")]).unwrap();
        zone.put(&name("db"), holder, vec![ip("10.32.0.1")]).unwrap();
    }
    assert_eq!(zone.remove_holder("c1"), 2);
    assert_eq!(zone.remove_holder("c1"), 0);
    assert_eq!(zone.records().count(), 6);
    assert!(zone.records().all(|(key, _)| key.holder != "c1"));
}

#[test]
fn records_by_hand_grow_and_shrink_by_address() {
    let mut zone = Zone::new(peer(1));
    assert_eq!(zone.add_by_hand(&name("db"), &[ip("10.0.0.1")]), Ok(true));
    assert_eq!(zone.add_by_hand(&name("db"), &[ip("10.0.0.2"), ip("10.0.0.1")]), Ok(true));
    assert_eq!(zone.records().next().unwrap().1, [ip("10.0.0.1"), ip("10.0.0.2")]);
    assert!(zone.remove_by_hand(&name("db"), &[ip("10.0.0.1")]));
    assert!(!zone.remove_by_hand(&name("db"), &[ip("10.0.0.9")]));
    assert_eq!(zone.records().next().unwrap().1, [ip("10.0.0.2")]);
    assert!(zone.remove_by_hand(&name("db"), &[]));
    assert_eq!(zone.records().count(), 0);
}

#[test]
fn bounds_are_kept_and_named() {
    let mut zone = Zone::new(peer(1));
    let many = (0..=64).map(|n| IpAddr::from([10, 32, 0, n])).collect();
    assert_eq!(zone.put(&name("a"), "c", many), Err(PutError::TooManyAddresses(name("a"))));
    assert_eq!(zone.put(&name("a"), "c", vec![]), Err(PutError::NoAddress(name("a"))));
    assert_eq!(zone.put(&name("a"), "", vec![ip("::1")]), Err(PutError::Holder(0)));
    zone.own = Some(Own { records: RECORDS_PER_HOST_MAX, tombstones: 0 });
    assert_eq!(zone.put(&name("a"), "c", vec![ip("::1")]), Err(PutError::TooManyRecords));
    assert!(zone.take_changes().is_empty());
}

#[test]
fn nobody_writes_another_hosts_records() {
    let key = |origin, holder: &str| RecordKey { origin, holder: holder.into(), name: name("a") };
    let good = RecordValue::Addresses(vec![ip("10.32.0.1")]);
    fn check(key: &RecordKey, value: &RecordValue) -> Result<(), String> {
        ZoneRegister::validate(peer(1), key, value)
    }
    use mesh_router::Register;
    assert!(check(&key(peer(1), "c"), &good).is_ok());
    assert!(check(&key(peer(2), "c"), &good).is_err());
    assert!(check(&key(peer(1), ""), &good).is_err());
    assert!(check(&key(peer(1), "c"), &RecordValue::Watermark(1)).is_err());
    assert!(check(&key(peer(1), "c"), &RecordValue::Addresses(vec![])).is_err());
    assert!(check(&key(peer(1), &"c".repeat(256)), &RecordValue::Tombstone).is_err());
    assert!(check(&RecordKey::watermark(peer(1)), &RecordValue::Watermark(1)).is_ok());
    assert!(check(&RecordKey::watermark(peer(2)), &RecordValue::Watermark(1)).is_err());
}

#[test]
fn garbage_is_refused_and_changes_nothing() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut zone = Zone::new(peer(1));
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        drop(zone.absorb(&bytes));
    }
    assert!(zone.store.is_empty());
}

#[test]
fn a_collected_tombstone_goes_everywhere_and_nothing_comes_back() {
    let [mut a, mut b, mut late] = [1, 2, 3].map(|n| Zone::new(peer(n)));
    for n in 0..10 {
        a.put(&name(&format!("w{n}")), "c", vec![ip("10.32.0.1")]).unwrap();
    }
    sync(&mut a, &mut b, 1000);
    sync(&mut a, &mut late, 1000);
    for n in 0..5 {
        a.remove(&name(&format!("w{n}")), "c");
    }
    sync(&mut a, &mut b, 1000);
    assert_eq!((tombstones(&a), tombstones(&b)), (5, 5));
    assert_eq!(a.collect(b.store.announced().get(&peer(1))), 5);
    assert_eq!(a.collect(a.store.own_counter()), 0, "a watermark is not collected itself");
    sync(&mut a, &mut b, 1000);
    assert_eq!((tombstones(&a), tombstones(&b)), (0, 0));
    assert_eq!(records(&late).len(), 10, "the late one has not heard of the removals");
    sync(&mut b, &mut late, 40);
    assert_eq!(records(&late), records(&a));
    sync(&mut late, &mut b, 40);
    assert_eq!(records(&b), records(&a));
}

#[test]
fn undurable_or_unseen_tombstones_stay() {
    let mut zone = Zone::new(peer(1));
    zone.put(&name("a"), "c", vec![ip("::1")]).unwrap();
    zone.remove(&name("a"), "c");
    assert_eq!(zone.collect(u64::MAX), 0, "not on disk yet");
    zone.store.mark_durable(2);
    assert_eq!(zone.collect(1), 0, "somebody has not seen it");
    assert_eq!(zone.collect(2), 1);
}

#[test]
fn tombstones_are_bounded_and_the_oldest_go_first() {
    let mut zone = Zone::new(peer(1));
    for n in 0..TOMBSTONES_PER_HOST_MAX + 3 {
        zone.put(&name("a"), &format!("c{n}"), vec![ip("::1")]).unwrap();
        zone.remove(&name("a"), &format!("c{n}"));
    }
    assert_eq!(zone.collect(0), 3);
    assert_eq!(tombstones(&zone), TOMBSTONES_PER_HOST_MAX);
    let key = |n: usize| zone.key(&name("a"), &format!("c{n}"));
    assert!(zone.store.get(&key(2)).is_none() && zone.store.get(&key(3)).is_some());
}

#[test]
fn own_records_are_never_hidden() {
    let mut zone = Zone::new(peer(1));
    assert_eq!(zone.hide(peer(1)), None);
    assert_eq!(zone.hide(peer(2)), Some(ZoneChange::Hide(peer(2))));
    assert_eq!(zone.hide(peer(2)), None);
    assert!(zone.is_hidden(peer(2)));
    assert_eq!(zone.show(peer(2)), Some(ZoneChange::Show(peer(2))));
    assert_eq!(zone.show(peer(2)), None);
}

/// Random writes, removals, collections and partial, one-way exchanges between four hosts: at the
/// end all have the same entries, and they are what each origin's own replica says.
#[test]
fn replicas_converge_whatever_the_order() {
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut zones: Vec<Zone> = (0..4).map(|n| Zone::new(peer(n))).collect();
        for _ in 0..120 {
            step(&mut zones, &mut rng);
        }
        for _ in 0..2 {
            for from in 0..4 {
                for to in 0..4 {
                    exchange(&mut zones, (from, to), 64);
                }
            }
        }
        for zone in &zones {
            assert_eq!(records(zone), records(&zones[0]), "seed {seed}");
            assert!(zone.store.iter().eq(zones[0].store.iter()), "seed {seed}");
        }
    }
}

fn exchange(zones: &mut [Zone], (from, to): (usize, usize), budget: usize) {
    if from != to {
        let mut giver = zones[from].clone();
        sync(&mut giver, &mut zones[to], budget);
        zones[from] = giver;
    }
}

fn step(zones: &mut [Zone], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..zones.len());
    let holder = format!("c{}", rng.random_range(0..4));
    let named = name(&format!("w{}", rng.random_range(0..4)));
    match rng.random_range(0..8) {
        0..3 => {
            let address = IpAddr::from([10, 32, 0, rng.random_range(0..9)]);
            zones[at].put(&named, &holder, vec![address]).unwrap();
        }
        3 => drop(zones[at].remove(&named, &holder)),
        4 => drop(zones[at].remove_holder(&holder)),
        5 => {
            let me = zones[at].store.me();
            let seen = zones.iter().map(|zone| zone.store.announced().get(&me)).min();
            // One in three collects too early, as when a peer was taken for dead.
            let early = rng.random_range(0..3) == 0;
            zones[at].collect(if early { u64::MAX } else { seen.unwrap_or(0) });
        }
        _ => {
            let to = rng.random_range(0..zones.len());
            exchange(zones, (at, to), rng.random_range(1..200));
        }
    }
}

#[test]
fn the_zone_keeps_the_laws_of_a_replicated_store() {
    mesh_router::laws::check_laws::<ZoneRegister>(0..300, |rng, store| {
        let (origin, holder) = (store.me(), format!("c{}", rng.random_range(0..3)));
        let key = RecordKey { origin, holder, name: name(["web", "db"][rng.random_range(0..2)]) };
        let address = ip(&format!("10.32.0.{}", rng.random_range(1..9)));
        Some(match rng.random_range(0..6) {
            0 => (RecordKey::watermark(origin), RecordValue::Watermark(rng.random_range(0..9))),
            1 | 2 => (key, RecordValue::Tombstone),
            _ => (key, RecordValue::Addresses(vec![address])),
        })
    });
}
