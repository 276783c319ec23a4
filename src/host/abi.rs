//! Calls of the ABI (proxy-wasm 0.2.1) that the SDK offers in part.
//!
//! Its `send_http_response` sends no details, so `%RESPONSE_CODE_DETAILS%` would be empty; its `set_property` panics when
//! Envoy refuses, which would end every WebSocket of the worker thread for the sake of a log line; its `get_map_bytes` copies each
//! name and each value.
#![allow(unsafe_code, reason = "foreign functions")]

use std::ptr;

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
