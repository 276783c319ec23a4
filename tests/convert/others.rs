//! The proxies that inputs are for, beside what the inputs become: of the same load both admit the same number.

use std::time::{Duration, Instant};

use testbed::hub::{Hub, shared_hubs};
use testbed::proxy::Proxy;
use testbed::raw::Client;
use testbed::tools::{self, Skips};

use crate::{converted, start};

/// More than any limit here.
const LOAD: usize = 40;

/// How many of a load get through.
#[derive(Debug, PartialEq, Eq)]
struct Admitted {
    sockets: usize,
    negotiates: usize,
}

/// WebSockets that stay open, and then, from another address, negotiates one after the other, in the time that they took.
fn load(url: &str) -> (Admitted, Duration) {
    let client = |last: u8| Client::of(url).from([127, 0, 0, last].into()).header("x-user", &format!("user{last}"));
    let open: Vec<_> = (0..LOAD).map(|_| client(2).bare_socket(None)).collect();
    let sockets = open.iter().filter(|socket| socket.is_ok()).count();
    let began = Instant::now();
    let negotiates = (0..LOAD).filter(|_| client(3).negotiate().is_ok()).count();
    (Admitted { sockets, negotiates }, began.elapsed())
}

/// `requests` every `per` are what a rate gives back while the test runs, to the one more than to the other.
fn both_admit(input: &str, other: &Proxy, expected: Admitted, (requests, per): (u32, Duration)) {
    let envoy = start(converted(input), shared_hubs().unwrap());
    for (name, url) in [("the other", other.url()), ("this filter", envoy.url())] {
        let (admitted, took) = load(&url);
        let earned = (took.div_duration_f64(per) * f64::from(requests)).ceil() as usize;
        assert_eq!(admitted.sockets, expected.sockets, "{input}, {name}");
        let negotiates = expected.negotiates..=expected.negotiates + earned;
        assert!(negotiates.contains(&admitted.negotiates), "{input}, {name}: {admitted:?}, not {negotiates:?}");
    }
}

/// An input with the hubs of the testbed in the place of its servers.
fn adapted(input: &str, changes: &[(&str, &str)], hubs: &[Hub]) -> String {
    let text = std::fs::read_to_string(testbed::workspace().join("tests/convert/inputs").join(input)).unwrap();
    let servers = hubs.iter().zip(["10.0.0.11:5000", "10.0.0.12:5000"]);
    let text = servers.fold(text, |text, (hub, server)| text.replace(server, &hub.address()));
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{input}: {from}");
        text.replace(from, to)
    })
}

/// The directives that ingress-nginx writes for the annotations: one zone for each limit, and `nodelay`.
#[test]
fn as_many_as_nginx() {
    if Skips::here().or_skip("as_many_as_nginx", tools::nginx()).is_none() {
        return;
    }
    let hub = shared_hubs().unwrap().first().unwrap().address();
    let nginx = |zones: &str, limits: &str| {
        Proxy::nginx(&format!(
            "{zones}
            server {{
                listen 127.0.0.1:PORT;
                location / {{
                    {limits} proxy_pass http://{hub}; proxy_http_version 1.1;
                    proxy_set_header upgrade $http_upgrade; proxy_set_header connection 'upgrade';
                }}
            }}"
        ))
        .unwrap()
    };
    let connections = nginx("limit_conn_zone $binary_remote_addr zone=conn:1m;", "limit_conn conn 20;");
    both_admit(
        "ingress-nginx-persistent.yaml",
        &connections,
        Admitted { sockets: 20, negotiates: LOAD },
        (1, Duration::from_secs(1)),
    );
    let rate =
        nginx("limit_req_zone $binary_remote_addr zone=rpm:1m rate=6r/m;", "limit_req zone=rpm burst=6 nodelay;");
    both_admit(
        "ingress-nginx-upstream-hash.yaml",
        &rate,
        Admitted { sockets: 7, negotiates: 7 },
        (6, Duration::from_secs(60)),
    );
}

#[test]
fn as_many_as_haproxy() {
    if Skips::here().or_skip("as_many_as_haproxy", tools::haproxy()).is_none() {
        return;
    }
    let hubs = shared_hubs().unwrap();
    // It takes two file descriptors for each connection, and wants them all at the start.
    let changes = [("bind :8080", "bind 127.0.0.1:PORT"), ("maxconn 20000", "maxconn 200")];
    let configuration = adapted("haproxy-limits.cfg", &changes, hubs);
    both_admit(
        "haproxy-limits.cfg",
        &Proxy::haproxy(&configuration).unwrap(),
        Admitted { sockets: 8, negotiates: LOAD },
        (100, Duration::from_secs(10)),
    );
    let server = format!("server hub {}", hubs.first().unwrap().address());
    let changes = [
        ("bind :80", "bind 127.0.0.1:PORT"),
        (
            "frontend web",
            "defaults\n    mode http\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\nfrontend web",
        ),
        ("use_backend hubs if { path_beg /hub }", "default_backend hubs"),
        ("server-template hub 3 hubs.internal:8080 check resolvers dns", server.as_str()),
        ("peers all\n    peer one 10.0.0.1:1024\n", ""),
        (" peers all", ""),
    ];
    both_admit(
        "haproxy-named-limits.cfg",
        &Proxy::haproxy(&adapted("haproxy-named-limits.cfg", &changes, hubs)).unwrap(),
        Admitted { sockets: 5, negotiates: 30 },
        (30, Duration::from_secs(60)),
    );
}

#[test]
fn as_many_as_traefik() {
    if Skips::here().or_skip("as_many_as_traefik", tools::traefik()).is_none() {
        return;
    }
    let dynamic = adapted("traefik-file-provider.yaml", &[], shared_hubs().unwrap());
    both_admit(
        "traefik-file-provider.yaml",
        &Proxy::traefik(&dynamic).unwrap(),
        Admitted { sockets: 6, negotiates: 8 },
        (3, Duration::from_secs(60)),
    );
}
