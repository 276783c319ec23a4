//! A SignalR client taken apart, which says who it is and reports refusals whole.
//!
//! Every request comes on a TCP connection of its own, so that the worker threads share them.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::process::wait_for;

use super::{Answer, END, NoSocket, Request, Socket, Wire, handshake, invocation};

/// Somebody who connects.
#[derive(Clone, Debug)]
pub struct Client {
    gateway: String,
    /// Where it comes from, if not from where all others do.
    address: Option<Ipv4Addr>,
    hub: String,
    headers: Vec<(String, String)>,
    /// Added to every URL, such as `&user=ann`.
    query: String,
    /// What a balancer says on each connection before the client does.
    preface: String,
}

impl Client {
    /// Somebody who comes to the chat hub behind this URL.
    pub fn of(gateway: &str) -> Self {
        let (gateway, hub) = (gateway.to_owned(), "/chat".to_owned());
        Self { gateway, address: None, hub, headers: Vec::new(), query: String::new(), preface: String::new() }
    }

    /// The same from another address of this machine: no limit counts it with those of others.
    pub fn from(self, address: Ipv4Addr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// The same by way of a balancer that sends the client's address in the PROXY protocol.
    pub fn by_proxy_protocol(self, address: IpAddr) -> Self {
        let (family, balancer) = if address.is_ipv4() { ("TCP4", "192.0.2.200") } else { ("TCP6", "2001:db8:ffff::1") };
        Self { preface: format!("PROXY {family} {address} {balancer} 40001 8080\r\n"), ..self }
    }

    /// The same at this hub.
    pub fn hub(self, hub: &str) -> Self {
        Self { hub: hub.to_owned(), ..self }
    }

    /// The same with this header on every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with this in every query.
    pub fn query(self, query: &str) -> Self {
        Self { query: format!("&{query}"), ..self }
    }

    /// What a negotiate is answered.
    pub fn negotiate_answer(&self) -> Answer {
        let target = format!("{}/negotiate?negotiateVersion=1{}", self.hub, self.query);
        self.wire().ask(&self.with_headers(Request::post(&target)))
    }

    /// The id to connect with.
    pub fn negotiate(&self) -> Result<String, Answer> {
        let answer = self.negotiate_answer();
        answer.json()["connectionToken"].as_str().map(str::to_owned).ok_or(answer)
    }

    /// A WebSocket on which client and hub have shaken hands.
    pub fn socket(&self, id: &str) -> Result<Socket, Answer> {
        let mut socket = self.bare_socket(Some(id))?;
        socket.shake_hands();
        Ok(socket)
    }

    /// Such a WebSocket of a negotiated id.
    pub fn connect(&self) -> Result<Socket, Answer> {
        self.socket(&self.negotiate()?)
    }

    /// A WebSocket, and nothing said on it. Without an id it skips negotiation.
    pub fn bare_socket(&self, id: Option<&str>) -> Result<Socket, Answer> {
        self.try_socket(id).map_err(|failure| match failure {
            NoSocket::Answered(answer) => answer,
            NoSocket::Broken(error) => panic!("no answer to a WebSocket: {error}"),
        })
    }

    /// The same where the gateway may break off without an answer.
    pub fn try_socket(&self, id: Option<&str>) -> Result<Socket, NoSocket> {
        let target = id.map_or_else(|| format!("{}?{}", self.hub, self.query), |id| self.target(id));
        Socket::open(self.wire(), &self.with_headers(Request::websocket(&target)))
    }

    /// Asks for a WebSocket and is gone before the answer.
    pub fn leave_early(&self, id: &str) {
        let target = self.target(id);
        self.wire().send(&self.with_headers(Request::websocket(&target)).bytes());
    }

    /// A stream of events on which client and hub have shaken hands.
    pub fn events(&self, id: &str) -> Result<Events, Answer> {
        let mut wire = self.wire();
        let target = self.target(id);
        let answer = wire.ask(&self.with_headers(Request::get(&target).with("accept", "text/event-stream")));
        if answer.status() != 200 {
            return Err(answer);
        }
        let mut events = Events { session: self.resume(id), wire, received: String::new() };
        self.send(id, &handshake())?;
        events.read_until(&format!("{{}}{END}"));
        Ok(events)
    }

    /// A long-polling session on which client and hub have shaken hands.
    pub fn session(&self, id: &str) -> Result<Session, Answer> {
        let session = self.resume(id);
        // The first poll is answered at once, with nothing.
        let first = session.poll();
        if first.status() != 200 {
            return Err(first);
        }
        self.send(id, &handshake())?;
        assert_eq!(session.poll().text(), format!("{{}}{END}"), "the handshake");
        Ok(session)
    }

    /// A long-polling session that somebody else has begun.
    pub fn resume(&self, id: &str) -> Session {
        Session { client: self.clone(), id: id.to_owned() }
    }

    /// One poll.
    pub fn poll(&self, id: &str) -> Answer {
        self.ask("GET", id, "")
    }

    /// The end of a connection by long polling.
    pub fn delete(&self, id: &str) -> Answer {
        self.ask("DELETE", id, "")
    }

    /// Sends a message by a request of its own. An error is any answer but 200.
    pub fn send(&self, id: &str, message: &Value) -> Result<(), Answer> {
        let answer = self.ask("POST", id, &format!("{message}{END}"));
        if answer.status() == 200 { Ok(()) } else { Err(answer) }
    }

    fn ask(&self, method: &str, id: &str, body: &str) -> Answer {
        let target = self.target(id);
        let request = Request { body: body.as_bytes(), ..Request::new(method, &target) };
        self.wire().ask(&self.with_headers(request))
    }

    fn target(&self, id: &str) -> String {
        format!("{}?id={id}{}", self.hub, self.query)
    }

    fn with_headers<'a>(&'a self, request: Request<'a>) -> Request<'a> {
        self.headers.iter().fold(request, |request, (name, value)| request.with(name, value))
    }

    fn wire(&self) -> Wire {
        let mut wire = match self.address {
            Some(address) => Wire::open_from(address, &self.gateway),
            None => Wire::open(&self.gateway),
        };
        wire.send(self.preface.as_bytes());
        wire
    }
}

/// A connection by server-sent events.
pub struct Events {
    /// How messages are sent to the hub.
    pub session: Session,
    wire: Wire,
    received: String,
}

impl Events {
    /// Asks the hub something and waits for the answer.
    pub fn echo(&mut self) {
        self.received.clear();
        self.session.call("Echo", &["hello"]);
        self.read_until("\"type\":3");
    }

    fn read_until(&mut self, end: &str) {
        while !self.received.contains(end) {
            let chunk = self.wire.read_chunk().unwrap();
            assert!(!chunk.is_empty(), "the stream ended: {}", self.received);
            self.received.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

/// A connection by long polling.
pub struct Session {
    client: Client,
    id: String,
}

impl Session {
    /// The hub's answer to a call, in polls that return at once.
    pub fn ask(&self, target: &str, arguments: &[&str]) -> Value {
        self.call(target, arguments);
        loop {
            let answer = self.poll();
            assert_eq!(answer.status(), 200, "{answer:?}");
            let messages = answer.text().split_terminator(END);
            let messages = messages.map(|message| serde_json::from_str::<Value>(message).unwrap());
            if let Some(mut completion) = messages.into_iter().find(|message| message["type"] == 3) {
                return completion["result"].take();
            }
        }
    }

    /// Asks the hub something and waits for the answer.
    pub fn echo(&self) {
        self.ask("Echo", &["hello"]);
    }

    /// Calls a method of the hub; whichever poll is under way gets the answer.
    pub fn call(&self, target: &str, arguments: &[&str]) {
        self.client.send(&self.id, &invocation(target, arguments)).unwrap();
    }

    /// One poll.
    pub fn poll(&self) -> Answer {
        self.client.poll(&self.id)
    }

    /// Ends it as a polite client does.
    pub fn close(&self) {
        assert_eq!(self.client.delete(&self.id).status(), 202);
    }
}

/// Whether a gateway that admits one connection of each client takes these two for one: `other` is refused while `one` has it.
pub fn are_one(one: &Client, other: &Client) -> bool {
    let open = one.connect().unwrap();
    let negotiated = other.negotiate();
    let connected = other.bare_socket(None);
    let refused = connected.is_err();
    assert_eq!(negotiated.is_err(), refused, "negotiate and connect differ");
    for answer in [negotiated.err(), connected.as_ref().err().cloned()].into_iter().flatten() {
        assert!(answer.is_refusal(), "{answer:?}");
    }
    drop((open, connected));
    wait_for("the place", || one.negotiate().is_ok() && other.negotiate().is_ok()).unwrap();
    refused
}

impl Answer {
    /// Why the gateway refused the request: as an error in a negotiate's answer, else as text with a status.
    pub fn reason(&self) -> Option<String> {
        match self.status() {
            200 => self.json()["error"].as_str().map(str::to_owned),
            429 => Some(self.text().to_owned()),
            _ => None,
        }
    }

    /// Whether a limit of the gateway's refused it.
    pub fn is_refusal(&self) -> bool {
        self.reason().is_some_and(|reason| reason.starts_with("Connection limit reached: "))
    }
}
