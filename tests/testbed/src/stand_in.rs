//! Servers in this process, for what no real hub does.
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tungstenite::WebSocket;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

use crate::raw::{Body, Head, Wire};

/// Serves every connection on a thread of its own, until this process ends, whatever `serve` returns. Returns where.
pub fn listen<T>(serve: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    Ok(address)
}

/// Starts a hub for benchmarks: it answers negotiates, and any GET at once, and sends back each message of a WebSocket. A hub of
/// ASP.NET Core would take the core that the client needs.
pub fn quick_hub() -> io::Result<SocketAddr> {
    listen(|stream| {
        let mut wire = Wire::new(stream)?;
        while let Some(head) = wire.read_head()? {
            wire.read_body(&head, Body::OfRequest)?;
            if head.one("upgrade").is_some() {
                return echo(wire, &head);
            }
            let (kind, content) = if head.start.starts_with("POST") {
                ("application/json", negotiate_answer())
            } else {
                ("text/plain", "hello".to_owned())
            };
            let length = content.len();
            write!(wire, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{content}")?;
        }
        Ok(())
    })
}

/// As ASP.NET Core answers, with ids of the same length.
fn negotiate_answer() -> String {
    static IDS: AtomicU64 = AtomicU64::new(0);
    let id = format!("{:022}", IDS.fetch_add(1, Ordering::Relaxed));
    let transport = |name, formats| format!(r#"{{"transport":"{name}","transferFormats":[{formats}]}}"#);
    let transports = [
        transport("WebSockets", r#""Text","Binary""#),
        transport("ServerSentEvents", r#""Text""#),
        transport("LongPolling", r#""Text","Binary""#),
    ]
    .join(",");
    format!(
        r#"{{"negotiateVersion":1,"connectionId":"{id}","connectionToken":"{id}","availableTransports":[{transports}]}}"#
    )
}

fn echo(mut wire: Wire, head: &Head) -> io::Result<()> {
    let accept = derive_accept_key(head.one("sec-websocket-key").unwrap_or_default().as_bytes());
    write!(
        wire,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    )?;
    let mut frames = WebSocket::from_raw_socket(wire, Role::Server, None);
    while let Ok(message) = frames.read() {
        if !message.is_close() && frames.send(message).is_err() {
            break;
        }
    }
    Ok(())
}
