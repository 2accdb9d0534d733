//! `meshctl demo`, as a newcomer types it.

use std::{path::Path, process::Command, time::Duration};

use meshwork::lab::Call;

use crate::fixture::programs;

const DEADLINE: Duration = Duration::from_secs(60);

/// Whether the kernel lets this user make labs; the other tests say so when not.
fn possible() -> bool {
    meshwork::lab::needs::unshare_args().is_ok()
}

fn demo(args: &[&str]) -> Call {
    Call::new(programs().unwrap().meshctl).args(["demo"]).args(args).deadline(DEADLINE)
}

#[test]
fn the_demo_ends_well_and_says_what_it_counted() {
    if !possible() {
        return;
    }
    let text = demo(&["--exit", "--json"]).ok().unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Three hosts with two containers each: 6 * 5 pairs, two families.
    assert_eq!(report["pings"]["answered"], 60, "{text}");
    // On each host for each container: A, AAAA and two PTR.
    assert_eq!(report["names"]["answered"], 72, "{text}");
    assert_eq!(report["hosts"].as_array().map(Vec::len), Some(3));
    assert!(!Path::new("/run/meshwork-lab").exists(), "files of the lab are its own");
}

#[test]
fn an_interrupted_demo_leaves_no_process() {
    if !possible() {
        return;
    }
    for after_ms in [50, 400, 1500] {
        let mut demo = Command::new(programs().unwrap().meshctl)
            .args(["demo"])
            .env("MESHWORK_TEST_STAY", format!("demo-{after_ms}"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Not luck: the moment of the interrupt is what varies.
        std::thread::sleep(Duration::from_millis(after_ms));
        Call::new("kill").args(["-INT", &demo.id().to_string()]).ok().unwrap();
        demo.wait().unwrap();
        super::lab::wait_unmarked(&format!("demo-{after_ms}"));
    }
}
