//! The virtual clock: events in the order of time, and of their making when times are equal.

use std::{cmp::Ordering, collections::BinaryHeap};

/// Microseconds since the beginning of the world.
pub(crate) type Micros = u64;

/// A second in microseconds.
pub(crate) const SECOND: Micros = 1_000_000;

#[derive(Debug)]
struct Item<E> {
    at: Micros,
    sequence: u64,
    event: E,
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<E> Eq for Item<E> {}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Item<E> {
    /// Turned round: a heap has its greatest on top, and the earliest is wanted.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Events to come, and the time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Item<E>>,
    made: u64,
    now: Micros,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), made: 0, now: 0 }
    }

    pub(crate) fn now(&self) -> Micros {
        self.now
    }

    /// Something will happen then, or now if that is past.
    pub(crate) fn push(&mut self, at: Micros, event: E) {
        self.made += 1;
        self.heap.push(Item { at: at.max(self.now), sequence: self.made, event });
    }

    /// The next event not after `until`; the time moves on to it, or to `until`.
    pub(crate) fn pop(&mut self, until: Micros) -> Option<E> {
        if self.heap.peek().is_some_and(|item| item.at <= until) {
            let item = self.heap.pop()?;
            self.now = item.at;
            return Some(item.event);
        }
        self.now = self.now.max(until);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_keep_the_order_of_making() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (3, 'a'), (3, 'b'), (9, 'd')] {
            queue.push(at, event);
        }
        let all: String = std::iter::from_fn(|| queue.pop(5)).collect();
        assert_eq!((all.as_str(), queue.now()), ("abc", 5));
    }
}
