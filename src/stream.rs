//! One exchange from head to end: the only file that knows the order of things.
//!
//! Request: classify, decide, admit, steer. Answer's head: what became of the route, which cookies. Answer's body, for a
//! negotiate only: seal the id. A WebSocket's bytes: metered. Everything else passes without a look.

mod explain;

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use crate::affinity::{self, Answered, Decision, Outcome, Pinned, Source};
use crate::clock::Millis;
use crate::frame::Direction;
use crate::http::{Head, HeaderOp};
use crate::lifecycle::{Ending, Failure, TELLING};
use crate::limit::{self, End, Lease, Limit, Limiter, Opening, Peer, Rejection, Verdict};
use crate::metrics::{Count, HubLabel, InternalError, Negotiation};
use crate::route;
use crate::settings::{Limits, Mode, Settings};
use crate::signalr::{self, Answer, Exchange, MAX_ANSWER, Step, Transport};
use crate::socket::{Socket, Traffic};
use crate::store::{HubNames, Store};
use crate::token::{self, Address, NONCE_LEN, Purpose, Route};

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
    Tell(usize),
    /// Let it pass, and give it to [`Stream::pass`], but for what [`Stream::pass_unseen`] passes over.
    Meter,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestPlan {
    /// It goes upstream, with these changes.
    Forward(Vec<HeaderOp>),
    /// The filter answers it.
    Reject(Rejection),
}

/// What the streams of a worker thread share.
#[derive(Debug, Default)]
pub struct Worker {
    /// Hubs seen.
    pub hubs: HubNames,
    /// Connections held. Absent only before the configuration has come.
    pub limiter: Option<Limiter>,
    /// What WebSockets carried since it was last handed to Envoy.
    pub traffic: Traffic,
}

/// The state of one exchange.
pub struct Stream {
    settings: Rc<Settings>,
    worker: Rc<RefCell<Worker>>,
    state: State,
    held: Option<Held>,
    socket: Option<Box<Socket>>,
    counts: Vec<Count>,
    log: Vec<(&'static str, String)>,
}

/// A connection that this exchange holds, and how it lets go.
struct Held {
    lease: Lease,
    end: End,
}

enum State {
    /// Nothing of SignalR's, or nothing left to do.
    Idle,
    /// The request went upstream.
    Asked(Box<Asked>),
    /// A negotiate was answered and its body is still to come.
    Negotiated(Box<Negotiated>),
    /// A connection's request failed, and the body may tell why.
    Failed(Box<Failed>),
}

struct Asked {
    exchange: Exchange,
    decision: Decision,
    client: Option<limit::ClientKey>,
    /// No limit holds for its address.
    is_exempt: bool,
    https: bool,
    /// The WebSocket came without a key, so its answer must go without the proof.
    supplied_key: bool,
}

#[derive(Clone)]
struct Failed {
    hub: HubLabel,
    status: u16,
    is_websocket: bool,
    /// It reached the pod of its connection, so that pod knows it no more.
    at_home: bool,
}

struct Negotiated {
    hub: Vec<u8>,
    /// Where the connection lives; `None` when ids are to be left alone.
    seal_for: Option<Address>,
}

impl Stream {
    /// The state before any callback.
    pub fn new(settings: Rc<Settings>, worker: Rc<RefCell<Worker>>) -> Self {
        Self { settings, worker, state: State::Idle, held: None, socket: None, counts: Vec::new(), log: Vec::new() }
    }

    /// Whether the request's whole head is worth reading. Asked of every request, SignalR's or not.
    pub fn concerns(&self, target: &[u8], upgrade: impl FnOnce() -> Option<Vec<u8>>) -> bool {
        signalr::may_concern(target, &self.settings)
            || upgrade().is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
    }

    /// Decides where the request goes, or that it goes nowhere. `peer` is where it came from. The caller has taken off any
    /// pin that the client sent.
    pub fn on_request(&mut self, head: &Head, peer: &Peer, moment: &mut Moment<'_>) -> RequestPlan {
        let Some(exchange) = signalr::classify(head, &self.settings) else { return RequestPlan::Forward(Vec::new()) };
        let decision = affinity::decide(&self.settings, &exchange, head, moment.now.seconds());
        self.count_told(&exchange, &decision, moment.store);
        self.log.push(("signalr_step", exchange.step.label().to_owned()));
        self.log.extend(decision.id.as_deref().map(|id| ("signalr_connection", token::fingerprint_of_id(id))));
        let settings = self.settings.clone();
        let is_exempt = peer.is_exempt(&settings.limits.client);
        let limits = settings.limits_for(is_exempt);
        let client = self.worker.borrow().limiter.as_ref().map(|limiter| limiter.client(limits, head, peer));
        if let Some(limit) = client.and_then(|client| self.admit(limits, client, &exchange, &decision, moment)) {
            let is_negotiate = matches!(exchange.step, Step::Negotiate(_));
            return RequestPlan::Reject(limit::reject(limits, limit, is_negotiate, head));
        }
        if exchange.step == Step::WebSocket {
            let hub = self.label(&exchange.hub, moment.store);
            let traffic = &mut self.worker.borrow_mut().traffic;
            self.socket = Some(Box::new(Socket::new(hub, moment.now, settings.detail, traffic)));
        }
        let mut ops = Vec::new();
        if let (Some(range), Some(target)) = (&decision.strip, head.get(":path")) {
            let kept = [target.get(..range.start).unwrap_or_default(), target.get(range.end..).unwrap_or_default()];
            ops.push(HeaderOp::Set(Cow::Borrowed(":path"), kept.concat()));
        }
        if let Some(pinned) = &decision.pinned {
            ops.push(route::pin(&self.settings.pin, &pinned.address));
        }
        if matches!(exchange.step, Step::Negotiate(_)) {
            ops.push(route::ask_for_plain_answer());
        }
        let key = match exchange.step {
            Step::WebSocket => self.websocket_key(head, moment),
            _ => None,
        };
        let supplied_key = key.is_some();
        ops.extend(key);
        let https = route::is_https(head);
        self.state = State::Asked(Box::new(Asked { exchange, decision, client, is_exempt, https, supplied_key }));
        RequestPlan::Forward(ops)
    }

    /// Whether [`Stream::on_response`] has anything to do.
    pub fn awaits_response(&self) -> bool {
        matches!(self.state, State::Asked(_))
    }

    /// Learns where Envoy sent the request (`upstream`, absent when Envoy answered itself) and what came back.
    pub fn on_response(&mut self, head: &Head, upstream: Option<&[u8]>, moment: &mut Moment<'_>) -> Vec<HeaderOp> {
        let State::Asked(asked) = std::mem::replace(&mut self.state, State::Idle) else { return Vec::new() };
        let Asked { exchange, decision, client, is_exempt, https, supplied_key } = *asked;
        let upstream = upstream.and_then(Address::new);
        self.count_steered(&exchange, &decision, upstream.as_ref(), moment.store);
        let mut ops: Vec<_> = supplied_key.then(route::drop_websocket_accept).into_iter().collect();
        let status = head.get(":status").and_then(|text| str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0);
        self.follow_connection(
            &exchange,
            &decision,
            client.map(|client| (client, is_exempt)),
            upstream.as_ref(),
            status,
            moment,
        );
        self.tell_failure(&exchange, &decision, upstream.as_ref(), status, moment.store);
        let affinity = explain::affinity(&decision, upstream.as_ref());
        if self.settings.explain {
            ops.push(explain::header(&exchange, &affinity));
        }
        self.log.push(("signalr_affinity", affinity));
        let content_type = head.get("content-type").unwrap_or_default();
        let negotiated = status == 200 && content_type.to_ascii_lowercase().starts_with(b"application/json");
        if let Step::Negotiate(version) = exchange.step {
            let seal_for = upstream.clone().filter(|_| affinity::issues_token(&self.settings, version));
            match expects_answer(status, negotiated, head) {
                Ok(()) => {
                    // The body grows, and its length is not known before it has come.
                    ops.extend(seal_for.as_ref().map(|_| HeaderOp::Remove(Cow::Borrowed("content-length"))));
                    self.state = State::Negotiated(Box::new(Negotiated { hub: exchange.hub.clone(), seal_for }));
                }
                Err(result) => self.count_negotiation(&exchange.hub, result, moment.store),
            }
        }
        let answered = Answered { status, negotiated, upstream, https, now: moment.now };
        ops.extend(affinity::issue(&self.settings, &exchange, decision, &answered, moment.nonce));
        ops
    }

    /// Whether the answer's body must be kept back; `buffered` is all of it that has come so far, in bytes.
    pub fn on_response_chunk(&mut self, buffered: usize, end_of_stream: bool, store: &dyn Store) -> Chunk {
        let negotiated = match &self.state {
            State::Negotiated(negotiated) => negotiated,
            State::Failed(_) if buffered > 0 => return Chunk::Tell(buffered.min(TELLING)),
            State::Idle if buffered > 0 && self.meters() => return Chunk::Meter,
            State::Idle | State::Asked(_) | State::Failed(_) => return Chunk::Pass,
        };
        if buffered > MAX_ANSWER {
            let hub = negotiated.hub.clone();
            self.state = State::Idle;
            self.count_negotiation(&hub, Negotiation::TooLarge, store);
            return Chunk::Pass;
        }
        if end_of_stream { Chunk::Complete } else { Chunk::Hold }
    }

    /// Puts the sealed route into a negotiate's answer; `None` leaves the answer as it is.
    pub fn on_negotiate_answer(&mut self, body: &[u8], moment: &mut Moment<'_>) -> Option<Vec<u8>> {
        let State::Negotiated(negotiated) = std::mem::replace(&mut self.state, State::Idle) else { return None };
        let Negotiated { hub, seal_for } = *negotiated;
        let answer = Answer::read(body);
        if matches!(answer, Answer::Id(_) | Answer::OddId) {
            self.worker.borrow_mut().hubs.learn(HubLabel::learned(&hub).as_str(), moment.store);
        }
        let (result, replacement) = match &answer {
            Answer::Id(issued) => {
                let sealed = seal_for.and_then(|address| self.seal(&issued.id, address, moment));
                match sealed.and_then(|sealed| issued.splice(body, &sealed)) {
                    Some(replacement) => (Negotiation::Sealed, Some(replacement)),
                    None => (Negotiation::Unsealed, None),
                }
            }
            Answer::OddId => (Negotiation::Unsealed, None),
            Answer::Redirect => (Negotiation::Redirect, None),
            Answer::Error => (Negotiation::Error, None),
            Answer::Unknown => (Negotiation::Unrecognised, None),
        };
        self.count_negotiation(&hub, result, moment.store);
        replacement
    }

    /// Learns from the beginning of an error's body which error it is.
    pub fn on_error_text(&mut self, text: &[u8]) {
        let State::Failed(failed) = &self.state else { return };
        let Failed { hub, status, is_websocket, at_home } = (**failed).clone();
        self.state = State::Idle;
        let kind = match Failure::read(status, text, is_websocket) {
            // What follows a DELETE or a close: the end of a connection, not a wrong turn. A hub that is just disposing of the
            // connection answers without words.
            Some(Failure::UnknownConnection | Failure::NotAHub) if at_home => "late_request",
            Some(failure) => failure.label(),
            None => return,
        };
        self.counts.push(Count::WebSocketError { hub, kind });
    }

    /// Whether the bytes of this exchange are metered.
    pub fn meters(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.meters())
    }

    /// How many of the next `most` bytes need not be copied to be metered.
    pub fn pass_unseen(&mut self, direction: Direction, most: usize) -> usize {
        self.socket.as_mut().map_or(0, |socket| socket.pass_unseen(direction, most))
    }

    /// Meters bytes that go by.
    pub fn pass(&mut self, direction: Direction, chunk: &[u8]) {
        if let Some(socket) = &mut self.socket {
            self.counts.extend(socket.pass(direction, chunk));
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
                limiter.upstreams.closed(upstream);
            }
            self.log.extend(socket.log_fields(ending));
            self.counts.extend(socket.finish(ending, now));
            self.counts.extend(worker.traffic.take());
        }
        self.on_error_text(b"");
        if let (Some(held), Some(limiter)) = (self.held.take(), &mut self.worker.borrow_mut().limiter) {
            limiter.end(held.lease, held.end, now.seconds(), store);
        }
        if let State::Negotiated(negotiated) = std::mem::replace(&mut self.state, State::Idle) {
            self.count_negotiation(&negotiated.hub, Negotiation::Incomplete, store);
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

    /// Asks the limits. `Some` is the limit that the request is rejected for.
    fn admit(
        &mut self,
        limits: &Limits,
        client: limit::ClientKey,
        exchange: &Exchange,
        decision: &Decision,
        moment: &mut Moment<'_>,
    ) -> Option<Limit> {
        let hub = self.label(&exchange.hub, moment.store);
        let asked = match (exchange.step, exchange.step.transport()) {
            (Step::Negotiate(_), _) => {
                let worker = self.worker.borrow();
                worker.limiter.as_ref()?.negotiate(limits, client, &hub, moment.now, moment.store)
            }
            // Other applications poll with an `id`, too: what is not surely a connection is not counted as one.
            (_, Some(transport))
                if transport == Transport::WebSockets || hub.is_known() || decision.strip.is_some() =>
            {
                let opening = Opening { client, id: decision.id.as_deref(), transport, hub: &hub };
                let mut worker = self.worker.borrow_mut();
                let admitted = worker.limiter.as_mut()?.connect(limits, &opening, moment.now, moment.store);
                admitted.map(|(verdict, lease)| {
                    let end = if transport == Transport::LongPolling { End::BetweenPolls } else { End::Over };
                    self.held = lease.map(|lease| Held { lease, end });
                    verdict
                })
            }
            _ => return None,
        };
        let limit = match asked {
            Ok(Verdict::Within) => return None,
            Ok(Verdict::Over(limit)) => limit,
            Err(limit::LedgerFailure) => {
                self.counts.push(Count::InternalError(InternalError::Ledger));
                if limit::passes_without_ledger(limits) {
                    return None;
                }
                Limit::Ledger
            }
        };
        self.log.push(("signalr_limit", limit.label().to_owned()));
        self.counts.push(Count::Rejected { hub, limit, mode: limits.mode });
        (limits.mode == Mode::Enforce).then_some(limit)
    }

    /// Learns from an answer whether a connection began, or is over.
    fn follow_connection(
        &mut self,
        exchange: &Exchange,
        decision: &Decision,
        client: Option<(limit::ClientKey, bool)>,
        upstream: Option<&Address>,
        status: u16,
        moment: &mut Moment<'_>,
    ) {
        let succeeded = matches!(status, 101 | 200);
        if let Some(held) = &mut self.held {
            if status != 200 {
                held.end = End::Over;
            }
            if succeeded && held.lease.is_new() {
                self.counts.extend(opened(held.lease.transport(), held.lease.hub(), decision, moment.now));
            }
        }
        if let Some(socket) = &mut self.socket {
            self.counts.extend(socket.on_answer(status, moment.now));
            self.socket = self.socket.take().filter(|_| status == 101);
            if let (Some(socket), true, Some(address)) = (&mut self.socket, self.settings.per_upstream, upstream)
                && let Some(limiter) = &mut self.worker.borrow_mut().limiter
            {
                socket.upstream = Some(limiter.upstreams.opened(socket.hub(), address));
            }
        }
        // Not 404: another pod answers so about a session that goes on.
        let deleted = exchange.step == Step::Delete && (200..300).contains(&status);
        if let (true, Some((client, is_exempt)), Some(id)) = (deleted, client, &decision.id)
            && let Some(limiter) = &mut self.worker.borrow_mut().limiter
        {
            limiter.delete(self.settings.limits_for(is_exempt), client, id, moment.now.seconds(), moment.store);
        }
    }

    /// Remembers a failure until the body tells which.
    fn tell_failure(
        &mut self,
        exchange: &Exchange,
        decision: &Decision,
        upstream: Option<&Address>,
        status: u16,
        store: &dyn Store,
    ) {
        let is_websocket = exchange.step == Step::WebSocket;
        let of_connection = is_websocket || (decision.id.is_some() && !matches!(exchange.step, Step::Negotiate(_)));
        if !of_connection || Failure::read(status, b"", is_websocket).is_none() {
            return;
        }
        let hub = self.label(&exchange.hub, store);
        if is_websocket || hub.is_known() {
            let home = decision.pinned.as_ref().map(|pinned| &pinned.address);
            let at_home = home.is_some() && home == upstream;
            self.state = State::Failed(Box::new(Failed { hub, status, is_websocket, at_home }));
        }
    }

    fn seal(&mut self, id: &[u8], address: Address, moment: &mut Moment<'_>) -> Option<String> {
        let route = Route::new(address, moment.now, self.settings.connection_token.ttl);
        let Some(nonce) = (moment.nonce)() else {
            self.counts.push(Count::InternalError(InternalError::Random));
            return None;
        };
        self.settings.ring.seal(Purpose::ConnectionToken, id, &route, nonce)
    }

    fn websocket_key(&mut self, head: &Head, moment: &mut Moment<'_>) -> Option<HeaderOp> {
        if head.get("sec-websocket-key").is_some() {
            return None;
        }
        let random = (moment.nonce)()?;
        random.first_chunk().map(|key| route::websocket_key(*key))
    }

    fn label(&self, hub: &[u8], store: &dyn Store) -> HubLabel {
        HubLabel::of(hub, &self.settings, &mut self.worker.borrow_mut().hubs, store)
    }

    fn count_told(&mut self, exchange: &Exchange, decision: &Decision, store: &dyn Store) {
        if decision.told.is_empty() {
            return;
        }
        let hub = self.label(&exchange.hub, store);
        for (source, outcome) in &decision.told {
            // Other applications have ids in their queries too, also with dots: only a known hub's are told.
            let ours = match outcome {
                Outcome::Absent | Outcome::Refused(token::Refusal::Forged) => hub.is_known(),
                _ => true,
            };
            if ours {
                self.counts.push(Count::Affinity { hub: hub.clone(), source: *source, outcome: *outcome });
            }
        }
    }

    fn count_steered(
        &mut self,
        exchange: &Exchange,
        decision: &Decision,
        upstream: Option<&Address>,
        store: &dyn Store,
    ) {
        let (Some(pinned), Some(upstream)) = (&decision.pinned, upstream) else { return };
        let outcome = if pinned.address == *upstream { Outcome::Routed } else { Outcome::HostGone };
        let hub = self.label(&exchange.hub, store);
        self.counts.push(Count::Affinity { hub, source: pinned.source, outcome });
    }

    fn count_negotiation(&mut self, hub: &[u8], result: Negotiation, store: &dyn Store) {
        let hub = self.label(hub, store);
        self.counts.push(Count::Negotiation { hub, result });
    }
}

/// How long after its negotiate a connect still tells something of the client's way: hubs forget an unused id sooner.
const FRESH: u64 = 30_000;

/// What is counted when a connection has begun.
fn opened(transport: Transport, hub: &HubLabel, decision: &Decision, now: Millis) -> impl Iterator<Item = Count> {
    let of_connection = |pinned: &&Pinned| matches!(pinned.source, Source::ConnectionToken | Source::PendingCookie);
    let waited = decision.pinned.as_ref().filter(of_connection).map(|pinned| now.since(pinned.issued));
    let waited = waited.filter(|milliseconds| *milliseconds <= FRESH);
    let waited = waited.map(|milliseconds| Count::NegotiateToConnect { hub: hub.clone(), milliseconds });
    [Count::Opened { hub: hub.clone(), transport }].into_iter().chain(waited)
}

/// Whether the body of a negotiate's answer is worth reading, or else how the negotiate ended.
fn expects_answer(status: u16, negotiated: bool, head: &Head) -> Result<(), Negotiation> {
    if status != 200 {
        return Err(Negotiation::Failed);
    }
    if !negotiated {
        return Err(Negotiation::Unrecognised);
    }
    if head.get("content-encoding").is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Negotiation::Encoded);
    }
    let length = head.get("content-length").and_then(|text| str::from_utf8(text).ok()?.parse::<usize>().ok());
    match length {
        // No body will come to say so.
        Some(0) => Err(Negotiation::Unrecognised),
        Some(length) if length > MAX_ANSWER => Err(Negotiation::TooLarge),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
