//! The answer to a negotiate: whether it is worth reading, the transports that go out of it, and the sealed route that goes
//! in.

use std::borrow::Cow;

use super::{Moment, Request, State, Stream};
use crate::affinity::{self, Answered};
use crate::http::{Head, HeaderOp};
use crate::hub::{HubLabel, Learned};
use crate::metrics::{Count, InternalError, Negotiation};
use crate::settings::{Hubs, Settings};
use crate::signalr::{self, Answer, MAX_ANSWER, Step, Transport};
use crate::token::{self, Place, Purpose, Route};

/// A negotiate whose answer's body is still to come.
pub(super) struct Negotiated {
    pub(super) hub: HubLabel,
    /// The hub's path, by which an unknown hub is learned.
    path: Vec<u8>,
    /// Where the connection lives; `None` when ids are to be left alone.
    seal_for: Option<Place>,
}

impl Stream {
    /// Waits for the body of a negotiate's answer, if it is worth it.
    pub(super) fn await_negotiate_answer(
        &mut self,
        Request { exchange, hub, .. }: &Request,
        answered: &Answered,
        head: &Head,
    ) -> Option<HeaderOp> {
        let Step::Negotiate(version) = exchange.step else { return None };
        let hub = hub.clone();
        if let Err(result) = expects_answer(answered, head) {
            let is_success = (200..300).contains(&answered.status);
            if is_success && matches!(result, Negotiation::Unrecognised | Negotiation::Failed) {
                self.worker.borrow_mut().strangers.learn(&exchange.hub);
            }
            self.counts.push(Count::Negotiation { hub, result });
            return None;
        }
        let seal_for = answered.place.clone().filter(|_| affinity::issues_token(&self.settings, version));
        // The body grows or shrinks, and its length is not known before it has come.
        let changes = seal_for.is_some() || offered(&self.settings, &exchange.hub).is_some();
        let op = changes.then_some(HeaderOp::Remove(Cow::Borrowed("content-length")));
        self.state = State::Negotiated(Box::new(Negotiated { hub, path: exchange.hub.clone(), seal_for }));
        op
    }

    /// Takes transports out of a negotiate's answer and puts the sealed route in; `None` leaves the answer as it is.
    pub fn on_negotiate_answer(&mut self, body: &[u8], moment: &mut Moment<'_>) -> Option<Vec<u8>> {
        let State::Negotiated(negotiated) = std::mem::replace(&mut self.state, State::Idle) else { return None };
        let Negotiated { mut hub, path, seal_for } = *negotiated;
        let fewer = offered(&self.settings, &path).and_then(|offered| signalr::offer_only(body, offered));
        let body = fewer.as_deref().unwrap_or(body);
        let answer = Answer::read(body);
        if matches!(answer, Answer::Id(_) | Answer::OddId) && matches!(self.settings.hubs, Hubs::Any) {
            let name = HubLabel::learned(&path);
            let learned = self.worker.borrow_mut().hubs.learn(name.as_str(), moment.now.seconds(), moment.store);
            if learned == Learned::Known && name != hub {
                self.log.push(("signalr_hub", name.as_str().to_owned()));
                hub = name;
            }
        }
        self.learn_strangers(&path, &answer);
        let (result, replacement) = match &answer {
            Answer::Id(issued) => {
                self.log.push(("signalr_connection", token::fingerprint_of_id(&issued.id)));
                let sealed = seal_for.and_then(|place| self.seal(&issued.id, place, moment));
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
        self.counts.push(Count::Negotiation { hub, result });
        replacement.or(fewer)
    }

    fn learn_strangers(&self, path: &[u8], answer: &Answer) {
        let strangers = &mut self.worker.borrow_mut().strangers;
        match answer {
            Answer::Unknown => strangers.learn(path),
            Answer::Id(_) | Answer::OddId | Answer::Redirect | Answer::Error => strangers.forget(path),
        }
    }

    fn seal(&mut self, id: &[u8], place: Place, moment: &mut Moment<'_>) -> Option<String> {
        let route = Route::new(place, moment.now, self.settings.connection_token.ttl);
        let Some(nonce) = (moment.nonce)() else {
            self.counts.push(Count::InternalError(InternalError::Random));
            return None;
        };
        self.settings.ring.seal(Purpose::ConnectionToken, id, &route, nonce)
    }
}

/// The only transports that clients of a hub are offered, if its configuration says so.
fn offered<'a>(settings: &'a Settings, hub: &[u8]) -> Option<&'a [Transport]> {
    settings.hubs.listed(hub)?.transports.as_deref()
}

/// Whether the body of a negotiate's answer is worth reading, or else how the negotiate ended.
fn expects_answer(answered: &Answered, head: &Head) -> Result<(), Negotiation> {
    if answered.status != 200 {
        return Err(Negotiation::Failed);
    }
    if !answered.negotiated {
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
