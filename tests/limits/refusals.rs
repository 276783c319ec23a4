//! What a refused request is answered, and how often one may ask.

use std::thread;

use serde_json::{Value, json};
use testbed::process::wait_for;
use testbed::raw::{Answer, Socket};

use crate::gateway::{Gateway, crowd};

#[test]
fn rates_are_shared_by_all_worker_threads() {
    const BURST: usize = 10;
    let many = BURST + crowd();
    let rate = json!({ "requests": 1, "per": "1h", "burst": BURST });
    for (name, limits, limit, details) in [
        ("negotiate", json!({ "negotiate_rate": rate }), "negotiate_rate", "signalr_negotiate_rate"),
        ("connect", json!({ "connect_rate": rate }), "connect_rate", "signalr_connect_rate"),
    ] {
        let gateway = Gateway::with(&limits);
        let client = gateway.client();
        let ask = || -> Result<Option<Socket>, Answer> {
            if name == "negotiate" { client.negotiate().map(|_| None) } else { client.bare_socket(None).map(Some) }
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..many).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let passed = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(passed, BURST, "{name}");
        for answer in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert!(answer.is_refusal(), "{name}: {answer:?}");
            let reason = answer.reason();
            assert_eq!(reason.as_deref(), Some("Connection limit reached: this client connects too often."));
            assert_eq!(answer.head.one("retry-after"), Some("5"), "{name}");
        }
        assert_eq!(gateway.rejected(limit, "enforce") as usize, many - BURST, "{name}");
        assert!(gateway.end().contains(&format!("details={details} ")), "{name}");
    }
}

#[test]
fn what_is_spent_is_earned_again() {
    let rate = json!({ "requests": 1, "per": "1s", "burst": 1 });
    let gateway = Gateway::with(&json!({ "negotiate_rate": rate, "connect_rate": rate }));
    let client = gateway.client();
    for more in 1..=3 {
        wait_for("one more negotiate", || client.negotiate().is_ok()).unwrap();
        wait_for("one more connect", || client.bare_socket(None).is_ok()).unwrap();
        gateway.settles(&format!("{more} came and went"), [0; 3]);
    }
}

#[test]
fn shadow_mode_rejects_nothing_and_tells_what_it_would() {
    let gateway = Gateway::with(&json!({
        "mode": "shadow",
        "connections": { "per_client": 5 },
        "connect_rate": { "requests": 1, "per": "1h", "burst": 8 },
    }));
    let client = gateway.client();
    let mut open: Vec<_> = (0..10).map(|_| client.connect().unwrap()).collect();
    assert!(open.iter_mut().all(Socket::echoes));
    gateway.settles("all ten", [10, 0, 0]);
    // From the sixth on, negotiates and connections are over the limit per client. The ninth and tenth are over the rate as well,
    // which comes first.
    assert_eq!(gateway.rejected("per_client", "shadow"), 3 + 3);
    assert_eq!(gateway.rejected("connect_rate", "shadow"), 2 + 2);
    for limit in ["per_client", "connect_rate"] {
        assert_eq!(gateway.rejected(limit, "enforce"), 0);
    }
    drop(open);
    gateway.settles("none", [0; 3]);
    // The places are free again, but all eight connects are spent: the negotiate is over that limit, and the connect.
    let open = client.connect().unwrap();
    assert_eq!(gateway.rejected("connect_rate", "shadow"), 4 + 2);
    drop(open);
}

#[test]
fn a_refusal_says_why_as_configured() {
    let full = |reject: Value| {
        let gateway = Gateway::with(&json!({ "connections": { "total": 1 }, "reject": reject }));
        let open = gateway.client().bare_socket(None).unwrap();
        (gateway, open)
    };
    let reason = "Connection limit reached: the server is full.";
    let (gateway, _open) = full(json!({ "status": 503, "retry_after": "90s", "negotiate": "status" }));
    let answer = gateway.client().negotiate_answer();
    assert_eq!((answer.status(), answer.text()), (503, reason));
    assert_eq!((answer.head.one("retry-after"), answer.head.one("cache-control")), (Some("90"), Some("no-store")));

    let origins = json!({ "allow_origins": ["https://chat.example.com", "https://*.tenants.example:8443"] });
    let (gateway, _open) = full(origins);
    for (origin, allowed) in [
        ("https://chat.example.com", true),
        ("https://CHAT.example.com", true),
        ("https://evil.example.com", false),
        ("https://chat.example.com.evil.com", false),
        ("https://one.tenants.example:8443", true),
        ("https://a.one.Tenants.example:8443", true),
        ("https://tenants.example:8443", false),
        ("https://eviltenants.example:8443", false),
        ("https://one.tenants.example", false),
        ("http://one.tenants.example:8443", false),
    ] {
        let client = gateway.client().header("origin", origin);
        let negotiate = client.negotiate_answer();
        assert_eq!(negotiate.status(), 200);
        assert_eq!(negotiate.json(), json!({ "error": reason }));
        let connect = client.bare_socket(None).err().unwrap();
        assert_eq!((connect.status(), connect.text()), (429, reason));
        for answer in [negotiate, connect] {
            assert_eq!(
                (answer.head.one("retry-after"), answer.head.one("cache-control")),
                (Some("5"), Some("no-store"))
            );
            let expected = allowed.then_some(origin);
            assert_eq!(answer.head.one("access-control-allow-origin"), expected, "{answer:?}");
            assert_eq!(answer.head.one("access-control-allow-credentials"), allowed.then_some("true"));
            assert_eq!(answer.head.one("vary"), allowed.then_some("origin"));
        }
    }
}
