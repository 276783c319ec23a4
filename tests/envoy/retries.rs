//! What Envoy sends to a second pod when the first one does not answer: a negotiate, and nothing else that a pod has seen.

use std::io;
use std::sync::Arc;

use serde_json::json;
use testbed::raw::Request;

use crate::gateway::{Gateway, PODS, every_version};
use crate::upstream::Script;

/// Takes a request and closes the connection.
fn says_nothing() -> Script {
    Arc::new(|_, _| Err(io::ErrorKind::ConnectionAborted.into()))
}

#[test]
fn a_negotiate_is_sent_to_another_pod_and_no_other_request_is() {
    for (version, options) in every_version(&json!({})) {
        let gateway = Gateway::with((0..PODS).map(|_| says_nothing()), options);
        for (method, target, pods) in [
            ("POST", "/chat/negotiate?negotiateVersion=1", PODS),
            ("POST", "/negotiate", PODS),
            ("POST", "/app/v2/Chat/Negotiate/?negotiateVersion=1", PODS),
            ("POST", "/chat/n%65gotiate", PODS),
            ("GET", "/chat/negotiate", 1),
            ("OPTIONS", "/chat/negotiate", 1),
            ("POST", "/chat?id=abc", 1),
            ("POST", "/chat?id=abc&x=/negotiate", 1),
            ("POST", "/chat/negotiated", 1),
            ("POST", "/renegotiate", 1),
            ("POST", "/chat/negotiate/more", 1),
            ("GET", "/chat?id=abc", 1),
            ("DELETE", "/chat?id=abc", 1),
        ] {
            let name = format!("{version:?} {method} {target}");
            assert_eq!(gateway.ask(&Request::new(method, target)).status(), 503, "{name}");
            let received: Vec<_> = gateway.pods.iter().map(|pod| pod.take_received().len()).collect();
            assert!(received.iter().all(|requests| *requests <= 1), "{name}: a pod got it twice: {received:?}");
            assert_eq!(received.iter().sum::<usize>(), pods, "{name}");
        }
    }
}
