//! The filters on the routes of hubs alone, as `envoy/README.md` says: real clients connect, and other requests pass untouched.

use serde_json::json;
use testbed::clients::{Cookies, NodeClient, Task, Transport, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Hosts, restrict_to_hub_routes};
use testbed::hub::three_hubs_with;
use testbed::raw::http2::Connection;
use testbed::raw::{Client, Request, ask};

use crate::gateway::every_version;

const CONNECTS: u32 = 20;
/// A hub that the routes do not name.
const OTHER_HUB: &str = "/other";

#[test]
fn clients_connect_and_other_requests_do_not_meet_the_filter() {
    let hubs = three_hubs_with(|pods| {
        pods.iter_mut().for_each(|pod| pod.hubs = vec!["/chat".to_owned(), OTHER_HUB.to_owned()]);
    });
    let hubs = hubs.unwrap();
    for (version, options) in every_version(&json!({})) {
        let patch = Some(Box::new(restrict_to_hub_routes) as _);
        let envoy = Envoy::start(&EnvoyOptions { hosts: Hosts::of(&hubs), patch, ..options }).unwrap();
        let url = envoy.url();
        for transport in Transport::ALL {
            let (task, cookies) = (Task::of(url.clone(), CONNECTS), Cookies::Refused);
            let client = NodeClient { task, transport, cookies, ..NodeClient::default() };
            let outcome = run_node(&client).unwrap();
            assert_eq!(outcome.connected, CONNECTS, "{version:?} {transport:?}: {:?}", outcome.first_error());
        }
        let mut tunnel = Connection::open(&url).tunnel(&format!("/chat?id={}", Client::of(&url).negotiate().unwrap()));
        assert_eq!(tunnel.answer.status(), 200, "{version:?}: a WebSocket over HTTP/2");
        tunnel.shake_hands();
        assert!(Client::of(&url).bare_socket(None).is_ok(), "{version:?}: a WebSocket without a negotiate");

        assert_eq!(ask(&url, &Request::get("/chat")).status(), 400, "{version:?}");
        let missing = envoy.metric("websocket_errors_total", &[("signalr_kind", "missing_id")]).unwrap();
        assert_eq!(missing, 1.0, "{version:?}: mistakes of clients are recorded as everywhere");
        let id = |hub: &str| Client::of(&url).hub(hub).negotiate().unwrap();
        assert!(id("/chat").len() > id(OTHER_HUB).len(), "{version:?}: an id of a hub without routes has no pod in it");
        let answer = ask(&url, &Request::get("/").with("x-signalr-pin", "MTI3LjAuMC4xOjE="));
        assert_eq!((answer.status(), answer.head.one("x-signalr-pin")), (200, None), "{version:?}");
        assert!(hubs.iter().all(|hub| {
            hub.requests().unwrap().iter().all(|request| !request.headers.contains_key("x-signalr-pin"))
        }));
    }
}
