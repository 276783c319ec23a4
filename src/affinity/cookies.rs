//! The cookies that carry routes: reading those a request brings, and choosing those its answer sets and clears.
//!
//! A connection's cookie is bound to its id. But headers leave before the body with the id has been read, so a
//! negotiate's answer can only set a *pending* cookie, without an id; the first request that carries the id is steered
//! by it, and its answer sets the bound one (`docs/decisions/0004-pending-cookie.md`).

use std::time::Duration;

use super::set_cookie::{clear_cookie, set_cookie};
use super::{Decision, Source};
use crate::clock::Millis;
use crate::http::{self, Head, HeaderOp};
use crate::settings::{CookieAttributes, Settings};
use crate::signalr::{Exchange, Id, Step};
use crate::token::{self, Address, NONCE_LEN, Place, Purpose, Route};

/// How many connection cookies a client may hold for one hub: as many as connections that can live without the route in
/// their id. 16 of some 150 bytes each are 2.4 KiB, well below the 8 KiB of headers that servers commonly allow.
const MOST_BOUND: usize = 16;
/// How long a pending cookie steers: twice the 15 s for which a hub keeps an id that nobody connects with.
const PENDING: Duration = Duration::from_secs(30);

/// The cookies of ours that a request brings, still sealed.
#[derive(Debug, Default)]
pub struct Jar {
    pub(super) pending: Option<Vec<u8>>,
    pub(super) client: Option<Vec<u8>>,
    /// Fingerprint of the connection id, and value.
    bound: Vec<(String, Vec<u8>)>,
}

impl Jar {
    /// How many are read: some beyond [`MOST_BOUND`], so that a surplus is noticed and cleared.
    const MOST_READ: usize = MOST_BOUND * 2;

    pub(super) fn read(settings: &Settings, head: &Head) -> Self {
        let mut jar = Self::default();
        let connection = settings.connection_cookie.as_ref().map(|cookie| cookie.name.as_bytes());
        let client = settings.client_cookie.as_ref().map(|cookie| cookie.attributes.name.as_bytes());
        for (name, value) in head.cookies() {
            if Some(name) == client {
                jar.client.get_or_insert_with(|| value.to_vec());
            } else if Some(name) == connection {
                jar.pending.get_or_insert_with(|| value.to_vec());
            } else if let Some(fingerprint) = connection.and_then(|own| name.strip_prefix(own)?.strip_prefix(b"-"))
                && jar.bound.len() < Self::MOST_READ
                && let Ok(fingerprint) = String::from_utf8(fingerprint.to_vec())
            {
                jar.bound.push((fingerprint, value.to_vec()));
            }
        }
        jar
    }

    pub(super) fn bound_to(&self, id: &[u8]) -> Option<&[u8]> {
        if self.bound.is_empty() {
            return None;
        }
        let fingerprint = token::fingerprint_of_id(id);
        self.bound.iter().find(|(name, _)| *name == fingerprint).map(|(_, value)| value.as_slice())
    }

    /// The oldest bound cookies, which must go so that one more fits.
    fn surplus(mut self) -> impl Iterator<Item = String> {
        self.bound.sort_by_key(|(_, value)| token::claimed_issue(value));
        let surplus = self.bound.len().saturating_sub(MOST_BOUND.saturating_sub(1));
        self.bound.into_iter().take(surplus).map(|(name, _)| name)
    }
}

/// What is known when the answer's head arrives.
#[derive(Debug)]
pub struct Answered {
    /// The answer's status.
    pub status: u16,
    /// Whether a negotiate's answer looks like one: 200 and JSON.
    pub negotiated: bool,
    /// The pod that answered; `None` when Envoy did.
    pub place: Option<Place>,
    /// Whether the client came by https, as far as the gateway knows.
    pub https: bool,
    /// When.
    pub now: Millis,
}

impl Answered {
    /// The address of the pod that answered.
    pub fn upstream(&self) -> Option<&Address> {
        self.place.as_ref().map(|place| &place.address)
    }
}

/// The `set-cookie` operations for the answer to `exchange`. Every cookie set takes one nonce.
pub fn issue(
    settings: &Settings,
    exchange: &Exchange,
    decision: Decision,
    answered: &Answered,
    nonce: &mut dyn FnMut() -> Option<[u8; NONCE_LEN]>,
) -> Vec<HeaderOp> {
    let mut ops: Vec<_> = client_cookie(settings, exchange, &decision, answered, nonce).into_iter().collect();
    if let (Some(cookie), Some(path)) = (&settings.connection_cookie, cookie_path(exchange)) {
        let connection = ConnectionCookies { settings, cookie, path, answered };
        match exchange.step {
            Step::Negotiate(_) => ops.extend(connection.pending(hub_of(exchange), nonce)),
            Step::WebSocket | Step::ServerSentEvents | Step::Poll | Step::Send | Step::Delete => {
                ops.extend(connection.follow(exchange.step, decision, nonce));
            }
            Step::UpgradeLost
            | Step::Other
            | Step::NotNegotiate
            | Step::WithoutId
            | Step::BlazorDisconnect
            | Step::Page => {}
        }
    }
    ops
}

fn client_cookie(
    settings: &Settings,
    exchange: &Exchange,
    decision: &Decision,
    answered: &Answered,
    nonce: &mut dyn FnMut() -> Option<[u8; NONCE_LEN]>,
) -> Option<HeaderOp> {
    let cookie = settings.client_cookie.as_ref()?;
    let place = answered.place.as_ref()?;
    let placed = match exchange.step {
        Step::Negotiate(_) => answered.negotiated,
        Step::WebSocket => exchange.id == Id::Absent && answered.status == 101,
        Step::Page => (200..400).contains(&answered.status),
        Step::UpgradeLost
        | Step::ServerSentEvents
        | Step::Poll
        | Step::Send
        | Step::Delete
        | Step::Other
        | Step::NotNegotiate
        | Step::WithoutId
        | Step::BlazorDisconnect => false,
    };
    // A client that is where its cookie says keeps the cookie, and with it the date of its placement.
    let holds = |pinned: &super::Pinned| pinned.source == Source::ClientCookie && pinned.place == *place;
    if !placed || decision.pinned.as_ref().is_some_and(holds) {
        return None;
    }
    let attributes = &cookie.attributes;
    let route = Route::new(place.clone(), answered.now, attributes.max_age);
    let sealed = settings.ring.seal(Purpose::ClientCookie, b"", &route, nonce()?)?;
    Some(set_cookie(attributes, &attributes.name, &sealed, &cookie.path, attributes.max_age, answered.https))
}

/// The cookies of connections, for one answer.
struct ConnectionCookies<'a> {
    settings: &'a Settings,
    cookie: &'a CookieAttributes,
    path: &'a str,
    answered: &'a Answered,
}

impl ConnectionCookies<'_> {
    fn pending(&self, hub: &[u8], nonce: &mut dyn FnMut() -> Option<[u8; NONCE_LEN]>) -> Option<HeaderOp> {
        let sealed = self.seal(Purpose::PendingCookie, hub, PENDING, nonce).filter(|_| self.answered.negotiated)?;
        Some(set_cookie(self.cookie, &self.cookie.name, &sealed, self.path, PENDING, self.answered.https))
    }

    /// Follows a connection: bound at the first answer, cleared when the connection is over.
    fn follow(
        &self,
        step: Step,
        decision: Decision,
        nonce: &mut dyn FnMut() -> Option<[u8; NONCE_LEN]>,
    ) -> Vec<HeaderOp> {
        let Some(id) = &decision.id else { return Vec::new() };
        let name = self.bound_name(&token::fingerprint_of_id(id));
        if self.answered.status == 404 || (step == Step::Delete && self.answered.status < 300) {
            // The pending cookie stays: by now it may be another connection's.
            return decision.jar.bound_to(id).map(|_| self.clear(&name)).into_iter().collect();
        }
        let by_pending = decision.pinned.as_ref().is_some_and(|pinned| pinned.source == Source::PendingCookie);
        if !by_pending || self.answered.status >= 400 {
            return Vec::new();
        }
        let life = self.cookie.max_age;
        let sealed = self.seal(Purpose::ConnectionCookie, id, life, nonce);
        let set = sealed.map(|sealed| set_cookie(self.cookie, &name, &sealed, self.path, life, self.answered.https));
        let surplus = decision.jar.surplus().map(|fingerprint| self.clear(&self.bound_name(&fingerprint)));
        set.into_iter().chain(surplus).collect()
    }

    fn bound_name(&self, fingerprint: &str) -> String {
        format!("{}-{fingerprint}", self.cookie.name)
    }

    fn seal(
        &self,
        purpose: Purpose,
        id: &[u8],
        life: Duration,
        nonce: &mut dyn FnMut() -> Option<[u8; NONCE_LEN]>,
    ) -> Option<String> {
        let route = Route::new(self.answered.place.clone()?, self.answered.now, life);
        self.settings.ring.seal(purpose, id, &route, nonce()?)
    }

    fn clear(&self, name: &str) -> HeaderOp {
        clear_cookie(self.cookie, name, self.path, self.answered.https)
    }
}

/// The hub's path without a slash at its end.
pub(super) fn hub_of(exchange: &Exchange) -> &[u8] {
    http::without_slash(&exchange.hub)
}

/// The hub's path as a cookie's `Path`, which then covers `{hub}/negotiate` too. `None` when a cookie cannot say it.
fn cookie_path(exchange: &Exchange) -> Option<&str> {
    let hub = hub_of(exchange);
    let plain = hub.iter().all(|byte| byte.is_ascii_graphic() && *byte != b';');
    str::from_utf8(hub).ok().filter(|_| plain)
}
