//! A SignalR client taken apart, which says who it is and reports refusals whole.
//!
//! Every request comes on a TCP connection of its own, so that the worker threads share them.

#![allow(dead_code, reason = "each test target that has it uses a part")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};

use serde_json::{Value, json};
use testbed::process::{PATIENCE, wait_for};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::tunnel;

/// Ends every message of SignalR.
const END: char = '\u{1e}';

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    WebSockets,
    ServerSentEvents,
    LongPolling,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];

    /// Value of the metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WebSockets => "web_sockets",
            Self::ServerSentEvents => "server_sent_events",
            Self::LongPolling => "long_polling",
        }
    }
}

/// An answer that is not the one hoped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Why the gateway refused it: as an error in a negotiate's answer, else as text with a status.
    pub(crate) fn reason(&self) -> Option<String> {
        match self.status {
            200 => serde_json::from_str::<Value>(&self.body).ok()?["error"].as_str().map(str::to_owned),
            429 => Some(self.body.clone()),
            _ => None,
        }
    }

    /// Whether a limit of the gateway's refused it.
    pub(crate) fn is_refusal(&self) -> bool {
        self.reason().is_some_and(|reason| reason.starts_with("Connection limit reached: "))
    }
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub(crate) enum NoSocket {
    /// The gateway or the hub has answered so.
    Answered(Answer),
    /// The TCP connection broke off before an answer.
    Broken(String),
}

/// Somebody who connects.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    gateway: String,
    /// Where its WebSockets come from, if not from where all others do.
    address: Option<Ipv4Addr>,
    hub: String,
    headers: Vec<(String, String)>,
    /// Added to every URL, such as `&user=ann`.
    query: String,
}

impl Client {
    pub(crate) fn of(gateway: &str) -> Self {
        Self {
            gateway: gateway.to_owned(),
            address: None,
            hub: "/chat".to_owned(),
            headers: Vec::new(),
            query: String::new(),
        }
    }

    /// Somebody whose WebSockets no limit counts with those of others.
    pub(crate) fn of_another_host(gateway: &str) -> Self {
        Self { address: Some(Ipv4Addr::new(127, 0, 0, 2)), ..Self::of(gateway) }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        self.query = format!("&{query}");
        self
    }

    pub(crate) fn hub(mut self, hub: &str) -> Self {
        hub.clone_into(&mut self.hub);
        self
    }

    pub(crate) fn negotiate_answer(&self) -> Answer {
        let mut request =
            agent().post(format!("{}{}/negotiate?negotiateVersion=1{}", self.gateway, self.hub, self.query));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        read(request.send_empty())
    }

    /// The id to connect with.
    pub(crate) fn negotiate(&self) -> Result<String, Answer> {
        let answer = self.negotiate_answer();
        let body: Option<Value> = serde_json::from_str(&answer.body).ok();
        match body.as_ref().and_then(|body| body["connectionToken"].as_str()) {
            Some(id) => Ok(id.to_owned()),
            None => Err(answer),
        }
    }

    pub(crate) fn connect(&self, transport: Transport) -> Result<Connection, Answer> {
        let id = self.negotiate()?;
        match transport {
            Transport::WebSockets => self.socket(&id).map(Connection::Socket),
            Transport::ServerSentEvents => self.events(&id).map(Connection::Events),
            Transport::LongPolling => self.session(&id).map(Connection::Session),
        }
    }

    /// A WebSocket on which client and hub have shaken hands.
    pub(crate) fn socket(&self, id: &str) -> Result<Socket, Answer> {
        let mut socket = self.bare_socket(Some(id))?;
        socket.shake_hands();
        Ok(socket)
    }

    /// A WebSocket, and nothing said on it. Without an id it skips negotiation.
    pub(crate) fn bare_socket(&self, id: Option<&str>) -> Result<Socket, Answer> {
        self.try_socket(id).map_err(|failure| match failure {
            NoSocket::Answered(answer) => answer,
            NoSocket::Broken(error) => panic!("no answer to a WebSocket: {error}"),
        })
    }

    /// The same where the gateway may break off without an answer.
    pub(crate) fn try_socket(&self, id: Option<&str>) -> Result<Socket, NoSocket> {
        let id = id.map(|id| format!("id={id}")).unwrap_or_default();
        let url = format!("{}{}?{id}{}", self.gateway, self.hub, self.query);
        let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
        for (name, value) in &self.headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match tungstenite::client(request, self.tcp()) {
            Ok((socket, _)) => Ok(Socket { socket, received: String::new() }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(NoSocket::Answered(answer_of(&response))),
            Err(error) => Err(NoSocket::Broken(error.to_string())),
        }
    }

    pub(crate) fn events(&self, id: &str) -> Result<Events, Answer> {
        let mut stream = self.tcp();
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(
            stream,
            "GET {}?id={id}{} HTTP/1.1\r\nhost: gateway\r\naccept: text/event-stream\r\n{headers}\r\n",
            self.hub, self.query
        )
        .unwrap();
        let mut events = Events { client: self.clone(), id: id.to_owned(), stream, received: String::new() };
        events.read_until("\r\n\r\n");
        if !events.received.starts_with("HTTP/1.1 200") {
            let status = events.received.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
            return Err(Answer { status, headers: BTreeMap::new(), body: String::new() });
        }
        self.send(id, &handshake()).unwrap();
        events.read_until(&format!("{{}}{END}"));
        Ok(events)
    }

    /// A long-polling session on which client and hub have shaken hands.
    pub(crate) fn session(&self, id: &str) -> Result<Session, Answer> {
        let session = Session { client: self.clone(), id: id.to_owned() };
        // The first poll is answered at once, with nothing.
        let first = session.poll();
        if first.status != 200 {
            return Err(first);
        }
        self.send(id, &handshake())?;
        assert_eq!(session.poll().body, format!("{{}}{END}"), "the handshake");
        Ok(session)
    }

    pub(crate) fn poll(&self, id: &str) -> Answer {
        self.get(id)
    }

    pub(crate) fn delete(&self, id: &str) -> Answer {
        let mut request = agent().delete(self.url(id));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        read(request.call())
    }

    fn get(&self, id: &str) -> Answer {
        let mut request = agent().get(self.url(id));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        read(request.call())
    }

    fn send(&self, id: &str, message: &Value) -> Result<(), Answer> {
        let mut request = agent().post(self.url(id));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = read(request.send(format!("{message}{END}")));
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    }

    fn tcp(&self) -> TcpStream {
        let gateway = self.gateway.trim_start_matches("http://");
        let stream = match self.address {
            Some(address) => tunnel::connect(gateway, address),
            None => TcpStream::connect(gateway).unwrap(),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn url(&self, id: &str) -> String {
        format!("{}{}?id={id}{}", self.gateway, self.hub, self.query)
    }
}

/// An open connection of any transport.
pub(crate) enum Connection {
    Socket(Socket),
    Events(Events),
    Session(Session),
}

impl Connection {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Socket(_) => Transport::WebSockets,
            Self::Events(_) => Transport::ServerSentEvents,
            Self::Session(_) => Transport::LongPolling,
        }
    }

    /// Asks the hub something and waits for the answer.
    pub(crate) fn ask(&mut self) {
        match self {
            Self::Socket(socket) => assert!(socket.echoes()),
            Self::Events(events) => events.ask(),
            Self::Session(session) => session.ask(),
        }
    }

    /// As a client ends it that is polite.
    pub(crate) fn close(self) {
        match self {
            Self::Socket(socket) => socket.close(),
            Self::Events(events) => drop(events),
            Self::Session(session) => session.close(),
        }
    }

    /// Lets the hub end it.
    pub(crate) fn abort(&mut self) {
        let abort = json!({ "type": 1, "target": "Abort", "arguments": [] });
        match self {
            Self::Socket(socket) => socket.send(&abort).unwrap(),
            Self::Events(events) => events.client.send(&events.id, &abort).unwrap(),
            Self::Session(session) => {
                session.client.send(&session.id, &abort).unwrap();
                // What the hub said before, a goodbye among it, comes first.
                let ended = std::iter::repeat_with(|| session.poll().status).find(|status| *status != 200);
                assert!(matches!(ended, Some(204 | 404)), "{ended:?}");
            }
        }
    }
}

pub(crate) struct Socket {
    socket: WebSocket<TcpStream>,
    /// Received, and not yet handed out.
    received: String,
}

impl Socket {
    pub(crate) fn shake_hands(&mut self) {
        self.send(&handshake()).unwrap();
        assert_eq!(self.receive().unwrap(), json!({}), "the handshake");
    }

    /// Whether the hub answers: the connection lives.
    pub(crate) fn echoes(&mut self) -> bool {
        let asked = self.send(&invocation());
        asked.and_then(|()| self.receive_completion()).is_ok()
    }

    /// Whether a text comes back from something that only echoes.
    pub(crate) fn returns(&mut self, text: &str) -> bool {
        self.socket.send(Message::text(text)).is_ok()
            && self.socket.read().is_ok_and(|back| back == Message::text(text))
    }

    pub(crate) fn close(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok_and(|message| !message.is_close()) {}
    }

    /// Ends the TCP connection without a Close frame.
    pub(crate) fn cut(self) {
        self.socket.get_ref().shutdown(Shutdown::Both).unwrap();
    }

    /// Ends the client's side of the TCP connection, and reads to the end of the other.
    pub(crate) fn fall_silent(self) {
        self.socket.get_ref().shutdown(Shutdown::Write).unwrap();
        self.read_to_end();
    }

    /// Reads until the other side ends it.
    pub(crate) fn read_to_end(mut self) {
        while self.socket.read().is_ok() {}
    }

    /// Resets the TCP connection, which is what the kernel does when something unread is thrown away.
    pub(crate) fn reset(mut self) {
        self.send(&invocation()).unwrap();
        assert!(self.socket.get_ref().peek(&mut [0]).unwrap() > 0);
    }

    fn send(&mut self, message: &Value) -> Result<(), Error> {
        self.socket.send(Message::text(format!("{message}{END}")))
    }

    fn receive_completion(&mut self) -> Result<(), Error> {
        while self.receive()?["type"] != 3 {}
        Ok(())
    }

    fn receive(&mut self) -> Result<Value, Error> {
        loop {
            if let Some((message, rest)) = self.received.split_once(END) {
                let message = serde_json::from_str(message).unwrap();
                self.received = rest.to_owned();
                return Ok(message);
            }
            match self.socket.read()? {
                Message::Text(text) => self.received.push_str(&text),
                Message::Close(_) => return Err(Error::ConnectionClosed),
                _ => {}
            }
        }
    }
}

pub(crate) struct Events {
    client: Client,
    id: String,
    stream: TcpStream,
    received: String,
}

impl Events {
    fn ask(&mut self) {
        self.received.clear();
        self.client.send(&self.id, &invocation()).unwrap();
        self.read_until("\"type\":3");
    }

    fn read_until(&mut self, end: &str) {
        let mut buffer = [0; 4_096];
        while !self.received.contains(end) {
            let length = self.stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the stream ended: {}", self.received);
            self.received.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

pub(crate) struct Session {
    client: Client,
    id: String,
}

impl Session {
    /// A poll that returns at once, because there is an answer.
    pub(crate) fn ask(&self) {
        self.invoke();
        loop {
            let answer = self.poll();
            assert_eq!(answer.status, 200, "{answer:?}");
            if answer.body.contains("\"type\":3") {
                return;
            }
        }
    }

    /// Asks the hub something; whichever poll is under way gets the answer.
    pub(crate) fn invoke(&self) {
        self.client.send(&self.id, &invocation()).unwrap();
    }

    pub(crate) fn poll(&self) -> Answer {
        self.client.get(&self.id)
    }

    pub(crate) fn close(&self) {
        assert_eq!(self.client.delete(&self.id).status, 202);
    }
}

/// Whether `other` is refused while `one` has the one connection that a client may have.
pub(crate) fn are_one(one: &Client, other: &Client) -> bool {
    let open = one.socket(&one.negotiate().unwrap()).unwrap();
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

fn handshake() -> Value {
    json!({ "protocol": "json", "version": 1 })
}

fn invocation() -> Value {
    json!({ "type": 1, "invocationId": "1", "target": "Echo", "arguments": ["hello"] })
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None);
    config.build().new_agent()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut answer = answer.unwrap();
    let headers = answer.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let headers = headers.collect();
    Answer { status: answer.status().as_u16(), headers, body: answer.body_mut().read_to_string().unwrap() }
}

fn answer_of(response: &Response) -> Answer {
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
    Answer { status: response.status().as_u16(), headers: headers.collect(), body }
}
