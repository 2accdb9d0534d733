//! A bound on log lines that strangers can cause.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use super::lock;

/// Lines in one interval. Chosen: enough to see several hosts with a wrong token at once.
const LINES_MAX: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets a few lines through per interval and counts the rest.
#[derive(Debug)]
pub(super) struct Throttle(Mutex<Window>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    lines: u32,
    held_back: u64,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Window { begun: now, lines: 0, held_back: 0 }))
    }

    /// Whether a line may be written now, and how many were held back before it.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = lock(&self.0);
        if now.duration_since(window.begun) >= INTERVAL {
            window.begun = now;
            window.lines = 0;
        }
        if window.lines == LINES_MAX {
            window.held_back += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_a_few_lines_and_a_count() {
        let begun = Instant::now();
        let throttle = Throttle::new(begun);
        let written = (0..100).filter(|_| throttle.admit(begun).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        let later = begun + INTERVAL;
        assert_eq!(throttle.admit(later), Some(95));
        assert_eq!(throttle.admit(later), Some(0));
    }
}
