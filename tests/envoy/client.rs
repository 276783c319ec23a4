//! A client that sends the bytes it is told to and hides nothing of what comes back.

use std::io::Write as _;

use testbed::envoy::Envoy;

use crate::upstream::POD;
use crate::wire::{Body, Head, Wire};

/// An answer as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.start.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The pod that answered.
    pub(crate) fn pod(&self) -> usize {
        self.head.one(POD).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no pod answered: {self:?}"))
    }
}

/// A request, of which only what matters to the test is written down.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fields: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, fields: Vec::new(), body: b"" }
    }

    pub(crate) fn get(target: &'a str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &'a str) -> Self {
        Self::new("POST", target)
    }

    /// The opening of a WebSocket (RFC 6455 section 4.1, with the key that stands there).
    pub(crate) fn websocket(target: &'a str) -> Self {
        Self::get(target)
            .with("upgrade", "websocket")
            .with("connection", "Upgrade")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    pub(crate) fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: gateway.test\r\n", self.method, self.target);
        head.extend(self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        if self.method == "POST" || !self.body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        [head.as_bytes(), b"\r\n", self.body].concat()
    }
}

/// One connection to a gateway.
pub(crate) struct Connection(pub(crate) Wire);

impl Connection {
    pub(crate) fn open(envoy: &Envoy) -> Self {
        let url = envoy.url();
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self(Wire::connect(address).unwrap())
    }

    /// Asks on this connection, which stays open.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.send(&request.bytes());
        self.receive(request.method)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads the answer to a request with this method.
    pub(crate) fn receive(&mut self, method: &str) -> Answer {
        let head = self.0.read_head().unwrap().expect("an answer");
        let status = head.start.split(' ').nth(1).unwrap_or_default();
        let nothing = method == "HEAD" || matches!(status, "101" | "204" | "304");
        let body = self.0.read_body(&head, if nothing { Body::Nothing } else { Body::ToTheEnd }).unwrap();
        Answer { head, body }
    }
}

/// Asks on a connection of its own, so that any worker thread may get it.
pub(crate) fn ask(envoy: &Envoy, request: &Request<'_>) -> Answer {
    Connection::open(envoy).ask(request)
}
