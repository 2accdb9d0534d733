//! The laws of a replicated store, for the tests of whoever keeps data in one.
//!
//! Three replicas make a random history of writes and exchanges; then merge has to be commutative,
//! associative and idempotent, a delta has to equal the full state however it is cut and in any
//! order its origins come, and a restored store has to equal the one it was read from. After a
//! history with cut deltas all replicas have to agree once they have exchanged everything. And what
//! a store says of its changes has to be all that changed.
//!
//! Not part of it: collecting tombstones, since what was collected is known by its absence. And
//! in the midst of a cut delta merge is not commutative: a receiver may have got past an entry that
//! was left out as superseded, and not yet have what superseded it. So histories have cut deltas
//! for the law of convergence only.

use std::fmt::Debug;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    PeerId, Register, Store,
    store::{Cursor, Entry, VersionVector},
};

const REPLICAS: u8 = 3;
const STEPS: usize = 40;

/// What two replicas must agree on.
type State<R> = (Vec<(<R as Register>::Key, Entry<<R as Register>::Value>)>, VersionVector);

/// Checks the laws on histories of these seeds. `write` gives a random write of a replica.
///
/// # Panics
/// When a law is broken; the message names the seed and the law.
pub fn check_laws<R: Register + Clone>(
    seeds: std::ops::Range<u64>,
    mut write: impl FnMut(&mut ChaCha8Rng, &Store<R>) -> Option<(R::Key, R::Value)>,
) {
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let law = Law { seed };
        let converged = exchange_all(history(&mut rng, &mut write, true));
        law.holds("convergent", &state(&converged[0]), &state(&converged[1]));
        law.holds("convergent", &state(&converged[0]), &state(&converged[2]));
        let replicas = history(&mut rng, &mut write, false);
        let [a, b, c] = &replicas[..] else { unreachable!("there are three replicas") };
        law.holds("commutative", &state(&merge(a, b)), &state(&merge(b, a)));
        let left = merge(&merge(a, b), c);
        law.holds("associative", &state(&left), &state(&merge(a, &merge(b, c))));
        law.holds("idempotent", &state(&merge(a, a)), &state(a));
        law.holds("idempotent again", &state(&merge(&left, b)), &state(&left));
        law.holds("delta equals full", &state(&full(a, b)), &state(&merge(a, b)));
        law.holds("cut deltas", &state(&in_pieces(a, b, &mut rng)), &state(&merge(a, b)));
        law.holds("any order of origins", &state(&by_origin(a, b)), &state(&merge(a, b)));
        law.holds("restored", &state(&restored(a)), &state(a));
    }
}

struct Law {
    seed: u64,
}

impl Law {
    fn holds<S: PartialEq + Debug>(&self, name: &str, left: &S, right: &S) {
        assert!(left == right, "seed {}: not {name}:\n{left:?}\n{right:?}", self.seed);
    }
}

fn state<R: Register>(store: &Store<R>) -> State<R> {
    let entries = store.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    (entries, store.announced())
}

/// Each replica tells each other all that it knows, until there is no news.
fn exchange_all<R: Register + Clone>(mut replicas: Vec<Store<R>>) -> Vec<Store<R>> {
    for _ in 0..REPLICAS {
        for at in 0..replicas.len() {
            for from in 0..replicas.len() {
                replicas[at] = merge(&replicas[at], &replicas[from]);
            }
        }
    }
    replicas
}

/// Three replicas after random writes and exchanges, some of them cut if wanted.
fn history<R: Register>(
    rng: &mut ChaCha8Rng,
    write: &mut impl FnMut(&mut ChaCha8Rng, &Store<R>) -> Option<(R::Key, R::Value)>,
    cut: bool,
) -> Vec<Store<R>> {
    let mut replicas: Vec<Store<R>> =
        (1..=REPLICAS).map(|number| Store::new(PeerId::new([number; 16]))).collect();
    for _ in 0..STEPS {
        let at = rng.random_range(0..replicas.len());
        let before = (replicas[at].revision(), replicas[at].announced());
        if rng.random() {
            if let Some((key, value)) = write(rng, &replicas[at]) {
                let dot = replicas[at].write(key, value);
                replicas[at].mark_durable(dot.counter);
            }
        } else {
            let from = rng.random_range(0..replicas.len());
            let budget = if !cut || rng.random() { usize::MAX } else { rng.random_range(1..200) };
            let since = Cursor::at(replicas[at].announced());
            let bytes = replicas[from].delta(&since, |_| true, budget).bytes;
            if let Some(lacking) = replicas[from].lacking(&since, |_| true, None)
                && !lacking.is_empty()
                && let Some(same) = replicas[from].delta_of(&lacking, budget / 2)
            {
                assert_eq!(same, bytes, "what is lacking, told without looking at the rest");
            }
            take(&mut replicas[at], &bytes);
        }
        let (revision, mut followed) = before;
        let moved = replicas[at].moved_since(revision).expect("a few revisions are remembered");
        for origin in moved.chain([replicas[at].me()]) {
            match replicas[at].announced_of(origin) {
                0 => followed.dots.remove(&origin),
                counter => followed.dots.insert(origin, counter),
            };
        }
        assert_eq!(followed, replicas[at].announced(), "what has moved is said");
    }
    replicas
}

fn take<R: Register>(store: &mut Store<R>, bytes: &[u8]) {
    if !bytes.is_empty() {
        store.apply(bytes).expect("a store takes another's delta");
    }
}

/// `a` with what it lacks of `b`.
fn merge<R: Register + Clone>(a: &Store<R>, b: &Store<R>) -> Store<R> {
    let mut merged = a.clone();
    take(&mut merged, &b.delta(&Cursor::at(a.announced()), |_| true, usize::MAX).bytes);
    merged
}

/// `a` with all of `b`, whatever it has already, and that twice.
fn full<R: Register + Clone>(a: &Store<R>, b: &Store<R>) -> Store<R> {
    let mut merged = a.clone();
    let bytes = b.delta(&Cursor::default(), |_| true, usize::MAX).bytes;
    take(&mut merged, &bytes);
    take(&mut merged, &bytes);
    merged
}

/// `a` with what it lacks of `b`, in deltas of random size.
fn in_pieces<R: Register + Clone>(a: &Store<R>, b: &Store<R>, rng: &mut ChaCha8Rng) -> Store<R> {
    let mut merged = a.clone();
    let mut cursor = Cursor::at(a.announced());
    loop {
        let delta = b.delta(&cursor, |_| true, rng.random_range(1..100));
        take(&mut merged, &delta.bytes);
        cursor = delta.cursor;
        if !delta.more {
            return merged;
        }
    }
}

/// `a` with what it lacks of `b`, one origin at a time, the last one first.
fn by_origin<R: Register + Clone>(a: &Store<R>, b: &Store<R>) -> Store<R> {
    let mut merged = a.clone();
    for number in (1..=REPLICAS).rev() {
        let origin = PeerId::new([number; 16]);
        let since = Cursor::at(a.announced());
        take(&mut merged, &b.delta(&since, |other| other == origin, usize::MAX).bytes);
    }
    merged
}

/// A store made of what the disk would hold.
fn restored<R: Register>(store: &Store<R>) -> Store<R> {
    let mut copy = Store::new(store.me());
    for (key, entry) in store.iter() {
        copy.restore_entry(key.clone(), entry.clone()).expect("own entries can be restored");
    }
    for (origin, counter) in &store.announced().dots {
        copy.restore_counter(*origin, *counter);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone)]
    struct Words;

    impl Register for Words {
        type Key = u8;
        type Value = (u64, String);

        const SINGLE_WRITER: bool = false;

        fn validate(_: PeerId, _: &u8, value: &(u64, String)) -> Result<(), String> {
            if value.0 < 4 { Ok(()) } else { Err("the epoch is too great".into()) }
        }

        fn epoch(value: &(u64, String)) -> u64 {
            value.0
        }
    }

    #[test]
    fn a_store_with_several_writers_and_epochs_keeps_the_laws() {
        check_laws::<Words>(0..400, |rng, store| {
            let key = rng.random_range(0..6);
            // A writer never goes back behind an epoch that it knows.
            let known = store.get(&key).map_or(0, |entry| entry.value.0);
            let epoch = (known + rng.random_range(0..=1)).min(3);
            Some((key, (epoch, format!("word {}", rng.random_range(0..100)))))
        });
    }

    #[test]
    #[should_panic(expected = "not convergent")]
    fn a_register_whose_epoch_goes_back_is_caught() {
        check_laws::<Words>(0..400, |rng, _| {
            Some((rng.random_range(0..6), (rng.random_range(0..4), String::new())))
        });
    }
}
