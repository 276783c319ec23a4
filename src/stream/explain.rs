//! `explain: true`: a response header that says what was decided and why, for whoever debugs a gateway.
//!
//! Never an id, a token or a pod's address: the header goes to the client.

use std::borrow::Cow;

use crate::affinity::{Decision, Outcome};
use crate::http::HeaderOp;
use crate::signalr::Exchange;
use crate::token::Address;

/// `step=poll; affinity=connection_token:routed`.
pub(super) fn header(exchange: &Exchange, decision: &Decision, upstream: Option<&Address>) -> HeaderOp {
    let steered = decision.pinned.as_ref().map(|pinned| {
        let outcome = match upstream {
            Some(upstream) if *upstream == pinned.address => Outcome::Routed.label(),
            Some(_) => Outcome::HostGone.label(),
            None => "no_upstream",
        };
        (pinned.source, outcome)
    });
    let told = decision.told.iter().map(|(source, outcome)| (*source, outcome.label())).chain(steered);
    let affinity: Vec<_> = told.map(|(source, outcome)| format!("{}:{outcome}", source.label())).collect();
    let affinity = if affinity.is_empty() { "balanced".to_owned() } else { affinity.join(",") };
    let text = format!("step={}; affinity={affinity}", exchange.step.label());
    HeaderOp::Set(Cow::Borrowed("x-signalr-explain"), text.into_bytes())
}
