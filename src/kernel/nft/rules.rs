//! Which rules a host wants, as a pure function of its desired state.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use super::{SETS, expression::Expression};
use crate::node::desired::Desired;

/// One rule; the comment says the same in words and is what rules are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) comment: String,
    pub(super) expressions: Vec<Expression>,
}

impl Rule {
    fn new(comment: String, conditions: Vec<Expression>, end: Expression) -> Self {
        let mut expressions = conditions;
        expressions.push(end);
        Self { comment, expressions }
    }
}

/// What stays in the mesh is left alone; the rest of what comes from the mesh is masqueraded.
pub(super) fn wanted(desired: &Desired) -> Vec<Rule> {
    let mut rules = Vec::new();
    let multicast = [
        Ipv4Network::new(Ipv4Addr::new(224, 0, 0, 0), 4).map(IpNetwork::V4),
        Ipv6Network::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).map(IpNetwork::V6),
    ];
    for network in desired.ranges.iter().copied().chain(multicast.into_iter().flatten()) {
        rules.push(Rule::new(
            format!("to {network}: as it is"),
            Expression::destination_in(network),
            Expression::Return,
        ));
    }
    for device in [&desired.bridge.name, &desired.tunnel.name] {
        rules.push(Rule::new(
            format!("out of {device}: as it is"),
            Expression::out_name(device),
            Expression::Return,
        ));
    }
    let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    for (family, (set, ..)) in families.into_iter().zip(SETS) {
        let mut conditions = Expression::family(family);
        conditions.extend([Expression::source(family), Expression::InSet(set)]);
        let comment = format!("from {set}: as it is");
        rules.push(Rule::new(comment, conditions, Expression::Return));
    }
    for network in &desired.ranges {
        rules.push(Rule::new(
            format!("from {network}: masquerade"),
            Expression::source_in(*network),
            Expression::Masquerade,
        ));
    }
    rules
}
