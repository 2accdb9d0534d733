//! What others broke and we put right, in words, for `meshctl status`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use super::plan::{Flaw, Step};
use crate::api::types::Repair;

/// How many repairs are remembered. Chosen: two pages of a terminal.
const REPAIRS_MAX: usize = 64;
/// So many repairs of one kind are told one by one; more are told as a number.
const NAMED_MAX: usize = 3;

/// The newest repairs, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Repairs(VecDeque<Repair>);

impl Repairs {
    /// Remembers that these steps were taken because of somebody else, and answers the new lines.
    pub(super) fn record(&mut self, steps: &[Step]) -> Vec<String> {
        let lines = describe(steps);
        let at_secs = now_secs();
        for what in &lines {
            if self.0.len() == REPAIRS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Repair { at_secs, what: what.clone() });
        }
        lines
    }

    /// All that are remembered, newest last.
    pub(super) fn list(&self) -> Vec<Repair> {
        self.0.iter().cloned().collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "only shown to people")]
fn now_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The steps in words.
fn describe(steps: &[Step]) -> Vec<String> {
    let mut kinds: BTreeMap<_, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        kinds.entry((step.subject.kind(), step.flaw)).or_default().push(step);
    }
    let mut lines = Vec::new();
    for (((_, plural), flaw), mut steps) in kinds {
        steps.dedup_by(|a, b| a.subject == b.subject);
        let (was, done) = words(flaw);
        if steps.len() > NAMED_MAX {
            lines.push(format!("{} {plural} were {was}; {done}", steps.len()));
        } else {
            lines.extend(steps.iter().map(|step| format!("{} was {was}; {done}", step.subject)));
        }
    }
    lines
}

fn words(flaw: Flaw) -> (&'static str, &'static str) {
    match flaw {
        Flaw::Gone => ("gone", "put back"),
        Flaw::Changed => ("changed", "put right"),
        Flaw::Extra => ("there and not the mesh's", "removed"),
    }
}
