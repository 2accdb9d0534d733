//! The scenarios that are built in.

use std::borrow::Cow;

use ipnetwork::IpNetwork;

use crate::{dice::Dice, scenario::Scenario};

/// The names of scenarios that today's code passes. `any` is for each seed another of these.
pub const NAMES: [&str; 26] = [
    "any",
    "default",
    "calm",
    "partition",
    "crash",
    "exhausted",
    "churn",
    "narrow",
    "suspend",
    "tight",
    "slow",
    "cut",
    "founders",
    "remove",
    "bury",
    "relapse",
    "removals",
    "turnover",
    "upheaval",
    "lapse",
    "relayed",
    "ranges",
    "restore",
    "lease",
    "clone",
    "force",
];
/// The name of a scenario for the mutation check only, which a few seeds do not pass. It loses
/// deltas on links that live: no transport does, and the nodes lean on that where a host is told
/// everything.
pub const BEYOND: [&str; 1] = ["lossy"];
/// The names of scenarios that are about size; the number of hosts is the caller's.
pub const LARGE: [&str; 5] = ["recycle", "recycle-dead", "recycle-sparse", "large", "sparse"];

impl Scenario {
    /// A scenario that is built in.
    pub fn named(name: &str) -> Option<Self> {
        let all = Self { name: name.to_owned(), ..Self::default() };
        let calm = Self {
            loss: 0,
            duplicate: 0,
            narrow: 0,
            partitions: 0,
            crashes: 0,
            disk_faults: 0,
            link_deaths: 0,
            wire_failures: 0,
            leave: 0,
            recycle: 0,
            wipe: 0,
            stays_down: 0,
            flaps: 0,
            suspensions: 0,
            drift: 0,
            ..all.clone()
        };
        everyday(name, all.clone(), calm.clone())
            .or_else(|| harsh(name, all.clone(), calm.clone()))
            .or_else(|| machines(name, all.clone(), calm.clone()))
            .or_else(|| mixed(name, all))
            .or_else(|| size(name, calm))
    }

    /// The scenario of one seed: of `any` it is one of the others, every other time the default.
    pub fn of_seed(&self, seed: u64) -> Cow<'_, Self> {
        if self.name != "any" {
            return Cow::Borrowed(self);
        }
        let mut dice = Dice::new(seed, 3);
        let drawn = loop {
            let name = if dice.chance(500) { "default" } else { dice.pick(&NAMES) };
            let drawn = Self::named(name).filter(|drawn| drawn.name != "any" && !drawn.cut_deltas);
            if let Some(drawn) = drawn {
                break drawn;
            }
        };
        Cow::Owned(Self { mutation: self.mutation, ..drawn })
    }
}

fn ranges(all: &[&str]) -> Vec<IpNetwork> {
    all.iter().map(|range| range.parse().expect("a constant")).collect()
}

/// What happens to everybody.
fn everyday(name: &str, all: Scenario, calm: Scenario) -> Option<Scenario> {
    Some(match name {
        "any" | "default" => all,
        "calm" => calm,
        "partition" => Scenario { partitions: 8, loss: 50, link_deaths: 8, ..calm },
        "crash" => Scenario { crashes: 12, disk_faults: 2, ..calm },
        "exhausted" => {
            Scenario { ranges: ranges(&["10.32.0.0/26"]), operations_per_minute: 480, ..all }
        }
        "churn" => Scenario { leave: 700, recycle: 700, wipe: 500, ..all },
        "narrow" => Scenario { narrow: 1000, delay_max: 200, ..all },
        "suspend" => Scenario { suspensions: 8, flaps: 4, drift: 50, crashes: 2, ..calm },
        _ => return None,
    })
}

/// Little space, slow machines, deltas in pieces.
fn harsh(name: &str, all: Scenario, calm: Scenario) -> Option<Scenario> {
    Some(match name {
        "tight" => Scenario {
            ranges: ranges(&["10.32.0.0/27"]),
            operations_per_minute: 480,
            crashes: 12,
            kernel_max: 400,
            disk_max: 150,
            link_deaths: 12,
            leave: 0,
            recycle: 0,
            wipe: 0,
            ..all
        },
        "slow" => Scenario {
            disk_max: 1000,
            delay_max: 5,
            link_deaths: 80,
            crashes: 25,
            flaps: 4,
            ..calm
        },
        "cut" => Scenario {
            ranges: ranges(&["10.32.0.0/28", "10.32.0.0/27"]),
            cut_deltas: true,
            narrow: 1000,
            link_deaths: 20,
            flaps: 3,
            claims: 300,
            operations_per_minute: 480,
            // Who is told its own past in pieces by several may believe too early that it knows
            // it.
            leave: 0,
            wipe: 0,
            recycle: 0,
            ..all
        },
        "lossy" => Scenario { delta_loss: 300, loss: 200, duplicate: 300, ..all },
        _ => return None,
    })
}

/// What needs the council, or befalls machines with their disks.
fn machines(name: &str, all: Scenario, calm: Scenario) -> Option<Scenario> {
    Some(match name {
        "founders" => Scenario { founders: 5, ..all },
        "remove" => Scenario { remove: 1000, recycle: 0, stays_down: 0, ..all },
        // Whoever is removed has given blocks to hosts that those who remove it do not hear of.
        "bury" => Scenario {
            remove: 1000,
            partitions: 12,
            loss: 0,
            ranges: ranges(&["10.32.0.0/27", "10.32.0.0/26"]),
            operations_per_minute: 480,
            ..calm
        },
        // Who is set back to an old image is told what it wrote by those who know only part of it.
        "relapse" => Scenario {
            restore: 1000,
            partitions: 40,
            trouble_seconds: 20,
            duplicate: all.duplicate,
            wire_failures: all.wire_failures,
            drift: all.drift,
            ..calm
        },
        // Hosts are cut off, or stopped, for longer than the lease, and serve on.
        "lease" => Scenario {
            lease_seconds: 10,
            oust: 300,
            trouble_seconds: 60,
            operations_per_minute: 60,
            partitions: 4,
            suspensions: 4,
            crashes: 2,
            drift: all.drift,
            ..calm
        },
        "ranges" => Scenario { range_add: 1000, ..all },
        "restore" => Scenario { restore: 1000, ..all },
        // Nobody is cut off: who hears nobody in common cannot know of each other.
        "clone" => Scenario {
            clone: 1000,
            partitions: 0,
            flaps: 0,
            suspensions: 0,
            leave: 0,
            recycle: 0,
            wipe: 0,
            stays_down: 0,
            ..all
        },
        // What those who lose had decided is void: also that somebody left, or was removed.
        "force" => Scenario {
            force: 1000,
            trouble_seconds: 20,
            heal_seconds: 120,
            leave: 0,
            recycle: 0,
            wipe: 0,
            stays_down: 0,
            ..all
        },
        _ => return None,
    })
}

/// Several of these at once, in little space: each finds what none of them finds alone.
fn mixed(name: &str, all: Scenario) -> Option<Scenario> {
    Some(match name {
        "removals" => Scenario {
            remove: 1000,
            recycle: 700,
            partitions: 12,
            crashes: 4,
            ranges: ranges(&["10.32.0.0/26"]),
            operations_per_minute: 240,
            ..all
        },
        "turnover" => Scenario {
            remove: 500,
            range_add: 500,
            recycle: 500,
            leave: 500,
            stays_down: 200,
            partitions: 6,
            flaps: 4,
            suspensions: 4,
            crashes: 4,
            drift: 50,
            ..all
        },
        "upheaval" => Scenario {
            remove: 700,
            restore: 300,
            recycle: 300,
            leave: 500,
            wipe: 400,
            partitions: 8,
            crashes: 6,
            disk_faults: 4,
            disk_max: 100,
            trouble_seconds: 20,
            ranges: ranges(&["10.32.0.0/27"]),
            ..all
        },
        // Nobody is set back: others may be cut off for longer than an old disk waits for them.
        "lapse" => Scenario {
            lease_seconds: 10,
            oust: 500,
            remove: 500,
            recycle: 500,
            leave: 300,
            partitions: 4,
            suspensions: 4,
            trouble_seconds: 60,
            operations_per_minute: 60,
            ranges: ranges(&["10.32.0.0/26"]),
            ..all
        },
        // Nobody is removed: whom the others are reached through may be gone for good then.
        "relayed" => Scenario {
            reaches: 2,
            restore: 500,
            leave: 500,
            wipe: 300,
            recycle: 0,
            stays_down: 0,
            partitions: 4,
            crashes: 6,
            trouble_seconds: 20,
            ranges: ranges(&["10.32.0.0/26"]),
            ..all
        },
        _ => return None,
    })
}

/// Many hosts, or many that come and go.
fn size(name: &str, calm: Scenario) -> Option<Scenario> {
    Some(match name {
        "recycle" => Scenario {
            recycles: 400,
            trouble_seconds: 400,
            operations_per_minute: 60,
            ranges: ranges(&["10.32.0.0/16"]),
            ..calm
        },
        "recycle-dead" => Scenario {
            recycles: 400,
            trouble_seconds: 400,
            operations_per_minute: 60,
            orderly: 500,
            ranges: ranges(&["10.32.0.0/16"]),
            ..calm
        },
        // Ten thousand new identities, twenty a second.
        "recycle-sparse" => Scenario {
            recycles: 10_000,
            trouble_seconds: 500,
            operations_per_minute: 6,
            ranges: ranges(&["10.32.0.0/16"]),
            reaches: 6,
            heal_seconds: 120,
            ..calm
        },
        // Each host has links to some only, and others pass on: a full mesh of so many needs more
        // memory than a machine has.
        "sparse" => Scenario {
            ranges: ranges(&["10.32.0.0/12"]),
            operations_per_minute: 6,
            reaches: 6,
            crashes: 10,
            partitions: 2,
            flaps: 2,
            heal_seconds: 120,
            ..calm
        },
        "large" => Scenario {
            ranges: ranges(&["10.32.0.0/12"]),
            operations_per_minute: 60,
            crashes: 10,
            partitions: 2,
            flaps: 2,
            ..calm
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_is_listed_is_known() {
        for name in NAMES.iter().chain(&BEYOND).chain(&LARGE) {
            assert_eq!(Scenario::named(name).unwrap().name, *name);
        }
        assert!(Scenario::load("no-such-scenario").is_err());
    }

    #[test]
    fn any_scenario_is_the_same_one_for_a_seed_and_each_in_turn() {
        let any = Scenario::named("any").unwrap();
        let drawn: Vec<String> = (0..2000).map(|seed| any.of_seed(seed).name.clone()).collect();
        let names: std::collections::BTreeSet<&str> = drawn.iter().map(String::as_str).collect();
        let all: std::collections::BTreeSet<&str> = NAMES.into_iter().collect();
        let missing: Vec<_> = all.difference(&names).copied().collect();
        assert_eq!(missing, ["any", "cut"]);
        assert_eq!(drawn[7], any.of_seed(7).name);
        let default = drawn.iter().filter(|name| *name == "default").count();
        assert!((900..1200).contains(&default), "{default} of 2000");
    }
}
