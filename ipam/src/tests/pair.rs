//! Space between two and three hosts.
