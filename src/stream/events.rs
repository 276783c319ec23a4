//! What an event stream's answer says to the proxies between the gateway and the client, so that they pass each event on at once.
//!
//! A proxy that compresses or buffers keeps what has come until there is more, and the client takes a stream that says nothing for
//! broken. `no-transform` (RFC 9111 section 5.2.2.6) forbids the one; `x-accel-buffering` is nginx's word for the other.

use std::borrow::Cow;

use super::{Request, Stream};
use crate::affinity::Answered;
use crate::http::{self, Head, HeaderOp};
use crate::signalr::Step;

impl Stream {
    /// The headers that ask proxies not to hold an event stream back, if its hub's configuration says so.
    pub(super) fn unbuffered_events(
        &self,
        Request { exchange, .. }: &Request,
        answered: &Answered,
        head: &Head,
    ) -> Vec<HeaderOp> {
        let is_wanted = self.settings.hubs.listed(&exchange.hub).is_some_and(|hub| hub.unbuffered_events);
        let is_events = head
            .get("content-type")
            .is_some_and(|media_type| http::essence(media_type).eq_ignore_ascii_case(b"text/event-stream"));
        if !is_wanted || exchange.step != Step::ServerSentEvents || answered.status != 200 || !is_events {
            return Vec::new();
        }
        let unbuffered = HeaderOp::Set(Cow::Borrowed("x-accel-buffering"), b"no".to_vec());
        [unbuffered].into_iter().chain(no_transform(head)).collect()
    }
}

/// `cache-control` with `no-transform` behind what is there.
fn no_transform(head: &Head) -> Option<HeaderOp> {
    let there: Vec<_> = head.all("cache-control").filter(|value| !value.trim_ascii().is_empty()).collect();
    let mut directives = there.iter().flat_map(|value| http::members(value));
    if directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform")) {
        return None;
    }
    let value = there.into_iter().chain([b"no-transform".as_slice()]).collect::<Vec<_>>().join(b", ".as_slice());
    Some(HeaderOp::Set(Cow::Borrowed("cache-control"), value))
}
