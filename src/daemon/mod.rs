//! meshd: the loop that drives the node.
