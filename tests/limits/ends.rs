//! Each way in which a connection ends.

use serde_json::{Value, json};
use testbed::clients::Transport;
use testbed::envoy::{EnvoyOptions, Hosts, connection_manager, http_filters};
use testbed::hub::{Hub, HubOptions};
use testbed::raw::Socket;
use testbed::raw::http2::{self, Tunnel};

use crate::connection::Connection;
use crate::gateway::{Gateway, settings};

fn limits() -> Value {
    json!({ "connections": { "per_client": 5 } })
}

/// A filter after ours that refuses whatever has the header `x-deny`, and a route with a short time for silence.
fn later_refusal_and_short_silence(bootstrap: &mut Value) {
    let deny = json!({ "header": { "name": "x-deny", "present_match": true } });
    let rbac = json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "DENY", "policies": { "deny": { "permissions": [deny], "principals": [{ "any": true }] } } },
        },
    });
    let filters = http_filters(bootstrap);
    let ours = filters.iter().position(|filter| filter["name"] == "signalr").unwrap();
    filters.insert(ours + 1, rbac);
    let routes = connection_manager(bootstrap).pointer_mut("/route_config/virtual_hosts/0/routes").unwrap();
    let routes = routes.as_array_mut().unwrap();
    let mut silent = routes.iter().find(|route| route["match"]["prefix"] == "/").unwrap().clone();
    silent["match"]["headers"] = json!([{ "name": "x-silent", "present_match": true }]);
    // Long enough for the hub to answer.
    silent["route"]["idle_timeout"] = "5s".into();
    routes.insert(0, silent);
}

type Way = (&'static str, fn(Socket));
type WayOfHttp2 = (&'static str, fn(http2::Connection, [Tunnel; 3]));

/// Three WebSockets on one connection of HTTP/2.
fn three_tunnels(gateway: &Gateway) -> (http2::Connection, [Tunnel; 3]) {
    let mut connection = http2::Connection::open(&gateway.envoy.url());
    let tunnels = [(); 3].map(|()| {
        let mut tunnel = connection.tunnel(&format!("/chat?id={}", gateway.client().negotiate().unwrap()));
        tunnel.shake_hands();
        tunnel
    });
    (connection, tunnels)
}

#[test]
fn a_connection_is_released_however_it_ends() {
    let gateway = Gateway::patched(&limits(), Box::new(later_refusal_and_short_silence));
    let ways: [Way; 5] = [
        ("the client closes", Socket::close),
        ("the client goes without a word", Socket::cut),
        ("the client says no more, and listens", |socket| {
            socket.fall_silent();
            socket.read_to_end();
        }),
        ("the client resets", Socket::reset),
        ("the hub closes", |socket| Connection::Socket(socket).abort()),
    ];
    for (name, end) in ways {
        let client = gateway.client();
        let socket = client.connect().unwrap();
        gateway.settles(name, [1, 0, 0]);
        end(socket);
        gateway.settles(name, [0; 3]);
    }
    let ways: [WayOfHttp2; 3] = [
        ("its streams are reset", |_connection, tunnels| tunnels.into_iter().for_each(Tunnel::reset)),
        ("its connection ends", |connection, _tunnels| connection.cut()),
        ("its streams say no more, and its connection ends", |connection, mut tunnels| {
            tunnels.iter_mut().for_each(Tunnel::fall_silent);
            connection.cut();
        }),
    ];
    for (name, end) in ways {
        let (connection, tunnels) = three_tunnels(&gateway);
        gateway.settles(name, [3, 0, 0]);
        end(connection, tunnels);
        gateway.settles(name, [0; 3]);
    }
    for transport in [Transport::ServerSentEvents, Transport::LongPolling] {
        for (name, end) in [
            ("the client closes", Connection::close as fn(Connection)),
            ("the hub closes", |mut connection| connection.abort()),
        ] {
            let name = format!("{transport:?}: {name}");
            let connection = Connection::open(&gateway.client(), transport).unwrap();
            let open = Transport::ALL.map(|each| u64::from(each == transport));
            gateway.settles(&name, open);
            end(connection);
            gateway.settles(&name, [0; 3]);
        }
    }

    // What never was a connection leaves nothing behind, either.
    for n in 0..10 {
        let denied = gateway.client().header("x-deny", "1");
        assert_eq!(denied.bare_socket(None).err().unwrap().status(), 403, "{n}: refused by a later filter");
        assert_eq!(denied.poll("x").status(), 403, "{n}: refused by a later filter");
        let unknown = gateway.client().bare_socket(Some("unknown"));
        assert_eq!(unknown.err().unwrap().status(), 404, "{n}: refused by the hub");
        assert_eq!(gateway.client().poll("unknown").status(), 404, "{n}: refused by the hub");
        assert_eq!(gateway.client().events("unknown").err().unwrap().status(), 404, "{n}: refused by the hub");
    }
    gateway.settles("refused", [0; 3]);
    gateway.stays("refused", [0; 3]);

    let silent = gateway.client().header("x-silent", "1");
    let silent: Vec<_> = (0..3).map(|_| silent.bare_socket(Some(&silent.negotiate().unwrap())).unwrap()).collect();
    silent.into_iter().for_each(Socket::read_to_end);
    gateway.settles("three that said nothing", [0; 3]);
    gateway.stays("three that said nothing", [0; 3]);
    assert_eq!(gateway.ledger_failures(), 0);
}

#[test]
fn the_connections_of_a_dead_pod_are_released() {
    let mut hubs: Vec<_> = (0..2)
        .map(|number| Hub::start(&HubOptions { pod: format!("doomed-{number}"), ..HubOptions::default() }).unwrap())
        .collect();
    let filter = settings(&json!({ "connections": { "per_client": 8 } }));
    let gateway = Gateway::start(EnvoyOptions { filter, hosts: Hosts::of(&hubs), ..EnvoyOptions::default() });
    let client = gateway.client();
    let transports =
        [Transport::WebSockets, Transport::WebSockets, Transport::ServerSentEvents, Transport::ServerSentEvents];
    let open: Vec<_> = transports.into_iter().map(|transport| Connection::open(&client, transport).unwrap()).collect();
    gateway.settles("open on two pods", [2, 2, 0]);
    hubs.iter_mut().for_each(Hub::kill);
    gateway.settles("both pods were killed", [0; 3]);
    drop(open);
}
