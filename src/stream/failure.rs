//! Which error a request failed with, by the status and the first words of the body.

use super::{Request, State, Stream};
use crate::affinity::Answered;
use crate::hub::HubLabel;
use crate::lifecycle::Failure;
use crate::metrics::Count;
use crate::signalr::Step;

/// A failure whose body is still to come.
pub(super) struct Failed {
    hub: HubLabel,
    status: u16,
    step: Step,
    /// It reached the pod of its connection, so that pod knows it no more.
    at_home: bool,
}

impl Stream {
    /// Remembers a failure until the body shows which.
    pub(super) fn tell_failure(&mut self, Request { exchange, hub, decision, .. }: &Request, answered: &Answered) {
        let (status, step) = (answered.status, exchange.step);
        let is_told = match step {
            Step::Negotiate(_) | Step::NotNegotiate | Step::WebSocket => true,
            // The request has been counted already.
            Step::UpgradeLost => {
                self.counts.push(Count::WebSocketHandshakeFailed { hub: hub.clone(), status: Some(status) });
                false
            }
            Step::BlazorDisconnect | Step::Page => false,
            // Other applications have an `id`, too.
            Step::ServerSentEvents | Step::Poll | Step::Send | Step::Delete | Step::Other | Step::WithoutId => {
                hub.is_known()
            }
        };
        if is_told && Failure::read(status, b"", step == Step::WebSocket).is_some() {
            let home = decision.pinned.as_ref().filter(|_| decision.id.is_some()).map(|pinned| &pinned.place.address);
            let at_home = home.is_some() && home == answered.upstream();
            self.state = State::Failed(Box::new(Failed { hub: hub.clone(), status, step, at_home }));
        }
    }

    /// Learns from the beginning of an error's body which error it is.
    pub fn on_error_text(&mut self, text: &[u8]) {
        let failed = match std::mem::replace(&mut self.state, State::Idle) {
            State::Failed(failed) => failed,
            other => {
                self.state = other;
                return;
            }
        };
        let Failed { hub, status, step, at_home } = *failed;
        let kind = match Failure::read(status, text, step == Step::WebSocket) {
            // Pages and other applications may be at the same paths, and their errors are not a hub's.
            Some(failure) if step == Step::WithoutId && failure != Failure::MissingId => return,
            Some(failure) if step == Step::NotNegotiate && failure != Failure::MethodNotAllowed => return,
            // What follows a DELETE or a close: the end of a connection, not a wrong turn. A hub that is just disposing of the
            // connection answers without words.
            Some(Failure::UnknownConnection | Failure::NotAHub) if at_home => "late_request",
            Some(failure) => failure.label(),
            None => return,
        };
        self.counts.push(Count::WebSocketError { hub, kind });
    }
}
