//! What was decided and why, in one line: for the access log, and with `explain: true` for a response header.
//!
//! Never an id, a token or a pod's address: the header goes to the client.

use std::borrow::Cow;

use crate::affinity::{Decision, Outcome};
use crate::http::HeaderOp;
use crate::signalr::Exchange;
use crate::token::Address;

/// `connection_token:routed`: what each carrier was and what became of it, or `balanced`.
pub(super) fn affinity(decision: &Decision, upstream: Option<&Address>) -> String {
    let steered = decision.pinned.as_ref().map(|pinned| {
        let outcome = match upstream {
            Some(upstream) if *upstream == pinned.place.address => Outcome::Routed.label(),
            Some(_) => Outcome::HostGone.label(),
            None => "no_upstream",
        };
        (pinned.source, outcome)
    });
    let outcomes = decision.outcomes.iter().map(|(source, outcome)| (*source, outcome.label())).chain(steered);
    let texts: Vec<_> = outcomes.map(|(source, outcome)| format!("{}:{outcome}", source.label())).collect();
    if texts.is_empty() { "balanced".to_owned() } else { texts.join(",") }
}

/// `step=poll; affinity=connection_token:routed`.
pub(super) fn header(exchange: &Exchange, affinity: &str) -> HeaderOp {
    let text = format!("step={}; affinity={affinity}", exchange.step.label());
    HeaderOp::Set(Cow::Borrowed("x-signalr-explain"), text.into_bytes())
}
