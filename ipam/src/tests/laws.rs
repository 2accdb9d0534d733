//! The ring as replicated data: its laws, its bytes, and what is refused.

use mesh_router::{PeerId, Register, codec, laws::check_laws};
use rand::{RngExt, SeedableRng};

use super::{address, block, peer};
use crate::{
    Block, Family, Ipam, RingKey, RingRegister, RingValue, SpaceMessage, SpaceRefusal,
    SpaceRequest, Version, ring::EPOCH_MAX,
};

#[test]
fn the_ring_keeps_the_laws_of_a_replicated_store() {
    check_laws::<RingRegister>(0..300, |rng, store| {
        let number = block("10.9.0.0/28").first_number() + rng.random_range(0..16);
        let inner = Block::at(Family::V4, number, rng.random_range(29..=32));
        let key = RingKey::Block(inner);
        let epoch = store.get(&key).map_or(0, |entry| Version::of(entry).epoch);
        let owner = peer(rng.random_range(1..=3));
        Some(match rng.random_range(0..5) {
            0 => (RingKey::Range(inner_range(number)), RingValue::Range),
            1 => {
                let at_least = Version { epoch, counter: rng.random_range(1..9), writer: owner };
                let within = block("10.9.0.0/28");
                (key, RingValue::Retired { within, at_least, epoch: epoch + 1 })
            }
            _ => (key, RingValue::Owned { owner, epoch }),
        })
    });
}

#[test]
fn keys_and_their_prefixes_rise_together() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut keys = vec![RingKey::Epoch, RingKey::Base];
    keys.extend((1..4).flat_map(|n| [RingKey::Elector(peer(n)), RingKey::Removed(peer(n))]));
    for family in Family::ALL {
        for length in 0..=family.bits() {
            let number = rng.random::<u128>() & family.max();
            for number in [0, family.max(), number] {
                let block = Block::at(family, number, length);
                keys.extend([RingKey::Range(block), RingKey::Block(block)]);
            }
        }
    }
    keys.sort_unstable();
    assert!(keys.is_sorted_by_key(RingRegister::prefix));
}

fn inner_range(number: u128) -> Block {
    Block::at(Family::V4, number, 29)
}

#[test]
fn entries_that_cannot_be_are_refused() {
    let owned = |epoch| RingValue::Owned { owner: peer(1), epoch };
    let retired = |within: &str, counter| RingValue::Retired {
        within: block(within),
        at_least: Version { epoch: 0, counter, writer: peer(1) },
        epoch: 0,
    };
    let inner = RingKey::Block(block("10.9.0.0/28"));
    let check = |key: RingKey, value| RingRegister::validate(PeerId::new([1; 16]), &key, &value);
    assert_eq!(check(inner, owned(EPOCH_MAX)), Ok(()));
    assert_eq!(check(inner, retired("10.9.0.0/24", 1)), Ok(()));
    let wrong = [
        (inner, owned(EPOCH_MAX + 1)),
        (inner, RingValue::Range),
        (inner, retired("10.9.0.0/28", 1)),
        (inner, retired("10.9.0.0/29", 1)),
        (inner, retired("10.8.0.0/24", 1)),
        (inner, retired("::/0", 1)),
        (inner, retired("10.9.0.0/24", 0)),
        (inner, retired("10.9.0.0/24", u64::MAX)),
        (RingKey::Range(block("10.9.0.0/31")), RingValue::Range),
        (RingKey::Range(block("0.0.0.0/0")), RingValue::Range),
        (RingKey::Range(block("10.9.0.0/24")), owned(0)),
    ];
    for (key, value) in wrong {
        assert!(check(key, value).is_err(), "{key:?} {value:?}");
    }
}

#[test]
fn garbage_changes_nothing_and_does_no_harm() {
    let mut ipam = Ipam::new(peer(1));
    ipam.found(&[block("10.9.0.0/28")]).unwrap();
    for bytes in [&b""[..], b"\0", b"\xff\xff\xff\xff", &[7; 100]] {
        let before: Vec<_> = ipam.store().iter().map(|(key, _)| *key).collect();
        let _ = ipam.absorb(bytes);
        assert!(ipam.store().iter().map(|(key, _)| key).eq(&before));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_ring_entries_do_not_change_unnoticed() {
    let key = RingKey::Block(block("10.32.16.0/20"));
    let at_least = Version { epoch: 1, counter: 300, writer: peer(2) };
    let within = block("10.32.0.0/12");
    let golden = [
        (hex(&codec::encode(&key)), "0100fc0010200a14"),
        (
            hex(&codec::encode(&RingKey::Range(block("fd00::/48")))),
            "0001fe000000000000000000000000000000fd30",
        ),
        (hex(&codec::encode(&RingValue::Range)), "00"),
        (
            hex(&codec::encode(&RingValue::Owned { owner: peer(1), epoch: 0 })),
            "010101010101010101010101010101010100",
        ),
        (
            hex(&codec::encode(&RingValue::Retired { within, at_least, epoch: 1 })),
            "0200fc0000200a0c01fb2c010202020202020202020202020202020201",
        ),
    ];
    for (bytes, expected) in golden {
        assert_eq!(bytes, expected);
    }
}

#[test]
fn the_bytes_of_space_messages_do_not_change_unnoticed() {
    let range = block("10.32.0.0/12");
    let request = SpaceRequest {
        id: 7,
        range,
        address: Some(address("10.32.0.9")),
        seen: 300,
        own: 2,
        urgent: true,
        held_by: None,
    };
    let refused = |reason| SpaceMessage::Refused { id: 7, reason, free: 3 };
    let golden = [
        (SpaceMessage::Request(request), "000700fc0000200a0c01000a200009fb2c01020100"),
        (
            SpaceMessage::Granted { id: 7, block: block("10.32.16.0/20"), free: 300 },
            "010700fc0010200a14fb2c01",
        ),
        (refused(SpaceRefusal::NothingFree), "02070003"),
        (refused(SpaceRefusal::Taken { holder: "vip".into() }), "0207010376697003"),
        (refused(SpaceRefusal::Silent), "02070703"),
    ];
    for (message, expected) in golden {
        let bytes = codec::encode(&message);
        assert_eq!(hex(&bytes), expected, "{message:?}");
        assert_eq!(codec::decode::<SpaceMessage>(&bytes).unwrap(), message);
    }
}
