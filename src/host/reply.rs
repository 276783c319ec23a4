//! An answer of the filter's own, with details for Envoy's access log.
//!
//! The SDK's `send_http_response` sends no details, so `%RESPONSE_CODE_DETAILS%` would be empty; this is the same call of
//! the ABI (proxy-wasm 0.2.1, `proxy_send_local_response`) with them.
#![allow(unsafe_code, reason = "the one call that the SDK does not offer in full")]

use log::warn;

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
}

/// Answers instead of the upstream. The caller must return `Action::Pause`.
pub(super) fn send(rejection: &Rejection) {
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
