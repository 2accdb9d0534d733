//! The resolver that containers ask.
