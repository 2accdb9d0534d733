//! The node's clock: microseconds since the process started.
//!
//! It goes on while the machine sleeps (`CLOCK_BOOTTIME`): a host that wakes up has to know that
//! its lease has run out.

use std::time::Duration;

use mesh_router::Time;
use nix::time::{ClockId, clock_gettime};

/// The driver's clock. Nothing else reads one for the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Duration);

impl Clock {
    pub(super) fn start() -> Self {
        Self(since_boot())
    }

    pub(super) fn now(self) -> Time {
        let elapsed = since_boot().saturating_sub(self.0);
        Time::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long it is until a time: zero if that is over.
    pub(super) fn until(self, time: Time) -> Duration {
        time.since(self.now())
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now.expect("Linux has had this clock since 2.6.39").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_begins_at_its_start_and_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first < Time::from_micros(1_000_000));
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().since(first) >= Duration::from_millis(2));
        assert_eq!(clock.until(first), Duration::ZERO);
    }
}
