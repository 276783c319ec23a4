//! Endings that nobody said goodbye for: who is told to have ended the WebSocket.

use serde_json::{Value, json};
use testbed::envoy::put_routes_first;
use testbed::hub::{Hub, HubOptions};
use testbed::tools::EnvoyVersion;

use crate::client::Client;
use crate::scrape::{settles, start_version};

/// Routes that end a WebSocket early when the client asks for it.
fn short_lives(bootstrap: &mut Value) {
    let route = |ending: &str, action: Value| {
        let asks = json!([{ "name": "x-ending", "string_match": { "exact": ending } }]);
        let mut action = action;
        action["cluster"] = "hubs".into();
        json!({ "match": { "prefix": "/", "headers": asks }, "route": action })
    };
    let idle = route("idle", json!({ "timeout": "0s", "idle_timeout": "1s" }));
    let longest = json!({ "max_stream_duration": "1s" });
    put_routes_first(bootstrap, vec![idle, route("longest", json!({ "max_stream_duration": longest }))]);
}

#[test]
fn each_silent_ending_is_told_by_who_caused_it() {
    EnvoyVersion::ALL.into_iter().for_each(each_silent_ending_in);
}

fn each_silent_ending_in(version: EnvoyVersion) {
    let mut hubs = [Hub::start(&HubOptions::default()).unwrap()];
    let envoy = start_version(version, &hubs, 2, json!({}), short_lives);
    let idle = Client::connect(&envoy, "/chat", &[("x-ending", "idle")]);
    let longest = Client::connect(&envoy, "/chat", &[("x-ending", "longest")]);
    let killed = Client::connect(&envoy, "/chat", &[]);
    assert_eq!(idle.read_to_end().code, None);
    assert_eq!(longest.read_to_end().code, None);
    hubs[0].kill();
    assert_eq!(killed.read_to_end().code, None);

    let closed =
        |by, count| (format!("websocket_connections_closed_total{{closed_by={by},code=none,hub=/chat}}"), count);
    let wanted = |series: &str| {
        series.contains("_closed_total") || series.contains("_errors_total") || series.contains("_active{")
    };
    let expected = [
        closed("idle_timeout", 1),
        closed("gateway", 1),
        closed("server", 1),
        // An end that Envoy was configured to bring about is none.
        ("websocket_errors_total{hub=/chat,kind=abnormal_closure}".to_owned(), 1),
        ("signalr_gateway_connections_active{hub=/chat,transport=web_sockets}".to_owned(), 0),
        ("websocket_connections_active{hub=/chat}".to_owned(), 0),
    ];
    settles(&format!("{version:?}"), &envoy, wanted, &expected);
}
