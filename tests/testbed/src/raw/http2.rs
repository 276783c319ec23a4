//! WebSockets over HTTP/2 (RFC 8441), several on one connection, and the ways to leave them that HTTP/1.1 does not have.

use std::io::{Cursor, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};
use tokio::time::{sleep, timeout};
use tungstenite::Bytes;
use tungstenite::http;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use super::{Answer, END, Head, Request, handshake};
use crate::process::PATIENCE;

/// Runs `work` while a thread of its own keeps all connections going.
fn complete<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    let handle = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    });
    handle.block_on(async { timeout(PATIENCE, work).await }).expect("in time")
}

/// One HTTP/2 connection to a gateway that offers extended CONNECT.
pub struct Connection {
    requests: SendRequest<Bytes>,
    tcp: TcpStream,
}

impl Connection {
    /// Connects to the server of this URL, and waits until it has offered extended CONNECT.
    pub fn open(gateway: &str) -> Self {
        let tcp = TcpStream::connect(gateway.trim_start_matches("http://")).unwrap();
        let stream = tcp.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let requests = complete(async {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let (requests, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            // Envoy's settings, which say so, come after ours have gone.
            while !requests.is_extended_connect_protocol_enabled() {
                sleep(Duration::from_millis(5)).await;
            }
            requests.ready().await.unwrap()
        });
        Self { requests, tcp }
    }

    /// Sends a request without content, and returns the answer without its own.
    pub fn ask(&mut self, request: &Request<'_>) -> Answer {
        self.send(http_request(request), true).0
    }

    /// Asks for a WebSocket.
    pub fn tunnel(&mut self, target: &str) -> Tunnel {
        let request = http_request(&Request::new("CONNECT", target).with("sec-websocket-version", "13"));
        let (answer, send, receive) = self.send(request.extension(Protocol::from("websocket")), false);
        Tunnel { answer, send, receive, ahead: Vec::new() }
    }

    fn send(&mut self, request: http::request::Builder, is_all: bool) -> (Answer, SendStream<Bytes>, RecvStream) {
        complete(async {
            let (response, send) = self.requests.send_request(request.body(()).unwrap(), is_all).unwrap();
            let (head, receive) = response.await.unwrap().into_parts();
            let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            let head = Head { start: format!("HTTP/2 {}", head.status.as_u16()), fields: fields.collect() };
            (Answer { head, body: Vec::new() }, send, receive)
        })
    }

    /// Says that no stream of the gateway's will be accepted any more (GOAWAY), while nothing else is being said.
    pub fn go_away(&mut self) {
        self.tcp.write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    }

    /// Ends the TCP connection under all its streams.
    pub fn cut(self) {
        self.tcp.shutdown(Shutdown::Both).unwrap();
    }
}

fn http_request(request: &Request<'_>) -> http::request::Builder {
    let head = http::Request::builder().method(request.method).uri(format!("http://gateway.test{}", request.target));
    request.fields.iter().fold(head, |head, (name, value)| head.header(*name, *value))
}

/// A WebSocket on a stream of an HTTP/2 connection.
pub struct Tunnel {
    /// What came in answer to the CONNECT.
    pub answer: Answer,
    send: SendStream<Bytes>,
    receive: RecvStream,
    ahead: Vec<u8>,
}

impl Tunnel {
    /// Agrees with the hub on JSON.
    pub fn shake_hands(&mut self) {
        self.send(&handshake());
        assert_eq!(self.record(), json!({}), "the handshake");
    }

    /// Sends a record in a frame of its own.
    pub fn send(&mut self, record: &Value) {
        let mut frame = Frame::message(format!("{record}{END}"), OpCode::Data(Data::Text), true);
        frame.header_mut().mask = Some([0x5a, 0xa5, 0x0f, 0xf0]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        self.send.send_data(bytes.into(), false).unwrap();
    }

    /// The next record that is no ping; the hub sends each in a frame of its own.
    pub fn record(&mut self) -> Value {
        loop {
            let mut cursor = Cursor::new(&self.ahead);
            let parsed = FrameHeader::parse(&mut cursor).unwrap();
            let start = usize::try_from(cursor.position()).unwrap();
            let frame = parsed.map(|(_, length)| start..start + usize::try_from(length).unwrap());
            let Some(frame) = frame.filter(|frame| frame.end <= self.ahead.len()) else {
                let data = complete(self.receive.data()).expect("the hub keeps the WebSocket").unwrap();
                self.receive.flow_control().release_capacity(data.len()).unwrap();
                self.ahead.extend(data);
                continue;
            };
            let end = frame.end;
            let text = String::from_utf8(self.ahead[frame].to_vec()).unwrap();
            self.ahead.drain(..end);
            let record = serde_json::from_str(text.strip_suffix(END).unwrap()).unwrap();
            if record != json!({ "type": 6 }) {
                return record;
            }
        }
    }

    /// Ends the stream with RST_STREAM.
    pub fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Says that no more will come from here (END_STREAM), and goes on listening.
    pub fn fall_silent(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Waits until the other side ends the stream.
    pub fn read_to_end(&mut self) {
        complete(async { while let Some(Ok(_)) = self.receive.data().await {} });
    }

    /// Whether nothing has come that is unread, not even the end.
    pub fn is_quiet(&mut self) -> bool {
        complete(async { timeout(Duration::ZERO, self.receive.data()).await.is_err() })
    }
}
