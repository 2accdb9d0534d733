//! A block: a canonical CIDR prefix of either family. No host bits, ever.
//!
//! Addresses are treated as numbers here: [`Family`] and up to 128 bits. Blocks are ordered by
//! family, first address and length, so a block comes just before all that lies inside it.

use std::{
    cmp::Ordering,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// How many bits an address has.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The greatest address as a number.
    pub const fn max(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    /// The address with this number, which must not be above [`Family::max`].
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => {
                Ipv4Addr::from(u32::try_from(number).expect("an IPv4 number has 32 bits")).into()
            }
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

/// Family and number of an address.
pub fn number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, u32::from(address).into()),
        IpAddr::V6(address) => (Family::V6, address.into()),
    }
}

/// A text or pair of numbers that is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not an address with a length.
    #[error("{0:?} is not a block such as 10.32.0.0/12 or fd00:6d65::/48")]
    Syntax(String),
    /// The length is more than the address has bits.
    #[error("a prefix length of {length} is more than the {most} bits of the address")]
    Length {
        /// What was given.
        length: u8,
        /// What is possible.
        most: u8,
    },
    /// Bits behind the prefix are set.
    #[error("{text} has bits set behind its prefix length: did you mean {canonical}?")]
    HostBits {
        /// What was given.
        text: String,
        /// The block that the address lies in.
        canonical: Block,
    },
}

/// A canonical CIDR prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Block {
    family: Family,
    /// The first address as a number. Not aligned, because the ring holds very many blocks.
    first: [u8; 16],
    length: u8,
}

impl Ord for Block {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |block: &Self| (block.family, block.first_number(), block.length);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Block {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How a block is written: an IPv4 block of a private range takes 7 bytes.
#[derive(Serialize, Deserialize)]
enum Wire {
    V4(u32, u8),
    V6(u128, u8),
}

impl Block {
    /// The block of this length that the address lies in.
    ///
    /// # Errors
    /// [`BlockError::Length`] when the address has fewer bits.
    pub fn containing(address: IpAddr, length: u8) -> Result<Self, BlockError> {
        let (family, number) = number(address);
        if length > family.bits() {
            return Err(BlockError::Length { length, most: family.bits() });
        }
        Ok(Self::at(family, number, length))
    }

    /// The block of this length around a number; `length` must be possible in the family.
    pub(crate) fn at(family: Family, number: u128, length: u8) -> Self {
        let host_bits = u32::from(family.bits() - length);
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Self { family, first: (number & mask).to_be_bytes(), length }
    }

    /// The block of one address.
    pub fn single(address: IpAddr) -> Self {
        let (family, first) = number(address);
        Self { family, first: first.to_be_bytes(), length: family.bits() }
    }

    /// All addresses of both families.
    pub(crate) fn everything() -> [Self; 2] {
        [Family::V4, Family::V6].map(|family| Self::at(family, 0, 0))
    }

    /// IPv4 or IPv6.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The prefix length.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// How many addresses there are; the one too many of `::/0` is left out.
    pub fn size(&self) -> u128 {
        1_u128.checked_shl(self.host_bits()).unwrap_or(u128::MAX)
    }

    fn host_bits(&self) -> u32 {
        u32::from(self.family.bits() - self.length)
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first_number())
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last_number())
    }

    /// The first address as a number.
    pub(crate) const fn first_number(&self) -> u128 {
        u128::from_be_bytes(self.first)
    }

    /// A number of 126 bits that does not fall where blocks rise.
    pub(crate) const fn prefix(&self) -> u128 {
        match self.family {
            Family::V4 => self.first_number() << 8 | self.length as u128,
            Family::V6 => 1 << 125 | self.first_number() >> 3,
        }
    }

    /// The last address as a number.
    pub(crate) fn last_number(&self) -> u128 {
        self.first_number()
            | (1_u128.checked_shl(self.host_bits()).map_or(u128::MAX, |size| size - 1))
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Self::single(address))
    }

    /// Whether all of `other` lies inside; a block covers itself.
    pub fn covers(&self, other: &Self) -> bool {
        self.family == other.family
            && self.length <= other.length
            && (self.first_number()..=self.last_number()).contains(&other.first_number())
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The two blocks that this one consists of; none when it is a single address.
    pub fn halves(&self) -> Option<(Self, Self)> {
        (self.length < self.family.bits()).then(|| {
            let half = Self { length: self.length + 1, ..*self };
            let second = self.first_number() | (1 << half.host_bits());
            (half, Self { first: second.to_be_bytes(), ..half })
        })
    }

    /// The same as the type that others use.
    pub fn network(&self) -> IpNetwork {
        IpNetwork::new(self.first(), self.length).expect("a block's length is possible")
    }
}

impl From<IpNetwork> for Block {
    /// The network's block; host bits are dropped.
    fn from(network: IpNetwork) -> Self {
        let (family, number) = number(network.ip());
        Self::at(family, number, network.prefix())
    }
}

impl From<Block> for IpNetwork {
    fn from(block: Block) -> Self {
        block.network()
    }
}

impl From<IpAddr> for Block {
    fn from(address: IpAddr) -> Self {
        Self::single(address)
    }
}

impl From<Block> for Wire {
    fn from(block: Block) -> Self {
        match block.first() {
            IpAddr::V4(first) => Self::V4(first.into(), block.length),
            IpAddr::V6(first) => Self::V6(first.into(), block.length),
        }
    }
}

impl TryFrom<Wire> for Block {
    type Error = BlockError;

    fn try_from(wire: Wire) -> Result<Self, BlockError> {
        let (family, first, length) = match wire {
            Wire::V4(first, length) => (Family::V4, first.into(), length),
            Wire::V6(first, length) => (Family::V6, first, length),
        };
        exact(family, first, length)
    }
}

/// The block with this first number, and no other.
fn exact(family: Family, first: u128, length: u8) -> Result<Block, BlockError> {
    let most = family.bits();
    if length > most {
        return Err(BlockError::Length { length, most });
    }
    let block = Block::at(family, first, length);
    if block.first_number() == first {
        return Ok(block);
    }
    let text = format!("{}/{length}", family.address(first));
    Err(BlockError::HostBits { text, canonical: block })
}

impl FromStr for Block {
    type Err = BlockError;

    /// Reads `address/length`, or an address alone for its own block. Host bits are refused.
    fn from_str(text: &str) -> Result<Self, BlockError> {
        let syntax = || BlockError::Syntax(text.to_owned());
        let Some((address, length)) = text.split_once('/') else {
            return Ok(Self::single(text.parse().map_err(|_| syntax())?));
        };
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (length.len() > 1 && length.starts_with('0')) {
            return Err(syntax());
        }
        let (family, first) = number(address.parse().map_err(|_| syntax())?);
        exact(family, first, length.parse().map_err(|_| syntax())?)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.length)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use mesh_router::codec;

    use super::*;

    fn block(text: &str) -> Block {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_reads_back_what_it_prints_in_text_and_bytes() {
        for text in
            ["0.0.0.0/0", "10.32.0.0/12", "10.0.0.1/32", "::/0", "fd00:6d65::/48", "::1/128"]
        {
            let block = block(text);
            assert_eq!(block.to_string(), text);
            assert_eq!(codec::decode::<Block>(&codec::encode(&block)).unwrap(), block);
            assert_eq!(Block::from(IpNetwork::from(block)), block);
        }
        assert_eq!(codec::encode(&block("10.32.0.0/12")).len(), 7);
    }

    #[test]
    fn host_bits_are_refused_with_the_block_that_was_meant() {
        let error = "10.32.0.1/12".parse::<Block>().unwrap_err().to_string();
        assert!(error.contains("did you mean 10.32.0.0/12?"), "{error}");
        let network: IpNetwork = "10.32.0.1/12".parse().unwrap();
        assert_eq!(Block::from(network), block("10.32.0.0/12"));
        assert!(codec::decode::<Block>(&codec::encode(&Wire::V4(1, 8))).is_err());
        assert!(codec::decode::<Block>(&codec::encode(&Wire::V4(0, 33))).is_err());
    }

    #[test]
    fn what_is_no_block_is_refused_with_the_text() {
        for text in ["", "/", "10.0.0.0/", "10.0.0/8", "x/8", "10.0.0.0/33", "::/129", "::/-1"] {
            assert!(text.parse::<Block>().is_err(), "{text}");
        }
        assert!("10.0.0.0/08".parse::<Block>().is_err());
    }

    #[test]
    fn a_block_comes_before_what_it_covers_and_its_halves_make_it_up() {
        let outer = block("10.0.0.0/8");
        let (low, high) = outer.halves().unwrap();
        assert_eq!((low, high), (block("10.0.0.0/9"), block("10.128.0.0/9")));
        assert!(outer < low && low < high && outer.covers(&low) && !low.covers(&outer));
        assert!(!low.overlaps(&high) && outer.overlaps(&high) && high.overlaps(&outer));
        assert!(outer.contains("10.255.255.255".parse().unwrap()));
        assert!(!outer.contains("11.0.0.0".parse().unwrap()) && !outer.covers(&block("::/0")));
        assert_eq!(block("::1/128").halves(), None);
        assert_eq!((outer.size(), block("::/0").size()), (1 << 24, u128::MAX));
        assert_eq!(block("::/0").halves().unwrap().1, block("8000::/1"));
        assert_eq!(outer.last().to_string(), "10.255.255.255");
    }
}
