//! Two calls of the ABI (proxy-wasm 0.2.1) that the SDK offers in part.
//!
//! Its `send_http_response` sends no details, so `%RESPONSE_CODE_DETAILS%` would be empty; its `set_property` panics when
//! Envoy refuses, which would end every WebSocket of the worker thread for the sake of a log line.
#![allow(unsafe_code, reason = "foreign functions")]

use log::{debug, warn};

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

    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
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
    let headers = serialise(&rejection.headers);
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

/// The ABI's form of a header map: the number of pairs, the length of each name and value, then both with a NUL behind.
fn serialise(headers: &[(&'static str, String)]) -> Vec<u8> {
    let size = |len: usize| u32::try_from(len).unwrap_or(0).to_le_bytes();
    let mut bytes = size(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend(size(name.len()).into_iter().chain(size(value.len())));
    }
    for (name, value) in headers {
        bytes.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
    }
    bytes
}
