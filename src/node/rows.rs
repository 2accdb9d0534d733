//! What the node keeps on disk, row by row.
//!
//! ```text
//!  table        key                         value
//!  mesh         "credentials"               mesh id and secret
//!               "remembers"                 (); there once all own writes are known
//!               "left"                      mesh that was left, own counter in its ring
//!               "past"                      meshes in which this host has written
//!               "council"                   what was promised about the next decree
//!               "doubtful"                  (); there until a peer was asked about an old disk
//!               "gaps"                      up to where the ring was told in part only
//!               "founding"                  how many hosts found the mesh, and its ranges
//!  targets      socket address              ()
//!  members/…    the register's key          dot, value
//!  ring/zone
//!  vectors      kind, origin                counter, floor
//!  attachments  holder                      the record
//! ```

use std::net::SocketAddr;

use mesh_router::{
    Kind, Mutation, PeerId, Register, Store,
    codec::{decode, encode},
    member::MemberKey,
    mutation,
    store::{Change, Entry},
};
use serde::de::DeserializeOwned;

use super::{
    Node,
    attachment::Record,
    event::{Credentials, Row, Table},
    journal::Journal,
};

const CREDENTIALS: &[u8] = b"credentials";
const REMEMBERS: &[u8] = b"remembers";
const LEFT: &[u8] = b"left";
const PAST: &[u8] = b"past";
const COUNCIL: &[u8] = b"council";
const FOUNDING: &[u8] = b"founding";
const DOUBTFUL: &[u8] = b"doubtful";
const GAPS: &[u8] = b"gaps";

impl Node {
    pub(super) fn restore_row(&mut self, row: Row) -> Result<(), String> {
        match row.table {
            Table::Mesh if row.key == CREDENTIALS => self.mesh = Some(value(&row)?),
            Table::Mesh if row.key == REMEMBERS => self.remembers = true,
            Table::Mesh if row.key == LEFT => self.left = Some(value(&row)?),
            Table::Mesh if row.key == PAST => self.past = value(&row)?,
            Table::Mesh if row.key == COUNCIL => self.ipam.restore_promises(value(&row)?),
            Table::Mesh if row.key == DOUBTFUL => self.doubtful = true,
            Table::Mesh if row.key == GAPS => self.ipam.restore_gaps(value(&row)?),
            Table::Mesh if row.key == FOUNDING => self.founding = Some(value(&row)?),
            // Written by a later version: not ours to judge.
            Table::Mesh => {}
            Table::Targets => self.router.add_target(key::<SocketAddr>(&row)?),
            Table::Members => restore_entry(self.router.members_mut(), &row)?,
            Table::Ring => restore_entry(self.ipam.store_mut(), &row)?,
            Table::Zone => restore_entry(self.zone.store_mut(), &row)?,
            Table::Vectors => self.restore_vector(&row)?,
            Table::Attachments
                if mutation::on(Mutation::RestartForgets) && row.key.len().is_multiple_of(2) => {}
            Table::Attachments => {
                let record: Record = value(&row)?;
                self.restore_record(record);
            }
            Table::Rests => self.rests.restore(key(&row)?, value(&row)?),
        }
        Ok(())
    }

    fn restore_vector(&mut self, row: &Row) -> Result<(), String> {
        let (kind, origin): (Kind, PeerId) = key(row)?;
        let (counter, floor): (u64, u64) = value(row)?;
        match kind {
            Kind::Members => restore_counter(self.router.members_mut(), origin, counter, floor),
            Kind::Ring => restore_counter(self.ipam.store_mut(), origin, counter, floor),
            Kind::Zone => restore_counter(self.zone.store_mut(), origin, counter, floor),
        }
        Ok(())
    }

    pub(super) fn write_credentials(&mut self, credentials: &Credentials) {
        self.journal.put(Table::Mesh, CREDENTIALS.to_vec(), encode(credentials));
    }

    pub(super) fn write_remembers(&mut self) {
        self.journal.put(Table::Mesh, REMEMBERS.to_vec(), Vec::new());
    }

    pub(super) fn write_left(&mut self) {
        match &self.left {
            Some(left) => self.journal.put(Table::Mesh, LEFT.to_vec(), encode(left)),
            None => self.journal.delete(Table::Mesh, LEFT.to_vec()),
        }
    }

    pub(super) fn write_past(&mut self) {
        self.journal.put(Table::Mesh, PAST.to_vec(), encode(&self.past));
    }

    pub(super) fn write_founding(&mut self) {
        match &self.founding {
            Some(founding) => {
                self.journal.put(Table::Mesh, FOUNDING.to_vec(), encode(founding));
            }
            None => self.journal.delete(Table::Mesh, FOUNDING.to_vec()),
        }
    }

    /// Whether the disk may be an old one outlasts a restart in the middle of asking.
    pub(super) fn write_doubt(&mut self, doubtful: bool) {
        if self.doubtful == doubtful {
            return;
        }
        self.doubtful = doubtful;
        if doubtful {
            self.journal.put(Table::Mesh, DOUBTFUL.to_vec(), Vec::new());
        } else {
            self.journal.delete(Table::Mesh, DOUBTFUL.to_vec());
        }
    }

    /// Writes what the council promised, if that has changed.
    pub(super) fn write_promises(&mut self) {
        let (changes, promises) = self.ipam.promises();
        if changes != self.promises_written {
            self.promises_written = changes;
            self.journal.put(Table::Mesh, COUNCIL.to_vec(), encode(promises));
        }
    }

    /// The ring's rows go, and the host is told everything anew, also after a restart.
    pub(super) fn delete_ring(&mut self) {
        self.journal.delete(Table::Mesh, REMEMBERS.to_vec());
        self.journal.delete(Table::Mesh, GAPS.to_vec());
        delete_store(&mut self.journal, Table::Ring, Kind::Ring, self.ipam.store_mut());
    }

    pub(super) fn forget_remembering(&mut self) {
        self.journal.delete(Table::Mesh, REMEMBERS.to_vec());
    }

    pub(super) fn write_target(&mut self, target: SocketAddr, there: bool) {
        if there {
            self.journal.put(Table::Targets, encode(&target), Vec::new());
        } else {
            self.journal.delete(Table::Targets, encode(&target));
        }
    }

    pub(super) fn write_record(&mut self, record: &Record) {
        self.note_in_kernel(record);
        self.journal.put(Table::Attachments, encode(&record.holder), encode(record));
    }

    pub(super) fn delete_record(&mut self, record: &Record) {
        self.journal.delete(Table::Attachments, encode(&record.holder));
        self.rests.note(record, &mut self.journal);
    }

    /// Deletes all that makes this host a member.
    pub(super) fn delete_everything(&mut self) {
        self.journal.delete(Table::Mesh, CREDENTIALS.to_vec());
        for row in [REMEMBERS, COUNCIL, FOUNDING, DOUBTFUL, GAPS] {
            self.journal.delete(Table::Mesh, row.to_vec());
        }
        let targets: Vec<SocketAddr> = self.router.targets().map(|(address, _)| address).collect();
        for target in targets {
            self.write_target(target, false);
        }
        let members = self.router.members_mut();
        delete_store(&mut self.journal, Table::Members, Kind::Members, members);
        delete_store(&mut self.journal, Table::Ring, Kind::Ring, self.ipam.store_mut());
        delete_store(&mut self.journal, Table::Zone, Kind::Zone, self.zone.store_mut());
        for holder in self.slots.keys() {
            self.journal.delete(Table::Attachments, encode(holder));
        }
        self.rests.delete_all(&mut self.journal);
    }

    /// Writes what changed in the replicas, and hands it to those who derive from it.
    pub(super) fn absorb_changes(&mut self) {
        let members = self.router.members_mut();
        let changed = members.drain_changes();
        write_changes(&mut self.journal, Table::Members, Kind::Members, members, &changed);
        // Who is linked to whom is the router's to judge.
        let described = |change: &Change<MemberKey>| matches!(change.key, MemberKey::Info(_));
        let mut replan = changed.iter().any(described);

        if let Some(gaps) = self.ipam.changed_gaps() {
            let rest = (!gaps.dots.is_empty()).then(|| encode(gaps));
            match rest {
                Some(gaps) => self.journal.put(Table::Mesh, GAPS.to_vec(), gaps),
                None => self.journal.delete(Table::Mesh, GAPS.to_vec()),
            }
        }
        let changed = self.ipam.store_mut().drain_changes();
        let ring = self.ipam.store_mut();
        write_changes(&mut self.journal, Table::Ring, Kind::Ring, ring, &changed);
        replan |= !changed.is_empty();

        let changed = self.zone.take_changes();
        let visible = changed.iter().filter_map(|change| self.zone.zone_change(change));
        self.outputs.extend(visible.map(super::event::Output::Zone));
        let zone = self.zone.store_mut();
        write_changes(&mut self.journal, Table::Zone, Kind::Zone, zone, &changed);
        if replan {
            self.replan_soon();
        }
    }
}

fn key<T: DeserializeOwned>(row: &Row) -> Result<T, String> {
    decode(&row.key).map_err(|error| format!("a key of table {}: {error}", row.table.name()))
}

fn value<T: DeserializeOwned>(row: &Row) -> Result<T, String> {
    decode(&row.value).map_err(|error| format!("a value of table {}: {error}", row.table.name()))
}

fn restore_entry<R: Register>(store: &mut Store<R>, row: &Row) -> Result<(), String> {
    let entry: Entry<R::Value> = value(row)?;
    store
        .restore_entry(key(row)?, entry)
        .map_err(|error| format!("a row of table {}: {error}", row.table.name()))
}

fn restore_counter<R: Register>(store: &mut Store<R>, origin: PeerId, counter: u64, floor: u64) {
    store.restore_counter(origin, counter);
    if floor > 0 {
        store.restore_floor(origin, floor);
    }
}

fn write_changes<R: Register>(
    journal: &mut Journal,
    table: Table,
    kind: Kind,
    store: &mut Store<R>,
    changes: &[Change<R::Key>],
) {
    for change in changes {
        match store.get(&change.key) {
            Some(entry) => journal.put(table, encode(&change.key), encode(entry)),
            None => journal.delete(table, encode(&change.key)),
        }
    }
    for (origin, counter, floor) in store.drain_origins() {
        let key = encode(&(kind, origin));
        match (counter, floor) {
            (0, 0) => journal.delete(Table::Vectors, key),
            row => journal.put(Table::Vectors, key, encode(&row)),
        }
    }
}

/// Also of what is gone from the store and is on the disk still.
fn delete_store<R: Register>(
    journal: &mut Journal,
    table: Table,
    kind: Kind,
    store: &mut Store<R>,
) {
    let gone = store.drain_changes();
    for key in gone.iter().map(|change| &change.key).chain(store.iter().map(|(key, _)| key)) {
        journal.delete(table, encode(key));
    }
    let gone = store.drain_origins();
    let origins = gone.iter().map(|(origin, ..)| origin);
    for origin in origins.chain(store.vector().dots.keys()) {
        journal.delete(Table::Vectors, encode(&(kind, *origin)));
    }
}
