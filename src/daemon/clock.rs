//! The node's clock: microseconds since the process started.

use std::time::Instant;

use mesh_router::Time;

/// The driver's clock. Nothing else reads one for the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

#[allow(clippy::disallowed_methods, reason = "the driver is where the node's time comes from")]
impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The same point on the runtime's clock.
    pub(super) fn instant(self, time: Time) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + time.since(Time::ZERO))
    }
}
