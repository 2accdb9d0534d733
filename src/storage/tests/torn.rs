//! Power is lost: of what was written since the last sync each sector is on the disk, or not.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use redb::StorageBackend;

use super::put;
use crate::{node::event::Write, storage::database::Database};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file in memory that remembers what was done to it.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<(Vec<u8>, Vec<Step>)>>);

impl Recorder {
    fn of(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new((image, Vec::new()))))
    }

    fn steps(&self) -> Vec<Step> {
        self.0.lock().unwrap().1.clone()
    }

    fn done(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }
}

fn write_at(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let from = usize::try_from(offset).unwrap();
    image.resize(image.len().max(from + data.len()), 0);
    image[from..from + data.len()].copy_from_slice(data);
}

impl StorageBackend for Recorder {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.lock().unwrap().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let from = usize::try_from(offset).unwrap();
        let inner = self.0.lock().unwrap();
        let there = inner.0.get(from..from + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut inner = self.0.lock().unwrap();
        inner.0.resize(usize::try_from(len).unwrap(), 0);
        inner.1.push(Step::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.lock().unwrap().1.push(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut inner = self.0.lock().unwrap();
        write_at(&mut inner.0, offset, data);
        inner.1.push(Step::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// What is on the disk when power is lost after these steps.
fn image_after(steps: &[Step], rng: &mut StdRng) -> Vec<u8> {
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
    let mut image = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Sync => {}
            Step::SetLen(len) => image.resize(usize::try_from(*len).unwrap(), 0),
            Step::Write(offset, data) => {
                for (sector, part) in data.chunks(SECTOR_BYTES).enumerate() {
                    if at < synced || rng.random_bool(0.5) {
                        write_at(&mut image, offset + (sector * SECTOR_BYTES) as u64, part);
                    }
                }
            }
        }
    }
    image
}

fn open(image: Recorder) -> Database {
    let redb = redb::Builder::new().set_cache_size(1 << 20).create_with_backend(image).unwrap();
    Database::over(redb, Path::new("state.redb"))
}

/// Keys and values, rising.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Commits made on a recorded file: after how many steps each was reported, and all rows then.
fn history(recorder: &Recorder, rng: &mut StdRng) -> Vec<(usize, Rows)> {
    let database = open(recorder.clone());
    database.lay_out().unwrap();
    let mut rows = std::collections::BTreeMap::new();
    let mut history = vec![(recorder.done(), Vec::new())];
    for _ in 0..40 {
        let batch: Vec<Write> = (0..rng.random_range(1..30))
            .map(|_| {
                let write = put(rng.random_range(0..200), &vec![rng.next_u32() as u8; 400]);
                let gone = rng.random_bool(0.3);
                Write { value: write.value.filter(|_| !gone), ..write }
            })
            .collect();
        for Write { key, value, .. } in &batch {
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        database.commit(batch.iter(), &mut Vec::new()).unwrap();
        let now = rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        history.push((recorder.done(), now));
    }
    history
}

#[test]
fn a_power_cut_leaves_whole_batches_and_all_that_were_reported() {
    let mut rng = StdRng::seed_from_u64(20_261_123);
    let recorder = Recorder::default();
    let history = history(&recorder, &mut rng);
    let steps = recorder.steps();
    let first = history[0].0;
    let (mut torn, mut later) = (0, 0);
    for _ in 0..400 {
        let cut = rng.random_range(first..=steps.len());
        let image = image_after(&steps[..cut], &mut rng);
        torn += u32::from(!matches!(steps[cut - 1], Step::Sync));
        let mut database = open(Recorder::of(image));
        let rows = database.read().unwrap_or_else(|failure| panic!("at step {cut}: {failure:?}"));
        let found: Vec<_> = rows.into_iter().map(|row| (row.key, row.value)).collect();
        let reported = history.iter().rposition(|(done, _)| *done <= cut).unwrap();
        let next = history.get(reported + 1).filter(|(_, rows)| *rows == found);
        later += u32::from(next.is_some() && history[reported].1 != found);
        assert!(next.is_some() || history[reported].1 == found, "at step {cut}");
    }
    assert!(torn > 100 && later > 0, "{torn} cuts within batches, {later} of which were whole");
}
