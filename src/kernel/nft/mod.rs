//! The nftables table `meshwork`: masquerade for what leaves the mesh.
//!
//! One table of the family `inet`, written whole in one transaction, so that there is never a
//! moment without it. It stands when chain, rules and sets are the wanted ones: each rule carries
//! what it says as its comment, which `nft list table inet meshwork` shows and by which it is
//! compared. No other table is touched.

mod expression;
mod rules;

use std::{collections::BTreeSet, io, net::IpAddr};

use self::rules::Rule;
use super::{
    address::{from_octets, octets},
    netlink::{Attributes, Message, Netlink, Received, flags},
};
use crate::node::desired::Desired;

/// The table's name.
pub(super) const TABLE: &str = "meshwork";
const CHAIN: &str = "postrouting";

/// `NETLINK_NETFILTER`.
pub(super) const NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES`: every change of the ruleset.
pub(super) const GROUP: u32 = 7;

const INET: u8 = 1;
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// The first attribute of every object but rules' expressions: the table's name.
const IN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_ID: u16 = 10;
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const GENERATION_ID: u16 = 1;

/// `NF_INET_POST_ROUTING`.
const POST_ROUTING: u32 = 4;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_SOURCE_NAT: u32 = 100;
/// Elements in one message: an attribute is at most 64 KiB, an element here at most 32 bytes.
const ELEMENTS_MAX: usize = 1500;
/// Bytes of `struct nfgenmsg`.
const FIXED: usize = 4;

/// The two sets of addresses that are not masqueraded: name, `nft`'s number of the type, bytes.
const SETS: [(&str, u32, u32); 2] = [("plain4", 7, 4), ("plain6", 8, 16)];

/// What the table holds, as wanted or as found. Equal ones need no change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ruleset {
    rules: Vec<Rule>,
    plain: BTreeSet<IpAddr>,
}

impl Ruleset {
    /// What a host wants.
    pub(super) fn wanted(desired: &Desired) -> Self {
        Self {
            rules: rules::wanted(desired),
            plain: desired.unmasqueraded.iter().copied().collect(),
        }
    }

    /// Whether what was found is this.
    pub(super) fn is(&self, found: &Found) -> bool {
        self.plain == found.plain
            && self.rules.iter().map(|rule| &rule.comment).eq(found.comments.iter())
    }
}

/// What was found in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    comments: Vec<String>,
    plain: BTreeSet<IpAddr>,
}

/// The number of the kernel's ruleset, which every change by anybody moves.
pub(super) fn generation(netlink: &mut Netlink) -> io::Result<u32> {
    let received = netlink.get(message(GET_GENERATION, 0, 0))?;
    let id = received.attributes(FIXED).find(GENERATION_ID);
    Ok(id.and_then(number).unwrap_or_default())
}

/// Reads what stands; `None` when table or chain are missing or of another shape.
pub(super) fn read(netlink: &mut Netlink) -> io::Result<Option<Found>> {
    let chains = netlink.dump(message(GET_CHAIN, 0, INET))?;
    if !chains.iter().any(is_our_chain) {
        return Ok(None);
    }
    let request = message(GET_RULE, 0, INET).put_text(IN_TABLE, TABLE);
    let rules = netlink.dump(request)?;
    let in_table =
        |rule: &&Received| rule.attributes(FIXED).text(IN_TABLE).as_deref() == Some(TABLE);
    let comments = rules.iter().filter(in_table).map(comment).collect();
    let mut plain = BTreeSet::new();
    for (set, ..) in SETS {
        let request =
            message(GET_ELEMENTS, 0, INET).put_text(IN_TABLE, TABLE).put_text(SET_NAME, set);
        match netlink.dump(request) {
            Ok(received) => plain.extend(received.iter().flat_map(elements)),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(Found { comments, plain }))
}

fn is_our_chain(received: &Received) -> bool {
    let attributes = received.attributes(FIXED);
    let hook = attributes.within(CHAIN_HOOK);
    attributes.text(IN_TABLE).as_deref() == Some(TABLE)
        && attributes.text(CHAIN_NAME).as_deref() == Some(CHAIN)
        && attributes.text(CHAIN_TYPE).as_deref() == Some("nat")
        && hook.find(HOOK_NUMBER).and_then(number) == Some(POST_ROUTING)
        && hook.find(HOOK_PRIORITY).and_then(number) == Some(PRIORITY_SOURCE_NAT)
}

/// A rule's comment: type 0, length, text with a zero byte. Empty when the rule has none of ours.
fn comment(rule: &Received) -> String {
    match rule.attributes(FIXED).find(RULE_USERDATA) {
        Some([0, _, text @ ..]) => String::from_utf8_lossy(text).trim_end_matches('\0').to_owned(),
        _ => String::new(),
    }
}

fn elements(received: &Received) -> Vec<IpAddr> {
    let list = received.attributes(FIXED).within(ELEMENTS);
    list.filter_map(|(_, element)| {
        let key = Attributes::from(element).within(ELEMENT_KEY);
        from_octets(key.find(DATA_VALUE)?)
    })
    .collect()
}

/// Puts the table there in place of the one that stands, in one step.
pub(super) fn put(netlink: &mut Netlink, ruleset: &Ruleset) -> io::Result<()> {
    let mut batch = vec![table(NEW_TABLE), table(DELETE_TABLE), table(NEW_TABLE)];
    batch.push(
        message(NEW_CHAIN, flags::CREATE, INET)
            .put_text(IN_TABLE, TABLE)
            .put_text(CHAIN_NAME, CHAIN)
            .nest(CHAIN_HOOK, |m| {
                m.put(HOOK_NUMBER, &POST_ROUTING.to_be_bytes())
                    .put(HOOK_PRIORITY, &PRIORITY_SOURCE_NAT.to_be_bytes())
            })
            .put_text(CHAIN_TYPE, "nat"),
    );
    for (id, (name, kind, length)) in (1_u32..).zip(SETS) {
        batch.push(
            message(NEW_SET, flags::CREATE, INET)
                .put_text(IN_TABLE, TABLE)
                .put_text(SET_NAME, name)
                .put(SET_FLAGS, &[0; 4])
                .put(SET_KEY_TYPE, &kind.to_be_bytes())
                .put(SET_KEY_LENGTH, &length.to_be_bytes())
                .put(SET_ID, &id.to_be_bytes()),
        );
        let of_set = |ip: &IpAddr| octets(*ip).len() == length as usize;
        let plain: Vec<_> = ruleset.plain.iter().copied().filter(of_set).collect();
        batch.extend(plain.chunks(ELEMENTS_MAX).map(|chunk| new_elements(name, chunk)));
    }
    batch.extend(ruleset.rules.iter().map(new_rule));
    commit(netlink, batch)
}

fn new_elements(set: &str, addresses: &[IpAddr]) -> Message {
    message(NEW_ELEMENTS, flags::CREATE, INET)
        .put_text(IN_TABLE, TABLE)
        .put_text(SET_NAME, set)
        .nest(ELEMENTS, |m| {
            addresses.iter().fold(m, |m, address| {
                m.nest(LIST_ELEMENT, |m| {
                    m.nest(ELEMENT_KEY, |m| m.put(DATA_VALUE, &octets(*address)))
                })
            })
        })
}

fn new_rule(rule: &Rule) -> Message {
    let mut userdata = vec![0, u8::try_from(rule.comment.len() + 1).expect("comments are short")];
    userdata.extend_from_slice(rule.comment.as_bytes());
    userdata.push(0);
    message(NEW_RULE, flags::CREATE | flags::APPEND, INET)
        .put_text(IN_TABLE, TABLE)
        .put_text(RULE_CHAIN, CHAIN)
        .nest(RULE_EXPRESSIONS, |m| {
            rule.expressions
                .iter()
                .fold(m, |m, expression| m.nest(LIST_ELEMENT, |m| expression.write(m)))
        })
        .put(RULE_USERDATA, &userdata)
}

/// Removes the table; does nothing when there is none.
pub(super) fn delete(netlink: &mut Netlink) -> io::Result<()> {
    commit(netlink, vec![table(NEW_TABLE), table(DELETE_TABLE)])
}

fn table(kind: u16) -> Message {
    let extra = if kind == NEW_TABLE { flags::CREATE } else { 0 };
    message(kind, extra, INET).put_text(IN_TABLE, TABLE)
}

fn commit(netlink: &mut Netlink, batch: Vec<Message>) -> io::Result<()> {
    let subsystem = [0, 0, 0, 10];
    let mut messages = vec![Message::new(BATCH_BEGIN, 0, &subsystem)];
    messages.extend(batch);
    messages.push(Message::new(BATCH_END, 0, &subsystem));
    netlink.transact(messages)?.map_err(|(position, error)| {
        io::Error::other(format!(
            "the kernel refused part {position} of the nftables table: {error}"
        ))
    })
}

fn message(kind: u16, extra: u16, family: u8) -> Message {
    Message::new(kind, extra, &[family, 0, 0, 0])
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}
