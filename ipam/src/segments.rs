//! Who owns each address, in flat arrays that a lookup searches by halving.
//!
//! A segment goes from its start up to the next one. What is before the first one of a family is
//! outside. Neighbouring segments differ, so equal contents have one form only.

use std::net::IpAddr;

use crate::{
    block::{Block, Family},
    view::Owner,
};

/// What holds for all addresses of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) owner: Owner,
    /// Which of the mesh's ranges it lies in.
    pub(crate) range: Option<u32>,
}

impl Tag {
    pub(crate) const OUTSIDE: Self = Self { owner: Owner::Outside, range: None };
}

/// The segments of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    v4: Track<u32>,
    v6: Track<u128>,
}

impl Segments {
    pub(crate) fn owner(&self, address: IpAddr) -> Owner {
        match address {
            IpAddr::V4(address) => self.v4.at(address.to_bits()).owner,
            IpAddr::V6(address) => self.v6.at(address.to_bits()).owner,
        }
    }

    /// Replaces what lies in a region. The first mark is at its first address, they rise and none
    /// is beyond its last.
    pub(crate) fn splice(&mut self, region: &Block, marks: &[(u128, Tag)]) {
        let last = region.last_number();
        let after = (last < region.family().max()).then(|| last + 1);
        match region.family() {
            Family::V4 => {
                let marks = marks.iter().map(|(number, tag)| (v4(*number), *tag));
                self.v4.splice(v4(region.first_number()), after.map(v4), marks);
            }
            Family::V6 => {
                self.v6.splice(region.first_number(), after, marks.iter().copied());
            }
        }
    }

    /// First and last number and tag of each part of a region, rising.
    pub(crate) fn inside(&self, region: &Block) -> impl Iterator<Item = (u128, u128, Tag)> {
        let (first, last) = (region.first_number(), region.last_number());
        let (v4, v6) = match region.family() {
            Family::V4 => (Some(self.v4.inside(v4(first), v4(last))), None),
            Family::V6 => (None, Some(self.v6.inside(first, last))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }
}

fn v4(number: u128) -> u32 {
    u32::try_from(number).expect("an IPv4 number has 32 bits")
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Track<N> {
    starts: Vec<N>,
    /// As many as there are starts.
    tags: Vec<Tag>,
}

impl<N: Copy + Ord + Into<u128>> Track<N> {
    fn at(&self, number: N) -> Tag {
        let next = self.starts.partition_point(|start| *start <= number);
        next.checked_sub(1).map_or(Tag::OUTSIDE, |index| self.tags[index])
    }

    fn splice(&mut self, first: N, after: Option<N>, marks: impl Iterator<Item = (N, Tag)>) {
        let from = self.starts.partition_point(|start| *start < first);
        let to = after.map_or(self.starts.len(), |after| {
            self.starts.partition_point(|start| *start <= after)
        });
        // What follows the region stays as it was.
        let rest = after.map(|after| (after, self.at(after)));
        let mut last = from.checked_sub(1).map_or(Tag::OUTSIDE, |index| self.tags[index]);
        let (mut starts, mut tags) = (Vec::new(), Vec::new());
        for (start, tag) in marks.chain(rest) {
            if tag != last {
                starts.push(start);
                tags.push(tag);
                last = tag;
            }
        }
        self.starts.splice(from..to, starts);
        self.tags.splice(from..to, tags);
    }

    fn inside(&self, first: N, last: N) -> impl Iterator<Item = (u128, u128, Tag)> {
        let from = self.starts.partition_point(|start| *start <= first).saturating_sub(1);
        let to = self.starts.partition_point(|start| *start <= last);
        (from..to)
            .map(move |index| {
                let end = self.starts.get(index + 1).map(|next| (*next).into() - 1);
                let end = end.unwrap_or(u128::MAX).min(last.into());
                (self.starts[index].max(first).into(), end, self.tags[index])
            })
            .filter(|(first, last, _)| first <= last)
    }
}
