//! The scripted pods: HTTP/1.1 servers that keep what they got and answer what a test asks for.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use testbed::raw::{Body, Head, Wire};
use testbed::stand_in;
use tungstenite::WebSocket;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

/// A request as it reached a pod.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }
}

/// Answers one request by writing bytes; an error ends the connection.
pub(crate) type Script = Arc<dyn Fn(&Received, &mut Wire) -> io::Result<()> + Send + Sync>;

/// A pod. Its threads are left to the end of the process.
pub(crate) struct Upstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    pub(crate) fn start(script: Script) -> Self {
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let log = received.clone();
        // Envoy closes connections when it likes; what a test expects it reads on the client's side.
        let serve = move |stream| Wire::new(stream).and_then(|wire| serve(wire, &script, &log));
        let address = stand_in::listen(serve).unwrap();
        Self { address, received }
    }

    /// As Envoy names it: `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The requests received since the last call, health checks left out.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut self.received.lock().unwrap())
    }
}

fn serve(mut wire: Wire, script: &Script, log: &Mutex<Vec<Received>>) -> io::Result<()> {
    while let Some(head) = wire.read_head()? {
        let body = wire.read_body(&head, Body::OfRequest)?;
        let received = Received { head, body };
        if received.path() == "/healthz" {
            respond(&mut wire, "200 OK", &[], b"")?;
            continue;
        }
        log.lock().unwrap().push(received.clone());
        script(&received, &mut wire)?;
    }
    Ok(())
}

/// Writes a response with its content's length.
pub(crate) fn respond(wire: &mut Wire, status: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
    let mut bytes = head(status, fields);
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
    bytes.extend(body);
    wire.write_all(&bytes)
}

/// A response's head, but for the empty line at its end.
pub(crate) fn head(status: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("HTTP/1.1 {status}\r\n{}", fields.collect::<String>()).into_bytes()
}

/// The header in which a pod says which one it is.
pub(crate) const POD: &str = "x-pod";

/// A hub that knows every id: what is asked of it with `answer=404` and the like in the query, it answers so.
pub(crate) fn hub(name: usize) -> Script {
    Arc::new(move |received, wire| {
        let name = name.to_string();
        let fields = [(POD, name.as_str())];
        let json = [fields[0], ("content-type", "application/json")];
        let wanted = received.target().split(['?', '&']).find_map(|pair| pair.strip_prefix("answer="));
        match (wanted, received.method()) {
            (Some(status), _) => respond(wire, &format!("{status} Wanted"), &fields, b""),
            (None, "POST") if received.path().ends_with("/negotiate") => {
                respond(wire, "200 OK", &json, negotiated(received.target()).as_bytes())
            }
            (None, "DELETE") => respond(wire, "202 Accepted", &fields, b""),
            (None, _) if received.head.one("upgrade").is_some() => echo(received, wire, &fields),
            (None, _) => respond(wire, "200 OK", &fields, b"here you are"),
        }
    })
}

/// An answer as ASP.NET Core writes it, with an id that nobody else has.
fn negotiated(target: &str) -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let transports = r#""availableTransports":[{"transport":"WebSockets","transferFormats":["Text","Binary"]}]"#;
    if target.contains("negotiateVersion=1") {
        format!(
            r#"{{"negotiateVersion":1,"connectionId":"pub{serial:019}","connectionToken":"tok{serial:019}",{transports}}}"#
        )
    } else {
        format!(r#"{{"negotiateVersion":0,"connectionId":"pub{serial:019}",{transports}}}"#)
    }
}

/// Accepts a WebSocket and sends back whatever comes.
pub(crate) fn echo(received: &Received, wire: &mut Wire, fields: &[(&str, &str)]) -> io::Result<()> {
    let accept = derive_accept_key(received.head.one("sec-websocket-key").unwrap_or_default().as_bytes());
    let upgrade = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept.as_str())];
    wire.write_all(&[head("101 Switching Protocols", &[&upgrade, fields].concat()), b"\r\n".to_vec()].concat())?;
    let mut websocket = WebSocket::from_raw_socket(wire, Role::Server, None);
    loop {
        let message = websocket.read().map_err(io::Error::other)?;
        if message.is_text() || message.is_binary() {
            websocket.send(message).map_err(io::Error::other)?;
        }
    }
}
