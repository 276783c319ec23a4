//! What the limits say to a request, and what becomes of the connection that they let in.

use super::{Moment, Request, Stream, Worker};
use crate::affinity::{Answered, Decision, Pinned, Source};
use crate::clock::{Millis, Seconds};
use crate::http::Head;
use crate::hub::HubLabel;
use crate::ledger::{End, LedgerFailure, Opening, Session};
use crate::limit::{self, Admitted, Limit, Peer, Rejection, Verdict};
use crate::metrics::{Count, InternalError};
use crate::settings::{Limits, Mode};
use crate::shared::{Asked, Asker, Exceeded, Question};
use crate::signalr::{Exchange, Step, Transport};
use crate::store::Store;

/// What the limits say to a request.
pub(super) enum Ruling {
    /// It passes.
    Pass,
    /// The host holds it until Redis has answered.
    Wait,
    /// It is answered so.
    Reject(Rejection),
}

/// A connection that this exchange holds, and how it lets go.
pub(super) struct Held {
    admitted: Admitted,
    end: End,
}

/// How long after its negotiate a connect still says something about the client's way, in milliseconds: hubs forget an unused
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

    /// Asks the limits.
    pub(super) fn admit(
        &mut self,
        request: &Request,
        limits: &Limits,
        head: &Head,
        peer: &Peer,
        moment: &mut Moment<'_>,
    ) -> Ruling {
        let shared = limits.shared.as_ref();
        let is_lifted = shared.is_some_and(|shared| self.worker.borrow().shared.lifts_limits(shared));
        if let Some(limiter) = &mut self.worker.borrow_mut().limiter {
            limiter.lifted = is_lifted;
        }
        let (limit, decided_by) = match self.ask_limits(request, limits, head, peer, moment) {
            None => return Ruling::Pass,
            Some(Ok(Verdict::Within)) => match self.ask_redis(request, limits, head, peer) {
                Asked::Waits => return Ruling::Wait,
                Asked::Decided(Verdict::Within) => return Ruling::Pass,
                Asked::Decided(Verdict::Over(limit)) => (limit, "on_error"),
            },
            Some(Ok(Verdict::Over(limit))) => (limit, "gateway"),
            Some(Err(LedgerFailure)) => {
                self.counts.push(Count::InternalError(InternalError::Ledger));
                if limit::passes_without_ledger(limits) {
                    return Ruling::Pass;
                }
                (Limit::Ledger, "gateway")
            }
        };
        let mode = if is_lifted { Mode::Shadow } else { limits.mode };
        let exceeded = Exceeded::new(limit, decided_by, asker(request, head), limits, mode);
        let [log, log_by] = exceeded.log.map(|(name, value)| (name, value.to_owned()));
        self.log.push(log);
        self.log.extend(shared.map(|_| log_by));
        self.counts.push(exceeded.count);
        match exceeded.rejection {
            Some(rejection) => Ruling::Reject(rejection),
            None => {
                self.write_to_row();
                Ruling::Pass
            }
        }
    }

    /// Writes down a connection that passes in any case, and takes room that others share.
    fn write_to_row(&self) {
        if self.settings.limits.shared.is_none() {
            return;
        }
        let Worker { limiter: Some(limiter), shared, .. } = &mut *self.worker.borrow_mut() else { return };
        if let Some(lease) = self.held.as_ref().map(|held| &held.admitted.lease).filter(|lease| lease.begins()) {
            shared.write(lease.member(), limiter.ledger.instance());
        }
    }

    /// Asks for what this process admits, if its limits are shared.
    fn ask_redis(&mut self, request: &Request, limits: &Limits, head: &Head, peer: &Peer) -> Asked {
        const PASSES: Asked = Asked::Decided(Verdict::Within);
        let Some(settings) = &limits.shared else {
            // Also of a client that no limit is for.
            self.write_to_row();
            return PASSES;
        };
        let Worker { limiter: Some(limiter), shared, .. } = &mut *self.worker.borrow_mut() else { return PASSES };
        let asker = asker(request, head);
        let lease = self.held.as_ref().map(|held| &held.admitted.lease);
        let question = match (lease, asker.is_negotiate.then(|| limiter.client(limits, head, peer)).flatten()) {
            (Some(lease), _) if lease.asks() => Question::Connect(lease),
            (_, Some(client)) => Question::Negotiate(client),
            _ => return PASSES,
        };
        shared.ask(self.id, asker, &question, limits, settings, limiter.ledger.instance())
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
            let lease = &held.admitted.lease;
            let began = match held.admitted.lease.transport() {
                Transport::WebSockets => status == 101,
                Transport::ServerSentEvents | Transport::LongPolling => status == 200,
            };
            if let (true, true, Some(limiter)) = (began, lease.asks(), &mut self.worker.borrow_mut().limiter) {
                limiter.ledger.confirm(lease, now.seconds(), store);
            }
            if began && request.exchange.step != Step::UpgradeLost {
                self.counts.extend(begun(&held.admitted.lease, &request.decision, now));
            } else if !began {
                // The answer's body may take its time, such as a page's instead of a WebSocket.
                held.end = End::Over;
                if let Worker { limiter: Some(limiter), shared, .. } = &mut *self.worker.borrow_mut()
                    && let Some(rate) = limiter.refused(&held.admitted, now, store)
                    && self.settings.limits.shared.is_some()
                {
                    shared.charge(held.admitted.lease.client(), rate, limiter.ledger.instance());
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
        let Some(held) = self.held.take() else { return };
        let Worker { limiter: Some(limiter), shared, .. } = &mut *self.worker.borrow_mut() else { return };
        limiter.end(held.admitted, held.end, now, store);
        shared.follow(&mut limiter.ledger);
    }

    /// Nobody waits any more for what Redis says. What it has refused, or not decided yet, has not reached the hub.
    pub(super) fn leave_shared(&mut self) {
        let never_began = self.worker.borrow_mut().shared.forget(self.id);
        if let Some(held) = self.held.as_mut().filter(|_| never_began) {
            held.end = End::Over;
        }
    }
}

fn asker(Request { exchange, hub, .. }: &Request, head: &Head) -> Asker {
    let is_negotiate = matches!(exchange.step, Step::Negotiate(_));
    Asker { hub: hub.clone(), is_negotiate, origin: head.get("origin").map(<[u8]>::to_vec) }
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
