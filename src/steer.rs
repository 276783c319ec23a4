//! The headers by which the filter steers a request: the pin for what chooses the host after it, the key that a WebSocket over
//! HTTP/2 lacks, and the encoding that a negotiate asks for.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::affinity::{Pinned, Tie};
use crate::http::HeaderOp;
use crate::settings::{Pin, PinEncoding};
use crate::token::Place;

/// Names the pod to the filter or balancer that sends the request there, and marks a request that another pod may take as
/// well: a route that matches the mark leads to a cluster that excludes draining pods. The name of the cluster is for routes
/// that would choose one by weight.
///
/// Envoy chooses the route anew after every change that a module of this ABI (0.2.1) makes to a request's headers.
pub fn pin(pin: &Pin, pinned: &Pinned) -> impl Iterator<Item = HeaderOp> {
    let Place { address, cluster } = &pinned.place;
    let address = address.as_bytes();
    let value = match pin.encoding {
        PinEncoding::Base64 => STANDARD.encode(address).into_bytes(),
        PinEncoding::Plain => address.to_vec(),
    };
    let mark = match pinned.tie {
        Tie::Bound => None,
        Tie::Preferred => pin.mark.clone().map(|mark| HeaderOp::Set(Cow::Owned(mark), b"1".to_vec())),
    };
    let cluster = pin.cluster.clone().zip(cluster.as_ref());
    let cluster = cluster.map(|(name, cluster)| HeaderOp::Set(Cow::Owned(name), cluster.as_bytes().to_vec()));
    std::iter::once(HeaderOp::Set(Cow::Owned(pin.header.clone()), value)).chain(mark).chain(cluster)
}

/// The request headers that only the filter may write.
pub fn own_headers(pin: &Pin) -> impl Iterator<Item = &str> {
    std::iter::once(&pin.header).chain(&pin.mark).chain(&pin.cluster).map(String::as_str)
}

/// Whether Envoy itself writes the pin header into responses: `stateful_session` does when it had to balance.
pub fn pin_comes_back(pin: &Pin) -> bool {
    match pin.encoding {
        PinEncoding::Base64 => true,
        PinEncoding::Plain => false,
    }
}

/// Asks the hub for an answer that can be read: browsers offer gzip on every negotiate, and some hubs take it.
pub fn ask_for_plain_answer() -> HeaderOp {
    HeaderOp::Set(Cow::Borrowed("accept-encoding"), b"identity".to_vec())
}

/// The `sec-websocket-key` (RFC 6455 section 4.1) that a WebSocket over HTTP/2 (RFC 8441) does not have and an HTTP/1.1
/// hub needs. Envoy turns the one into the other but sends no key (envoyproxy/envoy#8547).
pub fn websocket_key(random: [u8; 16]) -> HeaderOp {
    HeaderOp::Set(Cow::Borrowed("sec-websocket-key"), STANDARD.encode(random).into_bytes())
}

/// Takes off the answer to a key that the client never sent.
pub fn drop_websocket_accept() -> HeaderOp {
    HeaderOp::Remove(Cow::Borrowed("sec-websocket-accept"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::Source;
    use crate::clock::Millis;
    use crate::token::{Address, Cluster};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_pin_is_written_for_its_reader() {
        let address = Address::new(b"[::1]:8080").unwrap();
        let place = Place { address, cluster: Cluster::new(b"v2") };
        let pinned = Pinned { place, source: Source::ClientCookie, tie: Tie::Preferred, issued: Millis::default() };
        for (encoding, expected) in [(PinEncoding::Base64, "Wzo6MV06ODA4MA=="), (PinEncoding::Plain, "[::1]:8080")] {
            let settings = Pin { header: "x-pin".to_owned(), mark: None, cluster: None, encoding };
            let ops: Vec<_> = pin(&settings, &pinned).collect();
            assert_eq!(ops, [HeaderOp::Set("x-pin".into(), expected.into())], "{encoding:?}");
        }
    }
}
