//! `dns`: the mesh's names.

use std::{fmt::Write as _, net::IpAddr};

use clap::{Subcommand, ValueEnum};

use super::{
    Global,
    table::{list, table},
};
use crate::api::types::{DnsRequest, Done, Record};

/// What can be done with names.
#[derive(Debug, Subcommand)]
pub enum DnsCommand {
    /// Add a record by hand
    Add {
        /// The name, in the mesh's domain
        name: String,
        /// Its addresses
        #[arg(required = true, value_name = "ADDR")]
        addresses: Vec<IpAddr>,
    },
    /// Remove a record that was added by hand on this host
    Remove {
        /// The name, in the mesh's domain
        name: String,
        /// Which addresses [default: all]
        #[arg(value_name = "ADDR")]
        addresses: Vec<IpAddr>,
    },
    /// What the mesh knows of a name or an address
    Lookup {
        /// A name in the mesh's domain, or an address
        name: String,
        /// The kind of record [default: A and AAAA; PTR of an address]
        #[arg(long = "type", value_name = "TYPE", ignore_case = true)]
        kind: Option<Kind>,
    },
    /// All records
    List,
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Kind {
    /// IPv4 addresses
    A,
    /// IPv6 addresses
    Aaaa,
    /// Names of an address
    Ptr,
}

pub(super) async fn run(command: DnsCommand, global: &Global) -> anyhow::Result<()> {
    let client = global.client();
    match command {
        DnsCommand::Add { name, addresses } => {
            let request = DnsRequest { name, addresses };
            let done: Done = client.post("/v1/dns/add", &request).await?;
            global.print(&done, |_| format!("added {}", request.name));
        }
        DnsCommand::Remove { name, addresses } => {
            let request = DnsRequest { name, addresses };
            let done: Done = client.post("/v1/dns/remove", &request).await?;
            global.print(&done, |_| format!("removed {}", request.name));
        }
        DnsCommand::Lookup { name, kind } => {
            let mut path = format!("/v1/dns/lookup?name={}", quoted(&name));
            if let Some(kind) = kind.and_then(|kind| kind.to_possible_value()) {
                path = format!("{path}&type={}", kind.get_name());
            }
            let records: Vec<Record> = client.get(&path).await?;
            global.print(&records, |records| human(records));
        }
        DnsCommand::List => {
            let records: Vec<Record> = client.get("/v1/dns").await?;
            global.print(&records, |records| human(records));
        }
    }
    Ok(())
}

fn human(records: &[Record]) -> String {
    let row = |record: &Record| {
        let host = match record.hidden {
            true => format!("{} (away, hidden)", record.host),
            false => record.host.clone(),
        };
        vec![record.name.clone(), list(&record.addresses), host, record.holder.clone()]
    };
    table(&["name", "addresses", "host", "holder"], records.iter().map(row), "no records")
}

/// Percent-encoding for a query: all but unreserved letters (RFC 3986 section 2.3).
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => quoted.push(char::from(byte)),
            // Writing to a string cannot fail.
            false => drop(write!(quoted, "%{byte:02X}")),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_query() {
        assert_eq!(quoted("web.a-b"), "web.a-b");
        assert_eq!(quoted("a&b=c ü"), "a%26b%3Dc%20%C3%BC");
    }
}
