//! Of two machines with one identity the copy gives nothing away, and both say why.

use std::net::IpAddr;

use super::Violation;
use crate::host::Host;

/// A host says that another, there, has its identity.
pub(crate) fn named(host: &Host, twin: IpAddr) -> Result<(), Violation> {
    let said = host.node.unready_because().unwrap_or_default();
    if said.contains("this host's identity") && said.contains(&twin.to_string()) {
        return Ok(());
    }
    let text = format!("h{} has a twin at {twin} and says \"{said}\"", host.index);
    Err(Violation::new("clones", text))
}

/// A container got an address on a host.
pub(crate) fn attached(twins: Option<(usize, usize)>, host: usize) -> Result<(), Violation> {
    match twins {
        Some((copy, _)) if copy == host => {
            let text = format!("h{host}, a copy, gives out an address");
            Err(Violation::new("clones", text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn a_copy_that_serves_and_one_that_says_nothing_are_noticed() {
        let host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        assert!(named(&host, "192.0.2.1".parse().unwrap()).is_err());
        assert!(attached(Some((1, 0)), 1).is_err());
        assert!(attached(Some((1, 0)), 0).is_ok() && attached(None, 1).is_ok());
    }
}
