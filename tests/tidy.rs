//! What clippy cannot see: sizes, layers, prose. STYLE lives in the code only while this passes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;
/// Columns of a line.
const COLUMNS_MAX: usize = 100;
/// Crates that are values in, values out.
const PURE: [&str; 3] = ["router", "ipam", "dns"];
/// Crates that a pure one must not depend on: each of them is IO, a clock or a runtime.
const IO_CRATES: [&str; 21] = [
    "tokio",
    "quinn",
    "rtnetlink",
    "netlink-",
    "nix",
    "socket2",
    "redb",
    "hyper",
    "axum",
    "async-",
    "hickory-server",
    "hickory-resolver",
    "futures",
    "ring",
    "rustls",
    "mio",
    "libc",
    "rustix",
    "tracing-subscriber",
    "sd-notify",
    "meshwork",
];
/// What a pure crate's source must not name, tests included.
const IO_WORDS: [&str; 12] = [
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "SystemTime",
    "Instant::now",
    "rand::rng(",
    "thread_rng",
];

/// A file of the repository, by its path from the root.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    /// Whether the whole file is tests.
    fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
            || self.path.file_name().is_some_and(|name| name == "tests.rs")
    }

    /// How many lines there are before the test module at the end.
    fn lines_without_tests(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        });
        tests.unwrap_or(lines.len())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository that is not generated.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut directories = vec![root().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            let generated = ["target", ".git", "Cargo.lock"].iter().any(|skip| name == *skip);
            if generated {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 30, "the repository was not found at {}", root().display());
    sources
}

fn rust_sources() -> impl Iterator<Item = Source> {
    sources().into_iter().filter(Source::is_rust)
}

/// Fails with all that was found, not only with the first.
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short() {
    let long = rust_sources()
        .filter(|file| !file.is_test() && file.lines_without_tests() > FILE_LINES_MAX)
        .map(|file| format!("{}: {} lines", file.path.display(), file.lines_without_tests()));
    assert_none("split these files, one noun each", &long.collect::<Vec<_>>());
}

#[test]
fn lines_are_short() {
    let mut long = Vec::new();
    for file in rust_sources() {
        for (number, line) in file.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{}:{}", file.path.display(), number + 1));
            }
        }
    }
    assert_none("break these lines", &long);
}

#[test]
fn pure_crates_depend_on_no_io() {
    let mut found = Vec::new();
    for name in PURE {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for (number, line) in manifest.lines().enumerate() {
            if IO_CRATES.iter().any(|banned| line.starts_with(banned)) {
                found.push(format!("{name}/Cargo.toml:{}: {line}", number + 1));
            }
        }
        let library = fs::read_to_string(root().join(name).join("src/lib.rs")).unwrap();
        if !library.contains("#![forbid(unsafe_code)]") {
            found.push(format!("{name}/src/lib.rs: no #![forbid(unsafe_code)]"));
        }
    }
    assert_none("pure crates are values in, values out", &found);
}

#[test]
fn pure_code_names_no_io_and_no_clock() {
    let mut found = Vec::new();
    let pure = |path: &Path| {
        PURE.iter().any(|name| path.starts_with(name)) || path.starts_with("src/node")
    };
    // Tests may ask the environment how long to run.
    let test = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    for file in rust_sources().filter(|file| pure(&file.path) && !test(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = IO_WORDS.iter().find(|word| code.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.path.display(), number + 1));
            }
        }
    }
    assert_none("time, randomness and IO come in as arguments", &found);
}

#[test]
fn ring_and_zone_do_not_know_each_other() {
    let mut found = Vec::new();
    for (name, other) in [("ipam", "mesh-dns"), ("dns", "mesh-ipam")] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        if manifest.contains(other) {
            found.push(format!("{name} depends on {other}"));
        }
    }
    assert_none("only the node composes them", &found);
}

#[test]
fn every_module_opens_with_its_purpose() {
    let silent = rust_sources()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| file.path.display().to_string());
    assert_none("say in `//!` what it is and what it is not", &silent.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later_in_silence() {
    // In pieces, so that this file does not find itself.
    let words =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["#[ign", "ore"].concat()];
    let mut found = Vec::new();
    for file in rust_sources() {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {}", file.path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("finish these, or take them out", &found);
}

#[test]
fn nothing_points_to_the_place_where_it_was_made() {
    let words = [
        ["../sha", "red"].concat(),
        ["/work", "/w/"].concat(),
        ["static.crat", "es.io"].concat(),
        ["index.crat", "es.io"].concat(),
        ["proxy.go", "lang.org"].concat(),
    ];
    let mut found = Vec::new();
    for file in sources() {
        if let Some(word) = words.iter().find(|word| file.text.contains(word.as_str())) {
            found.push(format!("{}: {word}", file.path.display()));
        }
    }
    assert_none("a fresh clone has no such place", &found);
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let directory = root().join("docs/decisions");
    let entries = fs::read_dir(&directory).expect("docs/decisions holds the choices made");
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(!names.is_empty(), "no decision was written down");
    for (number, name) in names.iter().enumerate() {
        let wanted = format!("{:03}-", number + 1);
        assert!(
            name.starts_with(&wanted) && name.ends_with(".md"),
            "{name} should be called {wanted}TITLE.md"
        );
    }
}

#[test]
fn the_map_names_every_top_level_folder() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let unnamed: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != "target" && name != ".git")
        .filter(|name| !map.contains(&format!("{name}/")))
        .collect();
    assert_none("ARCHITECTURE.md does not name", &unnamed);
}
