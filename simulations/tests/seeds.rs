//! Whole runs: the same seed gives the same trace, and a handful of seeds of each scenario pass.

use mesh_simulations::{
    named::NAMES,
    run::{hosts_of, many, one},
    scenario::Scenario,
};

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    let scenario = Scenario::named("default").unwrap();
    let first = one(&scenario, 7, 4, true);
    let again = one(&scenario, 7, 4, true);
    assert!(first.trace.len() > 1000);
    assert_eq!(first.trace, again.trace);
    assert_eq!(first.line.counts.trace, again.line.counts.trace);
    assert_ne!(first.line.counts.trace, one(&scenario, 8, 4, false).line.counts.trace);
}

/// Each was found by one bug, or few.
const ONCE_FAILED: [(&str, u64, usize, &str); 19] = [
    ("default", 484, 4, "a host that had left came back through one newer than its leaving"),
    ("default", 809, 3, "the same"),
    ("restore", 158, 4, "an image from while a host joined: it used a counter twice"),
    ("restore", 1211, 6, "who joined after the image was made knew more, and nobody knew of it"),
    ("slow", 1024, 3, "a host said that it has no endpoint, and nobody dialled it any more"),
    ("churn", 62015, 4, "who left before it was ready and came back used a number twice"),
    ("lease", 192, 3, "a removal was not given up when its host was back"),
    ("lease", 384, 6, "whoever had no entry left never said that it had told all"),
    ("lease", 5253, 7, "a host came back through one that was itself removed"),
    ("lapse", 600_002_933, 9, "who came back was removed by force: it may go on"),
    ("relapse", 610_002_436, 8, "an old disk counted time in which it was alone"),
    ("churn", 840_000_624, 4, "a lost disk took the word of one that lagged"),
    ("upheaval", 840_000_611, 4, "the same"),
    ("lapse", 900_023_257, 5, "who barred somebody alone was told no ring and never asked in time"),
    ("turnover", 1_000_001_634, 5, "a lost disk was told all by one that had never heard of it"),
    ("ranges", 1_000_013_964, 7, "the same"),
    ("churn", 1_000_033_721, 4, "a lost disk, and a leave before it was told what it owned"),
    ("force", 1_000_051_988, 6, "the number of a decree that was void was used again"),
    ("relapse", 610_201_564, 4, "an old disk did not wait for who joined after it was made"),
];

#[test]
fn seeds_that_once_failed_pass() {
    for (name, seed, hosts, what) in ONCE_FAILED {
        let line = one(&Scenario::named(name).unwrap(), seed, hosts, false).line;
        let (failure, outdated) = (line.failure, line.counts.outdated);
        assert_eq!(failure, None, "--scenario {name} --seed {seed} --hosts {hosts}: {what}");
        assert_eq!(outdated, 0, "--scenario {name} --seed {seed} --hosts {hosts}: excused");
    }
}

#[test]
fn a_seed_of_each_scenario_after_another_passes() {
    let hosts = 3..=5;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for name in NAMES {
        let scenario = Scenario::named(name).unwrap();
        let mut ran = 0;
        many(&scenario, (1000, 8), &hosts, threads, |outcome| {
            let line = outcome.line;
            assert_eq!(line.failure, None, "--scenario {name} --seed {} --hosts 3..5", line.seed);
            assert_eq!(line.hosts, hosts_of(line.seed, &hosts));
            assert!(line.counts.attached > 0);
            ran += 1;
            true
        });
        assert_eq!(ran, 8);
    }
}
