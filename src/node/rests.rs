//! Who held which addresses last, over a restart: so they rest again, and whoever had them may
//! have them back.
//!
//! A row for each record that was taken away, in the batch that takes it. The oldest go when they
//! are too many; none goes when its addresses are given to somebody else, for after a restart a
//! later row, or who holds them, has the last word.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_ipam::Holder;
use mesh_router::codec::encode;
use serde::{Deserialize, Serialize};

use super::{Node, attachment::Record, event::Table, journal::Journal, needs::also_known_as};

/// Rows at most. Chosen: a minute's rest of 60 containers a second, and under 1 MB.
const ROWS_MAX: u64 = 4096;

/// A row's value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rest {
    holders: Vec<Holder>,
    addresses: Vec<IpAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rests {
    /// The rows on the disk have numbers from the first on, up to the next; some may be missing.
    first: u64,
    next: u64,
    /// Those that were found at the start.
    found: BTreeMap<u64, Rest>,
}

impl Rests {
    pub(super) fn restore(&mut self, number: u64, rest: Rest) {
        self.found.insert(number, rest);
        self.first = self.found.first_key_value().map_or(0, |(number, _)| *number);
        self.next = self.next.max(number.saturating_add(1));
    }

    /// A record is taken away.
    pub(super) fn note(&mut self, record: &Record, journal: &mut Journal) {
        let holders = [vec![record.holder.clone()], also_known_as(record)].concat();
        let rest = Rest { holders, addresses: record.addresses.clone() };
        journal.put(Table::Rests, encode(&self.next), encode(&rest));
        self.next += 1;
        self.delete_upto(self.next.saturating_sub(ROWS_MAX), journal);
    }

    pub(super) fn delete_all(&mut self, journal: &mut Journal) {
        self.delete_upto(self.next, journal);
    }

    fn delete_upto(&mut self, end: u64, journal: &mut Journal) {
        for number in self.first..end {
            journal.delete(Table::Rests, encode(&number));
        }
        self.first = self.first.max(end);
    }
}

impl Node {
    /// After a start: what was released before rests once more.
    pub(super) fn put_to_rest(&mut self) {
        let until = self.now + self.config.rest;
        for rest in std::mem::take(&mut self.rests.found).into_values() {
            self.ipam.rest_again(&rest.addresses, rest.holders, until);
        }
    }
}
