//! A WebSocket that keeps count of what it says and hears, frame by frame, and each way to end it.

use serde_json::Value;
use testbed::envoy::Envoy;
use testbed::raw::{self, END, NoSocket, Request, Socket, Wire, handshake, invocation};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

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
    socket: Socket,
    /// From here to the hub.
    pub(crate) said: Carried,
    /// From the hub to here.
    pub(crate) heard: Carried,
}

/// The token of a fresh connection at the chat hub.
pub(crate) fn negotiate(base: &str) -> String {
    raw::Client::of(base).negotiate().unwrap()
}

/// Asks for a WebSocket at `target`. An error is the status of the answer that was no 101.
pub(crate) fn upgrade(base: &str, target: &str) -> Result<Socket, Option<u16>> {
    Socket::open(Wire::open(base), &Request::websocket(target)).map_err(|failure| match failure {
        NoSocket::Answered(answer) => Some(answer.status()),
        NoSocket::Broken(_) => None,
    })
}

impl Client {
    /// Negotiates, connects and shakes hands.
    pub(crate) fn connect(envoy: &Envoy, hub: &str) -> Self {
        let client = raw::Client::of(&envoy.url()).hub(hub);
        Self::with_token(&client, &client.negotiate().unwrap())
    }

    /// Connects with the token of a negotiate.
    pub(crate) fn with_token(client: &raw::Client, token: &str) -> Self {
        let socket = client.bare_socket(Some(token)).unwrap();
        let mut client = Self { socket, said: Carried::default(), heard: Carried::default() };
        client.say(&handshake());
        assert_eq!(client.hear(), format!("{{}}{END}"));
        client
    }

    /// Sends one of SignalR's messages in one frame.
    pub(crate) fn say(&mut self, message: &Value) {
        let text = format!("{message}{END}");
        self.said.add(&text);
        self.socket.frames.send(Message::text(text)).unwrap();
    }

    /// The same in three frames, with a WebSocket ping between them.
    fn say_in_pieces(&mut self, message: &Value) {
        let text = format!("{message}{END}");
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
        self.socket.frames.send(Message::Frame(frame)).unwrap();
    }

    /// The next data message.
    fn hear(&mut self) -> String {
        loop {
            match self.socket.frames.read().unwrap() {
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

    /// The pod that it is on, in the hub's own words, uncounted.
    pub(crate) fn pod(&mut self) -> String {
        self.socket.ask("WhoAmI", &[]).unwrap()["pod"].as_str().unwrap().to_owned()
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
        self.socket.echoes().then_some(self)
    }

    /// Says goodbye with `code`, or with none, and reads to the end.
    pub(crate) fn close(mut self, code: Option<u16>) -> Ended {
        let frame = code.map(|code| CloseFrame { code: CloseCode::from(code), reason: "tired".into() });
        self.socket.frames.close(frame).unwrap();
        self.read_to_end()
    }

    /// Has the hub abort the connection, and reads to the end.
    pub(crate) fn aborted(mut self) -> Ended {
        self.say(&invocation("Abort", &[]));
        self.read_to_end()
    }

    /// Resets the TCP connection.
    pub(crate) fn reset(self) -> Ended {
        self.socket.reset();
        Ended { said: self.said, heard: self.heard, code: None }
    }

    /// Ends the TCP connection without a Close frame.
    pub(crate) fn cut(self) {
        self.socket.cut();
    }

    /// Says that no more will come from here, and reads to the end.
    pub(crate) fn fall_silent(self) -> Ended {
        self.socket.fall_silent();
        self.read_to_end()
    }

    /// Reads until the other side ends it.
    pub(crate) fn read_to_end(mut self) -> Ended {
        let mut code = None;
        loop {
            match self.socket.frames.read() {
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
