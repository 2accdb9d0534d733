//! Links to other hosts over QUIC.
