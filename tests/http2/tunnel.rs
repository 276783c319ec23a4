//! WebSockets over HTTP/2 (RFC 8441), several on one connection, and the ways to leave them that HTTP/1.1 does not have.

#![allow(dead_code, reason = "each test target that has it uses a part")]

use std::io::{Cursor, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use serde_json::Value;
use testbed::process::PATIENCE;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Handle};
use tokio::time::{sleep, timeout};
use tungstenite::Bytes;
use tungstenite::http::{HeaderMap, Method, Request, StatusCode};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// What ends a record of SignalR's JSON protocol.
const END: char = '\x1e';

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

/// A TCP connection from this address of this machine.
pub(crate) fn connect(gateway: &str, from: Ipv4Addr) -> TcpStream {
    let stream = complete(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(gateway.parse().unwrap()).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

/// One HTTP/2 connection to a gateway that offers extended CONNECT.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    tcp: TcpStream,
}

impl Connection {
    pub(crate) fn open(gateway: &str) -> Self {
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

    pub(crate) fn tunnel(&mut self, target: &str) -> Tunnel {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://gateway.test{target}"))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from("websocket"));
        complete(async {
            let (response, send) = self.requests.send_request(request.body(()).unwrap(), false).unwrap();
            let (head, receive) = response.await.unwrap().into_parts();
            Tunnel { status: head.status, fields: head.headers, send, receive, ahead: Vec::new() }
        })
    }

    /// Says that no stream of the gateway's will be accepted any more (GOAWAY), while nothing else is being said.
    pub(crate) fn go_away(&mut self) {
        self.tcp.write_all(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    }

    /// Ends the TCP connection under all its streams.
    pub(crate) fn cut(self) {
        self.tcp.shutdown(Shutdown::Both).unwrap();
    }
}

/// A WebSocket on a stream of an HTTP/2 connection.
pub(crate) struct Tunnel {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    send: SendStream<Bytes>,
    receive: RecvStream,
    ahead: Vec<u8>,
}

impl Tunnel {
    pub(crate) fn send(&mut self, record: &Value) {
        let mut frame = Frame::message(format!("{record}{END}"), OpCode::Data(Data::Text), true);
        frame.header_mut().mask = Some([0x5a, 0xa5, 0x0f, 0xf0]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        self.send.send_data(bytes.into(), false).unwrap();
    }

    /// The next record that is no ping; the hub sends each in a frame of its own.
    pub(crate) fn record(&mut self) -> Value {
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
            if record != serde_json::json!({ "type": 6 }) {
                return record;
            }
        }
    }

    /// Ends the stream with RST_STREAM.
    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Says that no more will come from here (END_STREAM), and goes on listening.
    pub(crate) fn fall_silent(&mut self) {
        self.send.send_data(Bytes::new(), true).unwrap();
    }

    /// Waits until the other side ends the stream.
    pub(crate) fn read_to_end(&mut self) {
        complete(async { while let Some(Ok(_)) = self.receive.data().await {} });
    }

    /// Whether nothing has come that is unread, not even the end.
    pub(crate) fn is_quiet(&mut self) -> bool {
        complete(async { timeout(Duration::ZERO, self.receive.data()).await.is_err() })
    }
}
