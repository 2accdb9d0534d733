//! The real file on the real disk; a small file system for the full one.

use std::{
    collections::BTreeMap,
    io::BufRead,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

mod torn;

use tokio::sync::mpsc::{Receiver, channel};

use super::{scratch::Scratch, *};
use crate::node::event::Table;

/// Tells a re-executed test in which directory to work.
const CHILD_DIR: &str = "MESHWORK_TEST_STATE_DIR";

fn open(dir: &Path) -> (Opened, Receiver<Input>) {
    let (inputs, receiver) = channel(1024);
    (Storage::open(dir, None, inputs).unwrap(), receiver)
}

fn refused(dir: &Path) -> StorageError {
    Storage::open(dir, None, channel(1).0).unwrap_err()
}

fn put(key: u64, value: &[u8]) -> Write {
    let key = key.to_be_bytes().to_vec();
    Write { table: Table::Attachments, key, value: Some(value.to_vec()) }
}

fn wait(receiver: &mut Receiver<Input>, wanted: u64) {
    while let Some(input) = receiver.blocking_recv() {
        match input {
            Input::Persisted(batch) if batch.0 >= wanted => return,
            Input::Persisted(_) => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("the thread ended before batch {wanted}");
}

fn keys(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| u64::from_be_bytes(row.key.clone().try_into().unwrap())).collect()
}

/// Makes a state with some rows in every table and closes it.
fn filled(dir: &Path) -> Vec<Row> {
    let (opened, mut receiver) = open(dir);
    let writes = Table::ALL.into_iter().flat_map(|table| {
        (0..200_u64).map(move |key| Write { table, ..put(key, &[key as u8; 100]) })
    });
    opened.storage.persist(BatchId(1), writes.collect());
    wait(&mut receiver, 1);
    opened.storage.shutdown();
    let (opened, _) = open(dir);
    opened.storage.shutdown();
    assert_eq!(opened.rows.len(), 200 * Table::ALL.len());
    opened.rows
}

#[test]
fn what_was_persisted_is_there_after_the_next_start() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("a/b");
    let (opened, mut receiver) = open(&dir);
    assert!(opened.rows.is_empty() && opened.recovered.is_none());
    let mesh = Write { table: Table::Mesh, key: b"id".to_vec(), value: Some(b"one".to_vec()) };
    opened.storage.persist(BatchId(1), vec![mesh.clone(), put(1, b"x"), put(2, b"y")]);
    opened.storage.persist(BatchId(2), vec![Write { value: None, ..put(1, b"") }]);
    opened.storage.persist(BatchId(3), vec![put(2, b"z"), Write { value: None, ..put(9, b"") }]);
    wait(&mut receiver, 3);
    opened.storage.shutdown();
    let (opened, _) = open(&dir);
    let rows: Vec<_> = opened.rows.iter().map(|row| (row.table, row.value.as_slice())).collect();
    assert_eq!(rows, [(Table::Mesh, &b"one"[..]), (Table::Attachments, b"z")]);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("state.redb")), 0o600);
}

#[test]
fn a_stop_writes_what_waits_even_when_nobody_reads_the_reports() {
    let scratch = Scratch::new();
    let (inputs, _receiver) = channel(1);
    let opened = Storage::open(scratch.path(), None, inputs).unwrap();
    for key in 0..5000 {
        opened.storage.persist(BatchId(key), vec![put(key, b"x")]);
    }
    opened.storage.shutdown();
    assert_eq!(keys(&open(scratch.path()).0.rows), (0..5000).collect::<Vec<_>>());
}

#[test]
fn reports_are_in_order_and_later_batches_win() {
    let scratch = Scratch::new();
    let (opened, mut receiver) = open(scratch.path());
    for batch in 1..=2000_u64 {
        opened.storage.persist(BatchId(batch), vec![put(batch % 7, &batch.to_be_bytes())]);
    }
    let mut last = 0;
    while last < 2000 {
        match receiver.blocking_recv() {
            Some(Input::Persisted(BatchId(batch))) => {
                assert!(batch > last, "{batch} after {last}");
                last = batch;
            }
            other => panic!("{other:?}"),
        }
    }
    drop(opened);
    for row in open(scratch.path()).0.rows {
        let newest = u64::from_be_bytes(row.value.try_into().unwrap());
        assert!(newest > 2000 - 7, "{newest}");
    }
}

#[test]
fn a_second_process_on_the_same_directory_is_told_who_has_it() {
    let scratch = Scratch::new();
    let (opened, _receiver) = open(scratch.path());
    let error = refused(scratch.path()).to_string();
    let pid = std::process::id().to_string();
    assert!(error.contains("another meshd") && error.contains(&pid), "{error}");
    drop(opened);
    open(scratch.path());
}

#[test]
fn what_is_no_directory_is_named() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refused(&path);
        assert!(matches!(&error, StorageError::NotADirectory(path) if *path == file), "{error}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_advice() {
    // procfs refuses everybody, root too.
    let error = refused(Path::new("/proc/meshwork/state")).to_string();
    assert!(error.contains("/proc/meshwork/state") && error.contains("--state-dir"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    filled(scratch.path());
    let path = scratch.path().join("state.redb");
    let redb = redb::Database::open(&path).unwrap();
    let transaction = redb.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("schema", 99).unwrap();
    transaction.commit().unwrap();
    drop(redb);
    let error = refused(scratch.path());
    assert!(matches!(error, StorageError::Newer { found: 99, .. }), "{error}");
    assert!(path.exists());
}

/// Opens a file that was damaged: it must give the old rows, or none and say so.
fn open_damaged(dir: &Path, rows: &[Row], damage: &str) -> bool {
    let (opened, _receiver) = open(dir);
    let Some(message) = &opened.recovered else {
        assert_eq!(opened.rows, rows, "{damage} changed the state and went unnoticed");
        return false;
    };
    assert!(opened.rows.is_empty());
    assert!(message.contains("state.redb.corrupt-"), "{message}");
    drop(opened);
    let (again, _receiver) = open(dir);
    assert!(again.recovered.is_none() && again.rows.is_empty(), "{damage}");
    true
}

#[test]
fn a_damaged_file_is_moved_aside_or_makes_no_difference() {
    let scratch = Scratch::new();
    let dir = scratch.path();
    let rows = filled(dir);
    let path = dir.join("state.redb");
    let good = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    let cuts = [0, 1, 63, 320, 4096, 4097, good.len() / 2, good.len() - 1];
    for cut in cuts {
        std::fs::write(&path, &good[..cut]).unwrap();
        let damaged = open_damaged(dir, &rows, &format!("a cut at {cut}"));
        assert!(damaged || cut == good.len() - 1, "a cut at {cut} went unnoticed");
    }
    let flips = (0..320).step_by(7).chain((320..good.len()).step_by(good.len() / 60));
    for position in flips {
        let mut bytes = good.clone();
        bytes[position] ^= 0x41;
        std::fs::write(&path, bytes).unwrap();
        noticed += u32::from(open_damaged(dir, &rows, &format!("a flip at {position}")));
    }
    assert!(noticed > 5, "only {noticed} flips were noticed");
    let aside = std::fs::read_dir(dir)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("corrupt-"))
        .count();
    assert_eq!(aside, 3, "a bounded number of damaged files is kept");
    std::fs::write(&path, &good).unwrap();
    assert!(!open_damaged(dir, &rows, "nothing"));
}

/// Runs one test of this file in a child, which does its part when [`CHILD_DIR`] is set.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD_DIR, dir);
    command
}

#[test]
fn a_killed_process_leaves_a_prefix_with_all_that_was_reported() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return write_until_killed(Path::new(&dir));
    }
    let name = "storage::tests::a_killed_process_leaves_a_prefix_with_all_that_was_reported";
    let scratch = Scratch::new();
    let mut reported = 0;
    for round in 0..5 {
        let mut process = child(name, scratch.path()).stdout(Stdio::piped()).spawn().unwrap();
        let output = std::io::BufReader::new(process.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        let mut numbers = lines.by_ref().filter_map(|line| line.parse::<u64>().ok());
        reported = numbers.nth(10 + 7 * round).expect("the child reported nothing");
        process.kill().unwrap();
        process.wait().unwrap();
        reported = numbers.last().unwrap_or(reported);
        let (opened, _) = open(scratch.path());
        assert!(opened.recovered.is_none(), "{:?}", opened.recovered);
        let found = keys(&opened.rows);
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "not a prefix");
        assert!(found.len() as u64 > reported, "{} rows, {reported} reported", found.len());
    }
    assert!(reported > 0);
}

fn write_until_killed(dir: &Path) {
    let (opened, mut receiver) = open(dir);
    let first = opened.rows.len() as u64;
    for number in first.. {
        opened.storage.persist(BatchId(number), vec![put(number, &[7; 200])]);
        while let Ok(input) = receiver.try_recv() {
            if let Input::Persisted(BatchId(batch)) = input {
                println!("{batch}");
            }
        }
        if number % 50 == 49 {
            wait(&mut receiver, number);
            println!("{number}");
        }
    }
}

#[test]
fn a_full_disk_fails_batches_and_the_next_ones_work_when_there_is_room() {
    if let Some(dir) = std::env::var_os(CHILD_DIR) {
        return fill_the_disk(Path::new(&dir));
    }
    let name =
        "storage::tests::a_full_disk_fails_batches_and_the_next_ones_work_when_there_is_room";
    let scratch = Scratch::new();
    let dir = scratch.path();
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(dir);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = command.env(CHILD_DIR, dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && text.starts_with("unshare:") {
        assert!(std::env::var_os("CI").is_none(), "{text}");
        eprintln!("SKIPPED {name}: {text}");
        return;
    }
    let text = format!("{}{text}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success() && text.contains("full disk survived"), "{text}");
}

fn fill_the_disk(dir: &Path) {
    let state = dir.join("state");
    let ballast = dir.join("ballast");
    let (opened, mut receiver) = open(&state);
    let storage = &opened.storage;
    // What the node believes, and so what the disk must hold at the end.
    let mut model = BTreeMap::new();
    let mut batch = 0;
    for round in 0..4_u8 {
        fill(&ballast);
        let failed = loop {
            batch += 1;
            storage.persist(BatchId(batch), vec![put(0, &[round]), put(batch, &[round; 50_000])]);
            match receiver.blocking_recv().unwrap() {
                Input::Persisted(BatchId(done)) => {
                    assert_eq!(done, batch);
                    model.insert(0, vec![round]);
                    model.insert(batch, vec![round; 50_000]);
                }
                Input::PersistFailed { batch: BatchId(first), reason } => {
                    assert!(reason.contains("state.redb"), "{reason}");
                    break first;
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(failed, batch);
        // Begun before the node knew: these fail with the first and are never seen.
        storage.persist(BatchId(batch + 1), vec![put(0, b"too late")]);
        storage.persist(BatchId(batch + 2), vec![put(batch + 2, b"too late")]);
        storage.resume();
        // The disk is still full: whatever the answer is, it must be true.
        batch += 3;
        storage.persist(BatchId(batch), vec![put(0, &[100 + round])]);
        match receiver.blocking_recv().unwrap() {
            Input::Persisted(BatchId(done)) => {
                assert_eq!(done, batch);
                model.insert(0, vec![100 + round]);
            }
            Input::PersistFailed { batch: BatchId(first), .. } => {
                assert_eq!(first, batch);
                storage.resume();
            }
            other => panic!("{other:?}"),
        }
        std::fs::remove_file(&ballast).unwrap();
        batch += 1;
        storage.persist(BatchId(batch), vec![put(batch, b"room again")]);
        wait(&mut receiver, batch);
        model.insert(batch, b"room again".to_vec());
    }
    opened.storage.shutdown();
    let (opened, _) = open(&state);
    assert!(opened.recovered.is_none(), "{:?}", opened.recovered);
    let found: BTreeMap<u64, Vec<u8>> =
        keys(&opened.rows).into_iter().zip(opened.rows.into_iter().map(|row| row.value)).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
    assert!(found == model, "a value differs");
    opened.storage.shutdown();
    fill(&ballast);
    let error = refused(&dir.join("fresh")).to_string();
    assert!(error.contains("fresh") && error.contains("free some space"), "{error}");
    match Storage::open(&state, None, channel(1).0) {
        Ok(opened) => assert_eq!(opened.rows.len(), model.len()),
        Err(error) => assert!(error.to_string().contains("free some space"), "{error}"),
    }
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(open(&state).0.rows.len(), model.len());
    println!("full disk survived");
}

/// Takes all space that the file system has left.
fn fill(ballast: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
}
