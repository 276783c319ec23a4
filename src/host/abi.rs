//! Calls of the ABI (proxy-wasm 0.2.1) that the SDK offers in part.
//!
//! Its `send_http_response` sends no details, so `%RESPONSE_CODE_DETAILS%` would be empty; its `set_property` panics when
//! Envoy refuses, which would end every WebSocket of the worker thread for the sake of a log line; its `get_map_bytes` copies each
//! name and each value.
#![allow(unsafe_code, reason = "foreign functions")]

use std::ptr;
use std::time::Duration;

use log::{debug, warn};
use proxy_wasm::types::MapType;

use crate::http::{Head, header_map};
use crate::limit::Rejection;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;

    fn proxy_get_header_map_pairs(map: MapType, pairs: *mut *mut u8, size: *mut usize) -> u32;

    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;

    fn proxy_set_effective_context(context: u32) -> u32;

    fn proxy_continue_stream(stream_type: u32) -> u32;

    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;

    fn proxy_register_shared_queue(name: *const u8, name_size: usize, queue: *mut u32) -> u32;

    fn proxy_enqueue_shared_queue(queue: u32, value: *const u8, value_size: usize) -> u32;
}

/// Has the calls that follow be about another stream, until the present callback ends. False if there is no such stream.
pub(super) fn enter(stream: u32) -> bool {
    // SAFETY: a number, which Envoy looks up.
    unsafe { proxy_set_effective_context(stream) == 0 }
}

/// Lets the request of the stream go on that waits at its headers.
pub(super) fn resume_request() {
    const REQUEST: u32 = 0;
    // SAFETY: a number.
    let status = unsafe { proxy_continue_stream(REQUEST) };
    if status != 0 {
        warn!("envoy refused to resume a request: {status}");
    }
}

/// Has the root's tick come after this time, and again and again.
pub(super) fn tick_after(period: Duration) {
    let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: a number.
    let status = unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
    if status != 0 {
        warn!("envoy refused a timer: {status}");
    }
}

/// The queue of this name. What is put into it wakes the root that registered it last.
pub(super) fn register_queue(name: &str) -> Option<u32> {
    let mut queue = 0;
    // SAFETY: the pointer goes with the length of its string, and Envoy writes the number, or nothing if it refuses.
    let status = unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut queue) };
    (status == 0).then_some(queue)
}

/// Puts something into a queue. False if Envoy refuses.
pub(super) fn enqueue(queue: u32) -> bool {
    const WORD: &[u8] = b"call";
    // SAFETY: the pointer goes with the length of its slice, and Envoy copies before it returns.
    unsafe { proxy_enqueue_shared_queue(queue, WORD.as_ptr(), WORD.len()) == 0 }
}

/// All headers of a message. There are none where Envoy refuses.
pub(super) fn head(map: MapType) -> Head {
    let (mut pairs, mut size) = (ptr::null_mut(), 0);
    // SAFETY: Envoy writes both, or neither if it refuses.
    let status = unsafe { proxy_get_header_map_pairs(map, &raw mut pairs, &raw mut size) };
    if status != 0 || pairs.is_null() {
        return Head::default();
    }
    // SAFETY: Envoy has asked the SDK's `proxy_on_memory_allocate` for a boxed slice of this size, has filled it and left it to us.
    Head::new(unsafe { Vec::from_raw_parts(pairs, size, size) })
}

/// Leaves a value for the access log, as `%FILTER_STATE(wasm.NAME:PLAIN)%`.
pub(super) fn set_log_field(name: &str, value: &str) {
    // SAFETY: each pointer goes with the length of the string it came from, and Envoy copies before it returns.
    let status = unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    if status != 0 {
        debug!("envoy refused the log field {name}: {status}");
    }
}

/// Answers instead of the upstream. The caller must return `Action::Pause`.
pub(super) fn send_response(rejection: &Rejection) {
    let (details, body) = (rejection.details.as_bytes(), rejection.body.as_bytes());
    let headers = header_map(rejection.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    // SAFETY: each pointer goes with the length of the slice it came from, and Envoy copies before it returns.
    let status = unsafe {
        proxy_send_local_response(
            u32::from(rejection.status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    };
    if status != 0 {
        warn!("envoy refused an answer: {status}");
    }
}
