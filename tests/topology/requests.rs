//! A SignalR client taken apart into its requests, for what no client does on demand: negotiate here and connect
//! there, come back with an old id, break off in the middle.
//!
//! It keeps no cookies, so only the id can bring it anywhere; a [`Visitor`] keeps the cookie of the client and nothing else.
use serde_json::Value;
pub(crate) use testbed::raw::Answer;
use testbed::raw::{self, Client, Request, ask};

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
    let answer = ask(gateway, &Request::post(&format!("/chat/negotiate?{query}")));
    assert_eq!(answer.status(), 200, "negotiate: {answer:?}");
    let body = answer.json();
    let id = body["connectionToken"].as_str().or_else(|| body["connectionId"].as_str()).unwrap();
    Negotiated { pod: answer.pod().unwrap().to_owned(), id: id.to_owned() }
}

/// Negotiates until this pod has done so.
pub(crate) fn negotiate_on(gateway: &str, pod: &str) -> Negotiated {
    (0..200).map(|_| negotiate(gateway)).find(|negotiated| negotiated.pod == pod).unwrap()
}

/// Makes a request with this id and drops what it opens.
pub(crate) fn request(gateway: &str, step: Step, id: &str) -> Answer {
    let target = format!("/chat?id={id}");
    let request = match step {
        Step::WebSocket => Request::websocket(&target),
        Step::Events => Request::get(&target).with("accept", "text/event-stream"),
        Step::Poll => Request::get(&target),
        Step::Send => Request { body: b"{\"type\":6}\x1e", ..Request::post(&target) },
        Step::Delete => Request::new("DELETE", &target),
    };
    ask(gateway, &request)
}

/// An open WebSocket on which client and hub have shaken hands.
pub(crate) struct Socket {
    /// The pod that took it.
    pub(crate) pod: String,
    socket: raw::Socket,
}

impl Socket {
    /// Connects, or reports how the hub or the gateway refused.
    pub(crate) fn open(gateway: &str, id: &str) -> Result<Self, Answer> {
        let socket = Client::of(gateway).socket(id)?;
        Ok(Self { pod: socket.answer.pod().unwrap().to_owned(), socket })
    }

    /// Asks the hub which pod it is on.
    pub(crate) fn who_am_i(&mut self) -> String {
        pod_in(&self.socket.ask("WhoAmI", &[]).unwrap())
    }

    /// Breaks the TCP connection off, without a Close frame.
    pub(crate) fn cut(self) {
        self.socket.cut();
    }
}

/// A connection by long polling on which client and hub have shaken hands.
pub(crate) struct Polling {
    id: String,
}

impl Polling {
    pub(crate) fn open(gateway: &str, id: &str) -> Self {
        Client::of(gateway).session(id).unwrap();
        Self { id: id.to_owned() }
    }

    /// Asks the hub which pod it is on: a request to send, and polls until the answer has come.
    pub(crate) fn who_am_i(&self, gateway: &str) -> String {
        pod_in(&Client::of(gateway).resume(&self.id).ask("WhoAmI", &[]))
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
        let (_, cookie) = visits.into_iter().find(|(answer, _)| answer.pod() == Some(pod)).unwrap();
        Self { cookie: cookie.unwrap() }
    }

    /// Comes again. Returns the pod that answers, and the visitor that it is from then on if it was given another cookie.
    pub(crate) fn visit(&self, gateway: &str, what: Visit) -> (String, Option<Self>) {
        let (answer, cookie) = visit(gateway, what, Some(&self.cookie));
        (answer.pod().unwrap().to_owned(), cookie.map(|cookie| Self { cookie }))
    }

    /// Says goodbye as a Blazor page does. Returns the pod that heard it.
    pub(crate) fn disconnect(&self, gateway: &str) -> String {
        let request = Request::post("/_blazor/disconnect").with("cookie", &self.cookie);
        ask(gateway, &request).pod().unwrap().to_owned()
    }
}

/// Makes this request, and returns the answer and the cookie of the client that came with it.
fn visit(gateway: &str, what: Visit, cookie: Option<&str>) -> (Answer, Option<String>) {
    let (request, expected) = match what {
        Visit::Page => (Request::get("/"), 200),
        Visit::Negotiate => (Request::post("/chat/negotiate?negotiateVersion=1"), 200),
        Visit::WebSocket => (Request::websocket("/chat"), 101),
    };
    let answer = ask(gateway, &cookie.into_iter().fold(request, |request, cookie| request.with("cookie", cookie)));
    assert_eq!(answer.status(), expected, "{what:?}: {answer:?}");
    let cookies = answer.head.all("set-cookie");
    let pairs = cookies.iter().filter_map(|cookie| cookie.split(';').next());
    let cookie = pairs.filter(|pair| pair.starts_with("signalr-client=")).map(str::to_owned).next();
    (answer, cookie)
}

fn pod_in(result: &Value) -> String {
    result["pod"].as_str().unwrap().to_owned()
}
