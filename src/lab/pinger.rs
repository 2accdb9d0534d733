//! A steady stream of pings that counts what is lost.

use std::{
    net::IpAddr,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::Namespace;

/// How long the last answers may take.
const PATIENCE_SECS: u64 = 3;

/// Pings that are under way.
#[derive(Debug)]
pub struct Pinger {
    child: Child,
    what: String,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinged {
    /// Packets sent.
    pub sent: u64,
    /// Answers received.
    pub received: u64,
}

impl Pinged {
    /// Packets without an answer.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

impl Pinger {
    /// Pings `to` at `per_second` for `span`, from a namespace. The kernel of the other side
    /// answers, so that no busy process there is counted as loss.
    ///
    /// # Errors
    /// When `ping` cannot be started.
    pub fn start(from: &Namespace, to: IpAddr, per_second: u32, span: Duration) -> Result<Self> {
        let interval = format!("{:.4}", 1.0 / f64::from(per_second));
        let count = (span.as_secs_f64() * f64::from(per_second)).ceil().to_string();
        let (patience, to) = (PATIENCE_SECS.to_string(), to.to_string());
        let child = from
            .call("ping")
            .args(["-n", "-q", "-i", &interval, "-c", &count, "-W", &patience, &to])
            .into_command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ping")?;
        Ok(Self { child, what: format!("ping of {to} from {}", from.name()) })
    }

    /// Whether it is still sending or waiting for the last answers.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of the span and of the last answers.
    ///
    /// # Errors
    /// When `ping` failed or said something that is not understood.
    pub fn finish(self) -> Result<Pinged> {
        let output = self.child.wait_with_output().context("lost sight of ping")?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).with_context(|| {
            format!("{} said: {text}{}", self.what, String::from_utf8_lossy(&output.stderr))
        })
    }
}

/// Reads `500 packets transmitted, 499 received, 0.2% packet loss, time 997ms`.
fn parse(text: &str) -> Option<Pinged> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = line.split(", ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some(Pinged { sent: numbers.next()?, received: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_iputils_are_read() {
        let plain = "\n500 packets transmitted, 499 received, 0.2% packet loss, time 997ms\n";
        assert_eq!(parse(plain), Some(Pinged { sent: 500, received: 499 }));
        let errors = "5 packets transmitted, 0 received, +5 errors, 100% packet loss, time 4ms";
        assert_eq!(parse(errors), Some(Pinged { sent: 5, received: 0 }));
        assert_eq!(parse("ping: unknown host"), None);
    }
}
