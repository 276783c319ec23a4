//! A request and its answer, and nothing added to either.

use std::io::{self, Write as _};

use serde_json::Value;

use super::wire::{Body, Head, Wire, broken};

/// Envoy closes a connection when it has more answers of its own to send on it: "too many responses queued".
const AT_ONCE: usize = 2;

/// An answer as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status line and fields.
    pub head: Head,
    /// Its content.
    pub body: Vec<u8>,
}

impl Answer {
    /// The status; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.head.start.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The pod that answered, unless Envoy did.
    pub fn pod(&self) -> Option<&str> {
        self.head.one("x-pod")
    }

    /// The content as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The content as JSON, or null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A request, of which only what matters to the test is written down.
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and the query.
    pub target: &'a str,
    /// The header fields besides `host` and the content's length.
    pub fields: Vec<(&'a str, &'a str)>,
    /// The content.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request without content.
    pub fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, fields: Vec::new(), body: b"" }
    }

    /// The same with GET.
    pub fn get(target: &'a str) -> Self {
        Self::new("GET", target)
    }

    /// The same with POST.
    pub fn post(target: &'a str) -> Self {
        Self::new("POST", target)
    }

    /// The opening of a WebSocket (RFC 6455 section 4.1, with the key that stands there).
    pub fn websocket(target: &'a str) -> Self {
        Self::get(target)
            .with("upgrade", "websocket")
            .with("connection", "Upgrade")
            .with("sec-websocket-version", "13")
            .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// The same with this header field.
    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.fields.push((name, value));
        self
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: gateway.test\r\n", self.method, self.target);
        head.extend(self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        if self.method == "POST" || !self.body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        [head.as_bytes(), b"\r\n", self.body].concat()
    }
}

impl Wire {
    /// Asks on this connection, which stays open.
    pub fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.try_ask(request).unwrap()
    }

    /// The same where the connection may break off.
    pub fn try_ask(&mut self, request: &Request<'_>) -> io::Result<Answer> {
        self.write_all(&request.bytes())?;
        self.receive(request.method)
    }

    /// Reads the answer to a request with this method. An event stream has no end, so it is left to be read.
    pub fn receive(&mut self, method: &str) -> io::Result<Answer> {
        let head = self.read_head()?.ok_or_else(|| broken("closed before an answer"))?;
        let mut answer = Answer { head, body: Vec::new() };
        let events = answer.head.one("content-type").is_some_and(|kind| kind == "text/event-stream");
        if method != "HEAD" && !events && !matches!(answer.status(), 101 | 204 | 304) {
            answer.body = self.read_body(&answer.head, Body::OfResponse)?;
        }
        Ok(answer)
    }

    /// Sends requests without waiting for each answer, and returns the statuses in order.
    pub fn ask_all(&mut self, requests: &[Vec<u8>]) -> Vec<u16> {
        let mut statuses = Vec::new();
        for some in requests.chunks(AT_ONCE) {
            self.send(&some.concat());
            statuses.extend(some.iter().map(|_| self.receive("GET").unwrap().status()));
        }
        statuses
    }
}

/// Asks the server of this URL on a connection of its own, so that any worker thread may get it.
pub fn ask(url: &str, request: &Request<'_>) -> Answer {
    Wire::open(url).ask(request)
}
