//! The encoded rules, compared with what `nft list table` says.


