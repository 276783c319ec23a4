//! Which pod a request belongs to, by the carriers it brings, and which carriers its answer brings to the client.
//!
//! Precedence, in one place: the route in the connection id, then the cookie of that connection, then the cookie of
//! the client. A carrier that does not open never steers; its reason is reported, and the next one is asked.

mod cookies;
mod redirect;
mod set_cookie;

use std::ops::Range;
use std::time::Duration;

use crate::clock::{Millis, Seconds};
use crate::http::{self, Head};
use crate::settings::Settings;
use crate::signalr::{Exchange, Id, IdParam, NegotiateVersion, Step};
use crate::token::{Place, Purpose, Refusal, Route};

pub use cookies::{Answered, Jar, issue};
pub use redirect::Seal;

/// What carried a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The connection id.
    ConnectionToken,
    /// The cookie bound to the connection id.
    ConnectionCookie,
    /// The cookie that bridges negotiate and the first request with the id.
    PendingCookie,
    /// The cookie of the client.
    ClientCookie,
    /// Nothing.
    Nothing,
}

/// What became of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Envoy sent the request to the pod that the route names.
    Routed,
    /// Envoy balanced, because that pod is gone or unhealthy.
    HostGone,
    /// The route did not steer, for this reason.
    Refused(Refusal),
    /// There was no route.
    Absent,
}

/// How much depends on a route being followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// What the request is for lives on that pod and nowhere else.
    Bound,
    /// The request begins something new, for a client that has been there before: any other pod will do.
    Preferred,
}

/// A route that steers a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Where to.
    pub place: Place,
    /// What carried it.
    pub source: Source,
    /// How much depends on it.
    pub tie: Tie,
    /// When the pod was chosen.
    pub issued: Millis,
}

/// Everything decided about a request before Envoy routes it.
#[derive(Debug)]
pub struct Decision {
    /// The pod it must reach.
    pub pinned: Option<Pinned>,
    /// The outcomes that are known before Envoy routes: of carriers that did not steer, or that there was none.
    pub outcomes: Vec<(Source, Outcome)>,
    /// The connection id as the hub knows it.
    pub id: Option<Vec<u8>>,
    /// What the hub must not see of the id, and answers that carry the id must have.
    pub seal: Option<Seal>,
    /// The cookies of ours that came along.
    pub jar: Jar,
}

/// Decides for one request.
pub fn decide(settings: &Settings, exchange: &Exchange, head: &Head, now: Seconds) -> Decision {
    let mut decision =
        Decision { pinned: None, outcomes: Vec::new(), id: None, seal: None, jar: Jar::read(settings, head) };
    if let Some(id) = exchange.id.one() {
        decision.open_id(settings, id, head, now);
    }
    match exchange.step {
        // A client that negotiates anew with its old id in the URL (pysignalr) wants a new connection, anywhere.
        Step::Negotiate(version) => {
            decision.pinned = None;
            decision.outcomes.clear();
            let rebalance_after = settings.client_cookie.as_ref().and_then(|cookie| cookie.rebalance_after);
            decision.ask_client_cookie(settings, now, Tie::Preferred, rebalance_after);
            if settings.client_cookie.is_none() && !issues_token(settings, version) {
                decision.ask_pending_cookie(settings, exchange, now);
            }
        }
        Step::WebSocket | Step::BlazorDisconnect | Step::Page if exchange.id == Id::Absent => {
            // A disconnect is for a circuit that there is.
            let tie = if exchange.step == Step::BlazorDisconnect { Tie::Bound } else { Tie::Preferred };
            decision.ask_client_cookie(settings, now, tie, None);
        }
        Step::UpgradeLost if exchange.id == Id::Absent => {}
        // It is for no connection that there is.
        _ if exchange.id == Id::Several => decision.outcomes.push((Source::Nothing, Outcome::Absent)),
        // A lost upgrade changes nothing for the hub, which answers as it would have.
        Step::WebSocket
        | Step::UpgradeLost
        | Step::ServerSentEvents
        | Step::Poll
        | Step::Send
        | Step::Delete
        | Step::Other => {
            decision.ask_connection_cookie(settings, now);
            decision.ask_pending_cookie(settings, exchange, now);
            // Not its main purpose, but it names the pod of the client's last negotiate, and any other would be a guess.
            if decision.pinned.is_none() {
                decision.ask_client_cookie(settings, now, Tie::Bound, None);
            }
            if decision.pinned.is_none() && decision.outcomes.is_empty() {
                decision.outcomes.push((Source::Nothing, Outcome::Absent));
            }
        }
        Step::NotNegotiate | Step::WithoutId | Step::BlazorDisconnect | Step::Page => {}
    }
    decision
}

/// Whether the id in the answer to such a negotiate gets a route.
pub fn issues_token(settings: &Settings, version: NegotiateVersion) -> bool {
    let token = &settings.connection_token;
    token.issue && (version == NegotiateVersion::V1 || token.negotiate_v0)
}

impl Decision {
    /// Opens the route behind the id's last dot. Only an authentic one is taken off: an id may have dots of its own.
    fn open_id(&mut self, settings: &Settings, id: &IdParam, head: &Head, now: Seconds) {
        let target = head.get(":path").unwrap_or_default();
        self.id = Some(id.value.clone());
        let Some(suffix) = suffix(target, id) else { return };
        let sealed = http::decode_form(suffix.sealed);
        let own = http::decode_form(suffix.id);
        let opened = settings.ring.open(Purpose::ConnectionToken, &own, &sealed, now);
        if matches!(opened, Ok(_) | Err(Refusal::Expired)) {
            let written = target.get(suffix.range.clone()).unwrap_or_default().to_vec();
            self.seal = Some(Seal { range: suffix.range, written });
            self.id = Some(own);
        }
        self.consider(Source::ConnectionToken, Tie::Bound, opened);
    }

    fn ask_connection_cookie(&mut self, settings: &Settings, now: Seconds) {
        let (Some(id), None) = (&self.id, &self.pinned) else { return };
        if let Some(sealed) = self.jar.bound_to(id) {
            let opened = settings.ring.open(Purpose::ConnectionCookie, id, sealed, now);
            self.consider(Source::ConnectionCookie, Tie::Bound, opened);
        }
    }

    fn ask_pending_cookie(&mut self, settings: &Settings, exchange: &Exchange, now: Seconds) {
        if let (Some(sealed), None) = (&self.jar.pending, &self.pinned) {
            let opened = settings.ring.open(Purpose::PendingCookie, cookies::hub_of(exchange), sealed, now);
            self.consider(Source::PendingCookie, Tie::Bound, opened);
        }
    }

    /// `rebalance_after` applies at a negotiate only: in the middle of a connection nothing moves.
    fn ask_client_cookie(&mut self, settings: &Settings, now: Seconds, tie: Tie, rebalance_after: Option<Duration>) {
        let Some(sealed) = &self.jar.client else { return };
        let opened = settings.ring.open(Purpose::ClientCookie, b"", sealed, now).and_then(|route| {
            let keep = rebalance_after.is_none_or(|after| now.since(route.issued.seconds()) < after);
            if keep { Ok(route) } else { Err(Refusal::Expired) }
        });
        self.consider(Source::ClientCookie, tie, opened);
    }

    fn consider(&mut self, source: Source, tie: Tie, opened: Result<Route, Refusal>) {
        match opened {
            Ok(route) => self.pinned = Some(Pinned { place: route.place, source, tie, issued: route.issued }),
            Err(refusal) => self.outcomes.push((source, Outcome::Refused(refusal))),
        }
    }
}

/// An id and what stands behind its last dot, still percent-encoded.
struct Suffix<'a> {
    id: &'a [u8],
    sealed: &'a [u8],
    /// The dot and what follows it, in the request target.
    range: Range<usize>,
}

fn suffix<'a>(target: &'a [u8], id: &IdParam) -> Option<Suffix<'a>> {
    let raw = target.get(id.range.clone())?;
    let plain = raw.iter().rposition(|byte| *byte == b'.').map(|at| (at, 1_usize));
    let encoded = raw.windows(3).rposition(|bytes| bytes.eq_ignore_ascii_case(b"%2e")).map(|at| (at, 3));
    let (at, len) = plain.max(encoded)?;
    Some(Suffix {
        id: raw.get(..at)?,
        sealed: raw.get(at.checked_add(len)?..)?,
        range: id.range.start.checked_add(at)?..id.range.end,
    })
}

#[cfg(test)]
mod tests;
