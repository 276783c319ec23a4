//! A WebSocket that keeps count of what it says and hears, frame by frame, and ends as it is told.

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};
use testbed::envoy::Envoy;
use testbed::http;
use testbed::process::PATIENCE;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

/// Ends each of SignalR's JSON messages.
const SEPARATOR: char = '\u{1e}';

/// Data messages of one direction, and the bytes of their payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Carried {
    fn add(&mut self, payload: &str) {
        self.messages += 1;
        self.bytes += payload.len() as u64;
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }
}

/// An open SignalR connection by WebSocket, its handshake done.
pub(crate) struct Client {
    socket: WebSocket<TcpStream>,
    /// From here to the hub.
    pub(crate) said: Carried,
    /// From the hub to here.
    pub(crate) heard: Carried,
}

/// The token of a fresh connection at `hub`.
pub(crate) fn negotiate(base: &str, hub: &str) -> String {
    let (status, body) = http::post(&format!("{base}{hub}/negotiate?negotiateVersion=1")).unwrap();
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["connectionToken"].as_str().unwrap().to_owned()
}

/// Asks for a WebSocket at `target`. An error is the status of the answer that was no 101.
pub(crate) fn upgrade(base: &str, target: &str, headers: &[(&str, &str)]) -> Result<WebSocket<TcpStream>, Option<u16>> {
    let host = base.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let uri = format!("ws://{host}{target}").parse().unwrap();
    let request = headers
        .iter()
        .fold(tungstenite::ClientRequestBuilder::new(uri), |request, (name, value)| request.with_header(*name, *value));
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(Some(answer.status().as_u16())),
        Err(_) => Err(None),
    }
}

/// Reads up to `end`, and no byte more.
pub(crate) fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
    read
}

impl Client {
    /// Negotiates, connects and shakes hands.
    pub(crate) fn connect(envoy: &Envoy, hub: &str, headers: &[(&str, &str)]) -> Self {
        let token = negotiate(&envoy.url(), hub);
        Self::with_token(envoy, hub, &token, headers)
    }

    /// Connects with the token of a negotiate.
    pub(crate) fn with_token(envoy: &Envoy, hub: &str, token: &str, headers: &[(&str, &str)]) -> Self {
        let socket = upgrade(&envoy.url(), &format!("{hub}?id={token}"), headers).unwrap();
        let mut client = Self { socket, said: Carried::default(), heard: Carried::default() };
        client.say(&json!({"protocol": "json", "version": 1}));
        assert_eq!(client.hear(), format!("{{}}{SEPARATOR}"));
        client
    }

    /// Sends one of SignalR's messages in one frame.
    pub(crate) fn say(&mut self, message: &Value) {
        let text = format!("{message}{SEPARATOR}");
        self.said.add(&text);
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The same in three frames, with a WebSocket ping between them.
    fn say_in_pieces(&mut self, message: &Value) {
        let text = format!("{message}{SEPARATOR}");
        self.said.add(&text);
        let third = text.len() / 3;
        let pieces = [(&text[..third], Data::Text), (&text[third..2 * third], Data::Continue)];
        for (piece, kind) in pieces {
            self.frame(Frame::message(piece.to_owned().into_bytes(), OpCode::Data(kind), false));
            self.frame(Frame::ping("still here"));
        }
        self.frame(Frame::message(text[2 * third..].to_owned().into_bytes(), OpCode::Data(Data::Continue), true));
    }

    fn frame(&mut self, frame: Frame) {
        self.socket.send(Message::Frame(frame)).unwrap();
    }

    /// The next data message.
    fn hear(&mut self) -> String {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => {
                    self.heard.add(&text);
                    return text.to_string();
                }
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not text: {other:?}"),
            }
        }
    }

    /// Has the hub repeat `text`.
    pub(crate) fn echo(&mut self, text: &str) {
        self.say(&invocation("Echo", &[text]));
        self.hear_echo(text);
    }

    /// The pod that it is on, in the hub's own words.
    pub(crate) fn pod(&mut self) -> String {
        self.say(&invocation("WhoAmI", &[]));
        loop {
            let heard: Value = serde_json::from_str(self.hear().trim_end_matches(SEPARATOR)).unwrap();
            if let Some(pod) = heard["result"]["pod"].as_str() {
                return pod.to_owned();
            }
        }
    }

    pub(crate) fn echo_in_pieces(&mut self, text: &str) {
        self.say_in_pieces(&invocation("Echo", &[text]));
        self.hear_echo(text);
    }

    fn hear_echo(&mut self, text: &str) {
        // A ping of the hub's may come first.
        while !self.hear().contains(text) {}
    }

    /// Asks the hub something, uncounted. `None` if the connection has ended.
    pub(crate) fn survives(mut self) -> Option<Self> {
        let text = format!("{}{SEPARATOR}", invocation("Echo", &["still here"]));
        self.socket.send(Message::text(text)).ok()?;
        loop {
            match self.socket.read().ok()? {
                Message::Text(text) if text.contains("still here") => return Some(self),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Says goodbye with `code`, or with none, and reads to the end.
    pub(crate) fn close(mut self, code: Option<u16>) -> Ended {
        let frame = code.map(|code| CloseFrame { code: CloseCode::from(code), reason: "tired".into() });
        self.socket.close(frame).unwrap();
        self.read_to_end()
    }

    /// Has the hub abort the connection, and reads to the end.
    pub(crate) fn aborted(mut self) -> Ended {
        self.say(&invocation("Abort", &[]));
        self.read_to_end()
    }

    /// Resets the TCP connection. What is on its way to here is counted as heard: it must have passed Envoy.
    pub(crate) fn reset(mut self) -> Ended {
        let (before, text) = (self.heard, "unread");
        self.echo(text);
        let echo = Carried { messages: self.heard.messages - before.messages, bytes: self.heard.bytes - before.bytes };
        // The kernel resets a connection that is closed with bytes unread.
        self.say(&invocation("Echo", &[text]));
        self.socket.get_ref().peek(&mut [0]).unwrap();
        Ended { said: self.said, heard: self.heard.plus(echo), code: None }
    }

    /// Ends the TCP connection without a Close frame.
    pub(crate) fn cut(self) {
        self.socket.get_ref().shutdown(Shutdown::Both).unwrap();
    }

    /// Says that no more will come from here, and reads to the end.
    pub(crate) fn fall_silent(self) -> Ended {
        self.socket.get_ref().shutdown(Shutdown::Write).unwrap();
        self.read_to_end()
    }

    /// Reads until the other side ends it.
    pub(crate) fn read_to_end(mut self) -> Ended {
        let mut code = None;
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => self.heard.add(&text),
                Ok(Message::Close(close)) => code = close.map(|close| close.code.into()),
                Ok(_) => {}
                Err(_) => return Ended { said: self.said, heard: self.heard, code },
            }
        }
    }
}

/// What a connection carried in its life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) said: Carried,
    pub(crate) heard: Carried,
    /// What the other side's Close frame said.
    pub(crate) code: Option<u16>,
}

pub(crate) fn invocation(target: &str, arguments: &[&str]) -> Value {
    json!({"type": 1, "invocationId": "1", "target": target, "arguments": arguments})
}
