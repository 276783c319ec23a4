//! A SignalR client taken apart into its requests, for what no client does on demand: negotiate here and connect
//! there, come back with an old id, break off in the middle.
//!
//! It keeps no cookies, so only the id can bring it anywhere; a [`Visitor`] keeps the cookie of the client and nothing else.
use std::net::TcpStream;

use serde_json::{Value, json};
use testbed::process::PATIENCE;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// Ends every message of SignalR.
const END: char = '\u{1e}';

/// What a request with an id was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The pod that answered, unless Envoy did.
    pub(crate) pod: Option<String>,
    pub(crate) body: String,
}

/// A connection that a hub has promised and nobody has made yet.
#[derive(Clone, Debug)]
pub(crate) struct Negotiated {
    /// The pod that negotiated.
    pub(crate) pod: String,
    /// The id to connect with, as the gateway gave it out.
    pub(crate) id: String,
}

/// A request that carries the id of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    WebSocket,
    Events,
    Poll,
    Send,
    Delete,
}

impl Step {
    pub(crate) const ALL: [Self; 5] = [Self::WebSocket, Self::Events, Self::Poll, Self::Send, Self::Delete];
}

/// Negotiates as the clients of today do.
pub(crate) fn negotiate(gateway: &str) -> Negotiated {
    negotiate_with(gateway, "negotiateVersion=1")
}

/// Negotiates with this query.
pub(crate) fn negotiate_with(gateway: &str, query: &str) -> Negotiated {
    let answer = read(agent().post(format!("{gateway}/chat/negotiate?{query}")).send_empty());
    assert_eq!(answer.status, 200, "negotiate: {answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let id = body["connectionToken"].as_str().or_else(|| body["connectionId"].as_str()).unwrap();
    Negotiated { pod: answer.pod.unwrap(), id: id.to_owned() }
}

/// Negotiates until this pod has done so.
pub(crate) fn negotiate_on(gateway: &str, pod: &str) -> Negotiated {
    (0..200).map(|_| negotiate(gateway)).find(|negotiated| negotiated.pod == pod).unwrap()
}

/// Makes a request with this id and drops what it opens.
pub(crate) fn request(gateway: &str, step: Step, id: &str) -> Answer {
    let url = url(gateway, id);
    match step {
        Step::WebSocket => match Socket::open(gateway, id) {
            Ok(socket) => Answer { status: 101, pod: Some(socket.pod), body: String::new() },
            Err(answer) => answer,
        },
        Step::Events => read(agent().get(url).header("accept", "text/event-stream").call()),
        Step::Poll => read(agent().get(url).call()),
        Step::Send => read(agent().post(url).send("{\"type\":6}\u{1e}")),
        Step::Delete => read(agent().delete(url).call()),
    }
}

/// An open WebSocket on which client and hub have shaken hands.
pub(crate) struct Socket {
    /// The pod that took it.
    pub(crate) pod: String,
    socket: WebSocket<TcpStream>,
    /// Received, and not yet handed out.
    received: String,
}

impl Socket {
    /// Connects, or tells how the hub or the gateway refused.
    pub(crate) fn open(gateway: &str, id: &str) -> Result<Self, Answer> {
        Self::open_at(&url(gateway, id), None).map(|(socket, _)| socket)
    }

    /// The same with this cookie; also returns the cookie that was set.
    fn open_at(url: &str, cookie: Option<&str>) -> Result<(Self, Option<String>), Answer> {
        let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
        if let Some(cookie) = cookie {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        let stream = TcpStream::connect(request.uri().authority().unwrap().as_str()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => {
                let mut opened = Self { pod: pod_of(&response).unwrap(), socket, received: String::new() };
                opened.send(&json!({ "protocol": "json", "version": 1 }));
                assert_eq!(opened.receive(), json!({}), "the handshake");
                Ok((opened, client_cookie(response.headers())))
            }
            Err(HandshakeError::Failure(Error::Http(response))) => Err(Answer {
                status: response.status().as_u16(),
                pod: pod_of(&response),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
            }),
            Err(error) => panic!("no answer to a WebSocket: {error}"),
        }
    }

    /// Asks the hub which pod it is on.
    pub(crate) fn who_am_i(&mut self) -> String {
        self.send(&invocation());
        loop {
            if let Some(pod) = pod_in(&self.receive()) {
                return pod;
            }
        }
    }

    /// Breaks the TCP connection off, without a Close frame.
    pub(crate) fn cut(self) {
        self.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    }

    fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(format!("{message}{END}"))).unwrap();
    }

    fn receive(&mut self) -> Value {
        loop {
            if let Some((message, rest)) = self.received.split_once(END) {
                let message = serde_json::from_str(message).unwrap();
                self.received = rest.to_owned();
                return message;
            }
            if let Message::Text(text) = self.socket.read().unwrap() {
                self.received.push_str(&text);
            }
        }
    }
}

/// A connection by long polling on which client and hub have shaken hands.
pub(crate) struct Polling {
    id: String,
}

impl Polling {
    pub(crate) fn open(gateway: &str, id: &str) -> Self {
        let polling = Self { id: id.to_owned() };
        // The first poll is answered at once, with nothing.
        assert_eq!(polling.poll(gateway).status, 200);
        polling.send(gateway, &json!({ "protocol": "json", "version": 1 }));
        assert_eq!(polling.poll(gateway).body, format!("{{}}{END}"), "the handshake");
        polling
    }

    /// Asks the hub which pod it is on: a request to send, and polls until the answer has come.
    pub(crate) fn who_am_i(&self, gateway: &str) -> String {
        self.send(gateway, &invocation());
        loop {
            let answer = self.poll(gateway);
            assert_eq!(answer.status, 200, "{answer:?}");
            let messages = answer.body.split_terminator(END).map(|message| serde_json::from_str(message).unwrap());
            if let Some(pod) = messages.filter_map(|message| pod_in(&message)).next() {
                return pod;
            }
        }
    }

    fn send(&self, gateway: &str, message: &Value) {
        let answer = read(agent().post(url(gateway, &self.id)).send(format!("{message}{END}")));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    fn poll(&self, gateway: &str) -> Answer {
        request(gateway, Step::Poll, &self.id)
    }
}

/// A request that begins something new, for a client with or without the cookie of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    Page,
    Negotiate,
    /// A WebSocket that skips negotiation.
    WebSocket,
}

impl Visit {
    pub(crate) const ALL: [Self; 3] = [Self::Page, Self::Negotiate, Self::WebSocket];
}

/// A browser that has been given a pod.
pub(crate) struct Visitor {
    /// `name=value` of the cookie of the client.
    cookie: String,
}

impl Visitor {
    /// One that its first visit brought to this pod.
    pub(crate) fn of(gateway: &str, pod: &str) -> Self {
        let visits = (0..200).map(|_| visit(gateway, Visit::Page, None));
        let (_, cookie) = visits.into_iter().find(|(answer, _)| answer.pod.as_deref() == Some(pod)).unwrap();
        Self { cookie: cookie.unwrap() }
    }

    /// Comes again. Returns the pod that answers, and the visitor that it is from then on if it was given another cookie.
    pub(crate) fn visit(&self, gateway: &str, what: Visit) -> (String, Option<Self>) {
        let (answer, cookie) = visit(gateway, what, Some(&self.cookie));
        (answer.pod.unwrap(), cookie.map(|cookie| Self { cookie }))
    }

    /// Says goodbye as a Blazor page does. Returns the pod that heard it.
    pub(crate) fn disconnect(&self, gateway: &str) -> String {
        let url = format!("{gateway}/_blazor/disconnect");
        read(agent().post(url).header("cookie", &self.cookie).send_empty()).pod.unwrap()
    }
}

/// Makes this request, and returns the answer and the cookie of the client that came with it.
fn visit(gateway: &str, what: Visit, cookie: Option<&str>) -> (Answer, Option<String>) {
    let bring = cookie.map(|cookie| ("cookie", cookie));
    let answer = match what {
        Visit::Page => {
            bring.into_iter().fold(agent().get(gateway), |request, (name, value)| request.header(name, value)).call()
        }
        Visit::Negotiate => {
            let request = agent().post(format!("{gateway}/chat/negotiate?negotiateVersion=1"));
            bring.into_iter().fold(request, |request, (name, value)| request.header(name, value)).send_empty()
        }
        Visit::WebSocket => {
            let (socket, cookie) = Socket::open_at(&format!("{gateway}/chat"), cookie).unwrap();
            return (Answer { status: 101, pod: Some(socket.pod), body: String::new() }, cookie);
        }
    };
    let cookie = answer.as_ref().ok().and_then(|answer| client_cookie(answer.headers()));
    let answer = read(answer);
    assert_eq!(answer.status, 200, "{what:?}: {answer:?}");
    (answer, cookie)
}

/// `name=value` of the cookie of the client, if these headers set it.
fn client_cookie(headers: &ureq::http::HeaderMap) -> Option<String> {
    let cookies = headers.get_all("set-cookie").into_iter().map(|cookie| cookie.to_str().unwrap());
    let pairs = cookies.filter_map(|cookie| cookie.split(';').next());
    pairs.filter(|pair| pair.starts_with("signalr-client=")).map(str::to_owned).next()
}

fn invocation() -> Value {
    json!({ "type": 1, "invocationId": "1", "target": "WhoAmI", "arguments": [] })
}

/// The pod, if this is the answer to [`invocation`] and no ping.
fn pod_in(message: &Value) -> Option<String> {
    assert_ne!(message["type"], 7, "the hub closed: {message}");
    (message["type"] == 3).then(|| message["result"]["pod"].as_str().unwrap().to_owned())
}

fn url(gateway: &str, id: &str) -> String {
    format!("{gateway}/chat?id={id}")
}

fn agent() -> ureq::Agent {
    // A fresh agent each time: on a kept connection all requests would meet the same worker thread.
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).proxy(None);
    config.build().new_agent()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut answer = answer.unwrap();
    let pod = answer.headers().get("x-pod").map(|pod| pod.to_str().unwrap().to_owned());
    // An event stream has no end: its first bytes are enough, and come at once.
    let events = answer.headers().get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let body = if events { String::new() } else { answer.body_mut().read_to_string().unwrap() };
    Answer { status: answer.status().as_u16(), pod, body }
}

fn pod_of(response: &Response) -> Option<String> {
    response.headers().get("x-pod").map(|pod| pod.to_str().unwrap().to_owned())
}
