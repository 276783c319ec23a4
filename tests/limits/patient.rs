//! A hub that refuses nobody: it promises ids without end, takes any WebSocket, also one with an id that it has already,
//! as a hub with stateful reconnect does, and returns what is sent on it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use testbed::envoy::Hosts;
use testbed::raw::Socket;
use testbed::stand_in;
use tungstenite::Message;

/// Starts it. It ends with the process.
pub(crate) fn start() -> Hosts {
    let address = stand_in::listen(serve).unwrap();
    Hosts::Fixed(vec![address.to_string()])
}

/// Whether a text comes back.
pub(crate) fn returns(socket: &mut Socket, text: &str) -> bool {
    let frames = &mut socket.frames;
    frames.send(Message::text(text)).is_ok() && frames.read().is_ok_and(|back| back == Message::text(text))
}

fn serve(mut stream: TcpStream) -> Option<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut head = [0; 8_192];
        let mut length = 0;
        while !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            length = stream.peek(&mut head).ok().filter(|seen| *seen > 0)?;
        }
        let text = String::from_utf8_lossy(&head[..length]).to_lowercase();
        if text.contains("upgrade: websocket") {
            let mut socket = tungstenite::accept(stream).ok()?;
            while let Ok(message) = socket.read() {
                if message.is_text() && socket.send(message).is_err() {
                    break;
                }
            }
            return None;
        }
        stream.read_exact(&mut head[..text.find("\r\n\r\n")? + 4]).ok()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"connectionToken":"t{serial}","connectionId":"c{serial}","availableTransports":[]}}"#);
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
            .ok()?;
    }
}
