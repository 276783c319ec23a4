//! WebSockets over HTTP/2 (RFC 8441) to real hubs, which know only those of HTTP/1.1.
//!
//! Envoy turns the one into the other but sends no `sec-websocket-key`, so ASP.NET Core refuses; the filter adds it.

use std::io::Cursor;
use std::time::Duration;

use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tungstenite::Bytes;
use tungstenite::http::{HeaderMap, Method, Request, StatusCode};
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::client;
use crate::gateway::every_version;

const TIMEOUT: Duration = Duration::from_secs(20);
/// What ends a record of SignalR's JSON protocol.
const END: char = '\x1e';

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(TIMEOUT, test).await }).expect("in time");
}

/// One HTTP/2 connection to a gateway that offers extended CONNECT.
async fn connect(envoy: &Envoy) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(envoy.url().strip_prefix("http://").unwrap()).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    // Envoy's settings, which say so, come after ours have gone.
    while !client.is_extended_connect_protocol_enabled() {
        sleep(Duration::from_millis(5)).await;
    }
    client.ready().await.unwrap()
}

/// A WebSocket on a stream of an HTTP/2 connection.
struct Tunnel {
    status: StatusCode,
    fields: HeaderMap,
    send: SendStream<Bytes>,
    receive: RecvStream,
    ahead: Vec<u8>,
}

impl Tunnel {
    async fn open(client: &mut SendRequest<Bytes>, target: &str) -> Self {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://gateway.test{target}"))
            .header("sec-websocket-version", "13")
            .extension(Protocol::from("websocket"));
        let (response, send) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let (head, receive) = response.await.unwrap().into_parts();
        Self { status: head.status, fields: head.headers, send, receive, ahead: Vec::new() }
    }

    fn send(&mut self, record: &Value) {
        let mut frame = Frame::message(format!("{record}{END}"), OpCode::Data(Data::Text), true);
        frame.header_mut().mask = Some([0x5a, 0xa5, 0x0f, 0xf0]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        self.send.send_data(bytes.into(), false).unwrap();
    }

    /// The next record that is no ping; the hub sends each in a frame of its own.
    async fn record(&mut self) -> Value {
        loop {
            let mut cursor = Cursor::new(&self.ahead);
            let parsed = FrameHeader::parse(&mut cursor).unwrap();
            let start = usize::try_from(cursor.position()).unwrap();
            let frame = parsed.map(|(_, length)| start..start + usize::try_from(length).unwrap());
            let Some(frame) = frame.filter(|frame| frame.end <= self.ahead.len()) else {
                let data = self.receive.data().await.expect("the hub keeps the WebSocket").unwrap();
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
}

/// Negotiates and returns the connection's token, which has a route behind a dot.
fn negotiate(envoy: &Envoy) -> String {
    let answer = client::ask(envoy, &client::Request::post("/chat/negotiate?negotiateVersion=1"));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["connectionToken"].as_str().unwrap().to_owned()
}

fn hosts(hubs: &[Hub]) -> Hosts {
    Hosts::Fixed(hubs.iter().map(Hub::address).collect())
}

#[test]
fn a_websocket_over_http2_reaches_the_hub_that_negotiated() {
    let hubs = three_hubs().unwrap();
    for (version, options) in every_version(&json!({})) {
        let envoy = Envoy::start(&EnvoyOptions { hosts: hosts(&hubs), ..options }).unwrap();
        run(async {
            let mut client = connect(&envoy).await;
            // All on one connection, and the last without a negotiate.
            let mut targets: Vec<_> = (0..6).map(|_| format!("/chat?id={}", negotiate(&envoy))).collect();
            targets.push("/chat".to_owned());
            let mut tunnels = Vec::new();
            for target in &targets {
                let mut tunnel = Tunnel::open(&mut client, target).await;
                assert_eq!(tunnel.status, StatusCode::OK, "{version:?} {target}");
                assert_eq!(tunnel.fields.get("sec-websocket-accept"), None, "{version:?}: the answer to no key");
                tunnel.send(&json!({ "protocol": "json", "version": 1 }));
                assert_eq!(tunnel.record().await, json!({}), "{version:?}");
                tunnels.push(tunnel);
            }
            for (number, tunnel) in tunnels.iter_mut().enumerate() {
                let text = format!("hello {number}");
                tunnel.send(&json!({ "type": 1, "invocationId": "7", "target": "Echo", "arguments": [text] }));
                let expected = json!({ "type": 3, "invocationId": "7", "result": text });
                assert_eq!(tunnel.record().await, expected, "{version:?}");
            }
        });
        let routed = [("signalr_source", "connection_token"), ("signalr_outcome", "routed")];
        assert_eq!(envoy.metric("signalr_gateway_affinity_total", &routed).unwrap(), 6.0, "{version:?}");
    }
    let requests: Vec<_> = hubs.iter().flat_map(|hub| hub.requests().unwrap()).collect();
    let keys: Vec<_> =
        requests.iter().filter_map(|request| request.headers.get("sec-websocket-key")).flatten().collect();
    assert_eq!(keys.len(), 2 * 7);
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len(), "each has a key of its own");
}

/// The control: without the filter the hub misses the key.
#[test]
fn without_the_filter_the_hub_refuses_websockets_over_http2() {
    let hubs = three_hubs().unwrap();
    let envoy =
        Envoy::start(&EnvoyOptions { filter: Filter::Absent, hosts: hosts(&hubs), ..EnvoyOptions::default() }).unwrap();
    run(async {
        let mut client = connect(&envoy).await;
        let tunnel = Tunnel::open(&mut client, "/chat").await;
        assert!(tunnel.status.is_client_error() || tunnel.status.is_server_error(), "{}", tunnel.status);
    });
}
