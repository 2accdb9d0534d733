//! What happened, as a hash always and as lines when somebody wants to read them.

use crate::queue::Micros;

/// An odd number with bits everywhere (2^64 by the golden ratio; Knuth, 6.4). Not for secrets: the
/// hash only compares runs.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(lines: bool) -> Self {
        Self { hash: 0, lines: lines.then(Vec::new) }
    }

    fn fold(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }

    /// Eight bytes at a time: most of a run's bytes are frames.
    fn fold_bytes(&mut self, bytes: &[u8]) {
        self.fold(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    /// Something happened at a host. `detail` is only made when lines are kept; `bytes` must say
    /// what distinguishes it, as far as what follows would not show it.
    pub(crate) fn note(
        &mut self,
        (at, host): (Micros, usize),
        kind: &'static str,
        bytes: &[u8],
        detail: impl FnOnce() -> String,
    ) {
        self.fold(at);
        self.fold(host as u64);
        self.fold_bytes(kind.as_bytes());
        self.fold_bytes(bytes);
        if let Some(lines) = &mut self.lines {
            let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
            lines.push(format!("{seconds:>4}.{micros:06} h{host} {kind} {}", detail()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
