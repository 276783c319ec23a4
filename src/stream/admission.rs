//! What the limits say to a request, and what becomes of the connection that they let in.

use super::{Moment, Request, Stream};
use crate::affinity::{Answered, Decision, Pinned, Source};
use crate::clock::{Millis, Seconds};
use crate::http::Head;
use crate::hub::HubLabel;
use crate::ledger::{End, LedgerFailure, Opening, Session};
use crate::limit::{self, Admitted, Limit, Peer, Rejection, Verdict};
use crate::metrics::{Count, InternalError};
use crate::settings::{Limits, Mode};
use crate::signalr::{Exchange, Step, Transport};
use crate::store::Store;

/// A connection that this exchange holds, and how it lets go.
pub(super) struct Held {
    admitted: Admitted,
    end: End,
}

/// How long after its negotiate a connect still tells something of the client's way, in milliseconds: hubs forget an unused
/// id sooner.
const FRESH: u64 = 30_000;

impl Stream {
    /// The session that a DELETE ends, if the hub agrees.
    pub(super) fn session(
        &self,
        exchange: &Exchange,
        hub: &HubLabel,
        decision: &Decision,
        limits: &Limits,
        head: &Head,
        peer: &Peer,
    ) -> Option<Session> {
        let id = decision.id.as_deref().filter(|_| exchange.step == Step::Delete)?;
        self.worker.borrow().limiter.as_ref().and_then(|limiter| limiter.session(limits, head, peer, id, hub))
    }

    /// Asks the limits. `Some` is the answer to a request that is over one.
    pub(super) fn admit(
        &mut self,
        request: &Request,
        limits: &Limits,
        head: &Head,
        peer: &Peer,
        moment: &mut Moment<'_>,
    ) -> Option<Rejection> {
        let limit = match self.ask_limits(request, limits, head, peer, moment)? {
            Ok(Verdict::Within) => return None,
            Ok(Verdict::Over(limit)) => limit,
            Err(LedgerFailure) => {
                self.counts.push(Count::InternalError(InternalError::Ledger));
                if limit::passes_without_ledger(limits) {
                    return None;
                }
                Limit::Ledger
            }
        };
        self.log.push(("signalr_limit", limit.label().to_owned()));
        self.counts.push(Count::Rejected { hub: request.hub.clone(), limit, mode: limits.mode });
        let is_negotiate = matches!(request.exchange.step, Step::Negotiate(_));
        (limits.mode == Mode::Enforce).then(|| limit::reject(limits, limit, is_negotiate, head))
    }

    /// `None` for what no limit is about.
    fn ask_limits(
        &mut self,
        Request { exchange, hub, decision, .. }: &Request,
        limits: &Limits,
        head: &Head,
        peer: &Peer,
        moment: &mut Moment<'_>,
    ) -> Option<Result<Verdict, LedgerFailure>> {
        let worker = &mut *self.worker.borrow_mut();
        let limiter = worker.limiter.as_mut()?;
        if let Step::Negotiate(_) = exchange.step {
            if !hub.is_known() && worker.strangers.has(&exchange.hub) {
                return None;
            }
            let Some(client) = limiter.client(limits, head, peer) else {
                return Some(Ok(Verdict::Over(Limit::NoClientKey)));
            };
            return Some(limiter.negotiate(limits, client, hub, moment.now, moment.store));
        }
        let transport = match exchange.step {
            // No connection of the client's, but the hub takes it for a poll, and two headers must be no way around a limit.
            Step::UpgradeLost if decision.id.is_some() && limits_connections(limits) => Transport::LongPolling,
            step => step.transport()?,
        };
        // Other applications poll with an `id`, too: what is not surely a connection is not counted as one.
        if transport != Transport::WebSockets && !hub.is_known() && decision.seal.is_none() {
            return None;
        }
        let Some(client) = limiter.client(limits, head, peer) else {
            return Some(Ok(Verdict::Over(Limit::NoClientKey)));
        };
        let issued = decision.pinned.as_ref().filter(of_connection).map(|pinned| pinned.issued);
        let opening = Opening { client: client.0, id: decision.id.as_deref(), transport, hub, issued };
        Some(limiter.connect(limits, &opening, moment.now, moment.store).map(|(verdict, admitted)| {
            let end = match transport {
                Transport::LongPolling => End::BetweenPolls,
                Transport::WebSockets if decision.id.is_some() => End::Resumable,
                Transport::WebSockets | Transport::ServerSentEvents => End::Over,
            };
            self.held = admitted.map(|admitted| Held { admitted, end });
            verdict
        }))
    }

    /// Learns from an answer whether a connection began, or is over.
    pub(super) fn follow_connection(&mut self, request: &Request, answered: &Answered, store: &dyn Store) {
        let Answered { status, now, .. } = *answered;
        if let Some(held) = &mut self.held {
            let began = match held.admitted.lease.transport() {
                Transport::WebSockets => status == 101,
                Transport::ServerSentEvents | Transport::LongPolling => status == 200,
            };
            if began && request.exchange.step != Step::UpgradeLost {
                self.counts.extend(begun(&held.admitted.lease, &request.decision, now));
            } else if !began {
                // The answer's body may take its time, such as a page's instead of a WebSocket.
                held.end = End::Over;
                if let Some(limiter) = &self.worker.borrow().limiter {
                    limiter.refused(&held.admitted, now, store);
                }
                self.release(now.seconds(), store);
            }
        }
        let mut worker = self.worker.borrow_mut();
        if let Some(socket) = &mut self.socket {
            self.counts.extend(socket.on_answer(status, now));
            self.socket = self.socket.take().filter(|_| status == 101);
            if let (Some(socket), Some(address), Some(limiter)) =
                (&mut self.socket, answered.upstream(), &mut worker.limiter)
            {
                socket.upstream = Some(limiter.ledger.upstreams.opened(socket.hub(), address));
            }
        }
        // Not 404: another pod answers so about a session that goes on.
        if let (200..300, Some(session), Some(limiter)) = (status, &request.session, &mut worker.limiter) {
            limiter.ledger.delete(session, now.seconds(), store);
        }
    }

    /// Lets go of the connection. What was let go of before stays so.
    pub(super) fn release(&mut self, now: Seconds, store: &dyn Store) {
        if let (Some(held), Some(limiter)) = (self.held.take(), &mut self.worker.borrow_mut().limiter) {
            limiter.end(held.admitted, held.end, now, store);
        }
    }
}

/// Whether there is a limit that a connection could get around.
fn limits_connections(limits: &Limits) -> bool {
    let Limits { per_client, per_hub, total, connect_rate, .. } = limits;
    [per_client, per_hub, total].iter().any(|limit| limit.is_some()) || connect_rate.is_some()
}

/// What is counted when a hub has taken a connection.
fn begun(lease: &crate::ledger::Lease, decision: &Decision, now: Millis) -> Vec<Count> {
    let (hub, transport) = (lease.hub().clone(), lease.transport());
    match transport {
        _ if lease.is_new() => {
            let waited = decision.pinned.as_ref().filter(of_connection).map(|pinned| now.since(pinned.issued));
            let waited = waited.filter(|milliseconds| *milliseconds <= FRESH);
            let waited = waited.map(|milliseconds| Count::NegotiateToConnect { hub: hub.clone(), milliseconds });
            [Count::Opened { hub, transport }].into_iter().chain(waited).collect()
        }
        Transport::WebSockets => vec![Count::Resumed(hub)],
        Transport::ServerSentEvents | Transport::LongPolling => Vec::new(),
    }
}

/// Whether the route is of the connection, so that its age is the connection id's.
fn of_connection(pinned: &&Pinned) -> bool {
    match pinned.source {
        Source::ConnectionToken | Source::ConnectionCookie | Source::PendingCookie => true,
        Source::ClientCookie | Source::Nothing => false,
    }
}
