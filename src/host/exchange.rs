//! The HTTP context: Envoy's callbacks for one exchange, handed to [`Stream`].

use std::cell::RefCell;
use std::rc::Rc;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::envoy_metrics::EnvoyMetrics;
use super::redis::Redis;
use super::{abi, apply, at_this_moment, body, now, store};
use crate::frame::Direction;
use crate::http::HeaderOp;
use crate::lifecycle::Ending;
use crate::limit::Peer;
use crate::metrics::{Count, InternalError};
use crate::settings::{ClientKeySource, Settings};
use crate::steer;
use crate::stream::{Chunk, RequestPlan, Stream};
use crate::token::{Address, Cluster, Place};

pub(super) struct HttpExchange {
    stream: Stream,
    redis: Rc<Redis>,
    settings: Rc<Settings>,
    metrics: Rc<RefCell<EnvoyMetrics>>,
}

impl HttpExchange {
    pub(super) fn new(
        stream: Stream,
        redis: Rc<Redis>,
        settings: Rc<Settings>,
        metrics: Rc<RefCell<EnvoyMetrics>>,
    ) -> Self {
        Self { stream, redis, settings, metrics }
    }

    /// The host that Envoy chose, and its cluster if that is asked for.
    fn place(&self) -> Option<Place> {
        let address = Address::new(&property(&["upstream", "address"])?)?;
        let name = self.settings.pin.cluster.as_ref().and_then(|_| property(&["xds", "cluster_name"]));
        Some(Place { address, cluster: name.and_then(|name| Cluster::new(&name)) })
    }

    /// Where a request came from, if a limit asks for it.
    fn peer(&self) -> Peer {
        if !self.settings.limits.apply() {
            return Peer::default();
        }
        Peer::new(&property(&["source", "address"]).unwrap_or_default()).with_claim(self.verified_claim())
    }

    /// The claim that identifies a client, as `jwt_authn` left it with `payload_in_metadata: payload`, which is Istio's too.
    fn verified_claim(&self) -> Option<Vec<u8>> {
        let ClientKeySource::JwtClaim(name) = &self.settings.limits.client.key else { return None };
        property(&["metadata", "filter_metadata", "envoy.filters.http.jwt_authn", "payload", name])
    }

    /// Shows the stream what goes by, a piece at a time, so that long payload is never copied out of Envoy.
    fn meter(&mut self, direction: Direction, buffer: BufferType, size: usize) {
        let mut at = 0;
        while let Some(left) = size.checked_sub(at).filter(|left| *left > 0) {
            let unseen = self.stream.pass_unseen(direction, left);
            let seen = left.saturating_sub(unseen).min(PIECE);
            at = at.saturating_add(unseen);
            if seen > 0 {
                self.stream.pass(direction, &body(buffer, at, seen));
                at = at.saturating_add(seen);
            }
        }
    }

    /// Hands over what was counted, and what the access log is to show.
    fn flush(&mut self) {
        for (name, value) in self.stream.take_log_fields() {
            abi::set_log_field(name, &value);
        }
        self.metrics.borrow_mut().add(&self.stream.take_counts());
    }
}

/// What is copied at once to look for frame headers: many small messages, or the beginning of a large one.
const PIECE: usize = 1_024;

fn property(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).unwrap_or_default()
}

impl Context for HttpExchange {}

impl HttpContext for HttpExchange {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let map = MapType::HttpRequestHeaders;
        // One call for all headers costs as much as one for a single value.
        let mut head = abi::head(map);
        #[cfg(feature = "trap")]
        if head.get("x-signalr-trap").is_some() {
            std::process::abort();
        }
        // A client must not choose its pod. Only what is there is removed, because that makes Envoy choose the route again.
        let forged = steer::own_headers(&self.settings.pin).filter(|name| head.get(name).is_some());
        let forged: Vec<_> = forged.map(|name| HeaderOp::Remove(name.to_owned().into())).collect();
        if !forged.is_empty() {
            apply(map, forged, &mut self.metrics.borrow_mut());
            head = abi::head(map);
        }
        if self.stream.concerns(&head) {
            let plan = at_this_moment(|moment| self.stream.on_request(&head, &self.peer(), moment));
            self.flush();
            match plan {
                RequestPlan::Forward(ops) => apply(map, ops, &mut self.metrics.borrow_mut()),
                RequestPlan::Hold(ops) => {
                    apply(map, ops, &mut self.metrics.borrow_mut());
                    self.redis.wake();
                    return Action::Pause;
                }
                RequestPlan::Reject(rejection) => {
                    abi::send_response(&rejection);
                    return Action::Pause;
                }
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        let map = MapType::HttpResponseHeaders;
        let mut ops = Vec::new();
        if steer::pin_comes_back(&self.settings.pin) {
            ops.push(HeaderOp::Remove(self.settings.pin.header.clone().into()));
        }
        if self.stream.awaits_response() {
            let place = self.place();
            ops.extend(at_this_moment(|moment| self.stream.on_response(&abi::head(map), place, moment)));
            self.flush();
        }
        apply(map, ops, &mut self.metrics.borrow_mut());
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, _: bool) -> Action {
        if size > 0 && self.stream.meters() {
            self.meter(Direction::Received, BufferType::HttpRequestBody, size);
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, buffered: usize, end_of_stream: bool) -> Action {
        let response = BufferType::HttpResponseBody;
        match self.stream.on_response_chunk(buffered, end_of_stream) {
            Chunk::Pass => return Action::Continue,
            Chunk::Hold => return Action::Pause,
            Chunk::Meter => self.meter(Direction::Sent, response, buffered),
            Chunk::Error(length) => self.stream.on_error_text(&body(response, 0, length)),
            Chunk::Complete => {
                let answer =
                    at_this_moment(|moment| self.stream.on_negotiate_answer(&body(response, 0, buffered), moment));
                if let Some(answer) = answer
                    && let Err(status) = hostcalls::set_buffer(response, 0, buffered, &answer)
                {
                    warn!("envoy refused a change of a body: {status:?}");
                    self.metrics.borrow_mut().add(&[Count::InternalError(InternalError::Body)]);
                }
            }
        }
        self.flush();
        Action::Continue
    }

    fn on_log(&mut self) {
        let ending = if self.stream.is_websocket() { ending() } else { Ending::default() };
        self.stream.finish(&ending, now(), store());
        self.flush();
        if self.settings.limits.shared.is_some() {
            self.redis.wake();
        }
    }
}

fn ending() -> Ending {
    let flags = property(&["response", "flags"]).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    Ending { flags: flags.unwrap_or(0), details: property(&["response", "code_details"]).unwrap_or_default() }
}
