//! The local API over a connection that is kept, for many requests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use meshwork::lab::Host;
use serde_json::{Value, json};

use crate::fixture::PATIENCE;

/// A connection to a host's local API.
pub(crate) struct Api {
    stream: BufReader<UnixStream>,
    /// How long meshd may take for an answer.
    pub(crate) patience: Duration,
}

impl Api {
    pub(crate) fn new(host: &Host) -> Result<Self> {
        let stream = UnixStream::connect(host.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), patience: Duration::from_secs(8) })
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let text = self.request(&format!("POST {path}"), &body.to_string())?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// The page for Prometheus.
    pub(crate) fn metrics(&mut self) -> Result<String> {
        self.request("GET /metrics", "")
    }

    /// What was answered with 200; anything else is an error that says it.
    fn request(&mut self, what: &str, body: &str) -> Result<String> {
        let patience = self.patience.as_millis();
        let head = format!(
            "Host: localhost\r\nContent-Type: application/json\r\nmesh-patience-ms: {patience}"
        );
        let length = body.len();
        let request =
            format!("{what} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "meshd hung up");
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status.contains(" 200 "), "{what}: {text}");
        Ok(text.into_owned())
    }

    /// Sets any address aside for a holder, and says which.
    pub(crate) fn claim_any(&mut self, holder: &str) -> Result<String> {
        let claimed = self.post("/v1/ipam/claim", &json!({ "holder": holder }))?;
        Ok(claimed["address"].as_str().context("no address")?.to_owned())
    }
}

/// Sets so many addresses aside on a host, with several clients at once.
pub(crate) fn claim_many(host: &Host, prefix: &str, count: usize) -> Result<Vec<String>> {
    const CLIENTS: usize = 16;
    thread::scope(|scope| {
        let client = |client: usize| {
            move || -> Result<Vec<String>> {
                let mut api = Api::new(host)?;
                let numbers = (client..count).step_by(CLIENTS);
                numbers.map(|number| api.claim_any(&format!("{prefix}{number}"))).collect()
            }
        };
        let running: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        let mut all = Vec::new();
        for client in running {
            all.extend(client.join().unwrap_or_else(|p| std::panic::resume_unwind(p))?);
        }
        Ok(all)
    })
}
