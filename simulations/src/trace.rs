//! What happened, as a hash always and as lines when somebody wants to read them.

use crate::queue::Micros;

/// FNV-1a's prime and offset, 64 bits (Fowler, Noll, Vo). Not for secrets: only to compare runs.
const PRIME: u64 = 0x0000_0100_0000_01b3;
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(lines: bool) -> Self {
        Self { hash: OFFSET, lines: lines.then(Vec::new) }
    }

    fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    /// Something happened at a host. `detail` is only made when lines are kept; `bytes` must say
    /// all that distinguishes it.
    pub(crate) fn note(
        &mut self,
        (at, host): (Micros, usize),
        kind: &'static str,
        bytes: &[u8],
        detail: impl FnOnce() -> String,
    ) {
        self.fold(&at.to_le_bytes());
        self.fold(&(host as u64).to_le_bytes());
        self.fold(kind.as_bytes());
        self.fold(bytes);
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
