//! A WebSocket with SignalR's messages on it, and each way to leave it.

use std::io;
use std::net::Shutdown;

use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Error, Message, WebSocket};

use super::{Answer, END, Request, Wire, handshake, invocation, reset_at_close};

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum NoSocket {
    /// The gateway or the hub has answered so.
    Answered(Answer),
    /// The TCP connection broke off before an answer.
    Broken(io::Error),
}

/// An open WebSocket.
pub struct Socket {
    /// What came in answer to the request.
    pub answer: Answer,
    /// Its frames, for what is not said or heard here.
    pub frames: WebSocket<Wire>,
    /// Received, and not yet handed out.
    received: String,
}

impl Socket {
    /// Asks for a WebSocket.
    pub fn open(mut wire: Wire, request: &Request<'_>) -> Result<Self, NoSocket> {
        let answer = wire.try_ask(request).map_err(NoSocket::Broken)?;
        if answer.status() != 101 {
            return Err(NoSocket::Answered(answer));
        }
        let frames = WebSocket::from_raw_socket(wire, Role::Client, None);
        Ok(Self { answer, frames, received: String::new() })
    }

    /// Agrees with the hub on JSON.
    pub fn shake_hands(&mut self) {
        self.send(&handshake()).unwrap();
        assert_eq!(self.receive().unwrap(), json!({}), "the handshake");
    }

    /// Sends one of SignalR's messages.
    pub fn send(&mut self, message: &Value) -> Result<(), Error> {
        self.frames.send(Message::text(format!("{message}{END}")))
    }

    /// The hub's answer to a call.
    pub fn ask(&mut self, target: &str, arguments: &[&str]) -> Result<Value, Error> {
        self.send(&invocation(target, arguments))?;
        loop {
            let mut message = self.receive()?;
            if message["type"] == 3 {
                return Ok(message["result"].take());
            }
        }
    }

    /// Whether the hub answers: the connection lives.
    pub fn echoes(&mut self) -> bool {
        self.ask("Echo", &["hello"]).is_ok()
    }

    /// Sends this content as one binary message, and waits for one of the same length.
    pub fn exchange(&mut self, content: &[u8]) -> Result<(), Error> {
        self.frames.send(Message::binary(content.to_vec()))?;
        while self.frames.read()?.len() != content.len() {}
        Ok(())
    }

    fn receive(&mut self) -> Result<Value, Error> {
        loop {
            if let Some((message, rest)) = self.received.split_once(END) {
                let message = serde_json::from_str(message).unwrap();
                self.received = rest.to_owned();
                return Ok(message);
            }
            match self.frames.read()? {
                Message::Text(text) => self.received.push_str(&text),
                Message::Close(_) => return Err(Error::ConnectionClosed),
                _ => {}
            }
        }
    }

    /// Says goodbye, and waits for the other side's.
    pub fn close(mut self) {
        self.frames.close(None).unwrap();
        while self.frames.read().is_ok_and(|message| !message.is_close()) {}
    }

    /// Ends the TCP connection without a Close frame.
    pub fn cut(self) {
        self.frames.get_ref().tcp().shutdown(Shutdown::Both).unwrap();
    }

    /// Resets the TCP connection.
    pub fn reset(self) {
        reset_at_close(self.frames.get_ref().tcp()).unwrap();
    }

    /// Ends this side of the TCP connection, and goes on listening.
    pub fn fall_silent(&self) {
        self.frames.get_ref().tcp().shutdown(Shutdown::Write).unwrap();
    }

    /// Waits until the other side ends it.
    pub fn read_to_end(mut self) {
        while self.frames.read().is_ok() {}
    }
}
