//! Waiting is never silent: who is refused an address is told for whom was waited.

use meshwork::node::request::{Code, Refusal};

use super::Violation;

/// Words of which each says who, or that there is nobody, or that it is this host.
const NAMING: [&str; 14] = [
    "no peer could be reached",
    "asked ",
    "nobody",
    "waiting for",
    "answered",
    "this host",
    "belongs to",
    "held",
    "detached",
    "in use",
    "the kernel",
    "written",
    "leaving",
    "half of the lease",
];

/// Whether a text names a host of the run, such as h3; by the begin of its id, if it is gone and
/// nobody remembers its name.
fn names_host(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| {
        let number = word.strip_prefix('h').is_some_and(|number| number.parse::<usize>().is_ok());
        number || (word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit()))
    })
}

/// A refusal says why, what to do, and who keeps one waiting.
pub(crate) fn named(host: usize, refusal: &Refusal) -> Result<(), Violation> {
    let words = &refusal.message;
    let waits = matches!(refusal.code, Code::Timeout | Code::NotReady | Code::Exhausted);
    let named = !waits || names_host(words) || NAMING.iter().any(|word| words.contains(word));
    if named && !words.is_empty() && !refusal.hint.is_empty() {
        return Ok(());
    }
    let text = format!("h{host} refuses without naming for whom it waits: {refusal:?}");
    Err(Violation::new("waiting", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_name_is_noticed() {
        let refusal = |text: &str| Refusal::new(Code::Timeout, text, "try again");
        assert!(named(0, &refusal("no address in time: no free address yet, asked h2")).is_ok());
        assert!(named(0, &refusal("no address in time")).is_err());
        assert!(named(0, &Refusal::new(Code::Invalid, "", "")).is_err());
    }
}
