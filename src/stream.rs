//! One exchange from head to end: the only file that knows the order of things.
//!
//! Request: classify, decide, admit, steer. Answer's head: what became of the route, which cookies. Answer's body, for a
//! negotiate only: seal the id. A WebSocket's bytes: metered. Everything else passes without a look.

mod admission;
mod events;
mod explain;
mod failure;
mod negotiation;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use crate::access_token::{self, Moved};
use crate::affinity::{self, Answered, Decision, Outcome};
use crate::clock::Millis;
use crate::frame::Direction;
use crate::http::{self, Head, HeaderOp};
use crate::hub::{HubLabel, HubNames, Strangers};
use crate::ledger::Session;
use crate::lifecycle::{ERROR_LENGTH, Ending, Failure};
use crate::limit::{Limiter, Peer, Rejection};
use crate::metrics::{Count, Negotiation};
use crate::settings::{AccessToken, Hubs, Settings};
use crate::shared::Shared;
use crate::signalr::{self, Exchange, MAX_ANSWER, Step};
use crate::socket::{Socket, Traffic};
use crate::steer;
use crate::store::Store;
use crate::token::{self, NONCE_LEN, Place};

use admission::{Held, Ruling};
use failure::Failed;
use negotiation::Negotiated;

/// What the host lends for one callback: the time, randomness, and what the worker threads share.
pub struct Moment<'a> {
    /// Now.
    pub now: Millis,
    /// Fresh random bytes; `None` when there are none, and then nothing is sealed.
    pub nonce: &'a mut dyn FnMut() -> Option<[u8; NONCE_LEN]>,
    /// Shared data.
    pub store: &'a dyn Store,
}

/// What to do with a chunk of the answer's body.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Let it pass.
    Pass,
    /// Keep it until more has come.
    Hold,
    /// It is all there: give it to [`Stream::on_negotiate_answer`].
    Complete,
    /// Let it pass, and give this many bytes of it, from its start, to [`Stream::on_error_text`].
    Error(usize),
    /// Let it pass, and give it to [`Stream::pass`], but for what [`Stream::pass_unseen`] passes over.
    Meter,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestPlan {
    /// It goes upstream, with these changes.
    Forward(Vec<HeaderOp>),
    /// It is held, with these changes, until [`Shared::answered`](crate::shared::Shared::answered) has decided.
    Hold(Vec<HeaderOp>),
    /// The filter answers it.
    Reject(Rejection),
}

/// What the streams of a worker thread share.
#[derive(Debug, Default)]
pub struct Worker {
    /// Hubs seen.
    pub hubs: HubNames,
    /// Paths of other applications that look like a hub's.
    pub strangers: Strangers,
    /// Connections held. Absent only before the configuration has come.
    pub limiter: Option<Limiter>,
    /// Limits shared with other gateways.
    pub shared: Shared,
    /// What WebSockets carried since it was last handed to Envoy.
    pub traffic: Traffic,
    /// The time as of the last tick or request: to ask for it at every chunk would cost more than the chunk.
    pub now: Millis,
}

/// The state of one exchange.
pub struct Stream {
    /// What the host knows it by.
    id: u32,
    settings: Rc<Settings>,
    worker: Rc<RefCell<Worker>>,
    state: State,
    held: Option<Held>,
    socket: Option<Box<Socket>>,
    counts: Vec<Count>,
    log: Vec<(&'static str, String)>,
}

enum State {
    /// Nothing of SignalR's, or nothing left to do.
    Idle,
    /// The request went upstream.
    Asked(Box<Request>),
    /// A negotiate was answered and its body is still to come.
    Negotiated(Box<Negotiated>),
    /// A connection's request failed, and the body may say why.
    Failed(Box<Failed>),
}

/// A request of SignalR's, and what was decided about it.
struct Request {
    exchange: Exchange,
    hub: HubLabel,
    decision: Decision,
    /// What a DELETE ends if the hub agrees.
    session: Option<Session>,
    https: bool,
    /// The WebSocket came without a key, so its answer must go without the proof.
    supplied_key: bool,
}

impl Stream {
    /// The state before any callback. `id` is unique among the streams of a worker thread.
    pub fn new(id: u32, settings: Rc<Settings>, worker: Rc<RefCell<Worker>>) -> Self {
        Self { id, settings, worker, state: State::Idle, held: None, socket: None, counts: Vec::new(), log: Vec::new() }
    }

    /// Whether [`Stream::on_request`] has anything to do. Asked of every request, SignalR's or not.
    pub fn concerns(&self, head: &Head) -> bool {
        let target = head.get(":path").unwrap_or_default();
        signalr::may_concern(target, &self.settings)
            || self.is_hub(http::path(target))
            || head.get("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
    }

    /// Decides where the request goes, or that it goes nowhere. `peer` is where it came from. The caller has taken off
    /// any of [`steer::own_headers`] that the client sent.
    pub fn on_request(&mut self, head: &Head, peer: &Peer, moment: &mut Moment<'_>) -> RequestPlan {
        let settings = self.settings.clone();
        let exchange = signalr::classify(head, &settings, |path| self.is_hub(path))
            .or_else(|| signalr::classify_refused(head, &settings, |path| self.is_hub(path)));
        let Some(exchange) = exchange else { return RequestPlan::Forward(Vec::new()) };
        let decision = affinity::decide(&settings, &exchange, head, moment.now.seconds());
        let hub = self.label(&exchange.hub, moment.store);
        let key = websocket_key(&exchange, head, moment);
        let limits = settings.limits_for(peer.is_exempt(&settings.limits.client, head));
        let session = self.session(&exchange, &hub, &decision, limits, head, peer);
        let (https, supplied_key) = (http::is_https(head), key.is_some());
        let request = Box::new(Request { exchange, hub, decision, session, https, supplied_key });
        self.report_outcomes(&request);
        let ruling = self.admit(&request, limits, head, peer, moment);
        if let Ruling::Reject(rejection) = ruling {
            return RequestPlan::Reject(rejection);
        }
        if request.exchange.step == Step::WebSocket {
            let worker = &mut *self.worker.borrow_mut();
            worker.now = moment.now;
            self.socket =
                Some(Box::new(Socket::new(request.hub.clone(), moment.now, settings.detail, &mut worker.traffic)));
        }
        let ops = steer(&settings, &request, head).into_iter().chain(key).collect();
        self.state = State::Asked(request);
        if let Ruling::Wait = ruling { RequestPlan::Hold(ops) } else { RequestPlan::Forward(ops) }
    }

    /// Whether [`Stream::on_response`] has anything to do.
    pub fn awaits_response(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    /// Learns where Envoy sent the request (`place`, absent when Envoy answered itself) and what came back.
    pub fn on_response(&mut self, head: &Head, place: Option<Place>, moment: &mut Moment<'_>) -> Vec<HeaderOp> {
        let State::Asked(request) = std::mem::replace(&mut self.state, State::Idle) else { return Vec::new() };
        if self.worker.borrow().shared.has_refused(self.id) {
            // It is the filter's own answer.
            self.socket = None;
            return Vec::new();
        }
        let status = head.get(":status").and_then(|text| str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        let negotiated = status == 200 && signalr::may_be_negotiate_answer(head.get("content-type"));
        let answered = Answered { status, negotiated, place, https: request.https, now: moment.now };
        self.count_steered(&request, &answered);
        self.follow_connection(&request, &answered, moment.store);
        self.tell_failure(&request, &answered);
        let affinity = explain::affinity(&request.decision, answered.upstream());
        let mut ops: Vec<_> = request.supplied_key.then(steer::drop_websocket_accept).into_iter().collect();
        ops.extend(self.settings.explain.then(|| explain::header(&request.exchange, &affinity)));
        self.log.push(("signalr_affinity", affinity));
        if let Decision { id: Some(id), seal: Some(seal), .. } = &request.decision {
            ops.extend(seal.put_back(id, head));
        }
        ops.extend(self.unbuffered_events(&request, &answered, head));
        ops.extend(self.await_negotiate_answer(&request, &answered, head));
        let Request { exchange, decision, .. } = *request;
        ops.extend(affinity::issue(&self.settings, &exchange, decision, &answered, moment.nonce));
        ops
    }

    /// Whether the answer's body must be kept back; `buffered` is all of it that has come so far, in bytes.
    pub fn on_response_chunk(&mut self, buffered: usize, end_of_stream: bool) -> Chunk {
        match &self.state {
            State::Negotiated(negotiated) if buffered > MAX_ANSWER => {
                let hub = negotiated.hub.clone();
                self.counts.push(Count::Negotiation { hub, result: Negotiation::TooLarge });
                self.state = State::Idle;
                Chunk::Pass
            }
            State::Negotiated(_) if end_of_stream => Chunk::Complete,
            State::Negotiated(_) => Chunk::Hold,
            State::Failed(_) if buffered > 0 => Chunk::Error(buffered.min(ERROR_LENGTH)),
            State::Idle if buffered > 0 && self.meters() => Chunk::Meter,
            State::Idle | State::Asked(_) | State::Failed(_) => Chunk::Pass,
        }
    }

    /// Whether the bytes of this exchange are metered.
    pub fn meters(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.meters())
    }

    /// How many of the next `most` bytes need not be copied to be metered.
    pub fn pass_unseen(&mut self, direction: Direction, most: usize) -> usize {
        let now = self.worker.borrow().now;
        self.socket.as_mut().map_or(0, |socket| socket.pass_unseen(direction, most, now))
    }

    /// Meters bytes that go by.
    pub fn pass(&mut self, direction: Direction, chunk: &[u8]) {
        if let Some(socket) = &mut self.socket {
            self.counts.extend(socket.pass(direction, chunk, self.worker.borrow().now));
        }
    }

    /// Whether [`Stream::finish`] needs to know how the exchange ended.
    pub fn is_websocket(&self) -> bool {
        self.socket.is_some()
    }

    /// The exchange is over. Safe to call more than once.
    pub fn finish(&mut self, ending: &Ending, now: Millis, store: &dyn Store) {
        if let Some(socket) = self.socket.take() {
            let mut worker = self.worker.borrow_mut();
            if let (Some(upstream), Some(limiter)) = (&socket.upstream, &mut worker.limiter) {
                limiter.ledger.upstreams.closed(upstream);
            }
            self.log.extend(socket.log_fields(ending));
            self.counts.extend(socket.finish(ending, now));
            self.counts.extend(worker.traffic.take());
        }
        self.on_error_text(b"");
        if self.settings.limits.shared.is_some() {
            self.leave_shared();
        }
        self.release(now.seconds(), store);
        if let State::Negotiated(negotiated) = std::mem::replace(&mut self.state, State::Idle) {
            self.counts.push(Count::Negotiation { hub: negotiated.hub, result: Negotiation::Incomplete });
        }
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Vec<Count> {
        std::mem::take(&mut self.counts)
    }

    /// What the access log is to show, since the last call: names and values. Never an id, only its fingerprint.
    pub fn take_log_fields(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.log)
    }

    /// Whether a hub of this path is configured, or has answered a negotiate as far as this worker thread knows.
    fn is_hub(&self, path: &[u8]) -> bool {
        match &self.settings.hubs {
            Hubs::Any => self.worker.borrow().hubs.has(path),
            Hubs::Listed(_) => self.settings.hubs.listed(path).is_some(),
        }
    }

    fn label(&self, hub: &[u8], store: &dyn Store) -> HubLabel {
        HubLabel::of(hub, &self.settings, &mut self.worker.borrow_mut().hubs, store)
    }

    /// Logs and counts what is known before Envoy chooses a pod.
    fn report_outcomes(&mut self, Request { exchange, hub, decision, .. }: &Request) {
        self.log.push(("signalr_hub", hub.as_str().to_owned()));
        self.log.push(("signalr_step", exchange.step.label().to_owned()));
        self.log.extend(exchange.step.transport().map(|transport| ("signalr_transport", transport.label().to_owned())));
        self.log.extend(decision.id.as_deref().map(|id| ("signalr_connection", token::fingerprint_of_id(id))));
        if exchange.step == Step::UpgradeLost {
            self.counts.push(Count::WebSocketError { hub: hub.clone(), kind: Failure::UpgradeLost.label() });
        }
        // Other applications have ids in their queries too, also with dots: only those of a known hub are reported.
        let ours = |outcome: Outcome| match outcome {
            Outcome::Absent | Outcome::Refused(token::Refusal::Forged) => hub.is_known(),
            Outcome::Routed | Outcome::HostGone | Outcome::Refused(_) => true,
        };
        let reported = decision.outcomes.iter().filter(|(_, outcome)| ours(*outcome));
        let count =
            |(source, outcome): &(_, _)| Count::Affinity { hub: hub.clone(), source: *source, outcome: *outcome };
        self.counts.extend(reported.map(count));
    }

    fn count_steered(&mut self, request: &Request, answered: &Answered) {
        let (Some(pinned), Some(upstream)) = (&request.decision.pinned, answered.upstream()) else { return };
        let outcome = if pinned.place.address == *upstream { Outcome::Routed } else { Outcome::HostGone };
        self.counts.push(Count::Affinity { hub: request.hub.clone(), source: pinned.source, outcome });
    }
}

/// What is changed in the request so that Envoy sends it where it belongs, and the hub understands it.
fn steer(settings: &Settings, Request { exchange, decision, .. }: &Request, head: &Head) -> Vec<HeaderOp> {
    let mut ops = Vec::new();
    let moves = settings.hubs.listed(&exchange.hub).is_some_and(|hub| hub.access_token == AccessToken::Header);
    let (cut, authorization) = match moves.then(|| access_token::in_query(head)).flatten() {
        Some(Moved { cut, header }) => (Some(cut), header),
        None => (None, None),
    };
    // The seal stands in the value of another parameter, so these do not overlap.
    let cuts: Vec<_> = match (decision.seal.as_ref().map(|seal| seal.range.clone()), cut) {
        (Some(seal), Some(token)) if token.start < seal.start => vec![token, seal],
        (seal, token) => seal.into_iter().chain(token).collect(),
    };
    if let (false, Some(target)) = (cuts.is_empty(), head.get(":path")) {
        ops.push(HeaderOp::Set(Cow::Borrowed(":path"), http::without(target, &cuts)));
    }
    ops.extend(authorization);
    ops.extend(decision.pinned.iter().flat_map(|pinned| steer::pin(&settings.pin, pinned)));
    if matches!(exchange.step, Step::Negotiate(_)) {
        ops.push(steer::ask_for_plain_answer());
    }
    ops
}

/// The key that a WebSocket of HTTP/2 (RFC 8441) lacks and a hub behind HTTP/1.1 wants.
fn websocket_key(exchange: &Exchange, head: &Head, moment: &mut Moment<'_>) -> Option<HeaderOp> {
    if exchange.step != Step::WebSocket || head.get("sec-websocket-key").is_some() {
        return None;
    }
    let random = (moment.nonce)()?;
    random.first_chunk().map(|key| steer::websocket_key(*key))
}

#[cfg(test)]
mod tests;
