//! What the laws do not cover: floors, budgets, refusals, recall and what is announced.

use std::collections::BTreeSet;

use super::*;
use crate::{
    codec::encode,
    laws::check_laws,
    member::{Info, MemberKey, MemberValue, Membership, Reach},
};
use rand::{RngExt, SeedableRng};

/// Words by number, written by one host each.
#[derive(Debug, Clone)]
struct Words;

impl Register for Words {
    type Key = (PeerId, u32);
    type Value = Option<String>;

    const SINGLE_WRITER: bool = true;

    fn validate(origin: PeerId, key: &Self::Key, _: &Self::Value) -> Result<(), String> {
        if key.0 == origin { Ok(()) } else { Err("not its own".to_owned()) }
    }
}

fn peer(n: u8) -> PeerId {
    PeerId::new([n; 16])
}

/// A store of peer `n` with so many durable words.
fn words(n: u8, count: u32) -> Store<Words> {
    let mut store = Store::new(peer(n));
    for number in 0..count {
        store.write((peer(n), number), Some(format!("word {number}")));
    }
    store.mark_durable(store.own_counter());
    store
}

/// Brings `to` up to date in deltas of `budget`; returns how many it took.
fn sync(from: &Store<Words>, to: &mut Store<Words>, budget: usize) -> usize {
    let mut cursor = Cursor::at(to.announced());
    for rounds in 0.. {
        let delta = from.delta(&cursor, |_| true, budget);
        if delta.bytes.is_empty() {
            return rounds;
        }
        assert!(delta.entries > 0 || !delta.more, "a delta that is cut makes progress");
        assert_eq!(to.apply(&delta.bytes), Ok(true));
        cursor = delta.cursor;
    }
    unreachable!("the loop ends by itself")
}

fn entries(store: &Store<Words>) -> Vec<(u32, Option<String>)> {
    store.iter().map(|(key, entry)| (key.1, entry.value.clone())).collect()
}

fn run(after: u64, upto: u64, others: Others, counters: &[u64]) -> Vec<u8> {
    let entries =
        counters.iter().map(|c| (*c, (peer(1), u32::try_from(*c).unwrap()), None)).collect();
    let run =
        Run::<(PeerId, u32), Option<String>> { origin: peer(1), after, upto, others, entries };
    encode(&vec![run])
}

#[test]
fn the_membership_keeps_the_laws_of_a_replicated_store() {
    check_laws::<Membership>(0..300, |rng, store| {
        let me = store.me();
        let some = |rng: &mut rand_chacha::ChaCha8Rng| -> BTreeSet<PeerId> {
            (0..rng.random_range(0..3)).map(|_| peer(rng.random_range(1..5))).collect()
        };
        Some(match rng.random_range(0..3) {
            0 => (MemberKey::Reach(me), MemberValue::Reach(Reach::AllBut(some(rng)))),
            1 => (MemberKey::Reach(me), MemberValue::Reach(Reach::Only(some(rng)))),
            _ => {
                let (incarnation, left) = (rng.random_range(0..9), rng.random());
                let info = Info { name: "h".into(), endpoints: vec![], incarnation, left };
                (MemberKey::Info(me), MemberValue::Info(info))
            }
        })
    });
}

/// Marks by number, written by anybody; the mark is its fence.
#[derive(Debug, Clone)]
struct Marks;

impl Register for Marks {
    type Key = u32;
    type Value = u64;

    const SINGLE_WRITER: bool = false;

    fn validate(_: PeerId, _: &u32, _: &u64) -> Result<(), String> {
        Ok(())
    }

    fn prefix(key: &u32) -> u128 {
        (key / 4).into()
    }

    fn epoch(mark: &u64) -> u64 {
        *mark
    }
}

#[test]
fn many_entries_at_once_leave_the_same_as_one_after_the_other() {
    for seed in 0..300 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut run = |origin: u8, after: u64| {
            let count = rng.random_range(1..20);
            let entries = (after + 1..=after + count)
                .map(|counter| (counter, rng.random_range(0..30), rng.random_range(0..3)));
            let (entries, upto) = (entries.collect(), after + count);
            let origin = peer(origin);
            Run::<u32, u64> { origin, after, upto, others: Others::Unsaid, entries }
        };
        let runs: Vec<_> = (1..5).map(|origin| run(origin, 0)).collect();
        let later: Vec<_> =
            runs.iter().map(|first| run(first.origin.as_bytes()[0], first.upto)).collect();
        let (mut many, mut one) = (Store::<Marks>::new(peer(9)), Store::<Marks>::new(peer(9)));
        for runs in [runs, later] {
            assert_eq!(many.apply(&encode(&runs)), Ok(true));
            for mut run in runs {
                let mut after = run.after;
                for entry in std::mem::take(&mut run.entries) {
                    let upto = entry.0;
                    let run = Run { after, upto, entries: vec![entry], ..run.clone() };
                    assert_eq!(one.apply(&encode(&vec![run])), Ok(true));
                    after = upto;
                }
            }
            assert_eq!(many.digest(), one.digest(), "seed {seed}");
            assert_eq!(many.vector(), one.vector(), "seed {seed}");
            let keys = |store: &mut Store<Marks>| -> BTreeSet<u32> {
                store.drain_changes().into_iter().map(|change| change.key).collect()
            };
            assert_eq!(keys(&mut many), keys(&mut one), "seed {seed}");
        }
    }
}

#[test]
fn runs_that_cannot_be_are_refused_and_leave_nothing() {
    for (name, bytes) in [
        ("empty interval", run(5, 5, Others::Unsaid, &[])),
        ("empty whole interval", run(1, 1, Others::Gone, &[])),
        ("interval turned round", run(u64::MAX, 1, Others::Gone, &[])),
        ("counters fall", run(0, 9, Others::Unsaid, &[3, 2])),
        ("a counter twice", run(0, 9, Others::Unsaid, &[3, 3])),
        ("a counter before the interval", run(2, 9, Others::Unsaid, &[2])),
        ("a counter after the interval", run(0, 2, Others::Unsaid, &[3])),
        ("beyond the ceiling", run(0, COUNTER_MAX + 1, Others::Unsaid, &[])),
        ("several writers' rest", run(1, 2, Others::GoneBut(vec![1]), &[])),
        ("no delta", vec![0xff; 7]),
    ] {
        let mut store = words(2, 3);
        sync(&words(1, 3), &mut store, usize::MAX);
        let before = (entries(&store), store.vector().clone());
        assert!(store.apply(&bytes).is_err(), "{name} was taken");
        assert_eq!((entries(&store), store.vector().clone()), before, "{name} left something");
    }
}

#[test]
fn an_entry_of_another_writer_is_refused_with_all_that_came_with_it() {
    let mut store = Store::<Words>::new(peer(2));
    let good = (1, (peer(1), 1), None::<String>);
    let bad = (2, (peer(3), 1), None);
    let entries = vec![good, bad];
    let run = Run { origin: peer(1), after: 0, upto: 2, others: Others::Unsaid, entries };
    assert!(matches!(store.apply(&encode(&vec![run])), Err(RunError::Refused { .. })));
    assert!(store.is_empty() && store.vector().is_empty());
}

#[test]
fn a_run_after_a_gap_is_left_out() {
    let mut store = Store::<Words>::new(peer(2));
    assert_eq!(store.apply(&run(3, 5, Others::Unsaid, &[4])), Ok(false));
    assert!(store.is_empty() && store.vector().is_empty());
}

#[test]
fn own_writes_are_told_only_once_they_are_durable() {
    let mut store = words(1, 2);
    store.write((peer(1), 7), None);
    assert_eq!((store.own_counter(), store.announced().get(&peer(1))), (3, 2));
    let mut other = Store::new(peer(2));
    sync(&store, &mut other, usize::MAX);
    assert_eq!(entries(&other).len(), 2);
    store.mark_durable(3);
    sync(&store, &mut other, usize::MAX);
    assert_eq!(entries(&other).len(), 3);
}

#[test]
fn deltas_of_any_budget_bring_the_same_and_always_make_progress() {
    let from = words(1, 50);
    for budget in [0, 1, 30, 200, 5000] {
        let mut to = Store::new(peer(2));
        let rounds = sync(&from, &mut to, budget);
        assert_eq!(entries(&to), entries(&from));
        assert!(rounds <= 50, "{rounds} deltas for 50 entries");
    }
}

#[test]
fn whoever_missed_a_collected_tombstone_gets_the_whole_state_in_pieces() {
    for budget in [1, 100, usize::MAX] {
        let mut from = words(1, 20);
        let mut behind = Store::new(peer(2));
        sync(&from, &mut behind, usize::MAX);
        for number in 3..17 {
            from.write((peer(1), number), None);
        }
        from.mark_durable(from.own_counter());
        for number in 3..17 {
            from.collect(&(peer(1), number));
        }
        assert_eq!(from.len(), 6);
        sync(&from, &mut behind, budget);
        assert_eq!(entries(&behind), entries(&from), "budget {budget}");
        // The third learns from the second and must not learn what was removed, either.
        let mut third = Store::new(peer(3));
        sync(&behind, &mut third, budget);
        assert_eq!(entries(&third), entries(&from), "budget {budget}");
    }
}

#[test]
fn a_restored_store_still_knows_its_floors() {
    let mut from = words(1, 4);
    let mut behind = Store::new(peer(2));
    sync(&from, &mut behind, usize::MAX);
    from.write((peer(1), 2), None);
    from.mark_durable(from.own_counter());
    from.collect(&(peer(1), 2));
    let mut restored = Store::<Words>::new(peer(1));
    for (key, entry) in from.iter() {
        restored.restore_entry(*key, entry.clone()).unwrap();
    }
    for (origin, counter, floor) in from.drain_origins() {
        restored.restore_counter(origin, counter);
        restored.restore_floor(origin, floor);
    }
    sync(&restored, &mut behind, usize::MAX);
    assert_eq!(entries(&behind), entries(&from));
}

#[test]
fn rows_that_no_store_wrote_are_refused() {
    let mut store = words(1, 1);
    let entry = |actor, counter| Entry { dot: Dot::new(actor, counter), value: None };
    let key = (peer(1), 9);
    assert!(store.restore_entry(key, entry(peer(1), 0)).is_err());
    assert!(store.restore_entry(key, entry(peer(1), COUNTER_MAX + 1)).is_err());
    assert!(store.restore_entry(key, entry(peer(2), 5)).is_err());
    assert!(store.restore_entry(key, entry(peer(1), 1)).is_err(), "two keys for one dot");
    store.check_invariants();
}

#[test]
fn own_entries_are_taken_from_others_only_while_recalling() {
    let mut peer_store = Store::<Words>::new(peer(2));
    sync(&words(1, 5), &mut peer_store, usize::MAX);
    let mut lost = Store::<Words>::new(peer(1));
    let told = peer_store.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    assert_eq!(lost.apply(&told), Ok(true));
    assert!(lost.is_empty(), "our own store is the truth about us");
    lost.begin_recall();
    assert_eq!(lost.apply(&told), Ok(true));
    lost.end_recall(Some(7));
    assert_eq!(lost.len(), 5);
    let dot = lost.write((peer(1), 0), None);
    assert!(dot.counter > 5 + 1000, "a write that nobody told us of is not written again");
    assert_eq!(lost.announced().get(&peer(1)), 5);
}

#[test]
fn more_origins_than_may_be_are_left_out_and_those_known_go_on() {
    let mut store = Store::<Words>::new(peer(2));
    let id = |n: usize| {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId::new(bytes)
    };
    let run = |n: usize, after: u64| {
        let entries = vec![(after + 1, (id(n), 1), None::<String>)];
        Run { origin: id(n), after, upto: after + 1, others: Others::Unsaid, entries }
    };
    let all: Vec<_> = (0..=ORIGINS_MAX).map(|n| run(n, 0)).collect();
    assert_eq!(store.apply(&encode(&all)), Ok(false));
    assert_eq!(store.vector().dots.len(), ORIGINS_MAX);
    assert_eq!(store.apply(&encode(&vec![run(0, 1)])), Ok(true));
    let vectors = [store.announced(), store.announced(), store.announced()];
    let hello = crate::frame::Frame::Hello { vectors, founding: 0 }.encode();
    assert!(hello.len() < crate::codec::FRAME_BYTES_MAX * 2 / 3, "a hello fits into a frame");
}

#[test]
fn the_revision_changes_with_all_that_may_be_told() {
    let mut store = words(1, 3);
    let before = store.revision();
    store.mark_durable(3);
    assert_eq!(store.revision(), before, "nothing new is durable");
    store.write((peer(1), 9), None);
    store.mark_durable(4);
    assert!(store.revision() > before);
    let before = store.revision();
    sync(&words(2, 1), &mut store, usize::MAX);
    assert!(store.revision() > before);
}

/// A restart undoes the write; whoever had been told nothing would then lack the entry for ever.
#[test]
fn what_a_write_superseded_is_told_until_the_write_is_durable() {
    let (mut origin, mut other) = (words(1, 2), Store::new(peer(2)));
    origin.write((peer(1), 0), None);
    origin.write((peer(1), 0), Some("again".into()));
    origin.check_invariants();
    sync(&origin, &mut other, usize::MAX);
    assert_eq!(entries(&other), entries(&words(1, 2)));
    // The first of the two writes gets to the disk alone.
    origin.mark_durable(origin.own_counter() - 1);
    sync(&origin, &mut other, usize::MAX);
    assert_eq!(entries(&other)[0], (0, None));
    origin.mark_durable(origin.own_counter());
    sync(&origin, &mut other, usize::MAX);
    assert_eq!(entries(&other), entries(&origin));
    assert_eq!(entries(&other)[0], (0, Some("again".into())));
}

/// Left, and told what it had written by somebody who lagged: what the others have is not mixed.
#[test]
fn after_a_recall_from_a_peer_that_lagged_all_are_equal() {
    let mut origin = words(1, 3);
    let (mut lagging, mut current) = (Store::new(peer(2)), Store::new(peer(3)));
    sync(&origin, &mut lagging, usize::MAX);
    origin.write((peer(1), 0), None);
    origin.write((peer(1), 7), Some("new".into()));
    origin.mark_durable(origin.own_counter());
    sync(&origin, &mut current, usize::MAX);

    let mut lost = Store::new(peer(1));
    lost.begin_recall();
    sync(&lagging, &mut lost, usize::MAX);
    lost.end_recall(Some(7));
    lost.mark_durable(lost.own_counter());
    sync(&lost, &mut lagging, 1);
    sync(&lost, &mut current, 1);
    assert_eq!(entries(&lost), entries(&words(1, 3)));
    assert_eq!(entries(&lagging), entries(&lost));
    assert_eq!(entries(&current), entries(&lost));
}

#[test]
fn a_dropped_origin_is_gone_for_those_who_lag_and_comes_back_if_it_writes_on() {
    let mut origin = words(1, 3);
    let (mut first, mut lagging) = (Store::new(peer(2)), Store::new(peer(3)));
    sync(&origin, &mut lagging, usize::MAX);
    let late = origin.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    origin.write((peer(1), 0), None);
    origin.mark_durable(origin.own_counter());
    sync(&origin, &mut first, usize::MAX);

    first.drop_origin(peer(1), Return::Never);
    assert!(first.is_empty() && first.announced().is_empty());
    assert_eq!(first.drain_origins(), [(peer(1), 0, 0)], "nothing of it stays on disk");
    assert_eq!(first.apply(&late), Ok(true));
    assert!(first.is_empty(), "who lags does not bring it back");
    sync(&first, &mut lagging, usize::MAX);
    assert!(lagging.is_empty(), "who lags learns that there is nothing any more");

    origin.write_anew();
    origin.mark_durable(origin.own_counter());
    sync(&origin, &mut first, usize::MAX);
    assert_eq!(entries(&first), entries(&origin));

    first.drop_origin(peer(1), Return::Perhaps);
    assert!(first.is_empty());
    sync(&origin, &mut first, usize::MAX);
    assert_eq!(entries(&first), entries(&origin), "it may come back as it was");
}

#[test]
fn so_many_dropped_origins_are_remembered_and_no_more() {
    let mut store = Store::<Words>::new(peer(2));
    let id = |n: usize| {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId::new(bytes)
    };
    let run = |n: usize| {
        let entries = vec![(1, (id(n), 1), None::<String>)];
        encode(&vec![Run { origin: id(n), after: 0, upto: 1, others: Others::Unsaid, entries }])
    };
    for n in 0..=GONE_MAX {
        assert_eq!(store.apply(&run(n)), Ok(true));
        store.drop_origin(id(n), Return::Never);
    }
    assert_eq!(store.apply(&run(1)), Ok(true));
    assert!(store.is_empty());
    assert_eq!(store.apply(&run(0)), Ok(true));
    assert_eq!(store.len(), 1, "the oldest is forgotten");
}
