//! What becomes of a connection when the ledger cannot be written.
//!
//! Brought about in the one way that needs no chance: the slot of a client is full.

use serde_json::json;
use testbed::envoy::{load_module, module_that_traps};
use testbed::raw::Wire;

use crate::gateway::Gateway;
use crate::quick;

/// In the build for tests; `docs/limits.md` gives the number of the module.
const MOST_IN_A_SLOT: usize = 64;

#[test]
fn what_cannot_be_counted_passes_or_not_as_configured() {
    for (name, status, rejected) in [("allow", 200, 0), ("deny", 429, 2)] {
        let limits = json!({
            "client": { "key": { "header": "x-user" } },
            "connections": { "per_client": 4_096 },
            "long_polling_idle": "1h",
            "on_error": name,
        });
        let gateway =
            Gateway::start(quick::options(&limits, |bootstrap| load_module(bootstrap, &module_that_traps().unwrap())));
        let mut kept = Wire::open(&gateway.envoy.url());
        let fill: Vec<_> = (0..MOST_IN_A_SLOT).map(|n| quick::poll("ann", &format!("id{n}"))).collect();
        assert!(kept.ask_all(&fill).iter().all(|status| *status == 200), "{name}");
        assert_eq!(gateway.ledger_failures(), 0, "{name}");
        let full = [0, 0, MOST_IN_A_SLOT as u64];
        gateway.settles(name, full);

        let more = [quick::poll("ann", "more"), quick::negotiate("ann"), quick::poll("ann", "more")];
        assert_eq!(kept.ask_all(&more), [status, 200, status], "{name}");
        assert_eq!((gateway.ledger_failures(), gateway.rejected("ledger", "enforce")), (2, rejected), "{name}");
        // The slot is a thousandth of the ledger: of others it may hold one, and each is counted but none of the above.
        let failures = gateway.ledger_failures();
        let others = ["bob", "eve"].map(|user| quick::poll(user, user));
        kept.ask_all(&others);
        let failed = gateway.ledger_failures() - failures;
        assert!(failed < 2, "{name}");
        gateway.settles(name, [0, 0, full[2] + 2 - failed]);
        // Where there is room again.
        let again = [quick::delete("ann", "id7"), quick::poll("ann", "more")];
        assert_eq!(kept.ask_all(&again), [200, 200], "{name}");
        let answer = gateway.user("ann").poll("yet-more");
        assert_eq!(answer.status(), status, "{name}: {answer:?}");
        if status == 429 {
            assert_eq!(answer.text(), "Connections cannot be counted at the moment.");
            assert_eq!(answer.head.one("retry-after"), Some("5"));
        }
        let logged = gateway.end().matches("details=signalr_ledger_failure ").count();
        assert_eq!(logged, if status == 429 { 3 } else { 0 }, "{name}");
    }
}
