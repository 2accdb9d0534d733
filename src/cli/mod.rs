//! meshctl: what a person types.
